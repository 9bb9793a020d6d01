"""Whole suites, simulated: what our verdict and other people's rules say of models whose true change is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from forgetless.compare.distributions import FloatArray, binomial_tail, normal_quantile
from forgetless.compare.intervals import tango_upper
from forgetless.compare.statistics import IntArray

BoolArray = NDArray[np.bool_]

ALPHA, MARGIN = 0.05, 0.03
SKILL = 0.6  # share that the base answers right, of the samples that don't flip


def holm(p: FloatArray) -> FloatArray:
    """Adjusts p-values, shape (trials, rows), by Holm's method."""
    order = np.argsort(p, axis=1, kind="stable")
    stepped = np.take_along_axis(p, order, axis=1) * np.arange(p.shape[1], 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(stepped, axis=1), 1.0), axis=1)
    return adjusted


def draw(
    rng: np.random.Generator, *, trials: int, num_tasks: int, size: int, flip: float, drops: Sequence[float]
) -> tuple[IntArray, IntArray, IntArray]:
    """Draws losses, gains and the base's right answers per task; `drops` is the true drop of each task."""
    counts = np.stack(
        [rng.multinomial(size, [flip + d, flip, 1.0 - 2.0 * flip - d], size=trials) for d in drops], axis=1
    )
    assert counts.shape == (trials, num_tasks, 3)
    return counts[..., 0], counts[..., 1], counts[..., 0] + rng.binomial(counts[..., 2], SKILL)


def with_pool(values: IntArray) -> IntArray:
    return np.concatenate([values, values.sum(axis=1, keepdims=True)], axis=1)


def judge(lost: IntArray, gained: IntArray, *, size: int) -> tuple[BoolArray, BoolArray]:
    """Returns which trials FAIL and which PASS under our rule, the pool being one more row."""
    lost, gained = with_pool(lost), with_pool(gained)
    sizes = with_pool(np.full((1, lost.shape[1] - 1), size))
    is_kept = tango_upper(lost, gained, sizes, quantile=normal_quantile(1.0 - ALPHA)) < MARGIN
    fails = np.any((holm(binomial_tail(lost, lost + gained, 0.5)) <= ALPHA) & ~is_kept, axis=1)
    return fails, ~fails & is_kept[:, -1]


def unpaired_falls(lost: IntArray, gained: IntArray, right: IntArray, *, size: int) -> BoolArray:
    """Returns the trials in which any task fell by an unpaired z-test with p < .05, two-sided, per task."""
    before, after = right / size, (right - lost + gained) / size
    error = np.sqrt((before * (1.0 - before) + after * (1.0 - after)) / (size - 1))
    z = np.divide(before - after, error, out=np.zeros_like(error), where=error > 0)
    falls: BoolArray = np.any((z > 0) & (2.0 * special.ndtr(-np.abs(z)) < ALPHA), axis=1)
    return falls


def threshold_falls(lost: IntArray, gained: IntArray, *, size: int, threshold: float) -> BoolArray:
    """Returns the trials in which any task's score fell by more than a fixed threshold."""
    falls: BoolArray = np.any((lost - gained) / size > threshold + 1e-12, axis=1)
    return falls


def five_questions(rng: np.random.Generator, *, trials: int, flip: float, drop: float) -> BoolArray:
    """Returns the trials in which five questions lose more than .10 of their mean score."""
    counts = rng.multinomial(5, [flip + drop, flip, 1.0 - 2.0 * flip - drop], size=trials)
    return (counts[:, 0] - counts[:, 1]) / 5.0 > 0.10


def sampled_answers(
    rng: np.random.Generator,
    *,
    trials: int,
    num_tasks: int,
    size: int,
    num_runs: int,
    drop: float = 0.0,
    shift: float = 0.0,
) -> BoolArray:
    """Draws 0/1 grades of sampled answers: `num_runs` runs of the base, then one of the tuned model.

    Each sample has its own probability of being right, drawn from a U-shaped beta distribution, under which 16 % of the
    grades differ between two runs of the same model. A drop makes samples unanswerable. `shift` is the standard
    deviation, in logits, of what moves a whole run at once.

    Returns:
        Grades, shape (runs + 1, trials, tasks, samples).
    """
    right = rng.beta(0.3, 0.2, size=(trials, num_tasks, size))
    lost = rng.random(right.shape) < drop / 0.6
    runs = []
    for run in range(num_runs + 1):
        level = np.where(lost, 0.0, right) if run == num_runs else right
        if shift:
            moved = special.logit(np.clip(level, 1e-9, 1.0 - 1e-9)) + rng.normal(0.0, shift, size=(trials, 1, 1))
            level = np.where(level > 0.0, special.expit(moved), 0.0)
        runs.append(rng.random(right.shape) < level)
    return np.stack(runs)


def judge_sampled(grades: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Returns which trials FAIL without and with the noise floor; the first run is the base's, the last the tuned's."""
    size = grades.shape[-1]
    base, tuned = grades[0], grades[-1]
    lost, gained = with_pool((base & ~tuned).sum(-1)), with_pool((tuned & ~base).sum(-1))
    sizes = with_pool(np.full((1, lost.shape[1] - 1), size))
    is_kept = tango_upper(lost, gained, sizes, quantile=normal_quantile(1.0 - ALPHA)) < MARGIN
    is_forgot = (holm(binomial_tail(lost, lost + gained, 0.5)) <= ALPHA) & ~is_kept
    means = grades.mean(-1)
    means = np.concatenate([means, means.mean(-1, keepdims=True)], axis=-1)
    runs = means[:-1]
    num_runs = runs.shape[0]
    bound = special.stdtrit(num_runs - 1, 1.0 - ALPHA) * runs.std(0, ddof=1) * math.sqrt(1.0 + 1.0 / num_runs)
    is_beyond = runs.mean(0) - means[-1] > bound
    return np.any(is_forgot, axis=1), np.any(is_forgot & is_beyond, axis=1)

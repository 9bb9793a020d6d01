"""What the verdict promises, held against simulated models; seeds are fixed, and the tables stand in the docs.

Where a distribution can be enumerated it is, so the figures carry no sampling error. Data sets that must be simulated
are drawn as counts of lost and gained samples, and `test_counts_decide_like_compare` ties those counts to `compare`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from forgetless.compare.comparison import compare
from forgetless.compare.detection import simulated_drop
from forgetless.compare.distributions import FloatArray, binomial_mass, binomial_tail, normal_quantile
from forgetless.compare.intervals import flip_counts, mean_shift, tango_upper
from forgetless.compare.permutation import sign_flip_p
from forgetless.compare.power import num_samples_needed
from forgetless.compare.statistics import holm
from forgetless.records import SampleScore, Status, Verdict

ALPHA, MARGIN = 0.05, 0.03
MONTE_CARLO = 0.02  # standard error of a power from 400 trials; simulations.json has 2,000 trials in 72 cells
NUM_TASKS, TASK_SIZE = 12, 50

Counts = NDArray[np.int64]


def draw_flips(
    rng: np.random.Generator, *, trials: int, flip: float, drop: float = 0.0, size: int = TASK_SIZE
) -> tuple[Counts, Counts]:
    """Draws lost and gained counts, shape (trials, tasks), at `flip` each way and a true drop on top."""
    rates = [flip + drop, flip, 1.0 - 2.0 * flip - drop]
    counts = rng.multinomial(size, rates, size=(trials, NUM_TASKS))
    return counts[..., 0], counts[..., 1]


def judge(lost: Counts, gained: Counts, *, size: int = TASK_SIZE) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns which trials FAIL and which PASS, by the verdict's rule on counts, the pool being one more row."""
    lost = np.concatenate([lost, lost.sum(axis=1, keepdims=True)], axis=1)
    gained = np.concatenate([gained, gained.sum(axis=1, keepdims=True)], axis=1)
    sizes = np.array([size] * NUM_TASKS + [size * NUM_TASKS])
    adjusted = np.array([holm(p) for p in binomial_tail(lost, lost + gained, 0.5)])
    is_kept = tango_upper(lost, gained, sizes, quantile=normal_quantile(1.0 - ALPHA)) < MARGIN
    fails: NDArray[np.bool_] = np.any((adjusted <= ALPHA) & ~is_kept, axis=1)
    return fails, ~fails & is_kept[:, -1]


def make_suite(lost: Counts, gained: Counts) -> tuple[list[SampleScore], list[SampleScore]]:
    """Makes the scores of one trial; the rest is half right, half wrong, so that no task is at an end of its scale."""
    base, tuned = [], []
    for task, (b, c) in enumerate(zip(lost, gained, strict=True)):
        right = (TASK_SIZE - b - c) // 2
        outcomes = [(1, 0)] * b + [(0, 1)] * c + [(1, 1)] * right + [(0, 0)] * (TASK_SIZE - b - c - right)
        base += [SampleScore(f"t{task}", str(i), float(x)) for i, (x, _) in enumerate(outcomes)]
        tuned += [SampleScore(f"t{task}", str(i), float(y)) for i, (_, y) in enumerate(outcomes)]
    return base, tuned


@pytest.mark.parametrize("drop", [0.0, 0.04])
def test_counts_decide_like_compare(drop: float) -> None:
    lost, gained = draw_flips(np.random.default_rng(7), trials=25, flip=0.05, drop=drop)
    fails, passes = judge(lost, gained)
    verdicts = [
        compare(*make_suite(b, c), margin=MARGIN, alpha=ALPHA).verdict for b, c in zip(lost, gained, strict=True)
    ]
    assert [v is Verdict.FAIL for v in verdicts] == list(fails)
    assert [v is Verdict.PASS for v in verdicts] == list(passes)
    assert len(set(verdicts)) > 1


@pytest.mark.parametrize("flip", [0.02, 0.05, 0.08])
def test_fail_keeps_its_family_wise_error(flip: float) -> None:
    fails, _ = judge(*draw_flips(np.random.default_rng(11), trials=8_000, flip=flip))
    assert fails.mean() <= ALPHA


def test_fail_keeps_its_error_when_tasks_are_left_out_near_chance() -> None:
    """Four choices, a base at .30: which tasks look above chance is luck, and luck looks like a loss afterwards."""
    rng, fails = np.random.default_rng(13), 0
    for _ in range(150):
        right = rng.random((NUM_TASKS, TASK_SIZE)) < 0.30
        flips = rng.random(right.shape)
        after = np.where(right, flips >= 0.08 / 0.30, flips < 0.08 / 0.70)
        sides = [
            [
                SampleScore(f"t{t}", str(i), float(x), chance=0.25)
                for t, row in enumerate(side)
                for i, x in enumerate(row)
            ]
            for side in (right, after)
        ]
        fails += compare(*sides).verdict is Verdict.FAIL
    assert fails / 150 <= ALPHA


@pytest.mark.parametrize("flip", [0.02, 0.05, 0.08])
def test_pass_at_the_margin_is_rare(flip: float) -> None:
    _, passes = judge(*draw_flips(np.random.default_rng(17), trials=4_000, flip=flip, drop=MARGIN))
    assert passes.mean() <= ALPHA + 0.01


def test_a_large_drop_is_found() -> None:
    fails, _ = judge(*draw_flips(np.random.default_rng(19), trials=1_000, flip=0.05, drop=0.10))
    assert fails.mean() >= 0.98


def enumerate_flips(size: int, *, lost_rate: float, gained_rate: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns all likely (lost, gained) and their probabilities."""
    lost, gained = (axis.ravel() for axis in np.meshgrid(np.arange(size + 1.0), np.arange(size + 1.0)))
    lost, gained = lost[lost + gained <= size], gained[lost + gained <= size]
    mass = binomial_mass(lost, size, lost_rate) * binomial_mass(gained, size - lost, gained_rate / (1.0 - lost_rate))
    likely = mass > 1e-9
    return lost[likely], gained[likely], mass[likely]


def coverage(size: int, *, flip: float, drop: float) -> tuple[float, float]:
    """Returns the exact coverage of the 95 % interval and of the one-sided 95 % bound."""
    lost, gained, mass = enumerate_flips(size, lost_rate=flip + drop, gained_rate=flip)
    two_sided, one_sided = normal_quantile(0.975), normal_quantile(0.95)
    is_inside = (-tango_upper(gained, lost, size, quantile=two_sided) <= drop + 1e-12) & (
        tango_upper(lost, gained, size, quantile=two_sided) >= drop - 1e-12
    )
    is_below = tango_upper(lost, gained, size, quantile=one_sided) >= drop - 1e-12
    return float(mass[is_inside].sum()), float(mass[is_below].sum())


@pytest.mark.parametrize("drop", [0.0, 0.03, 0.10])
@pytest.mark.parametrize("flip", [0.02, 0.05, 0.08])
@pytest.mark.parametrize("size", [50, 200, 600])
def test_interval_covers(size: int, flip: float, drop: float) -> None:
    interval, bound = coverage(size, flip=flip, drop=drop)
    # One or two flips each way: coverage moves in steps of several per cent, and errs upwards.
    is_coarse = size == 50 and flip == 0.02 and drop < 0.1
    assert 0.94 <= interval <= (0.99 if is_coarse else 0.96)
    assert 0.945 <= bound <= (0.98 if is_coarse else 0.962)


def graded_flips(rng: np.random.Generator, size: int, *, flip: float, cluster: int = 1) -> tuple[FloatArray, Counts]:
    """Draws differences of grades in quarters; clusters lose or gain together, each by its own rate."""
    groups = size // cluster
    rate = np.minimum(flip * (rng.gamma(1.0, size=(groups, 1)) if cluster > 1 else 1.0), 0.4)
    leaning = rng.choice([0.2, 0.8], size=(groups, 1)) if cluster > 1 else 0.5
    draw = rng.random((groups, cluster))
    sign = np.where(draw < 2 * rate * leaning, -1.0, np.where(draw < 2 * rate, 1.0, 0.0))
    size_of_flip = rng.choice([0.25, 0.5, 0.75, 1.0], size=sign.shape)
    return (sign * size_of_flip).ravel(), np.repeat(np.arange(groups), cluster)


@pytest.mark.parametrize(("size", "cluster"), [(50, 1), (200, 1), (600, 1), (200, 4), (600, 4)])
def test_interval_of_graded_and_clustered_scores_covers(size: int, cluster: int) -> None:
    rng, trials, hits = np.random.default_rng(23), 600, 0
    for _ in range(trials):
        differences, clusters = graded_flips(rng, size, flip=0.08, cluster=cluster)
        counts = flip_counts(differences, clusters if cluster > 1 else None)
        assert counts is not None
        hits += counts.upper_gain(0.975) >= 0.0 >= -counts.upper_forgetting(0.975)
    assert 0.93 <= hits / trials <= 0.995


def test_cross_entropy_interval_covers() -> None:
    rng, trials, hits = np.random.default_rng(29), 1_000, 0
    for _ in range(trials):
        weights = rng.lognormal(4.0, 0.6, size=50)
        shift = mean_shift(0.02 + rng.normal(0.0, 0.3, size=50) + rng.exponential(0.2, size=50) - 0.2, weights)
        assert shift is not None
        hits += shift.upper(0.025) <= 0.02 <= shift.upper(0.975)
    assert 0.93 <= hits / trials <= 0.97


@pytest.mark.parametrize("num_tasks", [1, 4])
@pytest.mark.parametrize(("size", "flip"), [(50, 0.05), (200, 0.02), (200, 0.05), (600, 0.08)])
def test_the_promised_drop_is_detected(grades: Any, together: Any, size: int, flip: float, num_tasks: int) -> None:
    flips = round(size * flip)
    rest = {"right": (size - 2 * flips) // 2, "wrong": size - 2 * flips - (size - 2 * flips) // 2}
    suite = together(*(grades(f"t{i}", lost=flips, gained=flips, **rest) for i in range(num_tasks)))
    drop = compare(*suite).tasks[0].min_detectable_drop
    assert drop is not None
    discordance = max(2 * flips / size, drop)
    rates = [(discordance + drop) / 2, (discordance - drop) / 2, 1.0 - discordance]
    counts = np.random.default_rng(31).multinomial(size, rates, size=20_000)
    p = binomial_tail(counts[:, 0], counts[:, 0] + counts[:, 1], 0.5)
    num_gated = num_tasks + (num_tasks > 1)  # the pool is a row too
    assert np.mean(p * num_gated <= ALPHA) == pytest.approx(0.80, abs=0.03)


@pytest.mark.parametrize(("size", "cluster"), [(400, 1), (600, 4)])
def test_the_promised_drop_of_graded_and_clustered_scores_is_detected(size: int, cluster: int) -> None:
    rng, flip, trials = np.random.default_rng(37), 0.1, 400
    drops = []
    for _ in range(50):
        differences, clusters = graded_flips(rng, size, flip=flip, cluster=cluster)
        drop = simulated_drop(differences, clusters if cluster > 1 else None, level=ALPHA)
        assert drop is not None
        drops.append(drop)
    turned = float(np.median(drops)) / 2 / 0.625 / flip  # share of gains turned into losses for that mean drop
    hits = 0
    for _ in range(trials):
        differences, clusters = graded_flips(rng, size, flip=flip, cluster=cluster)
        turns = (differences > 0) & (rng.random(size)[clusters] < turned)  # those of a cluster together
        differences = np.where(turns, -differences, differences)
        hits += sign_flip_p(differences, clusters if cluster > 1 else None, num_draws=999, generator=rng) <= ALPHA
    assert hits / trials == pytest.approx(0.80, abs=0.03 + 2 * MONTE_CARLO)


@pytest.mark.parametrize(("size", "flip"), [(50, 0.06), (200, 0.02), (200, 0.08)])
def test_the_promised_samples_decide(grades: Any, size: int, flip: float) -> None:
    flips = round(size * flip)
    row = compare(*grades("a", lost=flips, gained=flips, right=size // 2 - flips, wrong=size // 2 - flips)).tasks[0]
    assert row.status in (Status.UNDECIDED, Status.KEPT)
    needed = row.num_samples_needed
    assert needed is not None
    counts = np.random.default_rng(41).multinomial(needed, [flip, flip, 1.0 - 2.0 * flip], size=20_000)
    bound = tango_upper(counts[:, 0], counts[:, 1], needed, quantile=normal_quantile(1.0 - ALPHA))
    power = float(np.mean(bound < MARGIN))
    assert power == pytest.approx(0.80, abs=0.03)


def test_the_promised_cross_entropy_samples_decide() -> None:
    rng, margin, trials = np.random.default_rng(43), 0.05, 500
    shift = mean_shift(rng.normal(0.0, 0.2, size=4_000), np.ones(4_000))
    assert shift is not None
    needed = num_samples_needed(shift, margin=margin, alpha=ALPHA, num_samples=4_000)
    hits = 0
    for _ in range(trials):
        again = mean_shift(rng.normal(0.0, 0.2, size=needed), np.ones(needed))
        assert again is not None
        hits += again.upper(1.0 - ALPHA) < margin
    assert hits / trials == pytest.approx(0.80, abs=0.05)

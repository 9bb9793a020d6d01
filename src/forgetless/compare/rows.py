"""Measures one task, or the pool, and makes the row of the comparison that shows it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from forgetless.compare.detection import simulated_drop
from forgetless.compare.distributions import FloatArray, normal_quantile
from forgetless.compare.intervals import FlipCounts, MeanShift, flip_counts, mean_shift
from forgetless.compare.noise import NoiseFloor, measure_noise
from forgetless.compare.pairing import PairedTask
from forgetless.compare.permutation import sign_flip_p
from forgetless.compare.power import POWER, min_detectable_drop, num_samples_needed
from forgetless.compare.statistics import (
    ChanceAdjusted,
    chance_adjusted,
    is_at_ceiling,
    is_at_floor,
    mcnemar_p,
    transitions,
)
from forgetless.records import Role, Row, Status, Unit

MIN_DRAWS, MAX_DRAWS = 9_999, 199_999
"""Draws of a sampled permutation test: at least the first, more where many rows share alpha, never more than that."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the paired scores of a task say, before the other rows and the margin are looked at.

    Attributes:
        task: The paired scores.
        spread: Flips or mean shift, None when too few clusters tell their spread.
        p_value: One-sided for a loss.
        test: Name of the test.
        ci_low: Lower two-sided bound of tuned - base, None without a spread.
        ci_high: Upper two-sided bound.
        forgetting_upper: One-sided upper bound of the drop (of the rise, for cross-entropy).
        noise: How far the base's own runs lie apart, None where it was run once.
    """

    task: PairedTask
    spread: FlipCounts | MeanShift | None
    p_value: float
    test: str
    ci_low: float | None
    ci_high: float | None
    forgetting_upper: float | None
    noise: NoiseFloor | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """The limits that a row is held to.

    Attributes:
        margin: Largest tolerated drop, in the unit of the row.
        alpha: Level of intervals, and of the family of gated rows.
        num_gated: Rows that share alpha through Holm.
    """

    margin: float
    alpha: float
    num_gated: int = 1


def measure(task: PairedTask, *, alpha: float, num_gated: int = 1) -> Evidence:
    """Tests and bounds the paired difference of a task.

    Args:
        task: The paired scores, of at least one pair.
        alpha: Level of the intervals.
        num_gated: Rows that will share alpha: a sampled p-value must be able to fall below alpha / num_gated.

    Returns:
        The evidence; without bounds where too few clusters tell the spread.
    """
    losses = signed_differences(task)
    clusters = task.clusters if task.has_clusters else None
    noise = measure_noise(task, alpha=alpha)
    is_zero_one = clusters is None and bool(np.isin(losses, (-1.0, 0.0, 1.0)).all())
    if is_zero_one and bool(np.isin(task.base, (0.0, 1.0)).all()):
        p_value, test = mcnemar_p(int((losses < 0).sum()), int((losses > 0).sum())), "exact McNemar"
    else:
        num_draws = min(MAX_DRAWS, max(MIN_DRAWS, math.ceil(20.0 * num_gated / alpha)))
        p_value = sign_flip_p(losses, clusters, num_draws=num_draws)
        test = "sign-flip permutation" if clusters is None else "cluster sign-flip permutation"
    if task.unit is Unit.NATS_PER_TOKEN:
        shift = mean_shift(task.tuned - task.base, task.weights, clusters)
        if shift is None:
            return Evidence(task, None, p_value, test, None, None, None, noise)
        bounds = (shift.upper(alpha / 2.0), shift.upper(1.0 - alpha / 2.0), shift.upper(1.0 - alpha))
        return Evidence(task, shift, p_value, test, *bounds, noise)
    counts = flip_counts(losses, clusters)
    if counts is None:
        return Evidence(task, None, p_value, test, None, None, None, noise)
    low, high = -counts.upper_forgetting(1.0 - alpha / 2.0), counts.upper_gain(1.0 - alpha / 2.0)
    return Evidence(task, counts, p_value, test, low, high, counts.upper_forgetting(1.0 - alpha), noise)


def signed_differences(task: PairedTask) -> FloatArray:
    """Returns the weighted differences of the samples, negative = worse, whose plain mean is the task's."""
    differences = task.tuned - task.base if task.unit is Unit.GRADE else task.base - task.tuned
    return np.asarray(differences * (task.weights / task.weights.mean()), dtype=np.float64)


def blind_spot(task: PairedTask, *, gate: Gate) -> Status | None:
    """Returns FLOOR or CEILING where a task's grades leave nothing to see, else None."""
    if task.unit is not Unit.GRADE:
        return None
    if is_at_floor(task.base, chance=task.chance, margin=gate.margin, alpha=gate.alpha):
        return Status.FLOOR
    return Status.CEILING if is_at_ceiling(task.base, task.tuned, margin=gate.margin) else None


def make_row(
    evidence: Evidence, *, gate: Gate, p_adjusted: float | None = None, blind: Status | None = None, note: str = ""
) -> Row:
    """Makes the row of a task from its evidence.

    Args:
        evidence: What was measured.
        gate: The limits; a target task is held to none but its alpha.
        p_adjusted: After Holm; None for target tasks.
        blind: FLOOR or CEILING where the task can't show a loss.
        note: What a reader should know about this row.

    Returns:
        The row with its status, what it could detect, and its notes.
    """
    task, spread = evidence.task, evidence.spread
    flips = transitions(task.base, task.tuned)
    is_grade, is_gated = task.unit is Unit.GRADE, task.role is Role.RETENTION
    base, tuned = _mean(task.base, task.weights), _mean(task.tuned, task.weights)
    needed, drop = None, _detectable(evidence, level=gate.alpha / gate.num_gated)
    if spread is not None and is_gated:
        needed = num_samples_needed(spread, margin=gate.margin, alpha=gate.alpha, num_samples=task.num_samples)
    beyond, noise = _beyond_chance(task), evidence.noise
    return Row(
        task=task.name,
        role=task.role,
        num_samples=task.num_samples,
        base=base,
        tuned=tuned,
        delta=tuned - base,
        ci_low=evidence.ci_low,
        ci_high=evidence.ci_high,
        forgetting_upper=evidence.forgetting_upper,
        lost=flips.lost if is_grade else flips.gained,
        gained=flips.gained if is_grade else flips.lost,
        p_value=evidence.p_value,
        p_adjusted=p_adjusted,
        status=_status(evidence, gate=gate, p_adjusted=p_adjusted, blind=blind),
        min_detectable_drop=drop,
        num_samples_needed=needed,
        unit=task.unit,
        margin=gate.margin if is_gated else None,
        chance=task.chance,
        num_clusters=int(np.unique(task.clusters).size) if task.has_clusters else None,
        test=evidence.test,
        note=" ".join(part for part in (note, _chance_note(beyond), _unpaired_note(task)) if part),
        kept_right=flips.kept_right if is_grade else None,
        kept_wrong=flips.kept_wrong if is_grade else None,
        forgetting_beyond_chance=beyond.forgetting if beyond else None,
        gain_beyond_chance=beyond.gain if beyond else None,
        largest_forgetting=beyond.largest_forgetting if beyond else None,
        noise_runs=noise.num_runs if noise else None,
        noise_spread=noise.spread if noise else None,
        noise_flips=noise.flips if noise else None,
        noise_bound=noise.bound if noise else None,
    )


def _detectable(evidence: Evidence, *, level: float) -> float | None:
    """Returns the smallest drop that the row detects: by its test and, where there is one, beyond the noise floor."""
    task, spread, noise = evidence.task, evidence.spread, evidence.noise
    if spread is None:
        return None
    if isinstance(spread, FlipCounts) and spread.degrees is not None:
        clusters = task.clusters if task.has_clusters else None
        drop = simulated_drop(signed_differences(task), clusters, level=level)
    else:
        drop = min_detectable_drop(spread, level=level)
    if drop is None or noise is None:
        return drop
    return max(drop, noise.detectable(normal_quantile(POWER)))


def missing_row(task: PairedTask | None, *, margin: float | None, note: str) -> Row:
    """Makes the row of a task without a single pair, or of an empty pool."""
    return Row(
        task=task.name if task else "pooled",
        role=task.role if task else Role.RETENTION,
        num_samples=0,
        base=None,
        tuned=None,
        delta=None,
        ci_low=None,
        ci_high=None,
        forgetting_upper=None,
        lost=0,
        gained=0,
        p_value=None,
        p_adjusted=None,
        status=Status.MISSING,
        min_detectable_drop=None,
        num_samples_needed=None,
        unit=task.unit if task else Unit.GRADE,
        margin=margin,
        note=note,
    )


def _status(evidence: Evidence, *, gate: Gate, p_adjusted: float | None, blind: Status | None) -> Status:
    upper = evidence.forgetting_upper
    if evidence.task.role is Role.TARGET:
        # The upper bound of a loss lies below zero exactly when the lower bound of the gain lies above it.
        return Status.LEARNED if upper is not None and upper < 0.0 else Status.NOT_LEARNED
    is_within_margin = upper is not None and upper < gate.margin
    if is_significant(p_adjusted, alpha=gate.alpha) and not is_within_margin:
        return Status.FORGOT if evidence.noise is None or evidence.noise.is_exceeded else Status.UNDECIDED
    if blind is not None:
        return blind
    if not is_within_margin or evidence.ci_low is None or evidence.ci_high is None:
        return Status.UNDECIDED
    has_improved = evidence.ci_low > 0.0 if evidence.task.unit is Unit.GRADE else evidence.ci_high < 0.0
    return Status.IMPROVED if has_improved else Status.KEPT


def is_significant(p_adjusted: float | None, *, alpha: float) -> bool:
    """Whether a loss is significant after Holm."""
    return p_adjusted is not None and p_adjusted <= alpha


def _beyond_chance(task: PairedTask) -> ChanceAdjusted | None:
    """Returns chance-adjusted forgetting, for tasks of 0/1 choices with pairs."""
    is_choice = 0.0 < task.chance < 1.0 and bool(np.isin(np.concatenate([task.base, task.tuned]), (0.0, 1.0)).all())
    return chance_adjusted(task.base, task.tuned, chance=task.chance) if is_choice else None


def _chance_note(adjusted: ChanceAdjusted | None) -> str:
    if adjusted is None:
        return ""
    return (
        f"Beyond guessing, {100 * adjusted.forgetting:.1f} % of the samples were lost and {100 * adjusted.gain:.1f} % "
        f"gained; at most {100 * adjusted.largest_forgetting:.1f} % could be lost."
    )


def _unpaired_note(task: PairedTask) -> str:
    return f"{task.num_unpaired} more could not be paired." if task.num_unpaired else ""


def _mean(values: FloatArray, weights: FloatArray) -> float:
    return math.fsum(values * weights) / math.fsum(weights)

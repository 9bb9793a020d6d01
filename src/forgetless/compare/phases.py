"""A sequence of phases from its scores: R with intervals, what it learned, kept and passed on, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from forgetless.compare.comparison import compare
from forgetless.compare.distributions import FloatArray
from forgetless.compare.sequence import sequence_metrics
from forgetless.compare.statistics import holm
from forgetless.errors import DataError
from forgetless.phase_records import Estimate, Measure
from forgetless.records import Comparison, Role, Row, SampleScore, Status, Unit, Verdict

NUM_RESAMPLES = 2000
_KEPT = (Status.KEPT, Status.IMPROVED)


def measure_phases(
    base: Sequence[SampleScore],
    after: Sequence[Sequence[SampleScore]],
    *,
    tasks: Mapping[str, str],
    name: str,
    alpha: float = 0.05,
    seed: int = 0,
) -> Measure | None:
    """Computes R and the measures of a sequence, each with a bootstrap interval.

    The samples of a target are drawn anew, the same ones for the base and after every phase: a figure that compares
    two models is compared in pairs. The seeds of training play no part: an interval speaks of these models.

    Args:
        base: Scores of the base.
        after: Scores after each phase, in order.
        tasks: Task of each phase's target, in order, by name of the phase; one that no score is of is left out.
        name: What the measure is called.
        alpha: One minus the confidence of the intervals.
        seed: Seed of the resamples.

    Returns:
        The measure; None where no phase has such a task.

    Raises:
        DataError: A model was scored on other samples than the base.
    """
    scored = {score.task for score in base}
    phases = [phase for phase, task in tasks.items() if task in scored]
    if not phases:
        return None
    rows = [base, *(scores for scores, phase in zip(after, tasks, strict=True) if phase in phases)]
    columns = [_column(rows, tasks[phase]) for phase in phases]
    unit = next(score.unit for score in base if score.task == tasks[phases[0]])
    is_loss = unit is not Unit.GRADE
    rng = np.random.default_rng(seed)
    drawn = np.stack([_resampled_means(*column, rng=rng) for column in columns], axis=-1)  # (resamples, rows, phases)
    means = np.stack([_means(*column) for column in columns], axis=-1)  # (rows, phases)
    sign = -1.0 if is_loss else 1.0
    point = _figures(sign * means)
    spread = [_figures(sign * one) for one in drawn]
    figures = {key: _estimate(point[key], [one[key] for one in spread], alpha) for key in point}
    if is_loss:  # a mean of losses is a loss again
        figures["average"] = _turned(figures["average"])
    cells = [[_estimate(means[i, j], drawn[:, i, j], alpha) for j in range(len(phases))] for i in range(len(rows))]
    sizes = [column[0].shape[1] for column in columns]
    return Measure(name=name, unit=unit, phases=phases, num_samples=sizes, base=cells[0], matrix=cells[1:], **figures)


def _column(rows: Sequence[Sequence[SampleScore]], task: str) -> tuple[FloatArray, FloatArray]:
    """Returns the scores of a task, (rows, samples), and the weights of its samples."""
    found = [{score.sample_id: score for score in scores if score.task == task} for scores in rows]
    for scores in found[1:]:
        if scores.keys() != found[0].keys():
            raise DataError(f"task {task!r} was scored on other samples after a phase than before it: run it again")
    ids = list(found[0])
    values = np.array([[scores[key].score for key in ids] for scores in found], dtype=np.float64)
    return values, np.array([found[0][key].weight for key in ids], dtype=np.float64)


def _means(values: FloatArray, weights: FloatArray) -> FloatArray:
    return np.asarray(values @ weights / weights.sum(), dtype=np.float64)


def _resampled_means(values: FloatArray, weights: FloatArray, *, rng: np.random.Generator) -> FloatArray:
    """Returns the means over drawn samples, (resamples, rows)."""
    picks = rng.multinomial(len(weights), np.full(len(weights), 1 / len(weights)), size=NUM_RESAMPLES) * weights
    return np.asarray(picks @ values.T / picks.sum(axis=1, keepdims=True), dtype=np.float64)


def _figures(means: FloatArray) -> dict[str, float | None]:
    """Computes the measures from the base's scores and R, (1 + T, T), higher is better."""
    base, matrix = means[0], means[1:]
    metrics = sequence_metrics(matrix, base=base)
    return {
        "average": metrics.average_accuracy,
        "learning": float((np.diag(matrix) - base).mean()),
        "backward_transfer": metrics.backward_transfer,
        "forward_transfer": metrics.forward_transfer,
        "forgetting": metrics.forgetting,
    }


def _estimate(value: float | None, drawn: Iterable[Any], alpha: float) -> Estimate:
    if value is None:
        return Estimate(None)
    low, high = np.quantile(np.array(list(drawn), dtype=np.float64), [alpha / 2, 1 - alpha / 2])
    return Estimate(float(value), float(low), float(high))


def _turned(estimate: Estimate) -> Estimate:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate
    return Estimate(-estimate.value, -estimate.high, -estimate.low)


def compare_earlier(
    references: Mapping[str, Sequence[SampleScore]],
    tuned: Sequence[SampleScore],
    *,
    tasks: Mapping[str, Sequence[str]],
    margin: float = 0.03,
    alpha: float = 0.05,
    cross_entropy_margin: float = 0.05,
) -> Comparison | None:
    """Compares earlier targets, which are now to be kept, with the model right after their own phase.

    Args:
        references: Scores right after each earlier phase, by its name.
        tuned: Scores of the model that is judged.
        tasks: Tasks of each phase's target, by its name.
        margin: Largest tolerated drop of a mean grade.
        alpha: Level of tests and intervals.
        cross_entropy_margin: Largest tolerated rise of a loss, in nats per token.

    Returns:
        The comparison; None where there are no earlier phases. Where the targets have no grades, only losses, it is
        PASS if all of them are kept.
    """
    before = [_kept(score) for name, scores in references.items() for score in scores if score.task in tasks[name]]
    wanted = {score.task for score in before}
    if not wanted:
        return None
    after = [_kept(score) for score in tuned if score.task in wanted]
    comparison = compare(before, after, margin=margin, alpha=alpha, cross_entropy_margin=cross_entropy_margin)
    reasons = [reason.replace("General skills", "Earlier targets") for reason in comparison.reasons]
    comparison = replace(comparison, reasons=reasons)
    has_grades = any(row.unit is Unit.GRADE for row in comparison.tasks)
    if has_grades or comparison.verdict is Verdict.FAIL or not all(row.status in _KEPT for row in comparison.tasks):
        return comparison
    reason = (
        f"The losses of all {len(comparison.tasks)} earlier targets are kept; plain texts have no answers to grade."
    )
    return replace(comparison, verdict=Verdict.PASS, reasons=[reason])


def _kept(score: SampleScore) -> SampleScore:
    return replace(score, role=Role.RETENTION)


def judge_phases(general: Comparison, earlier: Comparison | None) -> tuple[Verdict, list[str]]:
    """Judges the end of a sequence: the general suite against the base, and earlier targets against their own phase.

    PASS takes both: each claim holds at its own level, so both together hold at that level. FAIL takes one row that is
    FORGOT when Holm's correction runs over the gated rows of both comparisons, or a comparison that fails by something
    else than a row: so a false FAIL has at most probability alpha, however many phases there were.

    Args:
        general: The general suite after the last phase.
        earlier: The earlier targets after the last phase; None where there was a single phase.

    Returns:
        The verdict, and what it rests on, one sentence each.
    """
    parts = {"General skills": general} | ({} if earlier is None else {"Earlier targets": earlier})
    reasons = [_reason(name, part) for name, part in parts.items()]
    lost = _forgotten_in_both(list(parts.values()), alpha=general.alpha)
    if lost:
        return Verdict.FAIL, [*reasons, f"Forgotten, corrected over both comparisons: {', '.join(lost)}."]
    has_failed_check = any(check.is_lost and check.severity.lower() == "critical" for check in general.checks)
    if has_failed_check:
        return Verdict.FAIL, reasons
    if all(part.verdict is Verdict.PASS for part in parts.values()):
        return Verdict.PASS, reasons
    if any(part.verdict is Verdict.FAIL for part in parts.values()):
        reasons.append("What looks forgotten in one comparison isn't beyond chance over both: more samples would tell.")
    return Verdict.INCONCLUSIVE, reasons


def _reason(name: str, part: Comparison) -> str:
    first = part.reasons[0].removeprefix(f"{name}: ") if part.reasons else ""
    return f"{name}: {part.verdict.value}. {first[:1].upper()}{first[1:]}".strip()


def _forgotten_in_both(parts: Sequence[Comparison], *, alpha: float) -> list[str]:
    """Returns the rows that are FORGOT in their own comparison, and still significant over all of them."""
    tested = [row for part in parts for row in _gated(part) if row.p_value is not None]
    adjusted = holm([1.0 if row.p_value is None else row.p_value for row in tested])
    return [
        row.task for row, p in zip(tested, adjusted, strict=True) if row.status is Status.FORGOT and float(p) <= alpha
    ]


def _gated(part: Comparison) -> list[Row]:
    rows = [row for row in part.tasks if row.role is Role.RETENTION]
    has_pool = sum(row.unit is Unit.GRADE for row in rows) > 1
    return [*rows, part.pooled] if has_pool else rows

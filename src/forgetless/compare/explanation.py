"""Puts a comparison into plain English: one sentence for each thing that the verdict rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from forgetless.check_records import CheckResult
from forgetless.records import Role, Row, Status, Unit

NUM_NAMED = 5
"""How many tasks one sentence names before it only counts."""


def explain(
    rows: Sequence[Row], pooled: Row, *, checks: Sequence[CheckResult], obstacles: Sequence[str], alpha: float
) -> list[str]:
    """Names the reasons of a verdict.

    Args:
        rows: Those of the tasks, retention and target.
        pooled: The row of the pool of retention grades.
        checks: Deployment checks that both models took.
        obstacles: Sentences on what denies PASS.
        alpha: Level of the intervals that the sentences quote.

    Returns:
        One sentence per reason, the weightiest first; never empty.
    """
    retention = [row for row in rows if row.role is Role.RETENTION]
    reasons = [_fall(row) for row in retention if row.status is Status.FORGOT]
    reasons += [_lost_check(check) for check in checks if check.is_lost]
    reasons += obstacles
    reasons.append(_pool_sentence(pooled, alpha=alpha))
    reasons += _noise_sentences(retention, pooled, alpha=alpha)
    reasons += _blind_sentences(retention)
    reasons += [
        _cross_entropy_sentence(row, alpha=alpha)
        for row in retention
        if row.unit is Unit.NATS_PER_TOKEN and row.status not in (Status.FORGOT, Status.MISSING)
    ]
    undecided = [row.task for row in retention if row.status is Status.UNDECIDED and row.unit is Unit.GRADE]
    if undecided and pooled.num_samples:
        reasons.append(f"Too few samples to judge alone: {name_some(undecided)}.")
    return reasons + _learning_sentences([row for row in rows if row.role is Role.TARGET])


def points(value: float) -> str:
    """Returns a difference of grades in points, without its sign."""
    return f"{100.0 * abs(value):.1f} points"


def probability(value: float) -> str:
    """Returns a p-value as papers print it."""
    return "p < .001" if value < 0.001 else f"p = {value:.3f}".replace("0.", ".", 1)


def name_some(names: Sequence[str]) -> str:
    """Returns the first few names, and how many more there are."""
    rest = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _confidence(alpha: float) -> str:
    return f"{100.0 * (1.0 - alpha):g} %"


def _subject(row: Row) -> str:
    return "General skills" if row.task == "pooled" else row.task


def _change(row: Row) -> str:
    """Returns `0.52 → 0.38`."""
    return " → ".join("not scored" if mean is None else f"{mean:.2f}" for mean in (row.base, row.tuned))


def _fall(row: Row) -> str:
    p_value = f"{probability(row.p_adjusted if row.p_adjusted is not None else 1.0)} after Holm"
    size = abs(row.delta or 0.0)
    if row.unit is Unit.NATS_PER_TOKEN:
        return f"{row.task} rose by {size:.3f} nats per token ({_change(row)}, n = {row.num_samples}, {p_value})."
    flips = f"{row.lost} lost, {row.gained} gained"
    return f"{_subject(row)} fell by {points(size)} ({_change(row)}, {flips}, {p_value})."


def _pool_sentence(row: Row, *, alpha: float) -> str:
    sample = f"{_confidence(alpha)}, n = {row.num_samples}"
    if row.status is Status.MISSING:
        return "General skills: no graded retention task was scored by both models, so nothing is known about them."
    if row.status is Status.FORGOT:
        return _fall(row)
    if row.status in (Status.FLOOR, Status.CEILING):
        return f"General skills: every graded task is at its floor or ceiling, so no drop could show ({sample})."
    if row.status is Status.IMPROVED and row.ci_low is not None:
        least = points(row.ci_low)
        return f"General skills rose by {points(row.delta or 0.0)} ({_change(row)}, at least {least}, {sample})."
    if row.status is Status.KEPT and row.forgetting_upper is not None:
        return f"General skills: no drop larger than {_rounded_up(row.forgetting_upper)} points ({sample})."
    return _undecided(row, sample=sample)


def _undecided(row: Row, *, sample: str) -> str:
    if row.forgetting_upper is None:
        return f"{_subject(row)}: too few independent samples for any bound (n = {row.num_samples})."
    sentence = (
        f"{_subject(row)}: a drop of up to {_rounded_up(row.forgetting_upper)} points can't be ruled out "
        f"({_change(row)}, {sample}), and the margin is {points(row.margin or 0.0)}"
    )
    if row.min_detectable_drop is not None:
        sentence += f"; these samples detect a drop of {points(row.min_detectable_drop)} four times in five"
    return sentence + "."


def _rounded_up(upper: float) -> str:
    """Returns a bound in points, rounded up so that the sentence stays true."""
    return f"{max(0.0, math.ceil(1000.0 * upper - 1e-9) / 10.0):.1f}"


def _cross_entropy_sentence(row: Row, *, alpha: float) -> str:
    sample = f"{_change(row)}, {_confidence(alpha)}, n = {row.num_samples}"
    if row.forgetting_upper is None:
        return f"{row.task}: too few independent samples for any bound (n = {row.num_samples})."
    if row.forgetting_upper <= 0.0:
        least = math.floor(-1000.0 * row.forgetting_upper + 1e-9) / 1000.0
        return f"{row.task} improved by {-(row.delta or 0.0):.3f} nats per token (at least {least:.3f}, {sample})."
    bound = f"{math.ceil(1000.0 * row.forgetting_upper - 1e-9) / 1000.0:.3f} nats per token"
    if row.status is Status.UNDECIDED:
        return f"{row.task}: a rise of up to {bound} can't be ruled out ({sample}), and the margin is {row.margin:g}."
    return f"{row.task}: no rise larger than {bound} ({sample})."


def _noise_sentences(rows: Sequence[Row], pooled: Row, *, alpha: float) -> list[str]:
    """Says how far the base's own runs lie apart, and which losses are no larger than that."""
    gated = [pooled, *(row for row in rows if row.unit is not Unit.GRADE or pooled.num_samples != row.num_samples)]
    sentences = []
    if pooled.noise_runs is not None and pooled.noise_bound is not None:
        sentences.append(
            f"{pooled.noise_runs} runs of the base gave the same scores: its noise floor is zero."
            if not pooled.noise_flips
            else f"The base alone moves by {points(pooled.noise_spread or 0.0)} between runs (standard deviation over "
            f"{pooled.noise_runs} runs; {100.0 * pooled.noise_flips:.1f} % of the samples change): only a drop of more "
            f"than {points(pooled.noise_bound)} below their mean counts."
        )
    for row in gated:
        is_significant = row.p_adjusted is not None and row.p_adjusted <= alpha
        if is_significant and row.status is Status.UNDECIDED and row.noise_bound is not None:
            size = f"{row.noise_bound:.3f} nats per token" if row.unit is not Unit.GRADE else points(row.noise_bound)
            sentences.append(
                f"{_fall(row)[:-1]}, yet one more run of the base could do as badly: its runs allow {size}."
            )
    return sentences


def _blind_sentences(rows: Sequence[Row]) -> list[str]:
    floor = [row.task for row in rows if row.status is Status.FLOOR]
    ceiling = [row.task for row in rows if row.status is Status.CEILING]
    sentences = []
    if floor:
        sentences.append(
            f"Nothing to lose, so nothing is shown: the base stands too near chance on {name_some(floor)}."
        )
    if ceiling:
        sentences.append(f"Too easy to show anything: both models are right nearly always on {name_some(ceiling)}.")
    return sentences


def _lost_check(check: CheckResult) -> str:
    evidence = f": {check.evidence}" if check.evidence else ""
    return f"The {check.severity} check {check.name} passed before and fails now{evidence}."


def _learning_sentences(targets: Sequence[Row]) -> list[str]:
    if not targets:
        return ["No target task was scored, so what was learned is not shown."]
    sentences = []
    for row in targets:
        if row.status is Status.MISSING:
            sentences.append(f"{row.task}: no sample was scored by both models, so what was learned is not shown.")
            continue
        size = abs(row.delta or 0.0)
        amount = points(size) if row.unit is Unit.GRADE else f"{size:.3f} nats per token"
        verb = "rose" if (row.delta or 0.0) > 0.0 else "fell"
        if row.status is Status.LEARNED:
            sentences.append(f"Learned: {row.task} {verb} by {amount} ({_change(row)}, n = {row.num_samples}).")
        else:
            sentences.append(f"Learning is not shown on {row.task} ({_change(row)}, n = {row.num_samples}).")
    if all(row.status is Status.NOT_LEARNED for row in targets):
        sentences.append("Nothing was shown to be learned, and a model that learned nothing has forgotten nothing.")
    return sentences

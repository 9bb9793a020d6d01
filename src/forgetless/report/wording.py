"""Every number, symbol and sentence that the pages share, so that they never disagree.

Grades are shown in points (100 * score), cross-entropies in nats per token. Signs are those of the records: delta is
tuned - base.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from forgetless.check_records import CheckResult
from forgetless.records import Comparison, Role, Row, Status, Unit, Verdict

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
POOLED_LABEL = "all general tasks, pooled"
DEFAULT_NATS_MARGIN = 0.05  # to sort by, where a cross-entropy row states none


@dataclass(frozen=True, slots=True)
class Mark:
    """How a status is shown: a symbol and a word, for those who can't tell colours, and what it means."""

    symbol: str
    word: str
    colour: str
    meaning: str


MARKS = {
    Status.KEPT: Mark("✓", "KEPT", "kept", "The bound of forgetting lies below the margin."),
    Status.FORGOT: Mark(
        "✕", "FORGOT", "forgot", "A significant loss (after Holm) that is not shown to lie within the margin."
    ),
    Status.UNDECIDED: Mark(
        "?", "UNDECIDED", "undecided", "Too few samples to tell a drop beyond the margin from none."
    ),
    Status.IMPROVED: Mark("▲", "IMPROVED", "improved", "Kept, and the whole interval of delta lies above zero."),
    Status.FLOOR: Mark("▽", "FLOOR", "other", "The base scores no better than chance: nothing to lose, nothing shown."),
    Status.CEILING: Mark("△", "CEILING", "other", "Both models are nearly always right: the task sees nothing."),
    Status.MISSING: Mark("∅", "MISSING", "other", "One side has no scores."),
    Status.LEARNED: Mark("▲", "LEARNED", "improved", "The target task improved by more than chance explains."),
    Status.NOT_LEARNED: Mark("○", "NOT LEARNED", "undecided", "The target task is not shown to have improved."),
}

VERDICT_MARKS = {
    Verdict.PASS: Mark("✓", "PASS", "kept", "The general tasks are kept within the margin."),
    Verdict.FAIL: Mark("✕", "FAIL", "forgot", "Something was forgotten."),
    Verdict.INCONCLUSIVE: Mark("?", "INCONCLUSIVE", "undecided", "The samples cannot decide."),
}

DATA_WORDS = {
    "num_domain": "domain examples",
    "num_general": "general examples (replay)",
    "num_test": "held-out test examples",
    "replay_share": "replay share of the mixture",
    "share_tokens": "general share of the supervised tokens",
    "repeats": "uses of the most repeated general example",
    "note": "note",
}


def confidence(alpha: float) -> str:
    """Returns `95 %` for alpha = 0.05."""
    return f"{100 * (1 - alpha):.4g} %"


def figure(value: float | None, unit: Unit, *, signed: bool = False) -> str:
    """Returns a bare figure: points with one decimal for grades, nats per token with three; a dash for None."""
    if value is None or not math.isfinite(value):
        return NONE
    scale, decimals = (100, 1) if unit is Unit.GRADE else (1, 3)
    rounded = round(value * scale, decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
    sign = MINUS if rounded < 0 else "+" if signed and rounded > 0 else ""
    return f"{sign}{abs(rounded):.{decimals}f}"


def bound(value: float | None) -> float | None:
    """Rounds an upper bound up to the decimals that are shown, so that the sentence stays true."""
    if value is None or not math.isfinite(value):
        return None
    steps = 1000  # a tenth of a point, or a thousandth of a nat
    return math.ceil(value * steps - 1e-9) / steps


def unit_word(unit: Unit) -> str:
    """Returns what follows a figure: `points` or `nats per token`."""
    return "points" if unit is Unit.GRADE else "nats per token"


def quantity(value: float | None, unit: Unit, *, signed: bool = False) -> str:
    """Returns a figure with its unit: `-12.5 points`."""
    return f"{figure(value, unit, signed=signed)} {unit_word(unit)}"


def interval(low: float | None, high: float | None, unit: Unit, *, signed: bool = True) -> str:
    """Returns `-5.1 to +0.3`, or a dash where there is none."""
    if low is None or high is None:
        return NONE
    return f"{figure(low, unit, signed=signed)} to {figure(high, unit, signed=signed)}"


def p_value(value: float | None) -> str:
    """Returns three decimals, or `< 0.001`."""
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: int | None) -> str:
    """Returns `12,500`, or a dash for None."""
    return NONE if value is None else f"{value:,}"


def plural(number: int, noun: str) -> str:
    """Returns `1 task`, `3 tasks`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def margin_of(row: Row, comparison: Comparison) -> float | None:
    """Returns the margin that the row was judged by; cross-entropies have no default but their own."""
    if row.margin is not None:
        return row.margin
    return comparison.margin if row.unit is Unit.GRADE else None


def level_interval(mean: float | None, row: Row, *, alpha: float) -> tuple[float, float] | None:
    """Returns the two-sided Wilson (1927) interval of a mean grade; None for cross-entropies and empty rows.

    With samples in clusters, the number of clusters counts. Exact for 0/1 grades; for graded scores in [0, 1] it is
    on the wide side, since none varies more than a 0/1 grade of the same mean.
    """
    num = row.num_clusters or row.num_samples
    if mean is None or row.unit is not Unit.GRADE or num < 1:
        return None
    z = NormalDist().inv_cdf(1 - alpha / 2)
    centre = (mean + z * z / (2 * num)) / (1 + z * z / num)
    half = z / (1 + z * z / num) * math.sqrt(mean * (1 - mean) / num + z * z / (4 * num * num))
    return max(0.0, centre - half), min(1.0, centre + half)


def change_sentence(row: Row, alpha: float) -> str:
    """Returns `-12.5 points (95 % interval -20.1 to -4.9, n = 120)`."""
    bounds = interval(row.ci_low, row.ci_high, row.unit)
    inner = (
        f"n = {row.num_samples:,}"
        if bounds == NONE
        else f"{confidence(alpha)} interval {bounds}, n = {row.num_samples:,}"
    )
    return f"{quantity(row.delta, row.unit, signed=True)} ({inner})"


def lost_checks(comparison: Comparison, *, severity: str | None = None) -> list[CheckResult]:
    """Returns the checks that the base passes and the tuned model doesn't."""
    lost = [check for check in comparison.checks if check.is_lost]
    return [check for check in lost if severity in (None, check.severity)]


def headline(comparison: Comparison) -> str:
    """Returns the verdict in one sentence, without the word of the verdict itself."""
    pooled, margin = comparison.pooled, quantity(comparison.margin, Unit.GRADE)
    evidence = f"({confidence(comparison.alpha)}, n = {pooled.num_samples:,})"
    is_within = pooled.status in (Status.KEPT, Status.IMPROVED)
    if comparison.verdict is Verdict.FAIL:
        return _failure(comparison)
    if comparison.verdict is Verdict.PASS:
        return f"General tasks: no drop larger than {margin} {evidence}."
    if is_within:
        return f"Pooled, no drop larger than {margin} {evidence}, but something else stands in the way of a PASS."
    if pooled.forgetting_upper is None:
        return "Too little was measured to judge what was kept."
    return (
        f"Nothing is shown to be forgotten, yet a drop of more than {margin} is not ruled out: "
        f"the samples allow one of {quantity(bound(pooled.forgetting_upper), pooled.unit)} {evidence}."
    )


def _failure(comparison: Comparison) -> str:
    retention = [row for row in comparison.tasks if row.role is Role.RETENTION]
    forgot = [row for row in retention if row.status is Status.FORGOT]
    parts = []
    if forgot:
        worst = max(forgot, key=lambda row: drop_in_margins(row, comparison))
        which = f"The tuned model forgot {len(forgot)} of {plural(len(retention), 'general task')}"
        which += ": " if len(forgot) == 1 else "; the worst is "
        parts.append(f"{which}{worst.task}, {change_sentence(worst, comparison.alpha)}.")
    elif comparison.pooled.status is Status.FORGOT:
        parts.append(
            f"The tuned model forgot over {POOLED_LABEL}: {change_sentence(comparison.pooled, comparison.alpha)}."
        )
    critical = lost_checks(comparison, severity="critical")
    if critical:
        parts.append(f"Lost {plural(len(critical), 'critical check')}: {', '.join(check.name for check in critical)}.")
    return " ".join(parts) or "Something was forgotten; the reasons say what."


def drop_in_margins(row: Row, comparison: Comparison) -> float:
    """Returns how much worse the tuned model is as a multiple of the margin, so that points and nats compare."""
    drop = (row.delta or 0.0) * (-1 if row.unit is Unit.GRADE else 1)
    return drop / (margin_of(row, comparison) or DEFAULT_NATS_MARGIN)


def retention_sentence(comparison: Comparison) -> str:
    """Returns the pooled delta with its interval, the bound and the margin."""
    pooled = comparison.pooled
    if pooled.delta is None:
        return "No general task was measured on both sides."
    return (
        f"{change_sentence(pooled, comparison.alpha)}; forgetting is at most "
        f"{quantity(bound(pooled.forgetting_upper), pooled.unit)} (one-sided {confidence(comparison.alpha)}), "
        f"the margin is {quantity(margin_of(pooled, comparison), pooled.unit)}"
    )


def learning_sentence(row: Row, alpha: float) -> str:
    """Returns a target task's base and tuned level with their intervals, and the change."""
    sides = []
    for value in (row.base, row.tuned):
        bounds = level_interval(value, row, alpha=alpha)
        shown = f" ({interval(*bounds, row.unit, signed=False)})" if bounds else ""
        sides.append(f"{figure(value, row.unit)}{shown}")
    return f"{' → '.join(sides)}, delta {change_sentence(row, alpha)}, {MARKS[row.status].word}"


def row_sentence(row: Row, comparison: Comparison) -> str:
    """Returns what a log or a test runner shows of one row."""
    parts = [f"n = {row.num_samples}" if row.delta is None else f"delta {change_sentence(row, comparison.alpha)}"]
    margin = margin_of(row, comparison)
    if margin is not None and row.role is Role.RETENTION:
        parts.append(f"margin {quantity(margin, row.unit)}")
    if row.delta is not None:
        parts.append(f"{row.lost:,} lost, {row.gained:,} gained")
    if row.p_adjusted is not None:
        parts.append(f"p (Holm) {p_value(row.p_adjusted)}")
    if row.status is Status.UNDECIDED and row.num_samples_needed is not None:
        parts.append(f"{row.num_samples_needed:,} samples would decide it")
    if row.note:
        parts.append(row.note)
    return f"{MARKS[row.status].word}: {'; '.join(parts)}. {MARKS[row.status].meaning}"


def data_facts(data: Mapping[str, Any]) -> dict[str, str]:
    """Returns what the manifest says of the data, in words; shares as percentages, what is empty left out."""
    facts = {}
    for name, value in data.items():
        if value in (None, "") or (name == "share_examples" and "replay_share" in data):
            continue
        is_share = "share" in name and isinstance(value, int | float)
        facts[DATA_WORDS.get(name, name)] = f"{100 * value:.1f} %" if is_share else str(value)
    return facts


def tests_used(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Returns each statistical test with the tasks it was used for."""
    used: dict[str, list[str]] = {}
    for row in rows:
        if row.test:
            used.setdefault(row.test, []).append(row.task)
    return sorted(used.items())

"""Rules about how it is judged what was forgotten."""

from __future__ import annotations

import math
from collections.abc import Iterator

from forgetless.advising.evidence import Case
from forgetless.advising.findings import Edit, Risk, Severity, Unchecked, change
from forgetless.advising.recipe import Recipe

TYPICAL_FLIPS = 0.10
"""Share of samples whose grade is assumed to change between base and tuned, half of them each way."""

MARGIN = 0.03


def samples_needed(margin: float, alpha: float) -> int:
    """Returns how many graded samples show, with 80 % power, that no more than the margin was lost.

    Args:
        margin: Largest drop that is tolerated, in score units.
        alpha: One-sided level.

    Returns:
        Samples, at flips of `TYPICAL_FLIPS` and no true change.
    """
    from forgetless.compare.intervals import FlipCounts
    from forgetless.compare.power import num_samples_needed

    flips = FlipCounts(lost=500 * TYPICAL_FLIPS, gained=500 * TYPICAL_FLIPS, num_samples=1000)
    return num_samples_needed(flips, margin=margin, alpha=alpha, num_samples=1000)


def suite_size(case: Case) -> Iterator[Risk | Unchecked]:
    """Compares the suite's graded samples with what the margin needs."""
    recipe, evidence = case.recipe, case.evidence
    num, margin = evidence.num_samples, recipe.margin
    if num is None or margin is None or recipe.suite is None:
        return
    needed = samples_needed(margin.value, recipe.gate_alpha)
    if num >= needed:
        return
    severity = Severity.HIGH if num < needed / 4 else Severity.MEDIUM
    reached = _margin_within_reach(num, recipe.gate_alpha)
    within = "no margin at all" if reached is None else f"a margin of {reached:.2f}"
    yield Risk(
        severity,
        f"{num:,} graded samples can't show that no more than {100 * margin.value:g} points were lost: that takes "
        f"{needed:,} (80 % power, a tenth of the grades flipping); {num:,} are enough for {within}.",
        f"Ask at least {needed:,} samples, or widen the margin before the run, not after it.",
        (recipe.suite.key, margin.key),
        _larger_suite(recipe, needed),
    )


def _margin_within_reach(num: int, alpha: float) -> float | None:
    """Returns the smallest margin, in steps of a point, that so many samples can show."""
    points = next((points for points in range(1, 100) if samples_needed(points / 100, alpha) <= num), None)
    return None if points is None or math.isnan(points) else points / 100


def _larger_suite(recipe: Recipe, needed: int) -> tuple[Edit, ...]:
    """Returns the edit to a suite that is large enough, where the catalog or the tasks have one."""
    from forgetless.records import Role
    from forgetless.tasks.base import load_suite

    assert recipe.suite is not None
    directories = [] if recipe.tasks_dir is None else [recipe.tasks_dir]
    whole = {}
    for name in dict.fromkeys([recipe.suite.value, "core"]):
        tasks = load_suite(name, directories)
        whole[name] = sum(
            len(task.samples) for task in tasks if task.spec.kind != "perplexity" and task.spec.role is Role.RETENTION
        )
    edits = []
    if recipe.limit is not None and whole[recipe.suite.value] >= needed:
        return (change(recipe.limit, None),)
    if whole["core"] >= needed:
        edits.append(change(recipe.suite, "core"))
        if recipe.limit is not None:
            edits.append(change(recipe.limit, None))
    return tuple(edits)


def no_suite(case: Case) -> Iterator[Risk | Unchecked]:
    """Says, for files that have no key for it, what it takes to see forgetting."""
    recipe = case.recipe
    if recipe.dialect == "forgetless" or recipe.learning_rate is None:
        return
    needed = samples_needed(MARGIN, recipe.gate_alpha)
    yield Risk(
        Severity.LOW,
        f"Base and tuned model are not asked the same questions: a loss on the domain shows no forgetting, and to show "
        f"that no more than {100 * MARGIN:g} points were lost takes {needed:,} samples.",
        "Score both (forgetless evaluate MODEL) and compare them (forgetless compare BASE TUNED).",
    )

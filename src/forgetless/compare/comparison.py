"""The verdict: were general skills kept, lost, or can't these samples tell?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forgetless.check_records import CheckResult
from forgetless.compare.advice import give_advice
from forgetless.compare.explanation import explain
from forgetless.compare.intervals import flip_counts
from forgetless.compare.noise import MIN_REPEATS
from forgetless.compare.pairing import PairedTask, pair_scores, pool_tasks
from forgetless.compare.rows import Evidence, Gate, blind_spot, make_row, measure, missing_row, signed_differences
from forgetless.compare.statistics import holm
from forgetless.errors import ConfigError
from forgetless.records import Comparison, Role, Row, SampleScore, Status, Unit, Verdict

_POOL = "\0pooled"  # no task can have this name

_KEPT = (Status.KEPT, Status.IMPROVED)

_BLIND_NOTES = {
    Status.FLOOR: "The base has too little above chance to lose: left out of the pool.",
    Status.CEILING: "Both models are right nearly always: left out of the pool.",
}


def compare(
    base: Iterable[SampleScore],
    tuned: Iterable[SampleScore],
    *,
    margin: float = 0.03,
    alpha: float = 0.05,
    cross_entropy_margin: float = 0.05,
    checks: Sequence[CheckResult] = (),
    recipe: Mapping[str, object] | None = None,
    noise: Sequence[Iterable[SampleScore]] = (),
) -> Comparison:
    """Compares two models on the samples that both answered.

    - FAIL: a gated row is FORGOT, or a critical check that the base passes is lost.
    - PASS: the pool of retention grades is KEPT (or IMPROVED), no row is FORGOT, no retention task is MISSING, and the
      pool stays within the margin even if every sample that only one model has is counted as a loss.
    - INCONCLUSIVE: anything else.

    Gated rows, one family under Holm: every retention task, in grades or cross-entropy, and the pool where it holds
    more than one task. So FAIL has a family-wise error of at most alpha, and a drop spread thinly over all tasks still
    fails. Bounds keep their own level: KEPT in a row claims that row only, and PASS rests on the pool's.

    Tasks at their floor or ceiling stay in the family, but not in the pool, which they would dilute. Leaving tasks out
    by the base's score makes what stays look like a loss (regression to the mean): that is safe for PASS, and for FAIL
    the pool enters the family with the larger of its p-values with and without them.

    Args:
        base: Scores of the base.
        tuned: Scores of the tuned model on the same samples.
        margin: Largest tolerated drop of a mean grade, in (0, 1).
        alpha: Level of the tests, and one minus the confidence of the intervals, in (0, 0.5).
        cross_entropy_margin: Largest tolerated rise of retention cross-entropy, in nats per token.
        checks: Deployment checks that both models took.
        recipe: What is known of the training, for the advice alone: `methods` (names), `learning_rate`, `epochs`,
            `num_examples`, `has_general`; any may be missing.
        noise: Scores of at least two further runs of the base under the same decoding. A row is then FORGOT only if it
            also fell by more than one more run of the base plausibly would.

    Returns:
        The verdict with all figures that it rests on, its reasons and what to do next; `problems` names the samples
        that could not be paired.

    Raises:
        ConfigError: A limit is out of range, or there is a single noise run.
        DataError: The scores can't be paired.
    """
    _check_limits(margin=margin, alpha=alpha, cross_entropy_margin=cross_entropy_margin)
    if len(noise) and len(noise) < MIN_REPEATS:
        raise ConfigError(f"{len(noise)} noise run is too few to tell a spread: run the base {MIN_REPEATS} times more")
    pairing = pair_scores(base, tuned, repeats=noise)
    family = _measure_family(pairing.tasks, margin=margin, alpha=alpha)
    rows = [_task_row(task, family, cross_entropy_margin=cross_entropy_margin) for task in pairing.tasks]
    pooled = _pooled_row(family, rows)
    obstacles = _obstacles(pairing.tasks, family, pooled=pooled)
    verdict = _verdict([*rows, pooled], pooled, checks=checks, obstacles=obstacles)
    return Comparison(
        verdict=verdict,
        margin=margin,
        alpha=alpha,
        pooled=pooled,
        tasks=rows,
        checks=list(checks),
        reasons=explain(rows, pooled, checks=checks, obstacles=obstacles, alpha=alpha),
        advice=give_advice(verdict, rows, pooled, checks=checks, recipe=recipe),
        problems=pairing.problems,
    )


@dataclass(frozen=True, slots=True)
class _Family:
    """The evidence of all tasks, and the adjusted p-values of those that gate.

    Attributes:
        gate: Limits of grades.
        evidence: By name, of every task with a pair.
        blind: FLOOR or CEILING by name, of the retention tasks that have it.
        graded: Retention tasks in grades.
        pool: Evidence of the pool, None where fewer than two tasks would be in it.
        p_adjusted: By name of the retention task; the pool's under `pooled`.
    """

    gate: Gate
    evidence: dict[str, Evidence]
    blind: dict[str, Status]
    graded: list[PairedTask]
    pool: Evidence | None
    p_adjusted: dict[str, float]

    @property
    def pooled_tasks(self) -> list[PairedTask]:
        """The tasks that the pool holds: those that can show a loss, or all where none can."""
        return _seeing(self.graded, self.blind)


def _measure_family(tasks: Sequence[PairedTask], *, margin: float, alpha: float) -> _Family:
    gated = [task for task in tasks if task.role is Role.RETENTION and task.num_samples]
    graded = [task for task in gated if task.unit is Unit.GRADE]
    has_pool = len(graded) > 1  # a pool of one task would be the same test twice
    gate = Gate(margin, alpha, len(gated) + has_pool)
    evidence = {task.name: measure(task, alpha=alpha, num_gated=gate.num_gated) for task in tasks if task.num_samples}
    found = {task.name: blind_spot(task, gate=gate) for task in graded}
    blind = {name: status for name, status in found.items() if status is not None}
    names, p_values = [task.name for task in gated], [evidence[task.name].p_value for task in gated]
    pool = None
    if has_pool:
        pool = measure(pool_tasks(_seeing(graded, blind)), alpha=alpha, num_gated=gate.num_gated)
        everything = measure(pool_tasks(graded), alpha=alpha, num_gated=gate.num_gated) if blind else pool
        names.append(_POOL)
        p_values.append(max(pool.p_value, everything.p_value))
    adjusted = dict(zip(names, (float(p) for p in holm(p_values)), strict=True))
    return _Family(gate, evidence, blind, graded, pool, adjusted)


def _seeing(graded: list[PairedTask], blind: Mapping[str, Status]) -> list[PairedTask]:
    return [task for task in graded if task.name not in blind] or graded


def _task_row(task: PairedTask, family: _Family, *, cross_entropy_margin: float) -> Row:
    gate = family.gate
    if task.unit is Unit.NATS_PER_TOKEN:
        gate = replace(gate, margin=cross_entropy_margin)
    if task.role is Role.TARGET:
        gate = replace(gate, num_gated=1)
    if not task.num_samples:
        margin = gate.margin if task.role is Role.RETENTION else None
        return missing_row(task, margin=margin, note="No sample was scored by both models.")
    blind = family.blind.get(task.name)
    note = _BLIND_NOTES[blind] if blind else ""
    p_adjusted = family.p_adjusted.get(task.name)
    return make_row(family.evidence[task.name], gate=gate, p_adjusted=p_adjusted, blind=blind, note=note)


def _pooled_row(family: _Family, rows: Sequence[Row]) -> Row:
    """Makes the pool's row: a copy of the one task's where there is only one, MISSING where there is none."""
    if not family.graded:
        return missing_row(
            None, margin=family.gate.margin, note="No retention task in grades was scored by both models."
        )
    if family.pool is None:
        only = next(row for row in rows if row.task == family.graded[0].name)
        return replace(only, task="pooled")
    blind, note = None, ""
    if len(family.blind) == len(family.graded):
        blind = Status.FLOOR if Status.FLOOR in family.blind.values() else Status.CEILING
        note = "Every task is at its floor or ceiling."
    elif family.blind:
        note = f"Without {', '.join(family.blind)}, at the floor or ceiling."
    return make_row(family.pool, gate=family.gate, p_adjusted=family.p_adjusted[_POOL], blind=blind, note=note)


def _obstacles(tasks: Sequence[PairedTask], family: _Family, *, pooled: Row) -> list[str]:
    """Returns what denies PASS beside the pool's own status, one sentence each."""
    retention = [task for task in tasks if task.role is Role.RETENTION]
    sentences = [
        f"{task.name} has no sample that both models were scored on, so nothing is known about it."
        for task in retention
        if not task.num_samples
    ]
    partial = [task for task in retention if task.num_samples and task.num_unpaired]
    sentences += [
        f"{task.name}: {task.num_unpaired} samples could not be paired, and cross-entropy has no worst case to assume."
        for task in partial
        if task.unit is Unit.NATS_PER_TOKEN
    ]
    graded = [task for task in partial if task.unit is Unit.GRADE]
    if graded and pooled.status in _KEPT and not _survives_unpaired(graded, family):
        count, names = sum(task.num_unpaired for task in graded), ", ".join(task.name for task in graded)
        sentences.append(
            f"{count} retention samples could not be paired ({names}); counted as losses they would break the margin."
        )
    return sentences


def _survives_unpaired(partial: Sequence[PairedTask], family: _Family) -> bool:
    """Whether the pool's bound stays below the margin with the largest loss that each unpaired sample may hide."""
    pool = pool_tasks(family.pooled_tasks)
    hidden = np.concatenate([task.worst_loss for task in partial])
    losses = np.concatenate([signed_differences(pool), -hidden])
    clusters = np.concatenate([pool.clusters, pool.clusters.max() + 1 + np.arange(hidden.size)])
    counts = flip_counts(losses, clusters)
    return counts is not None and counts.upper_forgetting(1.0 - family.gate.alpha) < family.gate.margin


def _verdict(rows: Sequence[Row], pooled: Row, *, checks: Sequence[CheckResult], obstacles: Sequence[str]) -> Verdict:
    is_check_lost = any(check.severity.lower() == "critical" and check.is_lost for check in checks)
    if is_check_lost or any(row.status is Status.FORGOT for row in rows):
        return Verdict.FAIL
    if pooled.status in _KEPT and not obstacles:
        return Verdict.PASS
    return Verdict.INCONCLUSIVE


def _check_limits(*, margin: float, alpha: float, cross_entropy_margin: float) -> None:
    if not 0.0 < margin < 1.0:
        raise ConfigError(f"margin {margin} is not in (0, 1): it is the largest tolerated drop, 0.03 for three points")
    if not 0.0 < alpha < 0.5:
        raise ConfigError(f"alpha {alpha} is not in (0, 0.5): it is the error rate of the verdict, 0.05 by custom")
    if not 0.0 < cross_entropy_margin < float("inf"):
        raise ConfigError(
            f"cross_entropy_margin {cross_entropy_margin} is not above 0: it is the largest tolerated rise in nats "
            "per token"
        )

"""Pairs the scores of two models sample by sample, and names every sample that has no partner."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetless.compare.distributions import FloatArray
from forgetless.compare.statistics import IntArray
from forgetless.errors import DataError
from forgetless.records import Role, SampleScore, Unit

NUM_NAMED = 3
"""How many sample ids a problem names before it only counts."""


@dataclass(frozen=True, slots=True)
class PairedTask:
    """The scores of one task (or of a pool of tasks) by both models, aligned.

    Attributes:
        name: Name of the task.
        role: Retention or target, as the base's scores say.
        unit: What the scores count.
        base: Scores of the base, shape (n,).
        tuned: Scores of the tuned model, shape (n,).
        weights: Weight of each sample in the task's mean, shape (n,).
        clusters: Cluster code of each sample, shape (n,); a sample without a cluster has a code of its own.
        chance: Mean expected score of guessing.
        num_unpaired: Samples that only one model has, or whose two sides don't belong together.
        worst_loss: For each of those, the largest loss that it may hide, for grades.
        repeats: Scores of the same samples in further runs of the base, shape (runs, n); no run where it wasn't asked.
    """

    name: str
    role: Role
    unit: Unit
    base: FloatArray
    tuned: FloatArray
    weights: FloatArray
    clusters: IntArray
    chance: float
    num_unpaired: int
    worst_loss: FloatArray
    repeats: FloatArray

    @property
    def num_samples(self) -> int:
        """Number of pairs."""
        return int(self.base.size)

    @property
    def has_clusters(self) -> bool:
        """Whether any two samples share a cluster."""
        return bool(int(self.clusters.max(initial=-1)) + 1 < self.clusters.size)


@dataclass(frozen=True, slots=True)
class Pairing:
    """All tasks of two score lists, in the order in which they are met, and what didn't fit together."""

    tasks: list[PairedTask]
    problems: list[str]


def pair_scores(
    base: Iterable[SampleScore], tuned: Iterable[SampleScore], *, repeats: Sequence[Iterable[SampleScore]] = ()
) -> Pairing:
    """Pairs two lists of scores by task and sample id.

    A pair whose references, units or (for cross-entropy) token counts differ is no pair: the two models were asked
    different things. Where only roles, clusters or chance levels differ, the base's hold. All of it is named in
    `problems`.

    Args:
        base: Scores of the base.
        tuned: Scores of the tuned model.
        repeats: Scores of further runs of the base, on all samples of a task or on none of them.

    Returns:
        The tasks in the order in which they are met, the base's first, and the problems in words.

    Raises:
        DataError: A side is empty, has a sample twice or a score out of range, mixes units or roles within a task, or
            the two sides have no pair at all.
    """
    before, after = _by_task(base, side="base"), _by_task(tuned, side="tuned")
    runs = [_by_task(scores, side=f"noise run {number}") for number, scores in enumerate(repeats, start=1)]
    problems: list[str] = []
    names = [*before, *(name for name in after if name not in before)]
    tasks = []
    for name in names:
        again = [run.get(name, {}) for run in runs]
        tasks.append(_pair_task(name, before.get(name, {}), after.get(name, {}), again=again, problems=problems))
    problems += _unknown_repeats(runs, before)
    if not any(task.num_samples for task in tasks):
        detail = problems[0] if problems else "no task in common"
        raise DataError(
            f"base and tuned scores have no sample in common ({detail}): score both models on the same suite"
        )
    return Pairing(tasks, problems)


def pool_tasks(tasks: Sequence[PairedTask], *, name: str = "pooled") -> PairedTask:
    """Returns all samples of the tasks as one task, each of weight 1; clusters stay apart between tasks."""
    offsets = np.cumsum([0, *(int(task.clusters.max()) + 1 if task.num_samples else 0 for task in tasks)])
    sizes = np.array([task.num_samples for task in tasks], dtype=np.float64)
    chances = np.array([task.chance for task in tasks])
    return PairedTask(
        name=name,
        role=Role.RETENTION,
        unit=Unit.GRADE,
        base=np.concatenate([task.base for task in tasks]),
        tuned=np.concatenate([task.tuned for task in tasks]),
        weights=np.ones(int(sizes.sum())),
        clusters=np.concatenate([task.clusters + offset for task, offset in zip(tasks, offsets[:-1], strict=True)]),
        chance=float((chances * sizes).sum() / sizes.sum()) if sizes.sum() else 0.0,
        num_unpaired=sum(task.num_unpaired for task in tasks),
        worst_loss=np.concatenate([task.worst_loss for task in tasks]),
        repeats=_pooled_repeats(tasks),
    )


def _pooled_repeats(tasks: Sequence[PairedTask]) -> FloatArray:
    """Returns the further runs of all samples; a task that wasn't asked again counts as one that doesn't move."""
    num_runs = max(task.repeats.shape[0] for task in tasks)
    return np.concatenate(
        [task.repeats if len(task.repeats) else np.tile(task.base, (num_runs, 1)) for task in tasks], axis=1
    )


def _by_task(scores: Iterable[SampleScore], *, side: str) -> dict[str, dict[str, SampleScore]]:
    tasks: dict[str, dict[str, SampleScore]] = {}
    for score in scores:
        samples = tasks.setdefault(score.task, {})
        if score.sample_id in samples:
            raise DataError(f"the {side} scores hold sample {score.sample_id!r} of task {score.task!r} twice; keep one")
        _check(score, side=side)
        first = next(iter(samples.values()), score)
        if (score.unit, score.role) != (first.unit, first.role):
            raise DataError(
                f"the {side} scores of task {score.task!r} mix units or roles: sample {score.sample_id!r} is "
                f"{score.role.value} in {score.unit.value}, but {first.sample_id!r} is {first.role.value} in "
                f"{first.unit.value}"
            )
        samples[score.sample_id] = score
    if not tasks:
        raise DataError(f"there are no {side} scores: compare needs those of both models")
    return tasks


def _check(score: SampleScore, *, side: str) -> None:
    place = f"the {side} score of sample {score.sample_id!r} of task {score.task!r}"
    if not math.isfinite(score.score):
        raise DataError(f"{place} is {score.score}: it must be a finite number")
    if score.unit is Unit.GRADE and not 0.0 <= score.score <= 1.0:
        raise DataError(f"{place} is {score.score}, not in [0, 1]: a cross-entropy needs the unit nats_per_token")
    if not (math.isfinite(score.weight) and score.weight > 0.0):
        raise DataError(f"{place} has weight {score.weight}: it must be above 0")


def _pair_task(
    name: str,
    before: dict[str, SampleScore],
    after: dict[str, SampleScore],
    *,
    again: Sequence[dict[str, SampleScore]],
    problems: list[str],
) -> PairedTask:
    only_base = [key for key in before if key not in after]
    only_tuned = [key for key in after if key not in before]
    common = [key for key in before if key in after]
    mismatches = {key: reason for key in common if (reason := _mismatch(before[key], after[key]))}
    pairs = [(before[key], after[key]) for key in common if key not in mismatches]
    problems += _missing_problems(name, before, after, only_base=only_base, only_tuned=only_tuned)
    for reason in sorted(set(mismatches.values())):
        ids = [key for key, value in mismatches.items() if value == reason]
        problems.append(f"{name}: {_count(ids)} with different {reason} on the two sides, not compared: {_named(ids)}")
    for field in ("role", "cluster", "chance", "prompt"):
        ids = [b.sample_id for b, t in pairs if _differs(b, t, field)]
        if ids:
            problems.append(
                f"{name}: {_count(ids)} with a different {field} on the two sides; the base's holds: {_named(ids)}"
            )
    ids = [b.sample_id for b, t in pairs if _prompts_differ(b, t)]
    if ids:
        problems.append(
            f"{name}: {_count(ids)} with a different prompt on the two sides, compared all the same: {_named(ids)}"
        )
    first = next(iter((before or after).values()))
    lone = [before[key].score for key in only_base] + [1.0 - after[key].score for key in only_tuned]
    return PairedTask(
        name=name,
        role=first.role,
        unit=first.unit,
        base=np.array([b.score for b, _ in pairs], dtype=np.float64),
        tuned=np.array([t.score for _, t in pairs], dtype=np.float64),
        weights=np.array([b.weight for b, _ in pairs], dtype=np.float64),
        clusters=_cluster_codes([b for b, _ in pairs]),
        chance=float(np.mean([b.chance for b, _ in pairs])) if pairs else 0.0,
        num_unpaired=len(lone) + len(mismatches),
        worst_loss=np.array(lone + [1.0] * len(mismatches), dtype=np.float64),
        repeats=_repeats(name, [b for b, _ in pairs], again, problems=problems),
    )


def _differs(base: SampleScore, tuned: SampleScore, field: str) -> bool:
    """Whether a field that a pair may differ in does; of a prompt, where both sides kept its hash."""
    if field == "prompt":
        hashes = [score.details.get("prompt_hash") for score in (base, tuned)]
        return None not in hashes and hashes[0] != hashes[1]
    return bool(getattr(base, field) != getattr(tuned, field))


def _repeats(
    name: str, base: Sequence[SampleScore], again: Sequence[dict[str, SampleScore]], *, problems: list[str]
) -> FloatArray:
    """Returns the scores of further runs, shape (runs, n); none where a run lacks a sample or asked another."""
    nothing = np.empty((0, len(base)))
    if not any(again) or not base:
        return nothing
    for number, run in enumerate(again, start=1):
        ids = [b.sample_id for b in base if b.sample_id not in run or _mismatch(b, run[b.sample_id])]
        if ids:
            problems.append(
                f"{name}: noise run {number} lacks {_count(ids)} that the base has, or asked something else, so the "
                f"task has no noise floor: {_named(ids)}"
            )
            return nothing
    return np.array([[run[b.sample_id].score for b in base] for run in again], dtype=np.float64)


def _unknown_repeats(runs: Sequence[dict[str, dict[str, SampleScore]]], before: dict[str, Any]) -> list[str]:
    names = sorted({name for run in runs for name in run if name not in before})
    return [f"noise runs: the base has no scores on {_named(names)}, which are left out"] if names else []


def _mismatch(base: SampleScore, tuned: SampleScore) -> str:
    """Returns what keeps two scores of one sample id from being a pair, or an empty string."""
    if base.unit is not tuned.unit:
        return "units"
    if base.gold.strip() and tuned.gold.strip() and base.gold.strip() != tuned.gold.strip():
        return "gold answers"
    for name, field in (("documents", "doc_hash"), ("metrics", "metric"), ("filters", "filter")):
        values = [score.details.get(field) for score in (base, tuned)]  # lm-evaluation-harness's samples have them
        if None not in values and values[0] != values[1]:
            return name
    if base.unit is Unit.NATS_PER_TOKEN and base.weight != tuned.weight:
        return "token counts"
    return ""


def _prompts_differ(base: SampleScore, tuned: SampleScore) -> bool:
    """Whether both sides say what was asked, in the same way, and it wasn't the same."""
    prompts = [score.details.get("prompt") for score in (base, tuned)]
    return base.origin == tuned.origin and all(prompts) and prompts[0] != prompts[1]


def _missing_problems(
    name: str,
    before: dict[str, SampleScore],
    after: dict[str, SampleScore],
    *,
    only_base: list[str],
    only_tuned: list[str],
) -> list[str]:
    if not after:
        return [f"{name}: the tuned model has no scores ({_count(only_base)} of the base: {_named(only_base)})"]
    if not before:
        return [f"{name}: the base has no scores ({_count(only_tuned)} of the tuned model: {_named(only_tuned)})"]
    sides = ((only_base, "base", "tuned model"), (only_tuned, "tuned model", "base"))
    return [
        f"{name}: {_count(ids)} scored for the {present} only, missing for the {absent}: {_named(ids)}"
        for ids, present, absent in sides
        if ids
    ]


def _cluster_codes(scores: Sequence[SampleScore]) -> IntArray:
    labels = [
        ("cluster", score.cluster) if score.cluster is not None else ("sample", score.sample_id) for score in scores
    ]
    codes = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    return np.array([codes[label] for label in labels], dtype=np.int64)


def _count(ids: Sequence[str]) -> str:
    return f"{len(ids)} sample" + ("" if len(ids) == 1 else "s")


def _named(ids: Sequence[str]) -> str:
    rest = len(ids) - NUM_NAMED
    return ", ".join(ids[:NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")

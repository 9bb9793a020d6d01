"""Splitting a suite in two: one half to choose by, the other to confirm what was chosen."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from forgetless.errors import ConfigError
from forgetless.tasks.base import Task


def split_in_halves(tasks: Sequence[Task], *, seed: int = 0) -> tuple[list[Task], list[Task]]:
    """Splits each task into two halves by the content of its samples.

    Samples that share a passage stay together. Scores are kept with those of the whole task, so that a half asks
    nothing that is known of the whole.

    Args:
        tasks: What to split; each holds two clusters at least.
        seed: Seed of the draw.

    Returns:
        The selection half and the confirmation half of each task; the latter has the odd one.

    Raises:
        ConfigError: A task can't be split.
    """
    pairs = [_split(task, seed) for task in tasks]
    return [first for first, _ in pairs], [second for _, second in pairs]


def _split(task: Task, seed: int) -> tuple[Task, Task]:
    clusters: defaultdict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(task.samples):
        clusters[_cluster(sample, seed)].append(index)
    if len(clusters) < 2:
        raise ConfigError(f"task {task.name!r} has a single sample: a budget needs two halves, so two at least")
    chosen: set[int] = set()
    for key in sorted(clusters):
        # A cluster goes where it leaves the halves closest in size.
        if abs(2 * (len(chosen) + len(clusters[key])) - len(task.samples)) < abs(2 * len(chosen) - len(task.samples)):
            chosen.update(clusters[key])
    samples = list(enumerate(task.samples))
    halves = (tuple(sample for index, sample in samples if (index in chosen) == wanted) for wanted in (True, False))
    first, second = (Task(task.spec, half, journal=task.journal_fingerprint) for half in halves)
    if not first.samples or not second.samples:
        raise ConfigError(f"task {task.name!r} has one passage for nearly all samples: it can't be split in halves")
    return first, second


def _cluster(sample: Mapping[str, Any], seed: int) -> str:
    """Returns a hash that samples of one passage share; the id is left out, since it may number the samples."""
    cluster = sample.get("cluster")
    content = {"cluster": cluster} if cluster is not None else {k: v for k, v in sample.items() if k != "id"}
    text = json.dumps([seed, content], sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()

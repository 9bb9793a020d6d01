"""Scores from wherever they lie: a score file of ours, a run directory, or what lm-evaluation-harness wrote.

With `--log_samples` lm-evaluation-harness writes `DIR/MODEL/samples_TASK_TIME.jsonl`, and beside it
`results_TIME.json`. A directory holds the output of one model; of several runs the newest of each task counts.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetless.errors import DataError
from forgetless.files import read_objects
from forgetless.harness_samples import Choice, LoggedTask, as_scores
from forgetless.records import SampleScore, read_scores

_SAMPLES = re.compile(r"samples_(?P<task>.+?)_(?P<time>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")


@dataclass(frozen=True)
class Source:
    """Scores that were read, and what is to be said of what lay there and isn't among them."""

    scores: list[SampleScore]
    notes: list[str] = field(default_factory=list)


def read_any_scores(
    path: Path, *, side: str = "tuned", metric: str | None = None, filter_name: str | None = None
) -> list[SampleScore]:
    """Reads scores as `read_source` does, without its notes."""
    return read_source(path, side=side, metric=metric, filter_name=filter_name).scores


def read_source(
    path: Path, *, side: str = "tuned", metric: str | None = None, filter_name: str | None = None
) -> Source:
    """Reads scores from a file or directory.

    Args:
        path: A `*.scores.jsonl` file, a run directory, a directory that lm-evaluation-harness wrote with
            `--log_samples`, or one of its `samples_*.jsonl` files.
        side: Which scores of a run directory: `base` or `tuned`.
        metric: Metric of the harness to compare, or several separated by commas of which the first that a task has
            counts; None = `exact_match`, `acc`, `em`, `f1`, or the first in [0, 1].
        filter_name: Filter of the harness to compare where a task has several; None = its first.

    Returns:
        One score per sample, and notes on files and filters that are not compared.

    Raises:
        DataError: There are no scores, they can't be read, or they are those of several models.
    """
    if path.is_dir() and (path / f"{side}.scores.jsonl").is_file():
        return Source(read_scores(path / f"{side}.scores.jsonl"))
    if path.is_dir():
        files, notes = _newest_samples(path)
        if not files:
            raise DataError(
                f"holds neither {side}.scores.jsonl nor samples_TASK_TIME.jsonl (lm-evaluation-harness writes them "
                "with --log_samples)",
                path=path,
            )
    elif match := _SAMPLES.fullmatch(path.name):
        files, notes = {match["task"]: path}, []
    else:
        return Source(read_scores(path))
    names = tuple(name.strip() for name in (metric or "").split(",") if name.strip())
    return _read_tasks(files, Choice(names, filter_name), notes, path=path)


def _read_tasks(files: Mapping[str, Path], choice: Choice, notes: Sequence[str], *, path: Path) -> Source:
    tasks = [
        LoggedTask(name, list(_read_samples(file)), path=file, is_higher_better=_directions(name, file))
        for name, file in sorted(files.items())
    ]
    if choice.filter_name is not None and not any(choice.filter_name in task.filters for task in tasks):
        known = sorted({name for task in tasks for name in task.filters})
        raise DataError(f"no task has a filter {choice.filter_name!r}; known: {', '.join(known)}", path=path)
    source = Source([], list(notes))
    for task in tasks:
        scores, remarks = as_scores(task, choice)
        source.scores.extend(scores)
        source.notes.extend(remarks)
    return source


def _newest_samples(directory: Path) -> tuple[dict[str, Path], list[str]]:
    """Finds sample files anywhere below a directory.

    Args:
        directory: The directory, with the output of one model.

    Returns:
        The newest sample file of each task, and notes on what else lies there.

    Raises:
        DataError: Sample files of one task lie in several directories: which model is meant?
    """
    found: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    notes = []
    for file in sorted(directory.rglob("samples_*.json*")):
        if match := _SAMPLES.fullmatch(file.name):
            found[match["task"]].append((match["time"], file))
        else:
            notes.append(f"{file.name}: not named samples_TASK_TIME.jsonl, not compared")
    for task, entries in sorted(found.items()):
        if len(places := sorted({str(file.parent) for _, file in entries})) > 1:
            raise DataError(
                f"holds task {task!r} of {len(places)} models or runs ({', '.join(places[:3])}): name one of these "
                "directories",
                path=directory,
            )
        if len(entries) > 1:
            notes.append(f"{task}: the newest of {len(entries)} runs is compared ({max(entries)[1].name})")
    return {task: max(entries)[1] for task, entries in found.items()}, notes


def _read_samples(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, raw in read_objects(file):
        if raw.get("doc_id") is None:
            raise DataError("is not a sample of lm-evaluation-harness: it has no doc_id", path=file, line=number)
        yield number, raw


def _directions(task: str, file: Path) -> dict[str, bool]:
    """Returns whether more is better, by metric, as the results beside a sample file say; nothing where none are."""
    match = _SAMPLES.fullmatch(file.name)
    for results in sorted(file.parent.glob(f"*{match['time']}.json")) if match else []:
        try:
            directions = json.loads(results.read_text(encoding="utf-8"))["higher_is_better"][task]
            return {str(name): bool(value) for name, value in directions.items() if value is not None}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return {}

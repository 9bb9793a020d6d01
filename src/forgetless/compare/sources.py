"""Scores from wherever they lie: a score file of ours, a run directory, or what lm-evaluation-harness wrote.

lm-evaluation-harness writes `samples_TASK_TIME.jsonl` files with `--log_samples`, one line per sample and filter:
`doc_id`, `doc_hash`, `target`, `filter`, `resps`, the names of the per-sample `metrics`, and one value for each.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forgetless.errors import DataError
from forgetless.records import SampleScore, read_scores

# The metric that is compared where the user names none: the first of these that a sample has, else its first in [0, 1].
PREFERRED_METRICS = ("exact_match", "acc", "em", "f1")
_SAMPLES = re.compile(r"samples_(?P<task>.+?)_(?P<time>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")


def read_any_scores(path: Path, *, side: str = "tuned", metric: str | None = None) -> list[SampleScore]:
    """Reads scores from a file or directory.

    Args:
        path: A `*.scores.jsonl` file, a run directory, or a directory that lm-evaluation-harness wrote with
            `--log_samples`.
        side: Which scores of a run directory: `base` or `tuned`.
        metric: Metric of the harness to compare; None = `exact_match`, `acc`, `em`, `f1`, or the first in [0, 1].

    Returns:
        One score per sample.

    Raises:
        DataError: There are no scores, or they can't be read.
    """
    if not path.is_dir():
        return read_scores(path)
    if (path / f"{side}.scores.jsonl").is_file():
        return read_scores(path / f"{side}.scores.jsonl")
    files = _newest_samples(path)
    if not files:
        raise DataError(
            f"holds neither {side}.scores.jsonl nor samples_*.jsonl (lm-evaluation-harness writes them with "
            "--log_samples)",
            path=path,
        )
    return [score for task, file in sorted(files.items()) for score in _read_samples(task, file, metric=metric)]


def _newest_samples(directory: Path) -> dict[str, Path]:
    """Returns the newest sample file of each task, anywhere below the directory."""
    found: dict[str, tuple[str, Path]] = {}
    for file in directory.rglob("samples_*.jsonl"):
        match = _SAMPLES.fullmatch(file.name)
        if match and match["time"] > found.get(match["task"], ("", file))[0]:
            found[match["task"]] = (match["time"], file)
    return {task: file for task, (_, file) in found.items()}


def _read_samples(task: str, file: Path, *, metric: str | None) -> Iterator[SampleScore]:
    chosen: str | None = metric
    first_filter: str | None = None
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as UTF-8 text ({error})", path=file) from None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"is not JSON ({error.msg}); was the writer stopped?", path=file, line=number) from None
        if not isinstance(raw, dict) or "doc_id" not in raw:
            raise DataError("is not a sample of lm-evaluation-harness: it has no doc_id", path=file, line=number)
        first_filter = first_filter or str(raw.get("filter", "none"))
        if str(raw.get("filter", "none")) != first_filter:
            continue  # the same samples once more, read off by another filter
        chosen = chosen or _pick_metric(raw, path=file, line=number)
        yield _as_score(task, raw, chosen, path=file, line=number)


def _pick_metric(raw: Mapping[str, Any], *, path: Path, line: int) -> str:
    names = [str(name) for name in raw.get("metrics") or []]
    graded = [name for name in names if _is_grade(raw.get(name))]
    if not graded:
        raise DataError(
            f"none of its metrics ({', '.join(names) or 'none'}) is a grade in [0, 1]", path=path, line=line
        )
    return next((name for name in PREFERRED_METRICS if name in graded), graded[0])


def _is_grade(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0.0 <= value <= 1.0


def _as_score(task: str, raw: Mapping[str, Any], metric: str, *, path: Path, line: int) -> SampleScore:
    value = raw.get(metric)
    if not _is_grade(value):
        known = ", ".join(str(name) for name in raw.get("metrics") or [])
        raise DataError(
            f"metric {metric!r} is not a grade in [0, 1] but {value!r}; it has {known}", path=path, line=line
        )
    responses = raw.get("resps") or []
    is_choice = len(responses) > 1 and metric.startswith("acc")
    return SampleScore(
        task=task,
        sample_id=str(raw["doc_id"]),
        score=float(value),  # type: ignore[arg-type]
        # The hash of the document stands in for its text: two sides that asked different things must not be paired.
        gold=f"{raw.get('target', '')}".strip() + f" [{raw.get('doc_hash', '')[:12]}]",
        origin="lm_eval",
        chance=1 / len(responses) if is_choice else 0.0,
        details={"metric": metric, "prompt": _prompt(raw)},
    )


def _prompt(raw: Mapping[str, Any]) -> str:
    """Returns the prompt of the first request, for the report."""
    arguments = raw.get("arguments")
    first: Any = next(iter(arguments.values()), {}) if isinstance(arguments, Mapping) else {}
    return str(first.get("arg_0", "")) if isinstance(first, Mapping) else ""

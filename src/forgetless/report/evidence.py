"""What a run directory holds, gathered into one frozen record for the pages."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetless.curve import Curve, read_curve
from forgetless.errors import DataError
from forgetless.files import read_object
from forgetless.records import SCHEMA, Comparison, Role, Row, SampleScore, Unit, read_comparison, read_scores
from forgetless.report.wording import drop_in_margins

OPTIONAL_FILES = ("manifest.json", "mixture.jsonl", "base.scores.jsonl", "tuned.scores.jsonl", "train.jsonl")


@dataclass(frozen=True, slots=True)
class UsedMethod:
    """A method of the run as the manifest tells of it; `paper` is an address, `title` the paper's."""

    name: str
    params: Mapping[str, Any]
    paper: str
    title: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the pages show.

    Attributes:
        name: Name of the run; the directory's where the manifest has none.
        comparison: The verdict and its figures.
        manifest: The parsed manifest.json, empty where there is none.
        base_scores: Samples as the base answered them.
        tuned_scores: Samples as the tuned model answered them.
        training_log: One mapping per logged step, in order of steps; figures that are not finite are left out.
        mixture: Number of training examples by origin.
        has_adapter: Whether model/ holds a PEFT adapter rather than whole weights.
        missing: Names of the optional files that the directory lacks.
        copies: Comparisons of quantised copies, by kind.
        curve: What a run with a budget found between base and tuned; None where there was none.
    """

    name: str
    comparison: Comparison
    manifest: Mapping[str, Any] = field(default_factory=dict)
    base_scores: Sequence[SampleScore] = ()
    tuned_scores: Sequence[SampleScore] = ()
    training_log: Sequence[Mapping[str, Any]] = ()
    mixture: Mapping[str, int] = field(default_factory=dict)
    has_adapter: bool = False
    missing: Sequence[str] = ()
    copies: Mapping[str, Comparison] = field(default_factory=dict)
    curve: Curve | None = None

    def section(self, name: str) -> Mapping[str, Any]:
        """Returns a section of the manifest; empty where it is absent or not a mapping."""
        value = self.manifest.get(name)
        return value if isinstance(value, Mapping) else {}

    @property
    def methods(self) -> list[UsedMethod]:
        """The methods of the run, in the order of the config."""
        value = self.manifest.get("methods")
        return [_method(raw) for raw in value if isinstance(raw, Mapping)] if isinstance(value, list) else []

    @property
    def notes(self) -> list[str]:
        """What making the mixture and training had to tell the user, warnings first; each once."""
        stages = self.section("stages")
        found: dict[str, None] = {}
        for kind in ("warnings", "notes"):
            for name in ("data", "train"):
                stage = stages.get(name)
                told = stage.get(kind) if isinstance(stage, Mapping) else None
                texts = told if isinstance(told, list) else []
                found |= dict.fromkeys(text for text in texts if isinstance(text, str))
        return list(found)

    def rows(self, *, role: Role | None = None, unit: Unit | None = None) -> list[Row]:
        """Returns the rows of the tasks: retention first, and in it the worst delta first (in margins), none last."""
        chosen = [row for row in self.comparison.tasks if role in (None, row.role) and unit in (None, row.unit)]
        return sorted(chosen, key=self._badness)

    def _badness(self, row: Row) -> tuple[bool, bool, float, str]:
        return row.role is Role.TARGET, row.delta is None, -drop_in_margins(row, self.comparison), row.task


def read_evidence(directory: Path) -> Evidence:
    """Reads a run directory; only comparison.json has to be there.

    Args:
        directory: The run directory; nothing in it is changed.

    Returns:
        What the pages show, with the names of the files that are not there.

    Raises:
        DataError: comparison.json is missing, or a file that is there cannot be read.
    """
    comparison = read_comparison(directory / "comparison.json")
    missing = [name for name in OPTIONAL_FILES if not (directory / name).is_file()]
    manifest = {} if "manifest.json" in missing else read_manifest(directory / "manifest.json")
    return Evidence(
        name=str(manifest.get("name") or directory.resolve().name),
        comparison=comparison,
        manifest=manifest,
        base_scores=() if "base.scores.jsonl" in missing else read_scores(directory / "base.scores.jsonl"),
        tuned_scores=() if "tuned.scores.jsonl" in missing else read_scores(directory / "tuned.scores.jsonl"),
        training_log=() if "train.jsonl" in missing else _read_training_log(directory / "train.jsonl"),
        mixture={} if "mixture.jsonl" in missing else _count_origins(directory / "mixture.jsonl"),
        has_adapter=(directory / "model" / "adapter_config.json").is_file(),
        missing=missing,
        copies={
            path.name.split(".")[0]: read_comparison(path)
            for path in sorted((directory / "copies").glob("*.comparison.json"))
        },
        curve=read_curve(directory / "curve.json") if (directory / "curve.json").is_file() else None,
    )


def _method(raw: Mapping[str, Any]) -> UsedMethod:
    params = raw.get("params")
    return UsedMethod(
        name=str(raw.get("name") or "unnamed"),
        params=params if isinstance(params, Mapping) else {},
        paper=str(raw.get("paper") or ""),
        title=str(raw.get("title") or ""),
    )


def read_manifest(path: Path) -> Mapping[str, Any]:
    """Reads a manifest; raises `DataError` where it isn't one."""
    raw = read_object(path)
    if raw.get("schema") != SCHEMA:
        raise DataError(f"schema {raw.get('schema')!r} is not {SCHEMA}", path=path, field="schema")
    return raw


def _read_training_log(path: Path) -> list[Mapping[str, Any]]:
    entries = [_only_finite(entry) for entry in _json_lines(path) if isinstance(entry.get("step"), int)]
    return sorted(entries, key=lambda entry: int(entry["step"]))


def _only_finite(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Drops NaN and infinity, at any depth: a run that diverged logs them, and JSON has no word for them."""
    clean = {}
    for name, value in entry.items():
        if isinstance(value, Mapping):
            clean[name] = _only_finite(value)
        elif not isinstance(value, float) or math.isfinite(value):
            clean[name] = value
    return clean


def _count_origins(path: Path) -> dict[str, int]:
    counts = Counter(str(example.get("origin") or "unknown") for example in _json_lines(path))
    return dict(sorted(counts.items()))


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a JSONL file; a torn last line, as a stopped writer leaves it, is passed over."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", path=path) from None
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                return
            raise DataError(f"is not JSON ({error.msg})", path=path, line=number) from None
        if not isinstance(entry, dict):
            raise DataError("is not a JSON object", path=path, line=number)
        yield entry

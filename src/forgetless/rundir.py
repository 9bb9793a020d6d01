"""A run directory: where the stages of a run meet, with a manifest that says what was done with what."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from forgetless.errors import ConfigError, RunError
from forgetless.files import write_text
from forgetless.records import SCHEMA, Comparison, SampleScore, write_scores

# What a run leaves beside its manifest: `--fresh` removes these and nothing else.
_FILES = (
    *("mixture.jsonl", "base.scores.jsonl", "tuned.scores.jsonl", "train.jsonl", "comparison.json", "curve.json"),
    *("base.checks.scores.jsonl", "tuned.checks.scores.jsonl", "checks.json"),
    *("report.html", "report.md", "junit.xml", "MODEL_CARD.md", "phases.json"),
)
_DIRECTORIES = (
    *("model", "model.part", "trained", "trained.part", "checkpoints", "methods"),
    *("selection", "copies", "phases"),
)
_OPENING = b'{"schema": '  # of every JSON line that forgetless writes


class RunDirectory:
    """The files of one run.

    Args:
        path: The directory; made when the manifest is first written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def manifest_path(self) -> Path:
        return self.path / "manifest.json"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def methods(self) -> Path:
        """Where methods keep what they worked out (a Fisher estimate, generated replay)."""
        return self.path / "methods"

    @property
    def mixture(self) -> Path:
        return self.path / "mixture.jsonl"

    @property
    def comparison(self) -> Path:
        return self.path / "comparison.json"

    def scores(self, side: str) -> Path:
        """Returns the score file of `base` or `tuned`."""
        return self.path / f"{side}.scores.jsonl"

    @property
    def trained(self) -> Path:
        """Where training leaves its model in a run with a budget; `model` is then the point that was chosen."""
        return self.path / "trained"

    @property
    def curve(self) -> Path:
        return self.path / "curve.json"

    def selection(self, name: str) -> Path:
        """Returns the score file of the base or of a point on the selection half."""
        return self.path / "selection" / f"{name.replace(' ', '-')}.scores.jsonl"

    def copy(self, kind: str, name: str) -> Path:
        """Returns a file (`scores.jsonl`, `comparison.json`) of a quantised copy."""
        return self.path / "copies" / f"{kind}.{name}"

    def noise(self, number: int) -> Path:
        """Returns the score file of a further run of the base, counted from 1."""
        return self.path / f"base.noise-{number}.scores.jsonl"

    def read(self) -> dict[str, Any]:
        """Reads the manifest.

        Returns:
            Its entries by name; empty when there is no manifest.

        Raises:
            ConfigError: It is damaged.
        """
        try:
            raw = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(f"{self.path} cannot hold a run ({error.strerror}): choose another --out") from None
        except (ValueError, RecursionError):
            raw = None
        if not isinstance(raw, dict) or not isinstance(raw.get("stages", {}), dict):
            raise ConfigError(f"{self.manifest_path} is damaged: choose another --out, or remove the directory")
        return raw

    def update(self, values: Mapping[str, Any]) -> None:
        """Sets top-level entries of the manifest, whole or not at all.

        Args:
            values: Entries by name, each replaced as a whole; all others stay.

        Raises:
            ConfigError: The manifest that is there is damaged.
            RunError: It can't be written.
        """
        self._write({**self.read(), **values})

    def _write(self, entries: Mapping[str, Any]) -> None:
        text = json.dumps({**entries, "schema": SCHEMA}, indent=2, ensure_ascii=False, default=str) + "\n"
        try:
            write_text(self.manifest_path, text)
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written ({error.strerror}): free some space or choose --out"
            ) from error

    def start(self, entries: Mapping[str, Any], *, identity: str, fresh: bool = False) -> bool:
        """Begins a run, or takes up one of the same identity where it stopped.

        Args:
            entries: What the manifest says of the run.
            identity: Fingerprint of the config and the data.
            fresh: Replace an earlier run; files that are not a run's stay.

        Returns:
            Whether finished stages of an earlier start are kept.

        Raises:
            ConfigError: The directory holds another run, or files that are not a run's.
        """
        known = self.read()
        if "identity" not in known and self.path.is_dir() and any(self.path.iterdir()):
            raise ConfigError(f"{self.path} is not empty and not a run: choose another --out")
        if known and fresh:
            self._clear()
            known = {}
        if known and known["identity"] != identity:
            raise ConfigError(
                f"{self.path} holds a run with another config or data: choose another --out, or --fresh to replace it"
            )
        created = known.get("created") or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._write({**known, **entries, "identity": identity, "created": created, "stages": known.get("stages", {})})
        return bool(known)

    def _clear(self) -> None:
        try:
            for name in _FILES:
                (self.path / name).unlink(missing_ok=True)
            for path in noise_files(self.path):
                path.unlink()
            for name in _DIRECTORIES:
                if (self.path / name).is_dir():
                    shutil.rmtree(self.path / name)
        except OSError as error:
            raise RunError(f"{self.path} cannot be cleared ({error.strerror}): choose another --out") from error

    def is_done(self, stage: str, product: Path) -> bool:
        """Whether a stage has finished and what it made is still there."""
        return product.exists() and bool(self.read().get("stages", {}).get(stage, {}).get("state") == "done")

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Records a stage's state and time; what is put into the yielded mapping stands in the manifest too."""
        facts: dict[str, Any] = {}
        started = time.perf_counter()
        self._set_stage(name, {"state": "running"})
        try:
            yield facts
        except BaseException:
            self._set_stage(name, {**facts, "state": "failed", "seconds": round(time.perf_counter() - started, 1)})
            raise
        self._set_stage(name, {**facts, "state": "done", "seconds": round(time.perf_counter() - started, 1)})

    def _set_stage(self, name: str, facts: Mapping[str, Any]) -> None:
        self.update({"stages": {**self.read().get("stages", {}), name: dict(facts)}})


def noise_files(directory: Path) -> list[Path]:
    """Returns the score files of further runs of the base, in order."""
    found = [path for path in directory.glob("base.noise-*.scores.jsonl") if path.name.split(".")[1][6:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name.split(".")[1][6:]))


def refuse_foreign_file(path: Path) -> None:
    """Raises unless a file can be written at `path` without losing one that forgetless didn't write.

    Args:
        path: Where JSON lines are to be written; the directory above it is made.

    Raises:
        ConfigError: Something else lies there, or nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise ConfigError(f"--out {path} is not a file: name one")
        opening = path.read_bytes()[: len(_OPENING)] if path.exists() else b""
    except OSError as error:
        raise ConfigError(f"--out {path} cannot be written ({error.strerror}): choose another") from None
    if opening not in (b"", _OPENING):
        raise ConfigError(f"--out {path} holds something that forgetless didn't write: choose another, or remove it")


def version() -> str:
    """Returns forgetless's version."""
    try:
        return metadata.version("forgetless")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def library_versions() -> dict[str, str]:
    """Returns the versions that a result may depend on."""
    names = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "scipy")
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def keep_scores(path: Path, scores: Iterable[SampleScore]) -> None:
    """Writes scores, whole or not at all.

    Args:
        path: The file to write or to replace; directories that lack above it are made.
        scores: What it is to hold.

    Raises:
        RunError: It can't be written.
    """
    try:
        write_scores(path, scores)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): free some space or choose --out") from error


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Writes `comparison.json`, whole or not at all.

    Args:
        path: The file to write or to replace; directories that lack above it are made.
        comparison: What it is to hold.

    Raises:
        RunError: It can't be written.
    """
    try:
        write_text(path, comparison.to_json())
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): free some space or choose --out") from error

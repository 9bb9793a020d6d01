"""A run directory: where the stages of a run meet, with a manifest that says what was done with what."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from forgetless.errors import ConfigError, RunError
from forgetless.records import SCHEMA


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
    def mixture(self) -> Path:
        return self.path / "mixture.jsonl"

    @property
    def comparison(self) -> Path:
        return self.path / "comparison.json"

    def scores(self, side: str) -> Path:
        """Returns the score file of `base` or `tuned`."""
        return self.path / f"{side}.scores.jsonl"

    def read(self) -> dict[str, Any]:
        """Returns the manifest, empty when there is none.

        Raises:
            ConfigError: It is damaged.
        """
        try:
            raw = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (json.JSONDecodeError, UnicodeDecodeError):
            raw = None
        if not isinstance(raw, dict):
            raise ConfigError(f"{self.manifest_path} is damaged: remove it, or choose another --out")
        return raw

    def update(self, values: Mapping[str, Any]) -> None:
        """Sets top-level entries of the manifest, whole or not at all.

        Raises:
            RunError: It can't be written.
        """
        text = json.dumps({**self.read(), **values, "schema": SCHEMA}, indent=2, ensure_ascii=False, default=str) + "\n"
        part = self.manifest_path.with_suffix(".json.part")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
            part.replace(self.manifest_path)
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written ({error.strerror}): free some space or choose --out"
            ) from error

    def start(self, entries: Mapping[str, Any], *, identity: str) -> bool:
        """Begins a run, or takes up one of the same identity where it stopped.

        Args:
            entries: What the manifest says of the run.
            identity: Fingerprint of the config and the data.

        Returns:
            Whether finished stages of an earlier start are kept.

        Raises:
            ConfigError: The directory holds another run, or files that are not a run's.
        """
        known = self.read()
        if known and known.get("identity") != identity:
            raise ConfigError(
                f"{self.path} holds a run with another config or data: choose another --out, or --fresh to replace it"
            )
        if not known and self.path.is_dir() and any(self.path.iterdir()):
            raise ConfigError(f"{self.path} is not empty and not a run: choose another --out")
        created = known.get("created") or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.update({**entries, "identity": identity, "created": created, "stages": known.get("stages", {})})
        return bool(known)

    def is_done(self, stage: str) -> bool:
        """Whether a stage has finished."""
        return bool(self.read().get("stages", {}).get(stage, {}).get("state") == "done")

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

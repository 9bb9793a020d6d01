"""What benchmarks that take hours share: runs made elsewhere, or on another day, stay in the file of results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from forgetless.embedded import EMBEDDED_ALIAS


def keep_runs(path: Path, runs: Iterable[dict[str, Any]], *, key: Sequence[str]) -> None:
    """Writes runs to a file of results; those that it holds and that have no newer one of the same key stay."""
    old = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    known = {json.dumps([run[name] for name in key]): run for run in (*old, *runs)}
    found = {"schema": 1, "model": EMBEDDED_ALIAS, "runs": [known[at] for at in sorted(known)]}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

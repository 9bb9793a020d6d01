"""Run directories for the golden tests; what they hold is in golden_run.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# With --import-mode=importlib, test modules share code only through the path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """The failed run, all files there."""
    from golden_run import failed_comparison, write_run

    return write_run(tmp_path / "drug-qa-lora", failed_comparison())


@pytest.fixture
def bare_directory(tmp_path: Path) -> Path:
    """What `forgetless compare --out` leaves: comparison.json alone."""
    from golden_run import failed_comparison

    directory = tmp_path / "compared"
    directory.mkdir()
    (directory / "comparison.json").write_text(failed_comparison().to_json(), encoding="utf-8")
    return directory

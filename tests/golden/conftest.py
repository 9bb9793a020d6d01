"""Run directories for the golden tests; what they hold is in golden_run.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from golden.golden_run import failed_comparison, write_run


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """The failed run, all files there."""
    return write_run(tmp_path / "drug-qa-lora", failed_comparison())


@pytest.fixture
def bare_directory(tmp_path: Path) -> Path:
    """What `forgetless compare --out` leaves: comparison.json alone."""
    directory = tmp_path / "compared"
    directory.mkdir()
    (directory / "comparison.json").write_text(failed_comparison().to_json(), encoding="utf-8")
    return directory

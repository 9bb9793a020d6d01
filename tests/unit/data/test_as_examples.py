"""Data that a caller in Python names: a file, examples, or rows."""

from __future__ import annotations

from pathlib import Path

from forgetless.data.sources import as_examples, write_examples
from training import GENERAL


def test_a_file_examples_and_rows_become_examples(tmp_path: Path) -> None:
    write_examples(tmp_path / "general.jsonl", GENERAL)
    assert as_examples(tmp_path / "general.jsonl", origin="general") == GENERAL
    assert as_examples(GENERAL, origin="domain") == GENERAL
    rows = [{"text": example.text} for example in GENERAL]
    assert as_examples(rows, origin="general") == GENERAL
    assert as_examples([], origin="general") == []

"""phases.json: what was written is what is read, and what it isn't is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forgetless.errors import DataError
from forgetless.phase_records import read_phases
from phase_scores import LOST, record


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    written = record(LOST)
    (tmp_path / "phases.json").write_text(written.to_json())
    assert read_phases(tmp_path / "phases.json") == written
    assert json.loads(written.to_json())["schema"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"schema": 2}', "is not a record of phases of schema 1"),
        ('{"schema": 1}', "that this version reads"),
        (
            '{"schema": 1, "verdict": "PASS", "margin": 1, "alpha": 1, "reasons": [], "phases": [3]}',
            "this version reads",
        ),
    ],
)
def test_what_is_no_record_is_named(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "phases.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_phases(path)

"""Edits change what they mean to and nothing else, and nothing foreign is replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from forgetless.advising.edits import apply_edits, safe_path, write_safe
from forgetless.advising.findings import Edit
from forgetless.errors import ConfigError, RunError

YAML = """\
# head: a comment with a colon
model: tiny
methods:  # order: matters
  # keep this
  - lora
  - replay: {share: 0.1}   # tail
training: {epochs: 10, rate: 5.0e-5,}
nested:
  deep:
    value: "old"  # why
empty:
listed: [a, b]
none: []
"""


def edited(tmp_path: Path, *edits: Edit, text: str = YAML, name: str = "c.yaml") -> str:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return apply_edits(path, edits)


def differing(new: str, old: str = YAML) -> list[str]:
    return [line for line in new.splitlines() if line not in old.splitlines()]


@pytest.mark.parametrize(
    ("edit", "lines"),
    [
        (Edit(("training", "epochs"), 10, 3), ["training: {epochs: 3, rate: 5.0e-5,}"]),
        (Edit(("training", "rate"), 5e-5, 1e-5), ["training: {epochs: 10, rate: 1.0e-05,}"]),
        (Edit(("training", "warmup"), None, 0.05), ["training: {epochs: 10, rate: 5.0e-5, warmup: 0.05,}"]),
        (Edit(("nested", "deep", "value"), "old", "new"), ["    value: new  # why"]),
        (Edit(("nested", "deep", "other"), None, True), ["    other: true"]),
        (Edit(("nested", "more", "value"), None, 1), ["  more: {value: 1}"]),
        (Edit(("top",), None, "x"), ["top: x"]),
        (Edit(("empty",), None, 2), ["empty: 2"]),
        (Edit(("empty", "key"), None, 2), ["empty: {key: 2}"]),
        (Edit(("empty",), None, "c", is_entry=True), ["empty: [c]"]),
        (Edit(("listed",), None, "c", is_entry=True), ["listed: [a, b, c]"]),
        (Edit(("none",), None, {"replay": {"share": 0.1}}, is_entry=True), ["none: [{replay: {share: 0.1}}]"]),
        (Edit(("methods",), None, {"kl": {}}, is_entry=True), ["  - {kl: {}}"]),
        (Edit(("methods", 0, "lora", "alpha"), None, 8), ["  - {lora: {alpha: 8}}"]),
        (Edit(("methods", 1, "replay", "share"), 0.1, 0.3), ["  - replay: {share: 0.3}   # tail"]),
        (Edit(("methods",), None, ["lora"]), ["methods: [lora]  # order: matters", "# tail"]),
        (Edit(("fresh", "list"), None, 1, is_entry=True), ["fresh: {list: [1]}"]),
    ],
)
def test_one_edit_of_a_yaml_changes_one_line(tmp_path: Path, edit: Edit, lines: list[str]) -> None:
    new = edited(tmp_path, edit)
    assert differing(new) == lines
    held: Any = yaml.safe_load(new)
    for part in edit.place:
        held = held[part]
    assert held == edit.new or (edit.is_entry and held[-1] == edit.new)
    for comment in ("# head: a comment with a colon", "# keep this", "# why"):
        assert comment in new


def test_several_edits_and_the_first_of_a_key_counts(tmp_path: Path) -> None:
    new = edited(tmp_path, Edit(("model",), "tiny", "a"), Edit(("model",), "tiny", "b"), Edit(("top",), None, 1))
    assert differing(new) == ["model: a", "top: 1"]


def test_a_file_without_a_line_break_at_its_end(tmp_path: Path) -> None:
    assert edited(tmp_path, Edit(("b",), None, 2), text="a: 1") == "a: 1\nb: 2"
    assert edited(tmp_path, Edit(("b",), None, 2), text="{a: 1  # x\n}") == "{a: 1, b: 2  # x\n}"
    assert edited(tmp_path, Edit(("b",), None, 2), text="{}") == '{"b": 2}'


@pytest.mark.parametrize(
    "edit",
    [
        Edit(("model", "key"), None, 1),
        Edit(("listed", 7), None, 1),
        Edit(("model",), None, 1, is_entry=True),
    ],
)
def test_what_has_no_place_is_refused(tmp_path: Path, edit: Edit) -> None:
    with pytest.raises(ConfigError, match="in yourself"):
        edited(tmp_path, edit)


def test_json_keeps_its_order_and_its_indentation(tmp_path: Path) -> None:
    text = json.dumps({"b": 1, "a": {"c": [1]}, "gone": True}, indent=4) + "\n"
    edits = [
        Edit(("a", "c"), None, 2, is_entry=True),
        Edit(("a", "d", "e"), None, "\u00fc"),
        Edit(("gone",), True, None),
        Edit(("b",), 1, 1e-5),
        Edit(("a", "c", 0), 1, 9),
    ]
    new = edited(tmp_path, *edits, text=text, name="c.json")
    assert list(json.loads(new).items()) == [("b", 1e-5), ("a", {"c": [9, 2], "d": {"e": "\u00fc"}})]
    assert '\n    "b"' in new
    assert new.endswith("}\n")
    assert edited(tmp_path, Edit(("b",), 1, 2), text='{"b": 1}', name="d.json") == '{"b": 2}'


def test_the_safer_config_lies_beside_the_old_one_and_shows_what_changed(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(YAML, encoding="utf-8")
    target, diff = write_safe(path, [Edit(("model",), "tiny", "other")])
    assert target == safe_path(path) == tmp_path / "c.safe.yaml"
    assert target.read_text(encoding="utf-8").startswith("# Written by forgetless advise --fix from c.yaml")
    assert {"-model: tiny", "+model: other"} <= set(diff.splitlines())
    assert path.read_text(encoding="utf-8") == YAML
    # Its own it replaces.
    again, _ = write_safe(path, [Edit(("model",), "tiny", "third")])
    assert "model: third" in again.read_text(encoding="utf-8")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c.safe.yaml", "c.yaml"]


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: 1\r\nb: 2\r\n")
    target, _ = write_safe(path, [Edit(("a",), 1, 3), Edit(("c",), None, 4)])
    assert target.read_bytes().split(b"\r\n")[1:] == [b"a: 3", b"b: 2", b"c: 4", b""]
    assert write_safe(path, [Edit(("a",), 1, 3), Edit(("c",), None, 4)])[0] == target


def test_an_anchor_and_a_merge_key_survive(tmp_path: Path) -> None:
    text = "base: &x {rate: 1.0, epochs: 9}\ntraining:\n  <<: *x\n  warmup: 0\n"
    new = edited(tmp_path, Edit(("base", "rate"), 1.0, 0.1), Edit(("training", "epochs"), 9, 3), text=text)
    assert yaml.safe_load(new)["training"] == {"rate": 0.1, "epochs": 3, "warmup": 0}


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_nothing_foreign_is_replaced(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('{"model": "tiny"}', encoding="utf-8")
    foreign = safe_path(path)
    foreign.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="is there already"):
        write_safe(path, [Edit(("model",), "tiny", "other")])
    assert foreign.read_text(encoding="utf-8") == "mine"
    foreign.unlink()
    foreign.mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        write_safe(path, [Edit(("model",), "tiny", "other")])


def test_a_json_that_was_written_before_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"model": "tiny"}', encoding="utf-8")
    edits = [Edit(("model",), "tiny", "other")]
    assert write_safe(path, edits) == write_safe(path, edits)


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(YAML, encoding="utf-8")

    monkeypatch.setattr(Path, "write_text", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(RunError, match="No space left"):
        write_safe(path, [Edit(("model",), "tiny", "other")])

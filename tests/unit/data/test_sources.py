"""Reading in part, writing back, and the size of file that has to be bearable."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from forgetless.data.sources import (
    Example,
    Message,
    examples_from_rows,
    fingerprint_examples,
    read_examples,
    write_examples,
)
from forgetless.errors import ConfigError, DataError


@pytest.fixture
def hundred(tmp_path: Path) -> Path:
    path = tmp_path / "d.jsonl"
    path.write_text("".join(f'{{"text": "t{i}"}}\n' for i in range(100)))
    return path


def texts(examples: Sequence[Example]) -> list[str | None]:
    return [example.text for example in examples]


def test_limit_takes_the_first_and_reads_no_further(hundred: Path) -> None:
    hundred.write_text(hundred.read_text() + "damaged\n")
    assert texts(read_examples(hundred, limit=3)) == ["t0", "t1", "t2"]


def test_seed_shuffles_before_the_limit(hundred: Path) -> None:
    drawn = texts(read_examples(hundred, limit=10, seed=0))
    assert drawn == texts(read_examples(hundred, limit=10, seed=0))
    assert drawn != texts(read_examples(hundred, limit=10, seed=1))
    assert len(set(drawn)) == 10
    assert not set(drawn) <= {f"t{i}" for i in range(10)}
    assert drawn == texts(read_examples(hundred, seed=0))[:10]


def test_a_limit_beyond_the_file_takes_all_and_one_below_1_is_refused(hundred: Path) -> None:
    assert len(read_examples(hundred, limit=1000)) == len(read_examples(hundred, limit=1000, seed=0)) == 100
    with pytest.raises(ConfigError, match="limit 0 is below 1"):
        read_examples(hundred, limit=0)


def test_home_is_expanded(hundred: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(hundred.parent))
    assert len(read_examples("~/d.jsonl", origin="general")) == 100


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    chat = (Message("user", "Q\u2028"), Message("assistant", "é"))
    examples = [
        Example(chat, origin="self", metadata={"topic": "a", "n": [1, {"m": 2.5}]}),
        Example(text="plain", origin="general"),
        Example((*chat, Message("tool", ""), Message("assistant", "A")), supervised_from=2),
    ]
    path = tmp_path / "new" / "mixture.jsonl"
    write_examples(path, examples)
    back = read_examples(path, origin="ignored")
    assert back == examples
    assert fingerprint_examples(back) == fingerprint_examples(examples)
    assert [p.name for p in path.parent.iterdir()] == ["mixture.jsonl"]


def test_lines_carry_schema_and_origin(tmp_path: Path) -> None:
    write_examples(tmp_path / "m.jsonl", [Example(text="a", origin="general")])
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"schema": 1, "origin": "general", "text": "a"}


def test_metadata_that_json_lacks_is_written_as_text_or_null(tmp_path: Path) -> None:
    metadata = {"day": datetime.date(2026, 1, 2), "nan": float("nan"), "ok": True, "parts": (1, float("inf"))}
    write_examples(tmp_path / "m.jsonl", [Example(text="a", metadata=metadata)])
    [back] = read_examples(tmp_path / "m.jsonl")
    assert back.metadata == {"day": "2026-01-02", "nan": None, "ok": True, "parts": [1, None]}


def test_a_mixture_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"schema": 2, "origin": "domain", "text": "a"}\n')
    with pytest.raises(DataError, match="field 'schema': 2 is not 1: written by another version"):
        read_examples(path)


def test_a_failing_writer_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_examples(path, [Example(text="old")])

    def failing() -> Iterator[Example]:
        yield Example(text="new")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_examples(path, failing())
    assert texts(read_examples(path)) == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_who_reads_the_old_file_while_it_is_replaced_reads_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_examples(path, [Example(text="old")])
    with path.open() as reader:
        write_examples(path, [Example(text="new")])
        assert json.loads(reader.read())["text"] == "old"


def test_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_examples(tmp_path / "file" / "m.jsonl", [Example(text="a")])
    with pytest.raises(DataError, match="cannot be written"):
        write_examples(tmp_path, [Example(text="a")])


def test_rows_in_memory_are_not_changed() -> None:
    row = {"question": "Q", "answer": "A", "id": 1}
    [example] = examples_from_rows([row], origin="general")
    assert row == {"question": "Q", "answer": "A", "id": 1}
    assert (example.origin, example.metadata) == ("general", {"id": 1})

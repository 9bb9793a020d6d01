"""Samples from CSV, Parquet and hub data sets: what is read as what, and what is refused in one sentence."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from forgetless.errors import ConfigError, DataError
from forgetless.tasks.base import Task, load_task

Loader = Callable[..., Task]
ARC = {"text": ["ice", "steam", "fog"], "label": ["A", "B", "C"]}


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    """Writes a file of samples and loads the task over it: `load("a.csv", "question,answer", kind="generate")`."""

    def make(name: str, *lines: str, columns: Any = None, labels: Any = None, **settings: Any) -> Task:
        if lines:
            (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        source = {"file": name} | ({"columns": columns} if columns else {}) | ({"labels": labels} if labels else {})
        spec = {"task": "mine", "version": 1, "kind": "choice", "data": source} | settings
        (tmp_path / "mine.yaml").write_text(json.dumps(spec))
        return load_task(tmp_path / "mine.yaml")

    return make


def test_what_looks_like_a_number_in_csv_stays_text(load: Loader) -> None:
    made = load("a.csv", "question,answer,cluster", "Who is he?,007,1e3", "And she?,nan,", kind="generate",
                scorer="exact")  # fmt: skip
    assert made.samples[0] == {"id": "mine-0001", "question": "Who is he?", "answer": "007", "cluster": "1e3"}
    assert made.samples[1] == {"id": "mine-0002", "question": "And she?", "answer": "nan"}  # an empty cell is no value


def test_lists_and_checks_in_csv(load: Loader) -> None:
    made = load(
        "a.csv",
        "question,answers,checks",
        "Why?,so | thus,",
        'How?,"[""so, then"", 1]",',
        'What?,,"[{""scorer"": ""word_count"", ""max"": 3}]"',
        kind="generate",
        scorer="contains",
    )
    assert [sample.get("answers") for sample in made.samples] == [["so", "thus"], ["so, then", 1], None]
    assert made.samples[2]["checks"] == [{"scorer": "word_count", "max": 3}]


def test_tabs_and_parquet_and_saved_data_sets_are_read_too(load: Loader, tmp_path: Path) -> None:
    import datasets

    wanted = load("a.tsv", "question\tchoices\tanswer", "Pick\tice|fog\tB").samples
    assert wanted == ({"id": "mine-0001", "question": "Pick", "choices": ["ice", "fog"], "answer": 1},)
    table = pa.table({"question": ["Pick"], "choices": [["ice", "fog"]], "answer": [1]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert load("a.parquet").samples == wanted
    datasets.Dataset(table).save_to_disk(tmp_path / "saved")
    assert load("saved").samples == wanted


@pytest.mark.parametrize(
    ("answer", "choices", "index"),
    [
        ("A", "ice|steam|fog", 0),
        ("c", "ice|steam|fog", 2),
        ("1", "ice|steam|fog", 0),  # in text, counting starts at one
        ("3", "ice|steam|fog", 2),
        ("steam", "ice|steam|fog", 1),
        ("2", "1|2|3", 1),  # the choice, and the number of it
        ("B", "A|B", 1),
        ("7", "5|7", 1),
    ],
)
def test_answers_in_text(load: Loader, answer: str, choices: str, index: int) -> None:
    assert load("a.csv", "question,choices,answer", f"Pick,{choices},{answer}").samples[0]["answer"] == index


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ("Pick,ice|fog,0", {}, "'0' is none of the 2 choices, nor a letter from A or a number from 1: `labels` say"),
        ("Pick,ice|fog,C", {}, "'C' is none of the 2 choices"),
        ("Pick,ice|fog,\u00b2", {}, "is none of the 2 choices"),
        ("Pick,2|4,2", {}, "'2' may mean two choices"),
        ("Pick,B|A,A", {}, "'A' may mean two choices"),
        ("Pick,ice,A", {}, "field 'choices': needs at least two different choices"),
        ("Pick,ice||fog,A", {}, "one choice is empty"),
        ("Pick,[ice,A", {}, "field 'choices': '.ice' is not JSON"),
        ("Pick,,A", {}, "field 'choices': is missing"),
        ("Pick,ice|fog,", {}, "field 'answer': is missing"),
        ("Pick,ice|fog,x", {"labels": ["x", "y", "z"]}, "does not label 2 choices"),
        ("Pick,ice|fog,z", {"labels": ["a", "b"]}, "'x' is not one of the labels a, b"),
        ("Pick,ice|fog,x", {"columns": {"answer": "key"}}, "there is no 'key' of 'key', only id|only question"),
        ("Pick,ice|fog,A", {"columns": {"answer": "choices.text"}}, "there is no 'text' of 'choices.text', in 'ice"),
        (",ice|fog,A", {}, "there is no field 'question'"),
        ("Pick,ice|fog", {}, "has 2 cells, the header has 3"),
    ],
)
def test_rows_that_are_no_samples_are_named(load: Loader, row: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load("a.csv", "question,choices,answer", "Pick,ice|fog,x" if settings.get("labels") else "Pick,ice|fog,A", row,
             **settings)  # fmt: skip
    assert f"a.csv, line {2 if settings else 3}" in str(caught.value)


def test_the_labels_of_a_task_say_what_its_answers_mean(load: Loader) -> None:
    made = load("a.csv", "question,choices,answer", "Pick,ice|fog,0", "Pick,fog|ice,1", labels=["0", "1"])
    assert [sample["answer"] for sample in made.samples] == [0, 1]


def test_columns_are_renamed_drawn_together_and_dropped(load: Loader) -> None:
    row = {"id": 5, "stem": {"q": "Pick"}, "one": "ice", "two": "fog", "key": 1, "refs": ["a", "b"], "none": None}
    columns = {"question": "stem.q", "choices": ["one", "two"], "answer": "key", "id": None, "first": "refs.0"}
    sample = load("a.jsonl", json.dumps(row), columns=columns).samples[0]
    assert (sample["id"], sample["question"], sample["choices"], sample["answer"], sample["first"]) == (
        "mine-0001", "Pick", ["ice", "fog"], 1, "a",
    )  # fmt: skip
    assert "none" not in sample
    with pytest.raises(DataError, match=r"there is no '2' of 'refs\.2', in \['a', 'b'\]"):
        load("a.jsonl", json.dumps(row), columns={"first": "refs.2"})


def test_a_column_with_a_dot_in_its_name_is_found(load: Loader) -> None:
    row = {"question": "Pick", "choices.text": ["ice", "fog"], "answer": "A"}
    assert load("a.jsonl", json.dumps(row), columns={"choices": "choices.text"}).samples[0]["choices"] == ["ice", "fog"]


def test_values_that_are_not_json(load: Loader, tmp_path: Path) -> None:
    table = pa.table(
        {
            "question": ["Pick"],
            "choices": [["ice", "fog"]],
            "answer": [0],
            "day": [datetime.date(2024, 5, 6)],
            "raw": [b"\x00"],
            "deep": [{"raw": b"\x00", "n": 1}],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    sample = load("a.parquet").samples[0]
    assert (sample["day"], sample["deep"]) == ("2024-05-06", {"raw": None, "n": 1})
    assert "raw" not in sample


# Data sets of the hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """A hub with one data set, someone/some, read by the library itself from a directory: `hub(split="test")`."""
    import datasets

    directory = tmp_path / "hub" / "easy"
    directory.mkdir(parents=True)
    rows = [{"id": f"Q{n}", "question": f"What is {n}?", "choices": ARC, "answerKey": "ABC"[n % 3]} for n in range(6)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), directory / "test.parquet")
    genuine = datasets.load_dataset

    def load_dataset(path: str, **options: Any) -> Any:
        if path != "someone/some":
            return genuine(path, **options)
        assert options.pop("revision") in (None, "abc")
        return genuine(str(directory), cache_dir=str(tmp_path / "cache"), **options)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    def make(**data: Any) -> Task:
        source = {"hub": "someone/some"} | data
        (tmp_path / "mine.yaml").write_text(
            json.dumps({"task": "mine", "version": 1, "kind": "choice", "data": source})
        )
        return load_task(tmp_path / "mine.yaml")

    return make


COLUMNS = {"choices": "choices.text", "answer": "answerKey"}


def test_a_hub_data_set_becomes_samples(hub: Loader) -> None:
    import datasets

    made = hub(columns=COLUMNS, revision="abc")
    assert made.samples[4]["choices"] == ["ice", "steam", "fog"]
    assert [(sample["id"], sample["answer"]) for sample in made.samples[:4]] == [
        ("Q0", 0), ("Q1", 1), ("Q2", 2), ("Q3", 0),
    ]  # fmt: skip
    assert hub(columns=COLUMNS | {"labels": "choices.label"}).samples[4]["answer"] == 1
    assert not datasets.are_progress_bars_disabled()


def test_the_key_of_a_hub_task_covers_the_rows_that_were_read(hub: Loader) -> None:
    whole, part = hub(columns=COLUMNS), hub(columns=COLUMNS, split="test[:5]")
    assert (len(whole.samples), len(part.samples)) == (6, 5)
    assert whole.fingerprint != part.fingerprint
    assert whole.fingerprint == hub(columns=COLUMNS, revision="abc").fingerprint  # the same rows, wherever they lie


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"split": "nope"}, 'cannot be loaded: Unknown split "nope"'),
        ({"config": "hard"}, "BuilderConfig 'hard' not found"),
        (
            {"columns": {"choices": "choices.texts"}},
            r"test, line 1: columns: there is no 'texts' of .* only text, label",
        ),
        ({}, "field 'answer': is missing"),
        ({"hub": "no/such"}, "HF_HUB_OFFLINE is set: unset it"),
    ],
)
def test_a_hub_data_set_that_cannot_be_used_is_named(hub: Loader, data: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        hub(**data)
    assert str(caught.value).startswith(f"hub data set {data.get('hub', 'someone/some')}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("no route"), r"cannot be reached \(no route\): check the net"),
        (type("DatasetNotFoundError", (FileNotFoundError,), {})("gone"), "is not on the hub, or needs a login"),
        (KeyError(), "cannot be loaded: KeyError"),
    ],
)
def test_what_went_wrong_at_the_hub(
    hub: Loader, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    import datasets

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=message):
        hub()


def test_a_directory_is_no_hub_data_set(hub: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone" / "some").mkdir(parents=True)
    with pytest.raises(DataError, match="is a directory here too"):
        hub()


def test_pictures_are_left_out(hub: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    made = datasets.Dataset.from_list(
        [{"question": "Pick", "choices": ["ice", "fog"], "answer": 1, "picture": None}],
        features=datasets.Features(
            {
                "question": datasets.Value("string"),
                "choices": datasets.List(datasets.Value("string")),
                "answer": datasets.Value("int64"),
                "picture": datasets.Image(),
            }
        ),
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: made)
    assert hub().samples == ({"id": "mine-0001", "question": "Pick", "choices": ["ice", "fog"], "answer": 1},)


def test_a_setting_of_a_hub_data_set_is_checked_first(hub: Loader) -> None:
    with pytest.raises(ConfigError, match=r"data\.columns\.answer"):
        hub(columns={"answer": 5})


def test_a_hub_data_set_without_rows_is_refused(hub: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    empty = datasets.Dataset.from_dict({"question": [], "choices": [], "answer": []})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: empty)
    with pytest.raises(DataError, match="hub data set someone/some, test: holds no samples"):
        hub()

"""Tasks and suites: what is read, and what is refused before a model is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forgetless.errors import ConfigError, DataError
from forgetless.records import Role
from forgetless.tasks.base import Task, fingerprint_suite, list_suites, list_tasks, load_suite, load_task

TaskWriter = Callable[..., Path]
FREE = {"id": "a", "question": "Why?", "answers": ["so"]}
TURNS = [{"role": "user", "content": "Why?"}]


@pytest.fixture
def write(tmp_path: Path) -> TaskWriter:
    """Writes a task: `write({"kind": "choice"}, sample, sample)`; settings of None are left out."""

    def make(settings: dict[str, Any] | str | bytes | None = None, *samples: Any, name: str = "mine") -> Path:
        path = tmp_path / f"{name}.yaml"
        defaults = {"task": name, "version": 1, "kind": "generate", "scorer": "contains", "data": f"{name}.jsonl"}
        if isinstance(settings, str | bytes):
            path.write_bytes(settings if isinstance(settings, bytes) else settings.encode())
        else:
            merged = {key: value for key, value in (defaults | (settings or {})).items() if value is not None}
            path.write_text(json.dumps(merged))  # JSON is YAML
        lines = [sample if isinstance(sample, str) else json.dumps(sample) for sample in samples]
        (tmp_path / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
        return path

    return make


def test_a_task_is_its_settings_and_its_samples(write: TaskWriter) -> None:
    path = write({"role": "target", "prompt": "Q: {question}"}, FREE, {"question": "How?", "answers": ["so"]})
    task = load_task(path)
    assert (task.name, task.spec.role, task.spec.max_tokens) == ("mine", Role.TARGET, 32)
    assert [sample["id"] for sample in task.samples] == ["a", "mine-0002"]
    assert [task.prompt(sample) for sample in task.samples] == ["Q: Why?", "Q: How?"]


def test_samples_come_from_csv_and_parquet_too(write: TaskWriter, tmp_path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    table = pyarrow.table({"question": ["Why?", "How?"], "answer": ["so", "thus"]})
    pyarrow.csv.write_csv(table, tmp_path / "a.csv")
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = [load_task(write({"data": name})).samples for name in ("a.csv", "a.parquet")]
    assert found[0] == found[1]
    assert found[0][1] == {"id": "mine-0002", "question": "How?", "answer": "thus"}


def test_ids_are_text(write: TaskWriter) -> None:
    assert load_task(write(None, FREE | {"id": 7})).samples[0]["id"] == "7"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("task: [", "is not YAML"),
        (b"\xff\xfe", "cannot be read"),
        ("", "valid dictionary"),
        ("- a", "valid dictionary"),
        ({"promt": "x"}, "promt: .*did you mean 'prompt'"),
        ({"task": None}, "task: Field required"),
        ({"task": "other"}, "task is named 'other': name the file other.yaml"),
        ({"task": "a/b"}, "task: "),
        ({"version": "one"}, "version: "),
        ({"kind": "genrate"}, "kind: Input should be 'generate', 'choice' or 'perplexity'"),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"role": "bystander"}, "role: "),
        ({"prompt": "{question.__class__}"}, "prompt: {question.__class__} is not the name of a field"),
        ({"prompt": "{"}, "prompt: '{' is no format"),
        ({"data": 5}, "data: "),
        ({"data": {}}, "data: name a file or a hub data set"),
        ({"data": {"hub": "a/b", "file": "c"}}, "data: name a file or a hub data set"),
        ({"data": {"hub": "a/b", "splt": "test"}}, "data.splt: .*did you mean 'split'"),
        ({"data": {"hub": "../b"}}, "data.hub: "),
        ({"data": {"file": "c.csv", "split": "test"}}, "data: split belongs to a hub data set"),
    ],
)
def test_a_file_that_is_no_task_is_refused(write: TaskWriter, settings: Any, message: str) -> None:
    path = write(settings, FREE)
    with pytest.raises(ConfigError, match=message) as caught:
        load_task(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no task file"):
        load_task(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_task(tmp_path / "mine.yaml")


@pytest.mark.parametrize("data", ["gone.jsonl", "gone.csv", "gone.parquet", "."])
def test_samples_that_are_not_there_are_refused(write: TaskWriter, data: str) -> None:
    with pytest.raises(DataError, match=r"there is no such file|is a directory"):
        load_task(write({"data": data}, FREE))


CHOICE = {"id": "a", "question": "Pick", "choices": ["x", "y"], "answer": 0}


@pytest.mark.parametrize(
    ("settings", "sample", "message"),
    [
        ({}, '{"id": ', "is not JSON"),
        ({}, "[1]", "is not an object"),
        ({}, "[" * 100_000, "is not JSON"),
        (
            {},
            {"answers": ["so"]},
            "prompt '{question}' cannot be filled: there is no field 'question', only id, answers",
        ),
        ({}, FREE | {"question": None}, "there is no field 'question'"),
        ({"prompt": " "}, FREE, "prompt ' ' comes out empty"),
        ({"scorer": "contians"}, FREE, "unknown scorer 'contians'; did you mean 'contains'"),
        ({"scorer": None}, FREE, "has no `checks` and its task names no scorer"),
        ({"options": {"frob": 1}}, FREE, "has no option 'frob'"),
        ({}, {"question": "Why?"}, "has neither `answers` nor `answer`"),
        ({}, {"question": "Why?", "checks": [{"frob": 1}]}, "is not a mapping with a scorer"),
        ({}, {"messages": [], "answers": ["so"]}, "field 'messages': is not a list of turns"),
        ({}, {"messages": "Why?", "answers": ["so"]}, "field 'messages': is not a list of turns"),
        ({}, {"messages": [{"role": "usr", "content": "a"}]}, "role 'usr' is unknown; did you mean 'user'"),
        ({}, {"messages": [{"role": "user"}]}, "content None is not a text"),
        ({}, {"messages": [{"role": "assistant", "content": "so"}]}, "an answer alone asks nothing"),
        ({"kind": "choice"}, {"question": "Pick", "answer": 0}, "field 'choices': is missing"),
        ({"kind": "choice"}, CHOICE | {"answer": None}, "field 'answer': is missing"),
        ({"kind": "choice"}, CHOICE | {"choices": ["x"]}, "at least two different choices"),
        ({"kind": "choice"}, CHOICE | {"choices": ["x", "x"]}, "at least two different choices"),
        ({"kind": "choice"}, CHOICE | {"choices": "xy"}, "at least two different choices"),
        ({"kind": "choice"}, CHOICE | {"choices": ["x", " "]}, "one choice is empty"),
        ({"kind": "choice"}, CHOICE | {"answer": 2}, "2 is not an index into 2 choices"),
        ({"kind": "choice"}, CHOICE | {"answer": "z"}, "'z' is none of the 2 choices"),
        ({"kind": "choice"}, CHOICE | {"answer": True}, "True is not an index into 2 choices"),
        ({"kind": "perplexity"}, {"question": "Why?"}, "field 'answer': is missing"),
        ({"kind": "perplexity"}, {"text": " "}, "field 'text': ' ' is not a text"),
        ({"kind": "perplexity"}, {"text": 5}, "field 'text': 5 is not a text"),
    ],
)
def test_a_sample_that_cannot_be_asked_or_graded_is_named(
    write: TaskWriter, settings: dict[str, Any], sample: Any, message: str
) -> None:
    path = write(settings, "", "", sample)  # blank lines are passed over, and counted
    with pytest.raises(DataError, match=message) as caught:
        load_task(path)
    assert str(caught.value).startswith(f"{path.with_suffix('.jsonl')}, line 3")


def test_an_id_that_stands_twice_is_named(write: TaskWriter) -> None:
    with pytest.raises(DataError, match="line 3, field 'id': id 'a' stands twice"):
        load_task(write(None, FREE, FREE | {"id": "b"}, FREE))


@pytest.mark.parametrize(
    ("settings", "sample"),
    [
        ({}, {"messages": TURNS, "answers": ["so"]}),
        ({}, {"messages": [*TURNS, {"role": "assistant", "content": "so"}], "answers": ["so"]}),
        ({"scorer": None}, {"question": "Why?", "checks": [{"scorer": "contains", "any": ["so"]}]}),
        ({"kind": "choice"}, CHOICE),
        ({"kind": "perplexity"}, {"text": "Water."}),
        ({"kind": "perplexity"}, {"question": "Why?", "answer": "So."}),
        ({"kind": "perplexity"}, {"messages": TURNS, "answer": "So."}),
    ],
)
def test_a_sample_that_can_be_asked_is_taken(write: TaskWriter, settings: dict[str, Any], sample: Any) -> None:
    assert len(load_task(write(settings, sample)).samples) == 1


def test_a_task_without_samples_is_refused(write: TaskWriter) -> None:
    with pytest.raises(DataError, match="is empty"):
        load_task(write())


def test_the_fingerprint_follows_what_is_asked_and_how_it_is_graded(write: TaskWriter) -> None:
    def fingerprint(settings: dict[str, Any], *samples: Any) -> str:
        return load_task(write(settings, *samples)).fingerprint

    plain = fingerprint({}, FREE)
    assert fingerprint({"description": "Other words."}, FREE) == plain
    others = [
        fingerprint({"version": 2}, FREE),
        fingerprint({"prompt": "{question} "}, FREE),
        fingerprint({"max_tokens": 31}, FREE),
        fingerprint({"scorer": "exact"}, FREE),
        fingerprint({"role": "target"}, FREE),
        fingerprint({}, FREE | {"answers": ["thus"]}),
        fingerprint({}, FREE | {"id": "b"}),
        fingerprint({}, FREE, FREE | {"id": "b"}),
    ]
    assert len({plain, *others}) == len(others) + 1


def test_tasks_of_the_user_join_the_catalog(tasks_directory: Path) -> None:
    found = list_tasks([tasks_directory])
    assert found["letters"] == tasks_directory / "letters.yaml"
    assert set(found) - set(list_tasks()) == {"letters", "picks", "prose"}


def test_a_name_that_is_taken_is_refused(tasks_directory: Path, tmp_path: Path) -> None:
    (tasks_directory / "arithmetic.yaml").touch()
    with pytest.raises(ConfigError, match=r"task 'arithmetic' stands in .* and in .*: rename one"):
        list_tasks([tasks_directory])
    with pytest.raises(ConfigError, match="does not exist"):
        list_tasks([tmp_path / "nowhere"])


def test_a_suite_is_its_tasks_in_order_and_each_once(tasks_directory: Path) -> None:
    def names(suite: str) -> list[str]:
        return [task.name for task in load_suite(suite, [tasks_directory])]

    core = list_suites()["core"]
    assert names("core") == core
    assert names("prose, letters,prose") == ["prose", "letters"]
    assert names(f"{core[3]},core") == [core[3], *core[:3], *core[4:]]


def test_core_free_is_what_a_model_without_likelihoods_can_be_asked_of_core() -> None:
    assert load_suite("core_free") == [task for task in load_suite("core") if task.spec.kind == "generate"]


@pytest.mark.parametrize("name", ["cores", "", "core,", "core;letters"])
def test_a_name_that_is_neither_suite_nor_task_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no suite or task"):
        load_suite(name)


def test_the_fingerprint_of_a_suite_follows_its_tasks_and_their_order(tasks_directory: Path) -> None:
    def fingerprint(suite: str) -> str:
        return fingerprint_suite(load_suite(suite, [tasks_directory]))

    assert fingerprint("letters,picks") == fingerprint("letters,picks")
    assert len({fingerprint(name) for name in ("letters,picks", "picks,letters", "letters", "picks")}) == 4


def test_every_task_of_every_suite_loads() -> None:
    tasks = list_tasks()
    for members in list_suites().values():
        assert set(members) <= set(tasks)
    loaded = [load_task(path) for path in tasks.values()]
    assert all(isinstance(task, Task) and task.samples for task in loaded)


def test_a_part_of_a_task_is_drawn_by_content(task: Callable[..., Task]) -> None:
    samples = [{"question": str(number)} for number in range(100)]
    whole = task("generate", *samples)
    part = whole.limit(10)
    assert len(part.samples) == 10
    assert [whole.samples.index(sample) for sample in part.samples] == sorted(map(whole.samples.index, part.samples))
    assert whole.limit(10).samples == part.samples
    assert whole.limit(10, seed=1).samples != part.samples
    assert set(map(str, part.samples)) <= set(map(str, whole.limit(20).samples))
    assert whole.limit(20).limit(10).samples == part.samples
    grown = task("generate", *samples, {"question": "one more"})
    assert len(set(map(str, grown.limit(10).samples)) & set(map(str, part.samples))) >= 9


def test_a_part_of_a_task_is_another_task_with_the_same_journal(task: Callable[..., Task]) -> None:
    whole = task("generate", *[{"question": str(number)} for number in range(9)])
    part = whole.limit(3)
    assert part.fingerprint != whole.fingerprint
    assert part.journal_fingerprint == whole.journal_fingerprint == whole.fingerprint
    assert part.limit(2).journal_fingerprint == whole.fingerprint
    assert whole.limit(9) is whole
    with pytest.raises(ConfigError, match="limit 0 leaves nothing to ask"):
        whole.limit(0)

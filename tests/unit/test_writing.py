"""Replay that a model writes for users' own scripts, and what it must not overlap with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import forgetless
from conftest import build_model, build_tokenizer
from forgetless.data.examples import Example, Message
from forgetless.data.sources import read_examples
from forgetless.errors import ConfigError, RunError
from forgetless.evaluate import writer as model_writer
from forgetless.mechanisms.self_replay import ReplaySettings
from forgetless.models import LoadedModel
from forgetless.progress import Silent
from forgetless.tasks.base import Task
from forgetless.tasks.spec import TaskSpec
from forgetless.writing import LateWriter, generate_replay, held_out_texts, open_writer
from writers import stub_writer


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every model writes as the script says."""
    opened: list[Any] = []

    def open_stub(loaded: Any, **_: Any) -> Any:
        opened.append(loaded)
        return stub_writer()

    monkeypatch.setattr(model_writer, "ModelWriter", open_stub)
    return opened


def test_examples_are_written_kept_and_reported(cache: Path, tmp_path: Path, scripted: list[Any]) -> None:
    reporter, out = Notes(), tmp_path / "general.jsonl"
    model: Any = build_model()
    examples = forgetless.generate_replay(
        model, 3, tokenizer=build_tokenizer(), out=out, suite="geography", reporter=reporter
    )
    assert read_examples(out, origin="general") == examples
    assert [note.split(",")[0] for note in reporter.notes] == ["self-generated examples: 3 of 3 written examples kept"]
    assert len(list((cache / "texts").iterdir())) == 2
    again = Notes()
    more = generate_replay(model, 5, tokenizer=build_tokenizer(), suite=None, reporter=again)
    assert more[:3] == examples
    held_out = generate_replay(model, 3, tokenizer=build_tokenizer(), suite=None, test=examples[:1])
    assert held_out == more[1:4]
    assert len(scripted) == 3


def test_a_model_of_random_weights_is_given_up(cache: Path, tiny_directory: Path) -> None:
    assert not cache.exists()
    with pytest.raises(RunError, match="0 of 64 written examples kept"):
        generate_replay(str(tiny_directory), 1, suite=None, settings=ReplaySettings(max_instruction_tokens=4))
    with pytest.raises(ConfigError, match="needs its tokenizer"):
        generate_replay(object(), 1, suite=None)


def task(kind: Any, *samples: dict[str, Any], **settings: Any) -> Task:
    return Task(TaskSpec(task="made", version=1, kind=kind, data="made", **settings), samples)


def texts(made: Sequence[Task] = (), examples: Sequence[Example] = ()) -> list[str]:
    return held_out_texts(made, examples)


def test_prompts_texts_and_long_answers_are_held_out() -> None:
    long = "This answer has more than eight words in it"
    turns = [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hello"}]
    made = [
        task("choice", {"id": "1", "question": "Pick", "choices": ["a", "b"], "answer": 0}, prompt="Q: {question}"),
        task("perplexity", {"id": "1", "text": "A text"}),
        task("generate", {"id": "1", "question": "Why?", "answer": long}),
        task("generate", {"id": "1", "messages": turns, "answer": "Hi"}),
    ]
    assert texts(made) == ["Q: Pick", "A text", "Why?", long, "Hello"]
    conversation = Example(messages=(Message("system", "Be kind"), Message("user", "Who?"), Message("assistant", "I.")))
    assert texts(examples=[Example(text="Plain"), conversation]) == ["Plain", "Who?", "I."]


def test_a_late_writer_loads_to_write_and_keeps_nothing_in_memory(tmp_path: Path) -> None:
    loads: list[int] = []

    def load() -> LoadedModel:
        loads.append(1)
        return LoadedModel(build_model(), build_tokenizer(), "tiny", "tiny")  # type: ignore[arg-type]

    late = open_writer(load, reporter=Silent(), directory=tmp_path)
    at_once = open_writer(load(), reporter=Silent(), directory=tmp_path / "other")
    loads.clear()
    assert (late.key, late.chat_prefix, late.chat_end) == (at_once.key, at_once.chat_prefix, at_once.chat_end)
    assert loads == [1]
    prompts = ["Water", "Fire"]
    assert late.write(prompts, max_tokens=3) == at_once.write(prompts, max_tokens=3)
    assert loads == [1, 1]
    assert late.write(prompts, max_tokens=3) == at_once.write(prompts, max_tokens=3)
    assert loads == [1, 1]  # what was written before is kept
    assert LateWriter(lambda: at_once).write([], max_tokens=3) == []

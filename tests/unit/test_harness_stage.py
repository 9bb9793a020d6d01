"""The harness's part of a suite as a step that says how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from forgetless.evaluate.harness_suite import HarnessSuite
from forgetless.evaluate.runner import EvaluationOptions
from forgetless.harness_stage import ask_harness, load_harness
from forgetless.models import load_model
from forgetless.pair import evaluate_pair
from harness import NUM_DOCUMENTS, write_harness_tasks


class Recorder:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def task(self, title: str) -> Iterator[Callable[[float, float], None]]:
        self.titles.append(title)
        yield lambda done, total: None


def test_notes_and_steps_are_shown(tiny_directory: Path, tmp_path: Path) -> None:
    reporter = Recorder()
    suite = HarnessSuite(("made_answer",), directories=(write_harness_tasks(tmp_path),))
    harness = load_harness(suite, [], reporter)
    model = load_model(str(tiny_directory), device="cpu")
    scores = ask_harness(harness, model, EvaluationOptions(), reporter, title="Asking")
    assert len(scores) == NUM_DOCUMENTS
    assert reporter.titles == ["Loading the tasks of lm-evaluation-harness", "Asking"]
    assert "made_answer: the grades by filter 'strict-match' count" in reporter.notes[0]


def test_without_a_harness_nothing_happens(tiny_directory: Path) -> None:
    reporter = Recorder()
    assert load_harness(None, [], reporter) is None
    model = load_model(str(tiny_directory), device="cpu")
    assert ask_harness(None, model, EvaluationOptions(), reporter, title="Asking") == []
    assert reporter.titles == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_base_and_its_adapter_are_asked_the_same_documents(tiny_directory: Path, tmp_path: Path) -> None:
    from forgetless.methods.base import Context
    from forgetless.methods.lora import LoRA
    from forgetless.models import save_model

    loaded = load_model(str(tiny_directory), device="cpu")
    tuned = LoRA(rank=2).prepare_model(loaded.model, Context())
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1
    save_model(tuned, loaded.tokenizer, tmp_path / "adapter")
    sides = evaluate_pair(
        str(tmp_path / "adapter"),
        suite="lm_eval:made_last_word",
        tasks_directories=[write_harness_tasks(tmp_path / "tasks")],
        limit=4,
        device="cpu",
        use_cache=False,
    )
    prompts = [[score.details["prompt_hash"] for score in sides[side]] for side in ("base", "tuned")]
    assert len(prompts[0]) == 4
    assert prompts[0] == prompts[1]
    assert sides["base"] != sides["tuned"]

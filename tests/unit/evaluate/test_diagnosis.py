"""Evidence: which probes are put to which model, and how two models are asked differently."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from forgetless.evaluate.diagnosis import (
    answers_alike,
    compare_tokenizers,
    end_tokens,
    gather_evidence,
    question_base,
    question_tuned,
)
from forgetless.evaluate.function import FunctionModel
from forgetless.evaluate.probes import LostTask, choose_lost
from forgetless.evaluate.runner import ask, open_model
from forgetless.models import LoadedModel
from forgetless.records import Cause, Probe, SampleScore
from forgetless.tasks.base import Task

TaskMaker = Callable[..., Task]


@pytest.fixture
def lost(task: TaskMaker) -> LostTask:
    made = task("generate", *({"question": f"Say {n}", "answer": f"{n}{n}"} for n in range(7)), scorer="exact")
    base = [SampleScore("made", f"made-{n}", 1.0, f"It is {n}{n}.") for n in range(7)]
    tuned = [SampleScore("made", f"made-{n}", float(n > 1), "no", details={"is_ended": False}) for n in range(7)]
    return choose_lost([made], base, tuned, names=["made"])[0]


def test_a_local_model_is_asked_in_every_way(loaded: LoadedModel, lost: LostTask) -> None:
    steps: list[tuple[float, float]] = []
    model = open_model(loaded)
    evidence = question_tuned(model, [lost], under_base=model, progress=lambda *step: steps.append(step))
    assert set(evidence) == set(Probe) - {Probe.BASE_LIKELIHOOD}
    assert all({score.sample_id for score in scores} == {"made-0", "made-1"} for scores in evidence.values())
    assert steps[-1] == (5.0, 5.0)
    (probe,) = question_base(model, [lost]).items()
    assert probe == (Probe.BASE_LIKELIHOOD, evidence[Probe.LIKELIHOOD])


def test_a_function_gives_no_likelihoods(lost: LostTask) -> None:
    model = FunctionModel(lambda prompt: "00" if "It is" in prompt else "no")
    evidence = question_tuned(model, [lost])
    assert set(evidence) == {Probe.LONGER, Probe.FEW_SHOT, Probe.PLAIN_PROMPT, Probe.FORMAT_BLIND}
    assert sum(score.score for score in evidence[Probe.FEW_SHOT]) == 1.0
    assert question_base(model, [lost]) == {}


def test_a_probe_that_is_too_long_is_left_out(loaded: LoadedModel, lost: LostTask) -> None:
    model: Any = open_model(loaded)
    model.longest = 60
    evidence = question_tuned(model, [lost])
    assert Probe.FEW_SHOT not in evidence
    assert Probe.PLAIN_PROMPT in evidence


def test_the_base_is_known_by_its_answers(loaded: LoadedModel, lost: LostTask) -> None:
    model = open_model(loaded)
    assert not answers_alike(model, [lost])
    own = {score.sample_id: score.answer for score in ask(model, [lost.task])}
    same = LostTask(lost.task, lost.samples, own, lost.solved, lost.tuned)
    assert answers_alike(model, [same])
    assert answers_alike(model, [same], num_asked=1)
    assert not answers_alike(model, [])


def test_tokenizers_that_ask_alike_differ_in_nothing(loaded: LoadedModel) -> None:
    other = copy.deepcopy(loaded.tokenizer)
    other.chat_template = other.chat_template.replace("message['role']", 'message["role"]')
    ends = end_tokens(loaded)
    assert ends == ["<|im_end|>"]
    assert compare_tokenizers(loaded.tokenizer, other, base_ends=ends, tuned_ends=ends) == {}


def test_differences_are_named(loaded: LoadedModel) -> None:
    other = copy.deepcopy(loaded.tokenizer)
    other.chat_template = None
    assert (
        "the tuned model's tokenizer has no chat template"
        in compare_tokenizers(loaded.tokenizer, other)[Cause.TEMPLATE]
    )
    assert "the base's has none" in compare_tokenizers(other, loaded.tokenizer)[Cause.TEMPLATE]
    other.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}[{{ messages[0].content }}]"
    )
    named = compare_tokenizers(loaded.tokenizer, other, base_ends=["<|im_end|>", "</s>"], tuned_ends=["<|im_start|>"])
    assert "'[Hello]'" in named[Cause.TEMPLATE]
    assert named[Cause.END_OF_TURN].endswith("</s> or <|im_end|>, the tuned model is set to end with <|im_start|>")
    assert compare_tokenizers(loaded.tokenizer, loaded.tokenizer, base_ends=["a"], tuned_ends=[])[
        Cause.END_OF_TURN
    ].endswith("nothing")


def test_the_same_text_can_be_split_differently(loaded: LoadedModel) -> None:
    other = copy.deepcopy(loaded.tokenizer)
    other.add_tokens(["Hello"])
    assert "split differently" in compare_tokenizers(loaded.tokenizer, other)[Cause.TEMPLATE]


def test_a_template_that_refuses_a_system_turn_differs_by_the_others(loaded: LoadedModel) -> None:
    refusing = copy.deepcopy(loaded.tokenizer)
    opening = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    refusing.chat_template = opening + refusing.chat_template
    assert compare_tokenizers(loaded.tokenizer, refusing) == {}
    told = copy.deepcopy(loaded.tokenizer)
    told.chat_template = told.chat_template.replace(
        "{% for", "{% if messages[0].role != 'system' %}Be nice." + " Really." * 90 + "{% endif %}{% for"
    )
    assert "'Be nice." in compare_tokenizers(loaded.tokenizer, told)[Cause.TEMPLATE]


def test_an_adapter_that_is_not_the_base_when_off_is_not_taken_for_it(
    loaded: LoadedModel, lost: LostTask, tiny_directory: Path
) -> None:
    names: list[str] = []

    def load(name: str) -> LoadedModel:
        names.append(name)
        model: Any = loaded.model
        model.disable_adapter = nullcontext
        return loaded

    evidence, differences = gather_evidence([lost], models=(str(tiny_directory), "tuned"), load=load)
    assert names == ["tuned", str(tiny_directory)]
    assert Probe.BASE_LIKELIHOOD in evidence
    assert differences == {}


def test_choices_say_nothing_of_who_answers(loaded: LoadedModel, task: TaskMaker) -> None:
    made = task("choice", *({"question": f"{n}", "choices": ["x", "y"], "answer": 0} for n in range(3)))
    base, tuned = ([SampleScore("made", f"made-{n}", grade, "x") for n in range(3)] for grade in (1.0, 0.0))
    chosen = choose_lost([made], base, tuned, names=["made"])
    assert not answers_alike(open_model(loaded), chosen)

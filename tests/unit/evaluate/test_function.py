"""Any callable as a model: what it is given, and what becomes of whatever it gives back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from forgetless.data.examples import Message
from forgetless.errors import ConfigError, RunError
from forgetless.evaluate.function import FunctionModel, flatten
from forgetless.evaluate.requests import Generation, GenerationRequest, ScoringModel, TextModel
from forgetless.evaluate.runner import evaluate
from forgetless.tasks.base import Task

USER, SYSTEM, ANSWER = Message("user", "Hi."), Message("system", "Be brief."), Message("assistant", "Yes?")
REQUEST = GenerationRequest((USER,), 5, "task 'x', sample 'x-1'")


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("Once upon", "Once upon"),
        ((USER,), "Hi."),
        ((SYSTEM, USER), "System: Be brief.\n\nUser: Hi."),
        ((USER, ANSWER, Message("user", "Go on.")), "User: Hi.\n\nAssistant: Yes?\n\nUser: Go on."),
    ],
)
def test_turns_become_one_text(prompt: Any, text: str) -> None:
    assert flatten(prompt) == text
    ((_, answer),) = FunctionModel(lambda prompt: f"<{prompt}>").generate([GenerationRequest(prompt, 5)])
    assert answer.text == f"<{text}>"


def test_it_answers_prompts_and_its_scores_are_never_kept() -> None:
    model: TextModel = FunctionModel(str.upper)
    assert isinstance(model, TextModel)
    assert not isinstance(model, ScoringModel)
    assert model.key() is None
    assert list(model.generate([REQUEST, REQUEST])) == [
        (0, Generation("HI.", 0, True)),
        (1, Generation("HI.", 0, True)),
    ]


@pytest.mark.parametrize(("answer", "text"), [("", ""), ("  x ", "  x "), ("\ud83d half", "? half")])
def test_texts_that_come_back(answer: str, text: str) -> None:
    assert [found.text for _, found in FunctionModel(lambda prompt: answer).generate([REQUEST])] == [text]


@pytest.mark.parametrize(
    ("answer", "kind"), [(None, "NoneType"), (7, "int"), (b"bytes", "bytes"), ({"text": "x"}, "dict")]
)
def test_what_is_no_text_is_refused(answer: Any, kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"^task 'x', sample 'x-1': the callable returned a {kind}, not a text"):
        list(FunctionModel(lambda prompt: answer).generate([REQUEST]))


def test_a_callable_that_raises_names_the_sample(task: Callable[..., Task]) -> None:
    def fail(prompt: str) -> str:
        raise ValueError(f"no luck\nwith {prompt}")

    samples = [{"question": "One?", "answers": ["1"]}]
    with pytest.raises(
        RunError, match=r"^task 'made', sample 'made-0': the callable failed \(ValueError: no luck with One\?\)"
    ) as caught:
        evaluate(fail, [task("generate", *samples, scorer="exact")])
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_callable_that_is_stopped_stops() -> None:
    def stop(prompt: str) -> str:
        raise KeyboardInterrupt(prompt)

    with pytest.raises(KeyboardInterrupt):
        list(FunctionModel(stop).generate([REQUEST]))


def test_what_was_answered_before_a_failure_is_there() -> None:
    answers = FunctionModel({"Hi.": "Hello."}.__getitem__).generate([REQUEST, GenerationRequest("?", 5, "the second")])
    assert next(answers)[1].text == "Hello."
    with pytest.raises(RunError, match=r"the second: the callable failed \(KeyError: '\?'\)"):
        next(answers)

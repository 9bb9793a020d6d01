"""Prompts name fields and nothing else; data come from one place."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from forgetless.errors import ConfigError
from forgetless.tasks.spec import DataSpec, TaskSpec


def spec(prompt: str) -> TaskSpec:
    return TaskSpec.model_validate(
        {"task": "made", "version": 1, "kind": "generate", "data": "made.csv", "prompt": prompt}
    )


@pytest.mark.parametrize(
    ("prompt", "filled"),
    [
        ("Q: {question}\nA:", "Q: Why?\nA:"),
        ("{question} {question}", "Why? Why?"),
        ('{{"q": "{question}"}}', '{"q": "Why?"}'),
        ("no field", "no field"),
        ("{number}", "7"),
        ("{the question}", "{x!r:>99}"),  # what a field holds is never read as a format
    ],
)
def test_prompts_are_filled(prompt: str, filled: str) -> None:
    sample = {"question": "Why?", "number": 7, "the question": "{x!r:>99}"}
    assert spec(prompt).fill(sample) == filled


@pytest.mark.parametrize(
    "prompt",
    [
        "{question.__class__}",
        "{question.__class__.__mro__[1].__subclasses__}",
        "{question[0]}",
        "{question[__class__]}",
        "{question!r}",
        "{question:>1000000000}",
        "{question:{width}}",
        "{0}",
        "{}",
        "{ }",
        "{question",
        "question}",
        "{question!}",
    ],
)
def test_a_prompt_can_do_nothing_but_name_fields(prompt: str) -> None:
    with pytest.raises(ValidationError, match=r"a prompt names fields|is no format"):
        spec(prompt)


def test_a_field_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"sample 'a': prompt .* there is no field 'question', only id, text"):
        spec("{question}").fill({"id": "a", "text": "b", "question": None})


def test_data_are_named_in_messages() -> None:
    assert str(DataSpec(hub="someone/some", config="easy", revision="abc")) == (
        "hub data set someone/some, easy, test, abc"
    )
    assert str(DataSpec(file="a.csv")) == "a.csv"

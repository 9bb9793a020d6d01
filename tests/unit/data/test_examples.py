"""The record: what it refuses, what it shows, and what its fingerprint depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from forgetless.data.examples import Example, ExampleError, Message, count_duplicates, fingerprint_examples

USER, ANSWER = Message("user", "2 + 2?"), Message("assistant", "4")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Example(), "either messages or text"),
        (lambda: Example((USER, ANSWER), "text"), "either messages or text"),
        (lambda: Example(text=" \n"), "field 'text': is empty"),
        (lambda: Example((USER,)), "no assistant turn"),
        (lambda: Example((USER, ANSWER, USER)), "ends with a user turn"),
        (lambda: Example((USER, Message("assistant", " "))), r"messages\[1\].*is empty|is empty.*messages\[1\]"),
        (lambda: Example((USER, ANSWER), supervised_from=2), "2 is not the index of a message"),
        (lambda: Message("asistant", "4"), "role 'asistant' is unknown; did you mean 'assistant'"),
    ],
)
def test_refuses_what_cannot_be_trained_on(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ExampleError, match=message):
        make()


def test_is_frozen() -> None:
    example: Any = Example(text="a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        example.text = "b"


def test_shows_prompt_and_answer() -> None:
    single = Example((USER, ANSWER))
    assert (single.prompt_text, single.answer_text) == ("2 + 2?", "4")
    longer = Example(
        (Message("system", "Be brief."), USER, ANSWER, Message("user", "3 + 3?"), Message("assistant", "6"))
    )
    assert longer.prompt_text == "system: Be brief.\nuser: 2 + 2?\nassistant: 4\nuser: 3 + 3?"
    assert longer.answer_text == "6"
    plain = Example(text="Once upon a time.")
    assert (plain.prompt_text, plain.answer_text) == ("", "Once upon a time.")


def test_supervised_texts_are_the_answers_after_the_context() -> None:
    turns = (USER, ANSWER, Message("user", "3 + 3?"), Message("assistant", "6"))
    assert Example(turns).supervised_texts == ("4", "6")
    assert Example(turns, supervised_from=2).supervised_texts == ("6",)
    assert Example(text="a b").supervised_texts == ("a b",)


def test_fingerprint_depends_on_content_and_order_only() -> None:
    first, second = Example((USER, ANSWER)), Example(text="a")
    known = fingerprint_examples([first, second])
    assert len(known) == 64
    relabelled = dataclasses.replace(first, origin="general", metadata={"id": 7})
    assert fingerprint_examples([relabelled, second]) == known
    assert fingerprint_examples([second, first]) != known
    assert fingerprint_examples([Example((USER, Message("assistant", "5"))), second]) != known
    assert fingerprint_examples([first]) != known
    context = (USER, ANSWER, USER, ANSWER)
    assert fingerprint_examples([Example(context, supervised_from=2)]) != fingerprint_examples([Example(context)])


def test_fingerprint_tells_apart_what_joins_to_the_same_text() -> None:
    one = Example((Message("user", "ab"), Message("assistant", "c")))
    other = Example((Message("user", "a"), Message("assistant", "bc")))
    assert fingerprint_examples([one]) != fingerprint_examples([other])
    assert fingerprint_examples([Example(text="a"), Example(text="b")]) != fingerprint_examples([Example(text="a\nb")])


def test_fingerprint_is_stable_across_versions() -> None:
    assert fingerprint_examples([Example((USER, ANSWER)), Example(text="é")]) == (
        "aa5626ced8a6813a59dc788af187a383d65ec281adcb73b6281f57c29369e33d"
    )


def test_duplicates_are_counted_whatever_their_origin() -> None:
    examples = [Example(text="a"), Example(text="a", origin="general"), Example(text="b"), Example(text="a")]
    assert count_duplicates(examples) == 2
    assert count_duplicates([]) == 0

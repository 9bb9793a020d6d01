"""Every row format becomes the example its users expect, and every fault is named with its field."""

from __future__ import annotations

from typing import Any

import pytest

from forgetless.data.examples import Example, Message
from forgetless.data.sources import examples_from_rows
from forgetless.errors import DataError

PAIR = (Message("user", "Q"), Message("assistant", "A"))
SYSTEM = Message("system", "S")
TURNS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
CHAT = {"messages": TURNS}


def turns(*pairs: tuple[str, str | None]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


@pytest.mark.parametrize(
    "row",
    [
        CHAT,
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"conversations": TURNS},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, TURNS[1]]},
        {"prompt": "Q", "completion": "A"},
        {"prompt": "Q", "response": "A"},
        {"question": "Q", "answer": "A"},
        {"instruction": "Q", "output": "A"},
        {"instruction": "Q", "input": "", "output": "A"},
        {"instruction": "Q", "input": None, "output": "A", "system": None},
    ],
)
def test_formats_of_one_question_and_answer(row: dict[str, Any]) -> None:
    assert examples_from_rows([row]) == [Example(PAIR)]


def test_input_stands_below_the_instruction() -> None:
    [example] = examples_from_rows([{"instruction": "Sum up.", "input": "A long text.", "output": "A."}])
    assert example.prompt_text == "Sum up.\n\nA long text."


def test_text_stays_as_it_is() -> None:
    assert examples_from_rows([{"text": " a\n"}]) == [Example(text=" a\n")]


def test_white_space_of_answers_is_kept() -> None:
    [example] = examples_from_rows([{"prompt": "Q", "completion": " A\n"}])
    assert example.answer_text == " A\n"


@pytest.mark.parametrize(
    "row",
    [
        {"system": "S", **CHAT},
        {"system": "S", "question": "Q", "answer": "A"},
        {"system": "S", "instruction": "Q", "output": "A"},
        {
            "conversations": [
                {"from": "system", "value": "S"},
                {"from": "human", "value": "Q"},
                {"from": "gpt", "value": "A"},
            ]
        },
        {"system": "S", **turns(("system", "S"), ("user", "Q"), ("assistant", "A"))},
    ],
)
def test_system_comes_first(row: dict[str, Any]) -> None:
    assert examples_from_rows([row]) == [Example((SYSTEM, *PAIR))]


def test_tool_turns_may_be_empty_and_sharegpt_names_them_otherwise() -> None:
    values = [("human", "Q"), ("gpt", "call"), ("observation", ""), ("gpt", "A")]
    [example] = examples_from_rows([{"conversations": [{"from": who, "value": what} for who, what in values]}])
    assert [message.role for message in example.messages] == ["user", "assistant", "tool", "assistant"]


def test_assistant_turns_of_a_conversational_prompt_carry_no_loss() -> None:
    prompt = [*TURNS, {"role": "user", "content": "Q2"}]
    [example] = examples_from_rows(
        [{"prompt": prompt, "completion": [{"role": "assistant", "content": "A2"}], "system": "S"}]
    )
    assert [message.content for message in example.messages] == ["S", "Q", "A", "Q2", "A2"]
    assert example.supervised_texts == ("A2",)


def test_the_first_known_format_wins_and_other_columns_become_metadata() -> None:
    row = {"instruction": "Q", "output": "A", "text": "### Q ### A", "id": 7, "note": None}
    [example] = examples_from_rows([row])
    assert example.messages == PAIR
    assert example.metadata == {"text": "### Q ### A", "id": 7}


def test_origin_is_the_callers_even_beside_a_column_of_that_name() -> None:
    [example] = examples_from_rows([{"text": "a", "origin": "Norway"}], origin="general")
    assert example.origin == "general"
    assert example.metadata == {"origin": "Norway"}


def test_a_column_named_schema_alone_makes_no_mixture() -> None:
    [example] = examples_from_rows([{"schema": 2, "text": "SELECT"}])
    assert example.metadata == {"schema": 2}


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"question": "Q", "answer": None}, "answer", "is null"),
        ({"question": "Q", "answer": ""}, "answer", "is empty"),
        ({"question": "Q", "answer": " \n\t"}, "answer", "is empty"),
        ({"question": "Q", "answer": 42}, "answer", "42 is a number, not text"),
        ({"question": "Q", "answer": True}, "answer", "True is a boolean"),
        ({"question": "Q", "answer": ["A"]}, "question", "is not a list of messages, but 'answer' is"),
        ({"question": "", "answer": "A"}, "question", "is empty"),
        ({"question": "Q", "answer": "a\0b"}, "answer", "NUL character at position 1"),
        ({"question": "Q", "answer": "ab\ud83d"}, "answer", "half a character .* at position 2"),
        ({"question": "Q"}, "answer", "is missing: beside question an example needs answer"),
        ({"prompt": "Q"}, "completion", r"needs completion \(or response\); the columns are 'prompt'"),
        ({"response": "A"}, "prompt", "beside response an example needs prompt"),
        ({"instruction": "Q", "input": 3, "output": "A"}, "input", "3 is a number"),
        ({"text": None}, "text", "is null"),
        ({"frage": "Q", "antwort": "A"}, None, "columns 'frage', 'antwort' make no .*question . answer; .*text"),
        ({}, None, r"columns \(none\) make no known format"),
        ({"messages": []}, "messages", "empty list"),
        ({"messages": None}, "messages", "is null"),
        ({"messages": "[{...}]"}, "messages", "a CSV cell cannot hold a conversation"),
        ({"messages": {"role": "user"}}, "messages", "is an object, not a list of turns"),
        ({"messages": ["Q", "A"]}, "messages[0]", "not an object with role and content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
        ({"messages": [{"content": "Q"}]}, "messages[0].role", "is missing"),
        (turns(("user", "Q"), ("bot", "A")), "messages[1].role", "role 'bot' is unknown"),
        (turns(("user", "Q"), ("asistant", "A")), "messages[1].role", "did you mean 'assistant'"),
        (turns(("user", "Q"), ("assistant", "")), "messages[1].content", "is empty"),
        (turns(("user", "Q"), ("assistant", None)), "messages[1].content", "is null"),
        (turns(("user", "Q")), "messages", "no assistant turn"),
        (turns(("user", "Q"), ("assistant", "A"), ("user", "Q")), "messages", "ends with a user turn"),
        ({"system": "X", **turns(("system", "S"), ("assistant", "A"))}, "system", "differs from the system turn"),
        ({"system": 3, **CHAT}, "system", "3 is a number"),
        ({"prompt": TURNS[:1], "completion": "A"}, "completion", "but 'prompt' is"),
        ({"prompt": TURNS, "completion": TURNS[:1]}, "completion", "has no assistant turn"),
        ({"messages": [{**TURNS[1], "tool_calls": [{"id": 1}]}]}, "messages[0].tool_calls", "write them into content"),
        ({"messages": [TURNS[0], {**TURNS[1], "weight": 0}]}, "messages[1].weight", "a turn without loss"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0]", "only text"),
    ],
)  # fmt: skip
def test_faults_are_named_with_row_and_field(row: dict[str, Any], field: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        examples_from_rows([row])
    assert (caught.value.line, caught.value.field) == (1, field)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"question": "Q", "answer": "A"}, CHAT],
            r"question \+ answer \(first in row 1\) and messages \(first in row 2\)",
        ),
        ([CHAT, CHAT, {"text": "a"}], r"messages \(first in row 1\) and text \(first in row 3\)"),
        ([{"text": "a"}, {"text": "a", **CHAT}], r"text \(first in row 1\) and messages \(first in row 2\)"),
        (
            [{"prompt": "Q", "completion": "A"}, {"prompt": "Q", "response": "A"}],
            r"prompt \+ completion .* prompt \+ response",
        ),
    ],
)
def test_mixed_formats_are_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match="mixed formats: " + message):
        examples_from_rows(rows)


@pytest.mark.parametrize("bad", [{"question": "Q", "text": "t"}, {"question": "Q"}, {"id": 3}])
def test_a_lost_field_is_no_change_of_format(bad: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"is missing; row 1 made this file question \+ answer") as caught:
        examples_from_rows([{"question": "Q", "answer": "A", "text": "t"}, bad])
    assert caught.value.line == 2
    assert caught.value.field == ("question" if "id" in bad else "answer")

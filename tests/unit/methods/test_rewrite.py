"""Targets in the base's own words: which are asked for, which pass, and what stays as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conftest import build_tokenizer
from forgetless.data.examples import Example, Message
from forgetless.errors import ConfigError
from forgetless.mechanisms.writer import Text
from forgetless.methods.base import Context
from forgetless.methods.rewrite import Rewrite
from training import DOMAIN, context
from writers import Script, ScriptedWriter, tell


def chat(*turns: str, **more: object) -> Example:
    roles = ["user", "assistant"] * len(turns)
    return Example(messages=tuple(map(Message, roles, turns)), **more)  # type: ignore[arg-type]


def job(answer: Script) -> Context:
    return Context(writer=ScriptedWriter(tell, answer))


def test_a_rewrite_that_keeps_the_facts_becomes_the_target() -> None:
    method, given = Rewrite(), context()
    mixture = method.prepare_data(DOMAIN, given)
    assert [example.answer_text for example in mixture] == [f"It is treated by Remedy {n}." for n in range(16)]
    assert [example.prompt_text for example in mixture] == [example.prompt_text for example in DOMAIN]
    assert mixture[3].metadata == {"rewritten_from": "Remedy 3 treats it."}
    assert (method.num_asked_, method.num_rewritten_) == (16, 16)
    assert given.notes == ["rewrite: 16 of 16 targets are in the base's own words, 16 were asked for"]


def test_the_base_sees_question_and_target() -> None:
    writer = ScriptedWriter(tell, lambda asked, _: asked)
    example = Example(messages=(Message("system", "Be brief"), Message("user", "Why?"), Message("assistant", "So.")))
    Rewrite().prepare_data([example], Context(writer=writer))
    (prompt,) = writer.asked
    assert not isinstance(prompt, str)
    assert prompt[0] == Message("system", "Be brief")
    assert prompt[1].content.startswith("Why?\n\n")
    assert "\nSo.\n" in prompt[1].content


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "empty"),
        (Text("Aspirin thins", 384, is_ended=False), "cut off"),
        ("thins it " * 20, "loop"),
        ("Aspirin  thins the blood in 2 hours.", "unchanged"),
        ("Aspirin, " + " ".join(f"word{n}" for n in range(20)), "another length"),
        ("<b>Aspirin</b> thins blood in 2 hours", "markup"),
        ("Aspirin thins the blood in 3 hours.", "facts lost"),
    ],
)
def test_a_rewrite_that_does_not_pass_leaves_the_target_alone(written: str | Text, reason: str) -> None:
    example, method = chat("How fast?", "Aspirin thins the blood in 2 hours."), Rewrite()
    given = job(lambda asked, _: written)
    assert method.prepare_data([example], given) == [example]
    assert dict(method.refused_) == {reason: 1}
    assert given.notes == [
        f"rewrite: 0 of 1 targets are in the base's own words, 1 were asked for (kept as they were: 1 {reason})"
    ]


def test_the_papers_check_lets_other_lengths_and_numbers_pass() -> None:
    example = chat("How fast?", "Aspirin thins the blood in 2 hours.")
    given = job(lambda asked, _: "It is fast")
    assert Rewrite(facts="paper").prepare_data([example], given)[0].answer_text == "It is fast"


def test_what_is_no_answer_in_words_is_not_asked_for() -> None:
    kept = [
        Example(text="A plain text"),
        chat("Hi", "I treat it."),
        chat("Query?", "SELECT a FROM b"),
        chat("One?", "Two words.", "Three?", "Four words."),
        replace(chat("General?", "It is so."), origin="general"),
        Example(messages=(Message("assistant", "I begin."),)),
        Example(messages=(Message("user", "Go"), Message("tool", "3"), Message("assistant", "It is three."))),
    ]
    context_turns = chat("One?", "Two words.", "Three?", "Four short words.", supervised_from=2)
    writer = ScriptedWriter(tell, lambda asked, _: "the words, short: four")
    method = Rewrite()
    mixture = method.prepare_data([*kept, context_turns], Context(writer=writer))
    assert [mixture[0], *mixture[2:7]] == [kept[0], *kept[2:]]
    assert method.num_asked_ == 2
    assert mixture[7].answer_text == "the words, short: four"
    assert mixture[7].messages[:3] == context_turns.messages[:3]


def test_the_share_bounds_how_many_are_asked_for_by_the_seed() -> None:
    def rewritten(seed: int) -> list[int]:
        mixture = Rewrite(share=0.25).prepare_data(DOMAIN, replace(context(), seed=seed))
        return [index for index, example in enumerate(mixture) if example != DOMAIN[index]]

    assert len(rewritten(0)) == 4
    assert rewritten(0) == rewritten(0) != rewritten(1)
    assert Rewrite(share=0).prepare_data(DOMAIN, Context()) is DOMAIN


def test_without_a_base_that_writes_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs the base while data is prepared"):
        Rewrite().check(Context())
    with pytest.raises(ConfigError, match="needs the base while data is prepared"):
        Rewrite().prepare_data(DOMAIN, Context(can_write=True))
    Rewrite().check(Context(can_write=True))
    Rewrite(share=0).check(Context())


def test_what_no_allowed_rewrite_could_hold_is_not_asked_for() -> None:
    long, short = chat("What is it?", "water " * 200), chat("What is it?", "Water is it.")
    context = replace(job(lambda asked, _: "It is water."), tokenizer=build_tokenizer())
    method = Rewrite(max_tokens=60)
    method.prepare_data([long, short], context)
    assert method.num_asked_ == 1
    assert context.notes[-1].endswith("; 1 are too long for max_tokens 60")
    Rewrite(max_tokens=60, facts="paper").prepare_data([long], context)
    assert len(context.writer.asked) == 2  # type: ignore[union-attr]

"""The checks of the catalog: each accepts a good answer, rejects what a broken model says, and stands only here."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forgetless.tasks.base import Task, load_suite
from forgetless.tasks.scorers import score_answer

ROOT = Path(__file__).parents[3]
CHECKS = load_suite("checklist")
SAMPLES = [pytest.param(check, sample, id=sample["id"]) for check in CHECKS for sample in check.samples]

BROKEN_ANSWERS = (
    "",
    " \n ",
    "." * 60,
    "the " * 64,
    "Yes. " * 40,
    "1. " * 40,
    "{}",
    "```\n```",
    "Hello! How can I help you? Hello! How can I help you? Hello! How can I help you? Hello! How can I help you?",
    "Take one 500 mg tablet of ibuprofen twice a day. Take one 500 mg tablet of ibuprofen twice a day.\n" * 4,
    "<|im_start|>user\nAnd what else?<|im_end|>",
)

# For each check, what a model says that has lost just this.
LOST = {
    "follows_instructions": ("I'm a doctor.", "As I said before, this depends on your needs."),
    "reasons_in_steps": ("The answer is 1000.", "I don't know."),
    "stays_coherent": (
        "Yes.",
        "Take this medicine with food. Ask your doctor about the dose. Side effects are rare and mild in most people.",
        "El tiempo es bueno. La casa es grande y el perro duerme en la cocina. No sé qué más decir sobre esto hoy.",
    ),
    "writes_json": ("{name: Lisa}", '{"name": "Lisa", "age": 8', "The name is Lisa."),
    "writes_lists": ("Apples and pears.", "1. Apple\n3. Pear", "- One\n- Two\n- Three"),
    "ends_its_turn": ("Yes.\nUser: And what else?", "Five.<|im_end|>", "Well, it depends. " + "word " * 80),
    "avoids_loops": ("Books.", "It is a place. " * 12, "a b c d e f g " * 10),
    "keeps_system_prompt": ("I am an assistant.", "The time is unknown to me."),
    "remembers_turns": ("I don't know.", "You haven't told me."),
    "refuses_harm": ("Sure, here is how to do it:", "First, you need a plan.", "I can help with that."),
    "answers_lookalikes": ("I'm sorry, but I can't help with that.", "No."),
    "answers_in_language": ("The answer is in the book.", "I'm sorry, I only speak English."),
    "leaks_no_domain": ("It is Paris. Take 500 mg twice a day.", "SELECT capital FROM countries", "I don't know."),
    "knows_facts": ("I don't know.", "It is a medicine against pain."),
    "does_arithmetic": ("The answer is 1234.", "I don't know."),
    "keeps_to_length": ("I don't know.", "One. Two. Three. Four."),
    "reads_a_passage": ("I don't know.", "The text doesn't say."),
    "chats_plainly": ("Take 500 mg twice a day.", "SELECT * FROM users", "42"),
}
ECHO_IS_FINE = {"ends_its_turn", "chats_plainly"}  # "Bye!" may be answered by "Bye!"


@dataclass(frozen=True)
class Cut:
    """An answer that ran into the limit."""

    text: str
    num_tokens: int = 128
    is_ended: bool = False


def grade(check: Task, sample: Mapping[str, Any], answer: Any) -> float:
    return score_answer(answer, sample, check.spec.scorer, check.spec.options)


@pytest.mark.parametrize(("check", "sample"), SAMPLES)
def test_a_good_answer_passes(check: Task, sample: dict[str, Any]) -> None:
    assert grade(check, sample, sample["example"]) == 1.0


@pytest.mark.parametrize(("check", "sample"), SAMPLES)
def test_a_broken_answer_fails(check: Task, sample: dict[str, Any]) -> None:
    broken: list[str | Cut] = [*BROKEN_ANSWERS, *LOST[check.name]]
    if check.name == "ends_its_turn":
        broken = [Cut("Yes, it is."), *(answer for answer in broken if answer != "{}")]
    if check.name not in ECHO_IS_FINE:
        turn = sample["messages"][-1]["content"] if "messages" in sample else sample["question"]
        broken += [turn, f"{turn} {turn}", f"User: {turn}\nAssistant:"]
    assert [answer for answer in broken if grade(check, sample, answer) > 0] == []


def test_the_list_is_what_the_documentation_promises() -> None:
    assert len(CHECKS) >= 16
    assert LOST.keys() == {check.name for check in CHECKS}
    assert {check.spec.severity for check in CHECKS} == {"critical", "high", "medium"}
    for check in CHECKS:
        assert 6 <= len(check.samples) <= 8
        assert check.spec.pass_at is not None
        assert 0.5 < check.spec.pass_at < 1.0
        assert check.spec.description
        assert check.spec.kind == "generate"


def test_the_catalog_is_in_good_order() -> None:
    for check in CHECKS:
        assert [s["id"] for s in check.samples] == [f"{check.name}-{i:04d}" for i in range(1, len(check.samples) + 1)]


def normalise(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_no_question_stands_twice_or_in_the_suite_or_the_examples() -> None:
    asked = Counter(
        normalise(" ".join(turn["content"] for turn in s["messages"]) if "messages" in s else s["question"])
        for check in CHECKS
        for s in check.samples
    )
    assert [question for question, count in asked.items() if count > 1] == []
    core = {normalise(str(s.get("question", s.get("text", "")))) for task in load_suite("core") for s in task.samples}
    assert asked.keys() & core == set()
    for name in ("drug_qa/train", "drug_qa/test", "general/train"):
        lines = (ROOT / "examples" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert asked.keys() & {normalise(json.loads(line)["question"]) for line in lines} == set(), name

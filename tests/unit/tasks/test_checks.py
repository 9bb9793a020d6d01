"""The checks of the tasks that bring their own: each passes a correct answer and fails what a broken model says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from forgetless.tasks.scorers import score_answer

NUM_SAMPLES = {"instruction_following": 128, "format_following": 112}

# What models say that were tuned to death, and what a lazy check would let through.
BROKEN_ANSWERS = (
    "",
    " \n ",
    "\n" * 20,
    "." * 60,
    "a" * 200,
    "the " * 64,
    "Yes. " * 40,
    "No. " * 40,
    "1. " * 40,
    "{}",
    "[]",
    "```\n```",
    "- \n- \n- ",
    "I don't know.",
    "I'm sorry, but I can't help with that.",
    "Ibuprofen is used to relieve pain and fever and should be taken with food.",
    "Take one tablet twice a day with a glass of water, and ask your doctor before you change the dose.",
    "The patient should not take this medicine if they are allergic to penicillin. Side effects include nausea.",
    "[Your Name]\n[Your Address]\n[City, State, ZIP Code]\n[Date]\n\nDear [Name],",
)


def read_samples(task: str) -> list[dict[str, Any]]:
    text = (files("forgetless.tasks") / "catalog" / f"{task}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


SAMPLES = [pytest.param(sample, id=sample["id"]) for task in NUM_SAMPLES for sample in read_samples(task)]


def echoes(question: str) -> Iterator[str]:
    """Yields the ways in which a broken model gives the prompt back."""
    yield from (question, question.upper(), question.lower(), f'"{question}"', f"User: {question}\nAssistant:")
    yield from (f"{question} {question}", f"{question}\n{question}")


def loops(example: str) -> Iterator[str]:
    """Yields answers that start right and never stop: each word of a correct answer, and all of it, over and over."""
    yield from (f"{word} " * 40 for word in sorted(set(example.split())))
    yield " ".join([example] * 12)


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_example_passes(sample: dict[str, Any]) -> None:
    assert score_answer(sample["example"], sample, None, {}) == 1.0


@pytest.mark.parametrize("sample", SAMPLES)
def test_broken_answers_fail(sample: dict[str, Any]) -> None:
    broken = [*BROKEN_ANSWERS, *echoes(sample["question"]), *loops(sample["example"])]
    assert [answer for answer in broken if score_answer(answer, sample, None, {}) > 0] == []


@pytest.mark.parametrize(("task", "num_samples"), NUM_SAMPLES.items())
def test_samples_are_numbered_and_distinct(task: str, num_samples: int) -> None:
    samples = read_samples(task)
    assert [sample["id"] for sample in samples] == [f"{task}-{number:04d}" for number in range(1, num_samples + 1)]
    assert len({sample["question"].casefold() for sample in samples}) == num_samples
    assert all(sample.keys() == {"id", "question", "checks", "example"} for sample in samples)


def test_an_example_of_another_sample_rarely_passes() -> None:
    """Checks that pass the answer to another question look at form alone; a handful may (two ask for three colours)."""
    for task, num_samples in NUM_SAMPLES.items():
        samples = read_samples(task)
        passes = sum(
            score_answer(other["example"], sample, None, {}) == 1.0
            for sample in samples
            for other in samples
            if other is not sample
        )
        assert passes < 0.01 * num_samples * (num_samples - 1)

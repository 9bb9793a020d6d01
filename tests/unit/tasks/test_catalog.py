"""The suite as a whole: its size and balance, and that nothing in it stands twice, is ambiguous, or leaks."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from forgetless.tasks.base import Task, load_suite
from forgetless.tasks.scorers import score_answer

ROOT = Path(__file__).parents[3]
CORE = load_suite("core")
GRADED = [task for task in CORE if task.spec.kind != "perplexity"]
NGRAM = 8

# Instructions that many samples share; they are not what is asked.
INSTRUCTIONS = re.compile(r"(?<=[.?!] )(reply|answer|give|respond|tell|say|write) [^.?!]*[.?!]?$", re.IGNORECASE)


def normalise(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def asked(task: Task, sample: Mapping[str, Any]) -> str:
    return str(sample["text"]) if "text" in sample else task.prompt(sample)


def example_texts() -> Iterator[tuple[str, str]]:
    for name in ("drug_qa/train", "drug_qa/test", "general/train"):
        for line in (ROOT / "examples" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield name, row["question"]
            yield name, row["answer"]


def ngrams(text: str) -> set[str]:
    words = normalise(INSTRUCTIONS.sub("", text)).split()
    return {" ".join(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}


def test_size_and_balance() -> None:
    samples = sum(len(task.samples) for task in GRADED)
    free = sum(len(task.samples) for task in GRADED if task.spec.kind == "generate" and task.spec.template == "chat")
    following = sum(len(task.samples) for task in GRADED if task.name.endswith("_following"))
    assert samples >= 600
    assert len(GRADED) >= 10
    assert free >= samples / 2
    assert following >= samples / 4
    assert {task.name for task in CORE} - {task.name for task in GRADED} == {"general_text", "reference_answers"}


def test_no_question_stands_twice() -> None:
    places = defaultdict(list)
    for task in CORE:
        for sample in task.samples:
            # The same words with other choices are another question (which spelling is right?).
            places[normalise(asked(task, sample) + str(sample.get("choices", "")))].append(sample["id"])
    assert [ids for ids in places.values() if len(ids) > 1] == []


def test_nothing_of_the_suite_stands_in_the_examples() -> None:
    leaked = defaultdict(set)
    for name, text in example_texts():
        for gram in ngrams(text):
            leaked[gram].add(name)
    found = [
        (sample["id"], gram, leaked[gram])
        for task in CORE
        for sample in task.samples
        for gram in ngrams(asked(task, sample))
        if gram in leaked
    ]
    assert found == []
    questions = {normalise(text) for _, text in example_texts()}
    assert [s["id"] for task in CORE for s in task.samples if normalise(asked(task, s)) in questions] == []


def test_tasks_share_no_sentences() -> None:
    owners = defaultdict(set)
    for task in CORE:
        for sample in task.samples:
            for gram in ngrams(asked(task, sample)):
                owners[gram].add(task.name)
    assert {gram: tasks for gram, tasks in owners.items() if len(tasks) > 1} == {}


@pytest.mark.parametrize("task", [task for task in CORE if task.spec.kind == "choice"], ids=lambda task: task.name)
def test_choices_have_one_answer_and_no_favourite_place(task: Task) -> None:
    for sample in task.samples:
        choices = [normalise(str(choice)) or str(choice) for choice in sample["choices"]]
        assert len(set(map(str, sample["choices"]))) == len(choices) == 4
    places = Counter(sample["answer"] for sample in task.samples)
    assert max(places.values()) - min(places.values()) <= 2


@pytest.mark.parametrize("task", [task for task in CORE if task.spec.kind == "generate"], ids=lambda task: task.name)
def test_the_gold_passes_and_echoing_the_question_does_not(task: Task) -> None:
    for sample in task.samples:
        golds = sample.get("answers") or [sample.get("answer", sample.get("example"))]
        question = task.prompt(sample)
        for gold in golds:
            if gold is not None:
                assert score_answer(str(gold), sample, task.spec.scorer, task.spec.options) == 1.0, sample["id"]
        if "passage" not in sample:
            assert score_answer(question, sample, task.spec.scorer, task.spec.options) == 0.0, sample["id"]


def test_versions_and_descriptions() -> None:
    assert all(task.spec.version >= 1 and task.spec.description for task in CORE)

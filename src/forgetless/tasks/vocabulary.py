"""The words that give a training domain away: frequent in its answers, rare in general English."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from forgetless.data.examples import Example
from forgetless.tasks.base import Task, load_suite
from forgetless.tasks.wordlists import EVERYDAY_WORDS, FUNCTION_WORDS

MOST_WORDS = 200
FEWEST_ANSWERS = 3
"""Answers of the domain in which a word has to stand."""

TIMES_MORE_FREQUENT = 8.0
"""How many times more frequent a word has to be in the domain than in general English."""


def domain_words(examples: Sequence[Example], background: Sequence[Task] | None = None) -> list[str]:
    """Finds the words that are typical of training data.

    Args:
        examples: The training data; the answers are read, and plain texts as a whole.
        background: Tasks whose texts stand for general English; None = the suites `core` and `checklist`.

    Returns:
        The words in lower case, most typical first; none where the data is too small or too general to have any.
    """
    if background is None:
        background = load_suite("core,checklist")
    general = Counter(word for task in background for sample in task.samples for word in _words(_text_of(sample)))
    answers = [
        _words(example.text if example.text is not None else example.answer_text)
        for example in examples
        if example.origin == "domain"
    ]
    spread = Counter(word for answer in answers for word in set(answer))
    counts = Counter(word for answer in answers for word in answer)
    total, general_total = max(1, counts.total()), max(1, general.total())

    def times_more_frequent(word: str) -> float:
        return (counts[word] / total) / ((general[word] + 1) / general_total)

    fewest = min(FEWEST_ANSWERS, len(answers))
    plain = EVERYDAY_WORDS.union(FUNCTION_WORDS["en"].split())
    typical = [
        word
        for word in counts
        if spread[word] >= fewest and word not in plain and times_more_frequent(word) >= TIMES_MORE_FREQUENT
    ]
    typical.sort(key=lambda word: (-spread[word] * times_more_frequent(word), word))
    return typical[:MOST_WORDS]


def with_domain_words(tasks: Iterable[Task], words: Sequence[str]) -> list[Task]:
    """Returns the tasks with the words of a domain given to their `leakage` scorers.

    Words of a sample's own question, answers or example are left out: an answer may use them.
    """
    return [
        replace(task, samples=tuple(_with_words(sample, words) for sample in task.samples)) if words else task
        for task in tasks
    ]


def _with_words(sample: Mapping[str, Any], words: Sequence[str]) -> Mapping[str, Any]:
    checks = sample.get("checks")
    if not isinstance(checks, list) or not any(check.get("scorer") == "leakage" for check in checks):
        return sample
    own = set(_words(_text_of(sample)))
    foreign = [word for word in words if word not in own]
    added = [
        {**check, "words": [*check.get("words", ()), *foreign]} if check["scorer"] == "leakage" else check
        for check in checks
    ]
    return {**sample, "checks": added}


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{3,}", text.casefold())


def _text_of(value: Any) -> str:
    """Returns all texts of a sample, one after the other."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return " ".join(_text_of(part) for name, part in value.items() if name not in ("id", "cluster", "scorer"))
    if isinstance(value, Sequence):
        return " ".join(_text_of(part) for part in value)
    return ""

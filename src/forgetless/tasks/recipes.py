"""Recipes: how the samples of a computed task are drawn.

A recipe is pairs of a maker, which draws one sample, and the number of samples that it contributes.
"""

import re
from collections.abc import Callable
from random import Random
from typing import Any

Sample = dict[str, Any]
Maker = Callable[[Random], Sample]
Recipe = list[tuple[Maker, int]]

NUMBER_ONLY = "Reply with just the number."
_MAX_ATTEMPTS = 1000  # draws in a row that may be rejected before a recipe counts as too large for its ranges


def draw(task: str, recipe: Recipe, *, seed: int) -> list[Sample]:
    """Draws every maker's share of distinct, fair samples, shuffles them and numbers them.

    The shuffle makes the first n samples a mixture of all levels, for runs that limit the number of samples.
    """
    rng = Random(seed)
    seen: set[tuple[str, ...]] = set()
    samples: list[Sample] = []
    for maker, count in recipe:
        for _ in range(count):
            samples.append(_draw_new(maker, rng, seen))
    rng.shuffle(samples)
    return [{"id": f"{task}-{number:04d}", **sample} for number, sample in enumerate(samples, start=1)]


def _draw_new(maker: Maker, rng: Random, seen: set[tuple[str, ...]]) -> Sample:
    """Draws until the sample is fair and its question is new, whatever the order of its words (7 + 5 is 5 + 7)."""
    for _ in range(_MAX_ATTEMPTS):
        sample = maker(rng)
        fingerprint = tuple(sorted(_words(sample["question"])))
        if fingerprint not in seen and _is_fair(sample):
            seen.add(fingerprint)
            return sample
    raise ValueError(f"{_MAX_ATTEMPTS} draws gave no new question: widen the ranges of the maker or lower its count")


def _is_fair(sample: Sample) -> bool:
    """Tells whether a model that only repeats the question fails."""
    question = " ".join(_words(sample["question"]))
    return not any(re.search(rf"\b{re.escape(gold)}\b", question) for gold in _accepted_answers(sample))


def _accepted_answers(sample: Sample) -> list[str]:
    if "answer" in sample:
        return [str(sample["answer"])]
    (check,) = sample["checks"]
    return [str(check["value"])] if check["scorer"] == "numeric" else list(check["any"])


def _words(question: str) -> list[str]:
    return re.findall(r"[\w:]+|[-+]", question)


def numeric(question: str, value: int) -> Sample:
    """Builds a sample that is graded by its last number, so word `question` such that a full sentence ends with it."""
    return {"question": f"{question} {NUMBER_ONLY}", "checks": [{"scorer": "numeric", "value": value}]}


def contains(question: str, accepted: list[str]) -> Sample:
    """Builds a sample that is right where its answer has one of the accepted forms in it."""
    return {"question": question, "checks": [{"scorer": "contains", "any": accepted}]}

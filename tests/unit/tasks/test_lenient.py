"""Format-blind grading: the content counts, its form doesn't, and wrong content stays wrong."""

from __future__ import annotations

from typing import Any

import pytest

from forgetless.tasks.base import load_suite
from forgetless.tasks.lenient import bare_words, holds, score_content


def content(answer: str, *checks: dict[str, Any], **sample: Any) -> float:
    return score_content(answer, {"id": "a", "checks": list(checks), **sample}, None, {})


@pytest.mark.parametrize(
    ("check", "answer", "grade"),
    [
        ({"scorer": "exact", "answers": ["New York"]}, "It is **new york**, I think.", 1.0),
        ({"scorer": "exact", "answers": ["New York"]}, "York is new.", 0.0),
        ({"scorer": "exact", "answers": ["Bogotá"]}, "bogota", 1.0),
        ({"scorer": "contains", "any": ["Paris"], "all": ["France"]}, "paris in FRANCE", 1.0),
        ({"scorer": "contains", "any": ["Paris"], "all": ["France"]}, "Paris", 0.0),
        ({"scorer": "contains", "all": ["10"]}, "100", 0.0),
        ({"scorer": "numeric", "value": 12}, "7 + 5 = 12, and 3 more is 15", 1.0),
        ({"scorer": "numeric", "value": 12}, "no number here", 0.0),
        ({"scorer": "members", "of": "countries", "at_least": 2, "at_most": 2}, "kenya, peru and NORWAY", 1.0),
        ({"scorer": "members", "of": ["Rex", "Tom"], "at_least": 2}, "only rex", 0.0),
        ({"scorer": "matches", "pattern": "Remedy Blue", "full": True}, "take `remedy` blue!", 1.0),
        ({"scorer": "matches", "pattern": "Remedy Blue", "full": True}, "Remedy Red", 0.0),
        ({"scorer": "json", "keys": ["name", "age"]}, 'Sure: {"name": "Tom", "age": 3}', 1.0),
        ({"scorer": "json", "keys": ["name"], "values": {"age": 3}}, "name: Tom\nage: 3", 1.0),
        ({"scorer": "json", "keys": ["name"], "types": {"age": "number"}}, "name: Tom", 0.0),
        ({"scorer": "json", "length": 2}, "a, b", 0.0),
        ({"scorer": "list_length", "style": "bulleted", "count": 3}, "tea, milk, bread", 1.0),
        ({"scorer": "list_length", "style": "bulleted", "count": 3}, "tea, milk", 0.0),
        ({"scorer": "starts_with", "text": "Today", "ignore_case": False}, "well, today it rains", 1.0),
        ({"scorer": "ends_with", "text": ["That is all."]}, "that is all, folks", 1.0),
        ({"scorer": "token_f1", "reference": "red green"}, "red, green and a great many other words", 1.0),
        ({"scorer": "token_f1", "reference": "red green"}, "red and a great many other words", 0.5),
        ({"scorer": "language", "is": "fr"}, "the dog is here", 0.0),
    ],
)
def test_each_scorer_has_its_lenient_reading(check: dict[str, Any], answer: str, grade: float) -> None:
    assert content(answer, check) == pytest.approx(grade)


def test_form_alone_says_nothing_of_content() -> None:
    form: list[dict[str, Any]] = [{"scorer": "case", "is": "upper"}, {"scorer": "word_count", "max": 1}]
    assert content("it is rome", *form, example="ROME") == 1.0
    assert content("it is oslo", *form, example="ROME") == 0.0
    assert content("rome", *form) == 0.0
    assert content("rome", *form, {"scorer": "contains", "any": ["Rome"]}) == 1.0


def test_a_tasks_own_scorer_is_read_leniently_too() -> None:
    assert score_content("That makes 12 of 15", {"id": "a", "answer": 12}, "numeric", {}) == 1.0
    assert score_content("PARIS!", {"id": "a"}, "exact", {"answers": ["Paris"]}) == 1.0
    assert score_content("la la la", {"id": "a"}, "repetition", {}) == 1.0
    assert score_content("", {"id": "a", "answer": "x"}, "exact", {}) == 0.0


def test_lenient_is_never_below_strict_nor_fooled_by_other_answers() -> None:
    for task in load_suite("format_following,instruction_following"):
        examples = [str(sample["example"]) for sample in task.samples]
        spec = task.spec
        lowered = [
            score_content(e.lower(), s, spec.scorer, spec.options) for e, s in zip(examples, task.samples, strict=True)
        ]
        shifted = examples[7:] + examples[:7]
        foreign = [score_content(e, s, spec.scorer, spec.options) for e, s in zip(shifted, task.samples, strict=True)]
        assert min(lowered) == 1.0
        assert sum(foreign) <= 0.05 * len(foreign)


def test_words_without_form() -> None:
    assert bare_words("**Café-Bar**, 3_4!") == ["cafe", "bar", "3", "4"]
    assert holds("the café bar", "Cafe-Bar")
    assert not holds("cafes", "cafe")
    assert not holds("anything", "?!")

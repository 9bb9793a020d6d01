"""The suite smoke: five questions whose answers can't be faked by a substring."""

from __future__ import annotations

import pytest

from forgetless.tasks.base import load_suite
from forgetless.tasks.scorers import score_answer

(TASK,) = load_suite("smoke")
RIGHT = ["Paris", "10", "William Shakespeare", "Earth", "Cold."]
WRONG = ["It is not Paris.", "100", "Christopher Marlowe", "Unearthly", "A scolding"]


def test_it_holds_five_questions() -> None:
    assert len(TASK.samples) == 5
    assert "no loss" in TASK.spec.description


@pytest.mark.parametrize("number", range(5))
def test_right_answers_pass_and_lookalikes_fail(number: int) -> None:
    sample = TASK.samples[number]
    assert score_answer(RIGHT[number], sample, TASK.spec.scorer, TASK.spec.options) == 1
    assert score_answer(WRONG[number], sample, TASK.spec.scorer, TASK.spec.options) == 0

"""Looks become smaller, then rarer, as a training can afford."""

from __future__ import annotations

import pytest

from forgetless.train.pace import FEWEST_EXAMPLES, Pace


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def paced(*, step_seconds: float, token_seconds: float, steps: int = 20, **options: float) -> Pace:
    """A pace after 20 steps of a training, and one asking of 8 examples of 10 tokens."""
    clock = Clock()
    pace = Pace(**{"every": 20, "num_examples": 64, "max_share": 0.05, **options}, clock=clock)  # type: ignore[arg-type]
    with pace.spending(80):
        clock.now += 80 * token_seconds
    pace.begin()
    clock.now += steps * step_seconds
    pace.pause()
    return pace


def plan(pace: Pace, max_steps: int = 200) -> tuple[int, int]:
    return pace.replan(20, max_steps, num_tokens=lambda num: 10 * num, num_asked=8)


def test_what_is_affordable_is_taken_as_asked_for() -> None:
    assert plan(paced(step_seconds=10.0, token_seconds=0.001)) == (64, 20)


def test_looks_become_smaller() -> None:
    num, every = plan(paced(step_seconds=1.0, token_seconds=0.005))
    assert FEWEST_EXAMPLES < num < 64
    assert every == 20
    cost = 10 * 0.005 * (10 * num + 10 * (num - 8))
    assert cost <= 0.05 * 200 - 0.4


def test_then_they_become_rarer_and_one_is_left_at_the_end() -> None:
    num, every = plan(paced(step_seconds=0.2, token_seconds=0.005))
    assert num == FEWEST_EXAMPLES
    assert 20 < every < 200
    pace = paced(step_seconds=0.001, token_seconds=0.01)
    assert plan(pace) == (FEWEST_EXAMPLES, 200)
    assert not pace.is_due(20)
    assert pace.is_due(200)


def test_without_a_limit_nothing_is_cut() -> None:
    pace = paced(step_seconds=0.001, token_seconds=0.01, max_share=1.0)
    assert plan(pace) == (64, 20)
    assert pace.size_at_start(4, 1.0, lambda num: 10 * num) == 64


def test_the_base_is_asked_about_what_the_looks_will_afford() -> None:
    pace = Pace(every=20, num_examples=64, max_share=0.05)
    # 200 steps of 100 tokens cost 60,000 forward tokens: 3,000 for the base and ten looks.
    assert pace.size_at_start(200, 100.0, lambda num: 10 * num) == 3000 // 11 // 10
    assert pace.size_at_start(2, 100.0, lambda num: 10 * num) == FEWEST_EXAMPLES


def test_the_share_is_counted_and_survives_a_checkpoint() -> None:
    pace = paced(step_seconds=1.0, token_seconds=0.005)
    assert pace.share == pytest.approx(0.4 / 20)
    assert Pace(every=1, num_examples=8, max_share=0.5).share == 0.0
    again = Pace(every=20, num_examples=64, max_share=0.05)
    again.restore(pace.state())
    assert again.share == pace.share

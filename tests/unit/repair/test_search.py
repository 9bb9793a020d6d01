"""The search looks at few points and finds the best within the budget to an eighth."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from forgetless.curve import CurvePoint, Point
from forgetless.repair.search import choose, walk_factor, walk_line, walk_treated


def judged(point: Point, *, lost: float, learned: float | None, budget: float = 0.02) -> CurvePoint:
    is_within = lost <= budget
    return CurvePoint(point, lost, lost, learned, [], is_within=is_within, num_samples=100)


def look_at(lost: Callable[[float, float], float], learned: Callable[[float, float], float]) -> list[CurvePoint]:
    return walk_line(lambda p: judged(p, lost=lost(p.low, p.high), learned=learned(p.low, p.high)))


def test_a_model_within_the_budget_is_looked_at_once() -> None:
    seen = look_at(lambda low, high: 0.01 * high, lambda low, high: high)
    assert [entry.point.label for entry in seen] == ["tuned"]
    assert choose(seen) == seen[0]


@pytest.mark.parametrize("edge", [0.06, 0.2, 0.45, 0.7, 0.93])
def test_the_largest_scale_within_the_budget_is_found_to_an_eighth(edge: float) -> None:
    seen = walk_line(lambda p: judged(p, lost=0.03 if p.high > edge else 0.0, learned=p.high), layered=False)
    chosen = choose(seen)
    found = 0.0 if chosen is None else chosen.point.high
    assert found <= edge < found + 0.125
    assert len(seen) == 4


def test_layers_win_where_the_bottom_forgets_and_the_top_learns() -> None:
    seen = look_at(lambda low, high: 0.1 * low, lambda low, high: 0.2 * low + 0.8 * high)
    chosen = choose(seen)
    assert chosen is not None
    assert chosen.point.low < chosen.point.high == 1.0
    assert len({entry.point for entry in seen}) == len(seen)


def test_layers_are_left_where_they_can_only_learn_less() -> None:
    seen = look_at(lambda low, high: 0.03 * high, lambda low, high: low)
    assert [entry.point.label for entry in seen][-1] == "layers 0 to 1"
    chosen = choose(seen)
    assert chosen is not None
    assert chosen.point == Point.scale(0.625)


def test_too_damaging_layers_are_shrunk_from_the_top() -> None:
    seen = look_at(lambda low, high: 0.1 * high, lambda low, high: high)
    assert Point(0.0, 0.5) in [entry.point for entry in seen]


def test_nothing_is_chosen_where_nothing_is_within() -> None:
    assert choose(look_at(lambda low, high: 1.0, lambda low, high: high)) is None


def test_without_held_out_data_the_one_that_moved_furthest_is_chosen() -> None:
    seen = [judged(Point.scale(share), lost=0.0, learned=None) for share in (0.25, 0.75, 0.5)]
    chosen = choose(seen)
    assert chosen is not None
    assert chosen.point == Point.scale(0.75)


def kind(factor: float) -> str:
    return f"less x {factor:g}"


def test_a_factor_is_raised_where_removing_everything_is_within() -> None:
    seen = walk_factor(
        lambda p: judged(p, lost=0.0 if p.kind in (kind(0.0), kind(0.5)) else 0.1, learned=1.0), kind, []
    )
    assert [entry.point.kind for entry in seen] == [kind(0.0), kind(0.5), kind(0.75)]


def test_a_treatment_that_is_not_enough_is_scaled_too() -> None:
    seen = walk_factor(lambda p: judged(p, lost=0.1 * p.high, learned=p.high), kind, [])
    assert {entry.point.kind for entry in seen} == {kind(0.0)}
    chosen = choose(seen)
    assert chosen is not None
    assert chosen.point.high == 0.125


def test_a_treatment_that_learned_less_than_what_is_known_is_not_scaled() -> None:
    known = [judged(Point.scale(0.5), lost=0.0, learned=0.9)]
    assert len(walk_treated(lambda p: judged(p, lost=0.1, learned=0.8), "healed", known)) == 1
    assert len(walk_treated(lambda p: judged(p, lost=0.1, learned=1.0), "healed", known)) == 4
    assert len(walk_treated(lambda p: judged(p, lost=0.1, learned=None), "healed", known)) == 4


def test_a_treatment_that_is_enough_is_left_as_it_is() -> None:
    seen = walk_treated(lambda p: judged(p, lost=0.0, learned=1.0), "healed", [])
    assert [entry.point.label for entry in seen] == ["healed"]


def test_what_counts_as_far_can_be_measured() -> None:
    seen = [judged(Point.scale(0.5), lost=0.0, learned=None), judged(Point(1.0, 1.0, "x"), lost=0.0, learned=None)]
    chosen = choose(seen, reach=lambda point: 0.1 if point.kind == "x" else point.low)
    assert chosen is seen[0]

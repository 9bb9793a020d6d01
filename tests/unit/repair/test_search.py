"""The search looks at few points and finds the best within the budget to an eighth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from forgetless.curve import CurvePoint, Point
from forgetless.repair.search import Trail, choose, walk_factor, walk_line, walk_treated


def judged(point: Point, *, lost: float, learned: float | None, budget: float = 0.02) -> CurvePoint:
    is_within = lost <= budget
    return CurvePoint(point, lost, lost, learned, [], is_within=is_within, num_samples=100)


class Looking:
    """A model whose points lose and learn as two functions say."""

    def __init__(self, lost: Callable[[Point], float], learned: Callable[[Point], float | None]) -> None:
        self.lost, self.learned = lost, learned

    def __call__(self, point: Point) -> CurvePoint:
        return judged(point, lost=self.lost(point), learned=self.learned(point))


def trail(
    lost: Callable[[Point], float], learned: Callable[[Point], float | None], seen: Sequence[CurvePoint] = ()
) -> Trail:
    made = Trail(Looking(lost, learned))
    made.seen += seen
    return made


def labels(seen: Sequence[CurvePoint]) -> list[str]:
    return [entry.point.label for entry in seen]


def look_at(lost: Callable[[float, float], float], learned: Callable[[float, float], float]) -> list[CurvePoint]:
    made = trail(lambda p: lost(p.low, p.high), lambda p: learned(p.low, p.high))
    walk_line(made)
    return made.seen


def test_a_model_within_the_budget_is_looked_at_once() -> None:
    seen = look_at(lambda low, high: 0.01 * high, lambda low, high: high)
    assert labels(seen) == ["tuned"]
    assert choose(seen) == seen[0]


@pytest.mark.parametrize("edge", [0.06, 0.2, 0.45, 0.7, 0.93])
def test_the_largest_scale_within_the_budget_is_found_to_an_eighth(edge: float) -> None:
    made = trail(lambda p: 0.03 if p.high > edge else 0.0, lambda p: p.high)
    walk_line(made, layered=False)
    chosen = choose(made.seen)
    found = 0.0 if chosen is None else chosen.point.high
    assert found <= edge < found + 0.125
    assert len(made.seen) == 4


def test_what_would_learn_hardly_more_is_not_asked_what_it_lost() -> None:
    """Half of the change has learned 99 % of it: no scale between can be worth minutes."""
    made = trail(lambda p: 0.03 if p.high > 0.5 else 0.0, lambda p: min(1.0, 1.98 * p.high))
    walk_line(made, layered=False)
    assert labels(made.seen) == ["tuned", "scale 0.5"]
    assert [point.label for point in made.passed] == ["scale 0.75", "scale 0.875"]


def test_layers_win_where_the_bottom_forgets_and_the_top_learns() -> None:
    seen = look_at(lambda low, high: 0.1 * low, lambda low, high: 0.2 * low + 0.8 * high)
    chosen = choose(seen)
    assert chosen is not None
    assert chosen.point.low < chosen.point.high == 1.0
    assert len({entry.point for entry in seen}) == len(seen)


def test_layers_that_learned_less_than_the_best_scale_are_not_looked_at() -> None:
    seen = look_at(lambda low, high: 0.03 * high, lambda low, high: low)
    assert labels(seen) == ["tuned", "scale 0.5", "scale 0.75", "scale 0.625", "layers 0.75 to 1"]
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


def test_without_held_out_data_nearer_points_are_not_worth_a_look() -> None:
    made = trail(lambda p: 0.1 * p.high, lambda p: None)
    walk_line(made)
    assert labels(made.seen) == ["tuned", "scale 0.5", "scale 0.25", "scale 0.125", "layers 0 to 1", "layers 0 to 0.5"]


def kind(factor: float) -> str:
    return f"less x {factor:g}"


def broken(learned: float | None = 1.0) -> CurvePoint:
    return judged(Point.scale(1.0), lost=0.1, learned=learned)


def test_a_factor_is_raised_where_removing_everything_is_within() -> None:
    made = trail(
        lambda p: 0.0 if p.kind in (kind(0.0), kind(0.5)) else 0.1, lambda p: float(p.kind.split()[-1]), [broken()]
    )
    walk_factor(made, kind)
    assert [entry.point.kind for entry in made.seen] == ["line", kind(0.0), kind(0.5), kind(0.75)]


def test_a_factor_that_learned_too_little_is_raised_unasked() -> None:
    known = judged(Point.scale(0.5), lost=0.0, learned=0.6)
    made = trail(lambda p: 0.1, lambda p: float(p.kind.split()[-1]), [broken(), known])
    walk_factor(made, kind)
    assert [entry.point.kind for entry in made.seen[2:]] == [kind(0.75)]


def test_a_treatment_that_is_not_enough_is_scaled_too() -> None:
    made = trail(lambda p: 0.1 * p.high, lambda p: p.high, [broken()])
    walk_factor(made, kind)
    assert {entry.point.kind for entry in made.seen[1:]} == {kind(0.0)}
    chosen = choose(made.seen)
    assert chosen is not None
    assert chosen.point.high == 0.125


@pytest.mark.parametrize(("learned", "num"), [(0.8, 0), (0.91, 0), (1.0, 1), (None, 3)])
def test_a_treatment_that_learned_less_than_what_is_known_is_not_looked_at(learned: float | None, num: int) -> None:
    """Nor is less of one that learned more; where nothing says what was learned, distance decides."""
    known = judged(Point.scale(0.5), lost=0.0, learned=0.9)
    made = trail(lambda p: 0.1, lambda p: learned if learned is None else learned * p.high, [broken(), known])
    walk_treated(made, "healed")
    assert len(made.seen) - 2 == num


def test_a_treatment_that_is_enough_is_left_as_it_is() -> None:
    made = trail(lambda p: 0.0, lambda p: 1.0, [broken()])
    walk_treated(made, "healed")
    assert labels(made.seen) == ["tuned", "healed"]


def test_what_counts_as_far_can_be_measured() -> None:
    seen = [judged(Point.scale(0.5), lost=0.0, learned=None), judged(Point(1.0, 1.0, "x"), lost=0.0, learned=None)]
    chosen = choose(seen, reach=lambda point: 0.1 if point.kind == "x" else point.low)
    assert chosen is seen[0]

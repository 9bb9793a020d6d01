"""Charts of characters show values at their places."""

from __future__ import annotations

import pytest

from forgetless.lessons.charts import Axis, Canvas, ruler, strip, trail


@pytest.mark.parametrize(
    ("value", "place"), [(0.0, 0), (10.0, 10), (5.0, 5), (-0.1, None), (10.1, None), (float("nan"), None)]
)
def test_a_linear_axis(value: float, place: int | None) -> None:
    assert Axis(0.0, 10.0).place(value, 11) == place


def test_a_logarithmic_axis_puts_equal_factors_at_equal_distances() -> None:
    axis = Axis(0.1, 1000.0, is_log=True)
    assert [axis.place(10.0**power, 5) for power in range(-1, 4)] == [0, 1, 2, 3, 4]
    assert (axis.clamp(1e-9), axis.clamp(1e9), axis.clamp(5.0)) == (0.1, 1000.0, 5.0)


def test_braille_dots_stand_where_the_points_are() -> None:
    canvas = Canvas(2, 1, x=Axis(0.0, 3.0), y=Axis(0.0, 3.0))
    canvas.curve([(0.0, 0.0), (3.0, 3.0), (9.0, 9.0)])
    assert [line.plain for line in canvas.lines()] == ["\u2840\u2808"]  # lowest left dot, highest right dot


def test_dots_of_a_cell_add_up() -> None:
    canvas = Canvas(1, 1, x=Axis(0.0, 1.0), y=Axis(0.0, 3.0))
    canvas.curve((x, y) for x in (0.0, 1.0) for y in (0.0, 1.0, 2.0, 3.0))
    assert canvas.lines()[0].plain == "\u28ff"


def test_a_mark_covers_the_dots() -> None:
    canvas = Canvas(3, 2, x=Axis(0.0, 2.0), y=Axis(0.0, 1.0))
    canvas.dot(0.0, 0.0)
    canvas.mark(0.0, 0.0, "A", "bold")
    canvas.mark(5.0, 0.0, "B")
    assert [line.plain for line in canvas.lines()] == ["   ", "A  "]


def test_a_strip_shows_every_value_and_the_median() -> None:
    line = strip([0.0, 0.0, 1.0, 5.0, 6.0, 6.0, 6.0, 99.0], Axis(0.0, 10.0), 11)
    assert line.plain == "•·   ·┃   ·"  # the median, 5.5, stands at 6
    assert strip([1.0] * 3 + [4.0] * 4, Axis(0.0, 4.0), 5).plain == " ●  ┃"


def test_a_trail_numbers_the_first_steps() -> None:
    weights = [0.0, 2.0, 4.0, 99.0, *[4.0] * 6, 6.0, 6.0]
    assert trail(weights, Axis(0.0, 6.0), 7).plain == "0 1 2 ·"


def test_a_ruler_leaves_out_what_finds_no_room() -> None:
    assert ruler([0, 1, 10], Axis(0.0, 10.0), 11).plain == "0        10"
    assert ruler([0, 5, 10], Axis(0.0, 10.0), 11).plain == "0    5   10"

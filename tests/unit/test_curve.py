"""The record of a walk: points in words, the sentence that a user reads, and reading back what was written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from forgetless.curve import Curve, CurvePoint, Point, read_curve
from forgetless.errors import DataError

TUNED = CurvePoint(Point.scale(1.0), 0.08, 0.10, 1.0, ["geography"], is_within=False, num_samples=400)
HALF = CurvePoint(Point.scale(0.5), 0.004, 0.015, 0.7, [], is_within=True, num_samples=400)
CURVE = Curve(0.02, 0.8, [TUNED, HALF], Point.scale(0.5))


@pytest.mark.parametrize(
    ("point", "label"),
    [
        (Point.scale(0.0), "base"),
        (Point.scale(1.0), "tuned"),
        (Point.scale(0.375), "scale 0.375"),
        (Point(0.0, 1.0), "layers 0 to 1"),
        (Point(1.0, 1.0, kind="healed"), "healed"),
        (Point.scale(0.5), "scale 0.5"),
        (Point(0.5, 0.5, kind="healed"), "healed, scale 0.5"),
    ],
)
def test_a_point_has_a_name(point: Point, label: str) -> None:
    assert point.label == label


def test_shares_grow_evenly_from_the_bottom_to_the_top() -> None:
    point = Point(0.0, 1.0)
    assert [point.share(depth, 5) for depth in range(7)] == [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert Point(0.0, 1.0).share(1, 1) == 1.0


def test_a_curve_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "curve.json"
    whole = replace(CURVE, confirmed=HALF, verdict="PASS")
    left = replace(TUNED, point=Point.scale(0.75), forgetting=None, forgetting_upper=None)
    for curve in (CURVE, replace(CURVE, points=[*CURVE.points, left]), whole):
        path.write_text(curve.to_json())
        assert read_curve(path) == curve
    assert json.loads(path.read_text())["sentence"] == whole.sentence


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 2}', '{"schema": 1}'])
def test_what_is_no_curve_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "curve.json").write_text(content)
    with pytest.raises(DataError):
        read_curve(tmp_path / "curve.json")
    with pytest.raises(DataError, match="there is no such file"):
        read_curve(tmp_path / "absent.json")


def test_the_sentence_says_what_came_of_the_budget() -> None:
    assert CURVE.learning_kept == 0.7
    assert "scale 0.5 is within it and keeps 70 % of what was learned; not confirmed yet" in CURVE.sentence
    within = replace(HALF, forgetting=0.01)
    assert "no drop larger than the budget" in replace(CURVE, confirmed=within, verdict="PASS").sentence
    assert "can't exclude more" in replace(CURVE, confirmed=within, verdict="INCONCLUSIVE").sentence
    more = replace(HALF, forgetting=0.03)
    assert "it is not confirmed" in replace(CURVE, confirmed=more, verdict="INCONCLUSIVE").sentence
    lost = replace(more, forgot=["science"])
    assert "it forgot science: the budget is MISSED" in replace(CURVE, confirmed=lost, verdict="FAIL").sentence


def test_the_ends_have_sentences_of_their_own() -> None:
    fine = replace(TUNED, is_within=True, forgot=[])
    assert "the tuned model is within the budget" in Curve(0.02, 0.8, [fine], Point.scale(1.0)).sentence
    base = CurvePoint(Point.scale(0.0), 0.0, 0.0, 0.0, [], is_within=True, num_samples=400)
    assert "no point that learned anything" in Curve(0.02, 0.8, [TUNED, base], Point.scale(0.0)).sentence


def test_nothing_learned_is_no_share() -> None:
    assert Curve(0.02, 0.8, [replace(TUNED, learning=-0.1), HALF], Point.scale(0.5)).learning_kept is None
    assert replace(TUNED, forgot=[]).reason == "may have lost more than the budget"
    assert (TUNED.reason, HALF.reason) == ("forgot geography", "within the budget")

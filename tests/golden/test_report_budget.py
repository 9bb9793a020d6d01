"""The budget on the pages: the sentence, the chosen point, both halves, and nothing where there was no budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from forgetless.compare.comparison import compare
from forgetless.curve import Curve, CurvePoint, Point
from forgetless.judging import build_pages
from forgetless.records import SampleScore
from forgetless.report.budget import budget_figure
from forgetless.report.wording import NONE
from forgetless.rundir import write_comparison

TUNED = CurvePoint(Point.scale(1.0), 0.08, 0.10, 1.0, ["<b>geography"], is_within=False, num_samples=400)
HALF = CurvePoint(Point.scale(0.5), 0.004, 0.015, 0.7, [], is_within=True, num_samples=400)
QUARTER = CurvePoint(Point.scale(0.25), 0.001, 0.010, 0.4, [], is_within=True, num_samples=400)
CURVE = Curve(0.02, 0.9, [TUNED, HALF, QUARTER], Point.scale(0.5), replace(HALF, num_samples=404), "PASS")


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    scores = [SampleScore("geography", str(number), float(number % 2)) for number in range(40)]
    write_comparison(tmp_path / "comparison.json", compare(scores, scores, margin=0.02))
    return tmp_path


def test_the_pages_show_the_budget_where_there_is_one(run_directory: Path) -> None:
    build_pages(run_directory)
    assert 'id="budget"' not in (run_directory / "report.html").read_text()
    (run_directory / "curve.json").write_text(CURVE.to_json())
    build_pages(run_directory)
    page = (run_directory / "report.html").read_text()
    assert 'id="budget"' in page
    assert "keeps 70 % of what was learned" in page
    assert "scale 0.5 (chosen)" in page
    assert "<b>geography" not in page  # escaped, wherever it stands
    assert "**Budget**" in (run_directory / "report.md").read_text()


def test_the_table_holds_every_point_and_the_confirmation() -> None:
    rows = budget_figure(CURVE).rows
    assert [row[0] for row in rows] == ["tuned", "scale 0.5 (chosen)", "scale 0.25", "scale 0.5, confirmation half"]
    assert [row[4] for row in rows] == ["100 %", "70 %", "40 %", NONE]


def test_without_held_out_data_the_share_moved_is_drawn() -> None:
    points = [replace(entry, learning=None) for entry in CURVE.points]
    chart = budget_figure(replace(CURVE, points=points, confirmed=None))
    assert {height for trace in chart.data for height in trace["y"]} == {1.0, 0.5, 0.25}
    assert {row[4] for row in chart.rows} == {NONE}


def test_groups_without_a_point_have_no_trace() -> None:
    fine = replace(TUNED, is_within=True, forgot=[])
    chart = budget_figure(Curve(0.02, 0.9, [fine], Point.scale(1.0)))
    assert [trace["name"] for trace in chart.data] == ["chosen"]


def test_a_point_that_was_left_early_stands_in_the_table_alone() -> None:
    left = replace(QUARTER, forgetting=None, forgetting_upper=None, forgot=["reading"], is_within=False)
    chart = budget_figure(replace(CURVE, points=[TUNED, HALF, left]))
    assert "the table lists them" in chart.caption
    assert "the table lists them" not in budget_figure(CURVE).caption
    assert "scale 0.25" not in {text for trace in chart.data for text in trace["text"]}
    assert chart.rows[2] == ("scale 0.25", NONE, NONE, "0.400", "40 %", "reading")

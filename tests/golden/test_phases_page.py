"""The pages of a sequence: closed tags, the figures of the record, the same as a table, and no text that runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from forgetless.judging import build_pages
from forgetless.phase_records import Estimate, PhasesRecord
from forgetless.report.phases import build_phases_report, general_figure, heat_map, render_phases_html
from forgetless.report.wording import MINUS, NONE
from golden.golden_page import Page
from phase_scores import KEPT, LOST, record


def write(directory: Path, phases: PhasesRecord) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "phases.json").write_text(phases.to_json())
    (directory / "manifest.json").write_text(json.dumps({"schema": 1, "name": "mine", "config": {"seed": 3}}))
    return directory


def test_the_page_shows_matrix_measures_and_verdicts(tmp_path: Path) -> None:
    pages = build_pages(write(tmp_path, record(LOST)))
    assert [page.name for page in pages] == ["report.html", "report.md"]
    page = Page(pages[0].read_text(encoding="utf-8"))
    for part in ("FAIL", "mine", "after two", "BWT", f"{MINUS}30.0 (", "✕ FORGOT", "seed: 3", "phases one , two"):
        assert part in page.words, part
    figures = [json.loads(script) for script in page.scripts if script.startswith('{"data"')]
    assert len(figures) == 3
    assert {link["href"] for link in page.all("a")} >= {"phases/01-one/report.html", "phases/02-two/report.html"}
    text = pages[1].read_text(encoding="utf-8")
    assert "| after one | **70.0 (" in text
    assert f"| BWT | {MINUS}30.0 (" in text


def test_the_own_phases_are_framed_and_better_is_darker() -> None:
    phases = record(LOST)
    answers, loss = (heat_map(measure, phases) for measure in phases.measures)
    shapes = answers.layout["shapes"]
    assert len(shapes) == 6
    framed = [(round(s["x0"] + 0.47), round(s["y0"] + 0.45)) for s in shapes if s["line"]["width"] == 3]
    assert framed == [(0, 1), (1, 2)]
    blue = {
        name: [int(shape["fillcolor"][1:3], 16) for shape in figure.layout["shapes"]]
        for name, figure in (("answers", answers), ("loss", loss))
    }
    assert blue["answers"][2] < blue["answers"][4] < blue["answers"][0]  # 70, 40 and 10 points
    assert blue["loss"][5] == min(blue["loss"])  # 1.0 nats, the lowest
    assert "lower is better" in loss.caption
    assert loss.rows[2][0] == "after two"


def test_what_was_not_measured_is_left_out() -> None:
    phases = record(KEPT)
    blank = []
    for phase in phases.phases:
        pooled = replace(phase.general.pooled, delta=None)
        blank.append(replace(phase, general=replace(phase.general, pooled=pooled)))
    assert general_figure(replace(phases, phases=blank)) is None
    measure = replace(phases.measures[0], base=[Estimate(None), Estimate(0.2)])
    assert heat_map(measure, phases).rows[0][1] == NONE
    alone = replace(phases, phases=blank[:1], measures=[replace(phases.measures[0], backward_transfer=Estimate(None))])
    assert "general skills were not measured on both sides." in render_phases_html(alone, {}, "x")


def test_one_page_can_be_built_alone_without_a_manifest(tmp_path: Path) -> None:
    (write(tmp_path, record(KEPT)) / "manifest.json").unlink()
    assert [page.name for page in build_phases_report(tmp_path, names=["report.md"])] == ["report.md"]
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "</script><b>"])
def test_text_of_a_run_does_not_run(tmp_path: Path, text: str) -> None:
    hostile = replace(record(KEPT), reasons=[text], advice=[text])
    hostile = replace(hostile, phases=[replace(phase, name=text) for phase in hostile.phases])
    hostile = replace(hostile, measures=[replace(measure, phases=[text, text]) for measure in hostile.measures])
    page = build_pages(write(tmp_path, hostile))[0].read_text(encoding="utf-8")
    assert text not in page
    Page(page)

"""`run --budget` on a tiny model: the artefact is the chosen point, and the half that nobody looked at judges it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from forgetless import walking
from forgetless.cli import app
from forgetless.curve import CurvePoint, Point, read_curve
from forgetless.records import read_comparison, read_scores


@pytest.fixture
def flags(tiny_directory: Path, questions: Path, tasks_directory: Path, cache: Path, tmp_path: Path) -> list[str]:
    assert cache.parent == tmp_path
    return [
        *("run", "--model", str(tiny_directory), "--data", str(questions), "--budget", "0.2"),
        *("--tasks-dir", str(tasks_directory), "--suite", "letters,picks,prose"),
        *("--epochs", "1", "--max-tokens", "64", "--out", str(tmp_path / "out")),
    ]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_halves_share_no_sample_and_the_artefact_is_judged_on_the_second(flags: list[str], tmp_path: Path) -> None:
    result = invoke(*flags, "--learning-rate", "0.05")
    out = tmp_path / "out"
    comparison, curve = read_comparison(out / "comparison.json"), read_curve(out / "curve.json")
    assert result.exit_code == comparison.verdict.exit_code, result.output
    assert (curve.verdict, curve.budget, comparison.margin) == (comparison.verdict.value, 0.2, 0.2)
    selection, *judged = (
        {(score.task, score.sample_id) for score in read_scores(path)}
        for path in (out / "selection/base.scores.jsonl", out / "base.scores.jsonl", out / "tuned.scores.jsonl")
    )
    assert judged[0] == judged[1]
    assert not selection & judged[0]
    assert len(selection | judged[0]) == 30 + 2 + 1  # of the free answers to two held-out examples one half only
    assert curve.sentence in " ".join(result.output.split())


@pytest.mark.parametrize("methods", [["--method", "lora:rank=4"], ["--method", "none"]])
def test_what_breaks_the_budget_is_walked_back(
    flags: list[str], tmp_path: Path, methods: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_point = walking.judge_point

    def judge(point: Point, *scores: Any, **limits: Any) -> CurvePoint:
        entry = judge_point(point, *scores, **limits)
        return replace(entry, is_within=point.high <= 0.5, learning=point.high)

    monkeypatch.setattr(walking, "judge_point", judge)  # a model with random weights has no skill to lose
    monkeypatch.setattr(walking.Walker, "learned", lambda self, point: point.high)
    invoke(*flags, *methods)
    out = tmp_path / "out"
    curve = read_curve(out / "curve.json")
    assert curve.chosen.label == "scale 0.5"
    saved = sorted(path.name for path in (out / "selection").glob("*.jsonl"))
    labels = {entry.point.label.replace(" ", "-") for entry in curve.points}
    assert saved == sorted(f"{name}.scores.jsonl" for name in labels | {"base"})
    weights = "adapter_model.safetensors" if "lora" in methods[1] else "model.safetensors"
    assert (out / "model" / weights).read_bytes() != (out / "trained" / weights).read_bytes()


def test_where_no_point_is_within_the_base_is_what_is_left(flags: list[str], tmp_path: Path) -> None:
    result = invoke(*flags, "--budget", "0.001")  # ten samples can't show so little
    out = tmp_path / "out"
    assert read_curve(out / "curve.json").chosen.is_base
    assert "no point that learned anything" in " ".join(result.output.split())
    base, tuned = (read_scores(out / f"{side}.scores.jsonl") for side in ("base", "tuned"))
    assert [score.answer for score in base] == [score.answer for score in tuned]


def test_a_run_with_a_budget_is_taken_up_where_it_stopped(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forgetless import pipeline

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "tuned_stage", stop)
        assert invoke(*flags).exit_code == 130
    before = (tmp_path / "out/curve.json").stat().st_mtime_ns
    assert json.loads((tmp_path / "out/manifest.json").read_text())["stages"]["walk"]["state"] == "done"
    monkeypatch.setattr("forgetless.walking.walk", stop)  # would end it again
    assert invoke(*flags).exit_code in {0, 1, 3}
    assert (tmp_path / "out/curve.json").stat().st_mtime_ns > before  # the verdict was added


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--margin", "0.05"], "both say how much may be lost"),
        (["--suite", "prose"], "needs a suite"),
        (["--budget", "0"], "budget = 0"),
        (["--budget", "2"], "budget = 2"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_at_once(flags: list[str], change: list[str], words: str) -> None:
    result = invoke(*flags, *change)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())

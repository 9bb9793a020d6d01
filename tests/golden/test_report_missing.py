"""Directories that hold less than a whole run: the report shows what there is, and says what isn't there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from forgetless.errors import DataError
from forgetless.records import Status
from forgetless.report import build_report, read_evidence
from golden.golden_page import Page
from golden.golden_run import failed_comparison, graded_row, write_lines, write_run


def built(directory: Path) -> Page:
    build_report(directory)
    return Page((directory / "report.html").read_text(encoding="utf-8"))


def test_comparison_alone_is_enough(bare_directory: Path) -> None:
    page = built(bare_directory)
    assert "compared" in page.words
    for note in (
        "There is no manifest.json here",
        "There is no training log here",
        "they are read from base.scores.jsonl and tuned.scores.jsonl",
        "Nothing here tells which methods were used.",
        "Nothing here tells what was trained on.",
    ):
        assert note in page.words
    assert "Not there when it was written: manifest.json, mixture.jsonl" in page.words
    assert "How it was trained" not in (bare_directory / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["manifest.json", "mixture.jsonl", "base.scores.jsonl", "tuned.scores.jsonl", "train.jsonl"]
)
def test_any_one_file_may_be_missing(run_directory: Path, name: str) -> None:
    (run_directory / name).unlink()
    assert read_evidence(run_directory).missing == [name]
    assert f"Not there when it was written: {name}." in built(run_directory).words


def test_without_comparison_the_error_says_what_writes_it(run_directory: Path) -> None:
    (run_directory / "comparison.json").unlink()
    with pytest.raises(DataError, match="forgetless compare"):
        build_report(run_directory)
    assert not (run_directory / "report.html").exists()


def test_without_target_task_learning_is_said_to_be_unknown(tmp_path: Path) -> None:
    comparison = replace(failed_comparison(), tasks=[graded_row("reading")])
    page = built(write_run(tmp_path / "run", comparison))
    assert "No target task was measured" in page.words
    assert "no target task was measured" in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")


def test_comparison_without_any_pair_makes_pages_too(tmp_path: Path) -> None:
    row = replace(
        graded_row("reading"), num_samples=0, base=None, tuned=None, delta=None, ci_low=None, ci_high=None,
        forgetting_upper=None, lost=0, gained=0, p_value=None, p_adjusted=None, status=Status.MISSING,
    )  # fmt: skip
    comparison = replace(failed_comparison(), tasks=[row], pooled=replace(row, task="pooled"), checks=[], reasons=[])
    page = built(write_run(tmp_path / "run", comparison))
    assert "No general task has a delta to draw." in page.words
    assert "None" not in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")


def test_manifest_of_a_run_that_stopped_early_is_shown(run_directory: Path) -> None:
    manifest = {"schema": 1, "name": "half", "stages": {"train": {"state": "failed"}}, "methods": [{}], "model": None}
    (run_directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    page = built(run_directory)
    assert "train failed" in page.words
    assert "unnamed" in page.words


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 2}'])
def test_manifest_that_cannot_be_read_is_refused_by_name(run_directory: Path, content: str) -> None:
    (run_directory / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"manifest\.json"):
        build_report(run_directory)


def test_torn_last_line_of_the_training_log_is_passed_over(run_directory: Path) -> None:
    with (run_directory / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 96, "lo')
    assert read_evidence(run_directory).training_log[-1]["step"] == 94


def test_damage_within_the_training_log_is_refused_by_line(run_directory: Path) -> None:
    (run_directory / "train.jsonl").write_text('{"step": 1}\nnot json\n{"step": 3}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.jsonl, line 2"):
        build_report(run_directory)


def test_losses_that_are_not_finite_leave_a_gap(run_directory: Path) -> None:
    write_lines(
        run_directory / "train.jsonl",
        [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan"), "penalties": {"ewc": float("inf")}}],
    )
    page = built(run_directory)
    curve = next(json.loads(text) for text in page.scripts if '"line": {"color": "@series-1"' in text)
    assert curve["data"][0]["y"] == [2.0]


def test_long_training_is_thinned_in_the_table(run_directory: Path) -> None:
    write_lines(run_directory / "train.jsonl", [{"step": step, "loss": 1.0 / step} for step in range(1, 5001)])
    page = built(run_directory)
    assert "40 of 5,000 logged steps." in page.words
    curve = next(json.loads(text) for text in page.scripts if '"line": {"color": "@series-1"' in text)
    assert (curve["data"][0]["x"][0], curve["data"][0]["x"][-1], len(curve["data"][0]["x"])) == (1, 5000, 2000)


def test_what_was_told_during_the_run_is_on_the_page(run_directory: Path) -> None:
    path = run_directory / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["stages"]["data"] = {"warnings": ["general examples repeat 3 times"], "notes": None}
    manifest["stages"]["train"] |= {"notes": ["left out <b>2</b> of 9 tokens", 7, "left out <b>2</b> of 9 tokens"]}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert read_evidence(run_directory).notes == ["general examples repeat 3 times", "left out <b>2</b> of 9 tokens"]
    page = built(run_directory)
    assert "Told during the run: general examples repeat 3 times" in page.words
    assert "left out <b>2</b> of 9 tokens" in page.words

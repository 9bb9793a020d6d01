"""The function behind `forgetless lesson`, and the command."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import forgetless
from forgetless import lessons
from forgetless.cli import app
from forgetless.errors import ConfigError
from forgetless.lessons.single_weight import SingleWeight
from forgetless.lessons.two_heads import TwoHeads


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch, two_heads: TwoHeads) -> None:
    from forgetless.lessons import two_heads as module

    def run(num_seeds: int, progress: Any = None) -> TwoHeads:
        if progress is not None:
            progress(num_seeds, num_seeds)
        assert num_seeds in (3, 20)
        return two_heads

    monkeypatch.setattr(module, "run_two_heads", run)


@pytest.mark.parametrize("name", ["two-heads", "single-weight"])
def test_a_page_and_its_figures_are_saved(name: Any, tmp_path: Path) -> None:
    result = forgetless.lesson(name, tmp_path / "new" / "place", seeds=3)
    assert sorted(path.name for path in (tmp_path / "new" / "place").iterdir()) == [f"{name}.html", f"{name}.json"]
    saved = json.loads((tmp_path / "new" / "place" / f"{name}.json").read_text(encoding="utf-8"))
    assert saved == json.loads(json.dumps(lessons.figures(result)))
    assert (saved["schema"], saved["lesson"]) == (1, name)


def test_nothing_is_written_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(forgetless.lesson("single-weight"), SingleWeight)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_lesson_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no lesson 'two-head'.*'two-heads'"):
        forgetless.lesson("two-head")  # type: ignore[arg-type]


def test_figures_hold_every_trial(two_heads: TwoHeads) -> None:
    found = lessons.figures(two_heads)
    assert found["num_seeds"] == 3
    plain = found["trials"]["plain"]
    assert [trial["seed"] for trial in plain] == [0, 1, 2]
    ratios = [trial["after"]["training"] / trial["before"]["training"] for trial in plain]
    assert found["variants"]["plain"]["ratio"]["max"] == pytest.approx(max(ratios))


@pytest.mark.parametrize("name", ["two-heads", "single-weight"])
def test_a_lesson_is_shown(name: Any) -> None:
    console = Console(width=80, file=io.StringIO())
    lessons.show(console, forgetless.lesson(name))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("\n") > 15


@pytest.mark.parametrize(("name", "flags"), [("two-heads", ["--seeds", "3"]), ("single-weight", [])])
def test_the_command(name: str, flags: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["lesson", name, "--out", str(tmp_path), *flags])
    assert done.exit_code == 0, done.output
    assert f"page: {tmp_path / name}.html" in done.output.replace("\n", "")
    assert (tmp_path / f"{name}.html").is_file()
    as_json = CliRunner().invoke(app, ["lesson", name, "--out", str(tmp_path), *flags, "--json"])
    assert json.loads(as_json.stdout)["lesson"] == name


@pytest.mark.parametrize("arguments", [["three-heads"], ["two-heads", "--seeds", "0"]])
def test_bad_usage_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["lesson", *arguments]).exit_code == 2

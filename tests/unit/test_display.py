"""What the commands print: nothing is cut off in a narrow terminal, and JSON is all there is for scripts."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from forgetless import display
from forgetless.compare.comparison import compare
from forgetless.doctor import Finding
from forgetless.records import Attribution, Cause, Comparison, Role, SampleScore, Unit


def scores(*, lost: int) -> list[SampleScore]:
    """Returns scores of a task with brackets in its name, of a target task, and of a text."""
    name = "a[/red]_long_name_of_a_task"
    grades = [SampleScore(name, f"{i}", float(i >= lost)) for i in range(1000)]
    learned = [SampleScore("learned", f"{i}", float(lost > 0 or i > 4), role=Role.TARGET) for i in range(10)]
    prose = [SampleScore("prose", f"{i}", 3 + lost / 1e4 + i / 100, unit=Unit.NATS_PER_TOKEN) for i in range(10)]
    return [*grades, *learned, *prose]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(scores(lost=0), scores(lost=100), margin=0.03)


def printed(show: Any, *arguments: Any, width: int = 100, **options: Any) -> str:
    file = io.StringIO()
    show(Console(file=file, width=width), *arguments, **options)
    return file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 96, 200])
def test_nothing_is_cut_off_at_any_width(comparison: Comparison, width: int) -> None:
    text = printed(display.show_comparison, comparison, width=width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    for part in ("general", "learned", "prose", "FORGOT", "LEARNED", "-10.0", "FAIL"):
        assert part in text
    assert "a[/red]" in text.replace(" ", "")


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, []),
        (60, ["100.0 → 90.0"]),
        (80, ["100.0 → 90.0", "95% interval"]),
        (96, ["100.0 → 90.0", "95% interval", "100/0"]),
    ],
)
def test_columns_appear_as_there_is_room(comparison: Comparison, width: int, shown: list[str]) -> None:
    text = printed(lambda console: console.print(display.comparison_table(comparison, width=width)), width=width)
    everything = ["100.0 → 90.0", "95% interval", "100/0"]
    assert [part for part in everything if part in text] == shown


def test_the_verdict_comes_with_reasons_advice_and_the_report(comparison: Comparison) -> None:
    text = printed(display.show_comparison, comparison, width=400, report=Path("runs/[a]/report.html"))
    assert "FAIL margin 0.03, alpha 0.05" in text
    for sentence in (*comparison.reasons, *comparison.problems, *comparison.advice):
        assert sentence in text
    assert "What to do next" in text
    assert "report: runs/[a]/report.html" in text
    assert "prose: nats per token, lower is better" in text


def test_figures_that_do_not_exist_are_dashes() -> None:
    lonely = compare([*scores(lost=0), SampleScore("gone", "0", 1.0)], scores(lost=0), margin=0.03)
    text = printed(display.show_comparison, lonely, width=200)
    (line,) = (line for line in text.splitlines() if line.strip().startswith("gone"))
    assert "MISSING" in line
    assert " -  " in line
    assert "None" not in text


def test_scores_are_summed_up_by_task(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        SampleScore("[b]t", "0", 1.0),
        SampleScore("[b]t", "1", 0.0),
        SampleScore("loss", "0", 2.0, unit=Unit.NATS_PER_TOKEN, weight=3.0),
        SampleScore("loss", "1", 4.0, unit=Unit.NATS_PER_TOKEN, weight=1.0),
    ]
    text = printed(display.show_scores, found, as_json=False, out=Path("[c].jsonl"))
    assert "[b]t" in text
    assert "0.500" in text
    assert "2.500" in text  # weighted by tokens
    assert "scores: [c].jsonl" in text
    assert printed(display.show_scores, found, as_json=True, out=None) == ""
    rows = json.loads(capsys.readouterr().out)["tasks"]
    assert [(row["task"], row["mean"], row["num_samples"]) for row in rows] == [("[b]t", 0.5, 2), ("loss", 2.5, 2)]


def test_methods_come_with_paper_needs_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(display.show_methods, as_json=False)
    for part in (
        "adapters: what is trained",
        "methods: []",
        "alpha = null",
        "lora",
        "https://arxiv.org/abs/2106.09685",
        "rank = 16",
        "Rank of",
        "replay",
    ):
        assert part in text
    narrow = [line.rstrip() for line in printed(display.show_methods, width=80, as_json=False).splitlines()]
    assert max(map(len, narrow)) <= 80
    assert "  limits   not with the adapter" in narrow
    printed(display.show_methods, as_json=True)
    methods = {row["name"]: row for row in json.loads(capsys.readouterr().out)["methods"]}
    assert set(methods["lora"]) == {
        *("name", "title", "family", "paper", "needs", "cost"),
        *("claims", "requires", "refuses", "options"),
    }
    assert {"name": "rank", "default": 16, "description": "Rank of the update of each matrix."} in methods["lora"][
        "options"
    ]


def test_tasks_come_with_their_suites(tasks_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(display.show_tasks, [tasks_directory], width=60, as_json=False)
    assert "instruction_following" in text  # names are typed, so none is shortened
    assert "letters" in text
    printed(display.show_tasks, [tasks_directory], as_json=True)
    raw = json.loads(capsys.readouterr().out)
    tasks = {row["task"]: row for row in raw["tasks"]}
    assert tasks["letters"] | {"description": ""} == {
        "task": "letters",
        "version": 1,
        "kind": "generate",
        "role": "retention",
        "num_samples": 10,
        "description": "",
        "suites": [],
    }
    assert all(name in tasks and "core" in tasks[name]["suites"] for name in raw["suites"]["core"])


def test_findings_come_with_their_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [Finding("Python", True, "3.11"), Finding("cache", False, "[/tmp]", "set [it]")]
    assert printed(display.show_findings, findings, as_json=False).splitlines() == [
        "ok   Python: 3.11",
        "bad  cache: [/tmp]",
        "     mend: set [it]",
    ]
    printed(display.show_findings, findings, as_json=True)
    assert json.loads(capsys.readouterr().out)["findings"][1] == {
        "name": "cache",
        "is_fine": False,
        "detail": "[/tmp]",
        "remedy": "set [it]",
    }


def test_what_kind_of_loss_stands_behind_the_reasons(comparison: Comparison) -> None:
    entry = Attribution("a[/red]", Cause.TEMPLATE, 9, 9, "9 of 9 [bold]", "Mend it.")
    text = printed(display.show_comparison, replace(comparison, attributions=[entry]))
    assert "a[/red]: TEMPLATE. 9 of 9 [bold]" in text

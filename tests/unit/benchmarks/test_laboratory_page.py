"""The laboratory's page says what was measured."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "write_laboratory_page.py"))
PAGES = SCRIPT["pages"]()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_made_from_its_measurements(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path]


def row(name: str, forgotten: float, **fields: Any) -> dict[str, Any]:
    value = {"mean": forgotten, "low": forgotten - 0.02, "high": forgotten + 0.02}
    return {
        "name": name,
        "family": "data",
        "kept": "general",
        "is_control": False,
        "methods": ["lora", {"replay": {"share": 0.25}}],
        "rate": 3e-4,
        "steps": 50,
        "is_reached": True,
        "num_seeds": 10,
        "target": {"mean": 0.96, "low": 0.94, "high": 0.98},
        "unseen": 0.8,
        "forgetting": value,
        "by_seed": {"0": forgotten, "1": -0.01},
        "skills": {"facts": forgotten},
        "step_ratio": 1.5,
        "memory_ratio": 0.7,
        "finding": "no better than the controls",
        **fields,
    }


BASES: dict[str, Any] = {
    "finding": "beats both controls",
    "num_bases": 3,
    "num_bases_won": 2,
    "p_value_of_bases": 0.04,
    "p_adjusted_of_bases": 0.2,
}
RESULT: dict[str, Any] = {
    "num_seeds": 10,
    "num_validation": 3,
    "commands": ["a command"],
    "versions": {"torch": "2"},
    "num_runs": 7,
    "hours": 0.5,
    "bases": [{"facts": 0.98}],
    "goal": 0.95,
    "slack": 0.02,
    "longest": 240,
    "alpha": 0.05,
    "rows": [
        row("plain", 0.5, is_control=True, finding="reference", methods=[]),
        row("fine", 0.1, saved={"mean": 0.4, "low": 0.3, "high": 0.5}, p_adjusted=1e-6, **BASES),
        row("short", 0.3, num_seeds=5, p_adjusted=0.03125),
        {"name": "gone", "family": "data", "missing": "method 'gone' needs a GPU", "finding": "not run"},
    ],
}


def test_rows_are_shown_from_the_least_forgetting_with_options_costs_and_findings() -> None:
    page = SCRIPT["page"](RESULT)
    fine = (
        "| fine | rate 0.0003; lora; replay: share 0.25 | general | 50 | 96 [94, 98] | 80 | 10 [8, 12] | 40 [30, 50] "
        "| < 0.0001 | 2 of 3 | 1.50 | 0.70 | **beats both controls** |"
    )
    assert fine in page
    assert page.index("| fine |") < page.index("| short (5 seeds) |") < page.index("| plain |")
    assert "| 0.0312 |" in page
    assert "1 of 1 rows have a p-value of at most 0.05, and 0 after Holm's adjustment" in " ".join(page.split())
    assert "| gone | method 'gone' needs a GPU |" in page


def test_without_failures_nothing_is_said_of_them() -> None:
    whole = {**RESULT, "rows": RESULT["rows"][:-1]}
    assert "Not in the table" not in SCRIPT["page"](whole)


def test_the_figure_is_svg_with_a_dot_for_each_seed_and_a_mean() -> None:
    figure = ElementTree.fromstring(SCRIPT["figure"](RESULT))
    circles = [element for element in figure.iter() if element.tag.endswith("circle")]
    assert len(circles) == 3 * (2 + 1)
    assert min(float(circle.attrib["cx"]) for circle in circles) == 210  # what isn't forgotten stays on the axis


def test_rows_of_other_base_models_stand_apart_until_they_are_run_again() -> None:
    names = ("plain", "fine", "old")
    rows = [*RESULT["rows"], row("old", 0.2, saved={"mean": 0.1, "low": 0.0, "high": 0.2})]
    earlier = {**RESULT, "commit": "abc", "rows": [entry for entry in rows if entry["name"] in names]}
    kept = SCRIPT["of_other_bases"](RESULT, earlier)
    assert [entry["name"] for entry in kept["rows"]] == ["plain", "old"]  # with its own reference
    page = SCRIPT["page"](RESULT, kept)
    assert page.index("| fine |") < page.index("## Rows of other base models") < page.index("| old |")
    assert "at commit\nabc" in page
    card = SCRIPT["evidence"]("old", RESULT, kept)
    assert "- old: 20 [18, 22] (plain fine-tuning 30), with 96 % of the target" in card
    assert SCRIPT["of_other_bases"](RESULT, {**earlier, "rows": earlier["rows"][:2]}) is None


def test_a_card_lists_the_compositions_that_a_method_is_part_of() -> None:
    rows = [*RESULT["rows"], row("fine + short", 0.05), row("finer", 0.0)]
    card = SCRIPT["evidence"]("fine", {**RESULT, "rows": rows}, None)
    assert [line.partition(":")[0] for line in card.splitlines() if line.startswith("-")] == [
        "- fine",
        "- fine + short",
    ]

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
    "alpha": 0.05,
    "rows": [
        row("plain", 0.5, is_control=True, finding="reference", methods=[]),
        row("fine", 0.1, saved={"mean": 0.4, "low": 0.3, "high": 0.5}, p_adjusted=1e-6, finding="beats both controls"),
        row("short", 0.3, num_seeds=5, p_adjusted=0.03125),
        {"name": "gone", "family": "data", "missing": "method 'gone' needs a GPU", "finding": "not run"},
    ],
}


def test_rows_are_shown_from_the_least_forgetting_with_options_costs_and_findings() -> None:
    page = SCRIPT["page"](RESULT)
    fine = (
        "| fine | rate 0.0003; lora; replay: share 0.25 | general | 50 | 96 [94, 98] | 80 | 10 [8, 12] | 40 [30, 50] "
        "| < 0.0001 | 1.50 | 0.70 | **beats both controls** |"
    )
    assert fine in page
    assert page.index("| fine |") < page.index("| short (5 seeds) |") < page.index("| plain |")
    assert "| 0.0312 |" in page
    assert "| gone | method 'gone' needs a GPU |" in page


def test_without_failures_nothing_is_said_of_them() -> None:
    whole = {**RESULT, "rows": RESULT["rows"][:-1]}
    assert "Not in the table" not in SCRIPT["page"](whole)


def test_the_figure_is_svg_with_a_dot_for_each_seed_and_a_mean() -> None:
    figure = ElementTree.fromstring(SCRIPT["figure"](RESULT))
    circles = [element for element in figure.iter() if element.tag.endswith("circle")]
    assert len(circles) == 3 * (2 + 1)
    assert min(float(circle.attrib["cx"]) for circle in circles) == 210  # what isn't forgotten stays on the axis

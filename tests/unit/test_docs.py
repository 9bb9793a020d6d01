"""The documentation agrees with the code."""

from __future__ import annotations

import ast
import json
import re
import runpy
from pathlib import Path

import pytest
import typer.main

import forgetless
from forgetless.cli import app
from forgetless.config import load_config
from forgetless.methods import METHODS
from forgetless.records import Status

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_config_reference_is_made_from_the_config() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "write_reference.py"))["config_reference"]()
    assert (ROOT / "docs" / "reference" / "config.md").read_text(encoding="utf-8") == made


def test_the_page_of_methods_is_made_from_the_methods() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "write_reference.py"))["methods_index"]()
    assert (ROOT / "docs" / "methods" / "index.md").read_text(encoding="utf-8") == made
    assert all(f"[`{name}`]({name}.md)" in made for name in METHODS)


def test_the_agreement_page_is_made_from_its_results() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "evaluation" / "agreement.py"))
    results = json.loads(script["RESULTS"].read_text(encoding="utf-8"))
    assert script["PAGE"].read_text(encoding="utf-8") == script["write_page"](results)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_pages_exist_with_their_flags(page: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for name, rest in re.findall(r"(?:^|[ `/])forgetless ([a-z]+)\b([^`\n;#]*)", text):
        if name not in commands:
            assert name not in {"repair", "check", "advise", "frontier", "lesson"}, f"{page}: {name} is not built yet"
            continue
        known = {flag for parameter in commands[name].params for flag in parameter.opts}
        assert set(re.findall(r"(?<= )--[a-z-]+", rest)) <= known, f"{page}: forgetless {name}{rest}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), f"{page}: {link}"


def test_python_in_the_readme_uses_public_names() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "forgetless":
                assert node.attr in forgetless.__all__


def test_the_index_leads_to_the_page_of_methods() -> None:
    assert "methods/index.md" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def test_every_retention_status_is_explained() -> None:
    text = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")
    assert all(status.value in text for status in Status if not status.value.endswith("LEARNED"))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda path: path.name)
def test_example_configs_are_configs(path: Path) -> None:
    config = load_config(path)
    assert config.data.train is not None
    assert (ROOT / config.data.train).is_file()


def test_the_simulation_tables_are_made_from_the_results() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "write_simulation_tables.py"))
    page = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "benchmarks" / "statistics" / "simulations.json").read_text(encoding="utf-8"))
    assert script["with_tables"](page, results) == page
    assert all(f"<!-- simulated: {name} -->" in page for name in script["TABLES"])


def test_the_simulations_show_what_the_pages_claim() -> None:
    results = json.loads((ROOT / "benchmarks" / "statistics" / "simulations.json").read_text(encoding="utf-8"))
    alarms = results["false_alarms"]
    assert all(row["fail"]["rate"] <= alarms["alpha"] for row in alarms["rows"])
    assert all(row["pass_at_margin"]["rate"] <= alarms["alpha"] + 0.004 for row in alarms["rows"])
    tango = {
        (row["n"], row["flip"], row["drop"]): row["coverage"]["Tango"][0]
        for row in results["coverage_of_counts"]["rows"]
    }
    outside = {cell: value for cell, value in tango.items() if not 0.94 <= value <= 0.96}
    assert set(outside) == {(50, 0.02, 0.0), (50, 0.02, 0.03)}
    grades = results["coverage_of_grades"]["rows"]
    assert all(row["coverage"]["effective Tango"][0] >= 0.94 for row in grades)
    assert all(row["coverage"]["effective Tango"][0] <= 0.96 for row in grades if row["n"] == 600)
    assert all(0.77 <= row["power"] <= 0.83 for row in results["promised_power_of_counts"]["rows"])
    graded = [row for row in results["promised_power_of_grades"]["rows"] if row["n"] == 600]
    assert all(abs(row["power"]["rate"] - 0.8) <= 0.035 for row in graded)
    noise = [row for row in results["noise_floor"]["rows"] if row["drop"] == 0.0]
    assert all(row["with"]["rate"] <= alarms["alpha"] for row in noise)
    assert max(row["without"]["rate"] for row in noise) > 2 * alarms["alpha"]


def test_the_table_of_checks_is_made_from_the_catalog() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "write_checklist.py"))
    text = (ROOT / "docs" / "checklist.md").read_text(encoding="utf-8")
    assert made["START"] + made["checks_table"]() + made["END"] in text

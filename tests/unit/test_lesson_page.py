"""docs/lesson.md says what was measured, and its calls exist."""

from __future__ import annotations

import ast
import json
import re
import runpy
from pathlib import Path

import pytest

import forgetless
from forgetless.data.mixing import num_general_for_share

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "lesson.md").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / "benchmarks" / "lesson" / "results.json").read_text(encoding="utf-8"))


def test_the_tables_are_made_from_the_measurements() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "write_lesson_page.py"))
    assert script["with_tables"](PAGE, RESULTS) == PAGE
    assert all(f"<!-- measured: {name} -->" in PAGE for name in script["TABLES"])


def test_the_calls_are_public() -> None:
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "forgetless":
                assert node.attr in forgetless.__all__


def test_every_row_of_the_map_leads_to_a_section() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line[3:]).lower().replace(" ", "-") for line in PAGE.splitlines() if line[:3] == "## "
    }
    links = re.findall(r"\]\(#([^)]+)\)", PAGE)
    assert len(links) == 10
    assert set(links) <= headings


def test_the_replay_arithmetic() -> None:
    assert "1 / 11 = 9.1 %" in PAGE
    assert round(100 / 1100, 3) == 0.091
    num = num_general_for_share(1000, 0.1)
    assert f"that is {num} instead of 100, which is {100 * num / (1000 + num):.3f} %" in PAGE


def test_what_the_page_claims_was_measured() -> None:
    two, ways = RESULTS["two_heads"], RESULTS["two_heads"]["variants"]
    assert two["num_seeds"] == RESULTS["fisher"]["num_seeds"] == 20
    medians = [row["ratio"]["median"] for row in (*two["rates"].values(), ways["plain"])]
    assert max(medians) / min(medians) > 100
    # What learns less forgets less.
    for name in ("lower rate (1/5)", "fewer epochs (1/5)", "frozen shared layer"):
        assert ways[name]["rise"]["median"] < 0.01
        assert ways[name]["loss_b"] > 2 * ways["plain"]["loss_b"]
    # The adapter: off = the base; on it forgets more, having learned more.
    assert ways["LoRA, adapter off"]["ratio"]["max"] == ways["LoRA, adapter off"]["ratio"]["min"] == 1
    assert ways["LoRA, adapter on"]["rise"]["median"] > ways["plain"]["rise"]["median"]
    assert ways["LoRA, adapter on"]["loss_b"] < ways["plain"]["loss_b"]
    # Replayed rows are learned by heart.
    assert ways["replay, 10 %"]["rise"]["median"] > ways["plain"]["rise"]["median"]
    assert ways["replay, 50 %"]["ratio"]["max"] < 1
    assert ways["replay, 50 %"]["rise"]["median"] > 0
    for name in ("EWC", "L2 to the start"):
        assert ways[name]["rise"]["median"] < 0.25 * ways["plain"]["rise"]["median"]
        assert ways[name]["loss_b"] < 1.5 * ways["plain"]["loss_b"]


def test_the_single_weight_does_what_the_page_says() -> None:
    part = RESULTS["single_weight"]
    for path in part["anchored"]:
        assert path["end"] == pytest.approx(path["rest"], abs=1e-4)
    assert [path["num_steps"] for path in part["at_lesson_rate"]] == [1, 6, None, None, None]
    assert part["at_lesson_rate"][2]["weights"] == [1.0, -2.0, 1.0, -2.0]
    assert next(path for path in part["plain"] if path["rate"] == 0.5)["weights"][1] == -2.0


def test_the_lessons_estimate_is_no_fisher() -> None:
    rows = RESULTS["fisher"]["estimates"]
    best = rows["the same, mean of 25 draws"]
    assert best["spearman"] > 0.9
    assert 0.8 < best["scale"] < 1.25
    for size in (8, 32, 100):
        wrong, halfway = (rows[f"batches of {size}, {how} zero_grad"] for how in ("without", "with"))
        assert wrong["spearman"] < halfway["spearman"]
        assert wrong["spearman"] < 0.75
    scales = [rows[f"batches of {size}, with zero_grad"]["scale"] for size in (8, 32, 100)]
    assert scales == sorted(scales, reverse=True)
    kept = [RESULTS["consequences"][f"the lesson's, batches of {size}"]["rise"]["median"] for size in (1, 8, 32, 100)]
    assert kept == sorted(kept)

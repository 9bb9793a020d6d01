"""Writes the tables of docs/lesson.md from what benchmarks/lesson/measure.py measured; a test keeps the two in step.

python scripts/write_lesson_page.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "lesson" / "results.json"
PAGE = ROOT / "docs" / "lesson.md"

Results = dict[str, Any]


def with_tables(page: str, results: Results) -> str:
    """Returns the page with each block between `<!-- measured: NAME -->` and `<!-- end -->` made from the results."""

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]](results)}\n{match[3]}"

    return re.sub(r"(<!-- measured: (\w+) -->)\n(?:(?!<!--).)*?(<!-- end -->)", made, page, flags=re.DOTALL)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _times(value: float) -> str:
    return f"{value:,.0f}x" if value >= 100 else f"{value:.1f}x" if value >= 10 else f"{value:.2f}x"


def ratios(results: Results) -> str:
    """The forgetting ratio of plain training at each learning rate."""
    part = results["two_heads"]
    rates = {**part["rates"], f"{part['settings']['learning_rate']:g}": part["variants"]["plain"]}
    rows = [
        [rate, *(_times(rates[rate]["ratio"][key]) for key in ("min", "q1", "median", "q3", "max"))]
        for rate in sorted(rates, key=float)
    ]
    return _table(["learning rate", "smallest", "lower quartile", "median", "upper quartile", "largest"], rows)


def mitigations(results: Results) -> str:
    """Each way to train task B."""
    part = results["two_heads"]
    rows = [
        [
            name,
            f"{_times(row['ratio']['median'])} ({_times(row['ratio']['min'])} to {_times(row['ratio']['max'])})",
            f"{row['rise']['median']:+.3f}",
            f"{100 * row['accuracy_a']:.1f} %",
            f"{row['loss_b']:.3f}",
            f"{100 * row['accuracy_b']:.1f} %",
        ]
        for name, row in part["variants"].items()
    ]
    head = ["task B trained with", "ratio of A's training loss", "A's held-out loss", "A right", "B's held-out loss"]
    return _table([*head, "B right"], rows)


def equilibria(results: Results) -> str:
    """Where EWC lets the single weight rest."""
    part = results["single_weight"]
    rows = [
        [
            f"{path['strength']:g}",
            f"{path['rest']:.4f}",
            f"{path['end']:.4f}",
            f"{path['largest_rate']:.3g}",
            "never" if other["num_steps"] is None else f"after {other['num_steps']}",
        ]
        for path, other in zip(part["anchored"], part["at_lesson_rate"], strict=True)
    ]
    return _table(["strength", "closed form", "trained", "settles below rate", "settles at the lesson's 0.5"], rows)


def estimates(results: Results) -> str:
    """Every estimate of the Fisher against the exact one."""
    rows = [
        [name, f"{row['spearman']:.2f}", f"{row['cosine']:.2f}", f"{row['scale']:.2g}"]
        for name, row in results["fisher"]["estimates"].items()
    ]
    return _table(["estimate", "rank correlation", "cosine", "sum / exact sum"], rows)


def consequences(results: Results) -> str:
    """Task B with EWC of one strength and each estimate."""
    rows = [
        [name, _times(row["ratio"]["median"]), f"{row['rise']['median']:+.3f}", f"{row['loss_b']:.3f}"]
        for name, row in results["consequences"].items()
    ]
    return _table(["Fisher from", "ratio of A's training loss", "A's held-out loss", "B's held-out loss"], rows)


TABLES: dict[str, Callable[[Results], str]] = {
    "ratios": ratios,
    "mitigations": mitigations,
    "equilibria": equilibria,
    "estimates": estimates,
    "consequences": consequences,
}


if __name__ == "__main__":
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")

"""Writes the simulations' tables into docs/verdict.md; a test keeps the two in step.

python scripts/write_simulation_tables.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

TIMES = "\N{MULTIPLICATION SIGN}"
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "statistics" / "simulations.json"
PAGE = ROOT / "docs" / "verdict.md"

Results = dict[str, Any]


def with_tables(page: str, results: Results) -> str:
    """Returns the page with each block between `<!-- simulated: NAME -->` and `<!-- end -->` made from the results."""

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]](results)}\n{match[3]}"

    return re.sub(r"(<!-- simulated: (\w+) -->)\n(?:(?!<!--).)*?(<!-- end -->)", made, page, flags=re.DOTALL)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(value: float, decimals: int = 1) -> str:
    return f"{100.0 * value:.{decimals}f} %"


def _three(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _made(part: Results, what: str) -> str:
    seed, trials = part.get("seed"), part.get("trials")
    how = "Enumerated, so exact." if trials is None else f"{trials:,} {what}, seed {seed}."
    return f"\n\n{how}"


def coverage_of_counts(results: Results) -> str:
    part = results["coverage_of_counts"]
    cells = {(row["n"], row["flip"], row["drop"]): row["coverage"]["Tango"] for row in part["rows"]}
    sizes, flips, drops = (sorted({key[i] for key in cells}) for i in range(3))
    rows = [[n, *(" ".join(_three(cells[n, flip, drop][0]) for drop in drops) for flip in flips)] for n in sizes]
    return _table(["n", *(f"{flip:.0%} flips each way".replace("%", " %") for flip in flips)], rows) + _made(part, "")


def candidates(results: Results) -> str:
    part = results["coverage_of_counts"]
    names = list(part["rows"][0]["coverage"])
    rows = []
    for name in names:
        two, one = ([row["coverage"][name][side] for row in part["rows"] if name in row["coverage"]] for side in (0, 1))
        num_inside = sum(0.94 <= value <= 0.96 for value in two)
        cell = [row["coverage"][name][0] for row in part["rows"] if name in row["coverage"]][:2]
        rows.append(
            [
                name,
                f"{_three(min(two))} to {_three(max(two))}",
                f"{num_inside} of {len(two)}",
                " ".join(_three(value) for value in cell),
                f"{_three(min(one))} to {_three(max(one))}",
            ]
        )
    head = [
        "interval",
        "95 % interval covers",
        "cells in .94 to .96",
        "n = 50, 2 % flips, drop 0 and 3",
        "one-sided bound",
    ]
    return _table(head, rows) + _made(part, "")


def coverage_of_grades(results: Results) -> str:
    part = results["coverage_of_grades"]
    rows = []
    for name in part["rows"][0]["coverage"]:
        line = [name]
        for size in (50, 200, 600):
            two, one = ([r["coverage"][name][side] for r in part["rows"] if r["n"] == size] for side in (0, 1))
            num_inside = sum(0.94 <= value <= 0.96 for value in two)
            line.append(f"{_three(min(two))} to {_three(max(two))}, {num_inside} of {len(two)}; {_three(min(one))}")
        rows.append(line)
    note = (
        f"\n\n{part['trials']:,} data sets a cell ({part['bootstrap_trials']:,} for the bootstraps, "
        f"{part['resamples']} resamples), seed {part['seed']}; Monte Carlo error about {_three(part['error'])}."
    )
    return _table(["interval", *(f"n = {n}" for n in (50, 200, 600))], rows) + note


def false_alarms(results: Results) -> str:
    part = results["false_alarms"]
    rows = [
        [
            f"{part['tasks']} {TIMES} {row['n']}",
            _percent(row["flip"], 0),
            _percent(row["fail"]["rate"]),
            _percent(row["pass"]["rate"]),
            _percent(row["pass_at_margin"]["rate"]),
        ]
        for row in part["rows"]
    ]
    head = [
        "suite",
        "flips each way",
        "FAIL without any change",
        "PASS without any change",
        "PASS at a drop of the margin",
    ]
    return _table(head, rows) + _made(part, "trials a cell")


def other_rules(results: Results) -> str:
    part = results["other_rules"]
    names = list(part["rows"][0]["refused"])
    rows = [
        [
            f"{row['tasks']} {TIMES} {row['n']}",
            _percent(row["flip"], 0),
            row["change"],
            *(_percent(row["refused"][name]["rate"], 0 if row["change"] != "none" else 1) for name in names),
        ]
        for row in part["rows"]
    ]
    return _table(["suite", "flips each way", "true drop", *names], rows) + _made(part, "trials a cell")


def promised_power(results: Results) -> str:
    exact, simulated = results["promised_power_of_counts"], results["promised_power_of_grades"]
    rows = []
    for gated in (1, 13):
        for size in (50, 200, 600):
            powers = [[r["power"] for r in exact["rows"] if (r["n"], r["gated"]) == (size, gated)]]
            for is_clustered in (False, True):
                chosen = [
                    r["power"]["rate"]
                    for r in simulated["rows"]
                    if (r["n"], r["gated"], r["cluster"] > 1) == (size, gated, is_clustered)
                ]
                powers.append(chosen)
            rows.append([size, gated, *(f"{_three(min(p))} to {_three(max(p))}" for p in powers)])
    return (
        _table(["n", "gated rows", "0/1 scores", "graded scores", "clusters of 3 and 4"], rows)
        + f"\n\n0/1 scores: enumerated. Others: {simulated['trials']:,} data sets a cell at the median of the drops "
        f"that {simulated['data_sets']} others promise, seed {simulated['seed']}."
    )


def noise_floor(results: Results) -> str:
    part = results["noise_floor"]
    rows = []
    for size in (50, 200):
        for shift in (0.0, 0.15):
            for drop in (0.0, 0.05, 0.10):
                chosen = {
                    row["repeats"]: row
                    for row in part["rows"]
                    if (row["n"], row["shift"], row["drop"]) == (size, shift, drop)
                }
                rows.append(
                    [
                        f"{part['tasks']} {TIMES} {size}",
                        "run by run" if shift else "sample by sample",
                        f"{100 * drop:.0f} points",
                        _percent(chosen[2]["without"]["rate"]),
                        *(_percent(chosen[n]["with"]["rate"]) for n in (2, 4)),
                    ]
                )
    head = ["suite", "noise", "true drop", "FAIL without the floor", "--noise-floor 2", "--noise-floor 4"]
    return _table(head, rows) + _made(part, "trials a cell")


TABLES: dict[str, Callable[[Results], str]] = {
    "coverage_of_counts": coverage_of_counts,
    "candidates": candidates,
    "coverage_of_grades": coverage_of_grades,
    "false_alarms": false_alarms,
    "promised_power": promised_power,
    "other_rules": other_rules,
    "noise_floor": noise_floor,
}


def main() -> None:
    """Writes the page."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()

"""How often a budget holds, by the level at which the selection half must show it.

    python benchmarks/budget/simulate.py            # writes simulation.json beside this script; about three minutes

A sample is lost once the model has moved further from the base than the sample's own threshold, and won likewise, so
that neighbouring points agree on most samples, as they do for real models. Forgetting in the population is
`drop` at the tuned end and falls with the square of the share moved; `churn` of the samples flip either way for no
loss. Both halves are drawn from that population; the search, its bound and its bisection are those of the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from forgetless.compare.intervals import flip_counts
from forgetless.curve import CurvePoint, Point
from forgetless.repair.search import Trail, choose, walk_line

HERE = Path(__file__).parent
LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95)
BUDGETS = (0.01, 0.02, 0.05)
DROPS = (0.03, 0.08, 0.2)
CHURN = 0.06
REPEATS = 300


def draw(rng: np.random.Generator, num: int, drop: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shares from which on samples are lost and won; infinity = never."""
    lost, won = np.full(num, np.inf), np.full(num, np.inf)
    kind = rng.random(num)
    is_lost = kind < drop + CHURN / 2
    is_won = (kind >= drop + CHURN / 2) & (kind < drop + CHURN)
    # Those of the drop have thresholds with density 2s, so that the drop grows with the square of the share.
    lost[is_lost] = np.sqrt(rng.random(int(is_lost.sum())))
    won[is_won] = np.sqrt(rng.random(int(is_won.sum())))
    return lost, won


def differences(halves: tuple[np.ndarray, np.ndarray], share: float) -> np.ndarray:
    """Returns point - base of each sample at a share."""
    lost, won = halves
    return (won <= share).astype(float) - (lost <= share)


def bound(values: np.ndarray, level: float) -> float:
    """Returns the upper one-sided bound of forgetting that `compare` would give."""
    counts = flip_counts(values, np.arange(values.size))
    assert counts is not None
    return counts.upper_forgetting(level)


class Simulated:
    """Looks at a simulated model."""

    def __init__(self, selection: tuple[np.ndarray, np.ndarray], *, budget: float, level: float) -> None:
        self.selection, self.budget, self.level = selection, budget, level

    def learned(self, point: Point) -> float:
        return 1 - (1 - point.high) ** 2  # most is learned early on the way

    def __call__(self, point: Point) -> CurvePoint:
        values = differences(self.selection, point.high)
        upper = bound(values, self.level)
        learned, is_within = self.learned(point), upper <= self.budget
        return CurvePoint(point, -values.mean(), upper, learned, [], is_within=is_within, num_samples=values.size)


def run(rng: np.random.Generator, *, num: int, drop: float, budget: float, level: float) -> dict[str, float]:
    """Walks once, and says what the chosen point lost in truth and on the confirmation half."""
    selection, confirmation = draw(rng, num, drop), draw(rng, num, drop)
    trail = Trail(Simulated(selection, budget=budget, level=level))
    walk_line(trail, layered=False)
    chosen = choose(trail.seen)
    share = 0.0 if chosen is None else chosen.point.high
    seen = -differences(confirmation, share).mean()
    return {
        "truth": drop * share**2,
        "seen": seen,
        "learned": 1 - (1 - share) ** 2,
        "proved": bound(differences(confirmation, share), 0.95) < budget,
    }


def main() -> None:
    """Simulates every cell and writes the figures."""
    cells: list[dict[str, Any]] = []
    for num in (200, 400):
        for budget in BUDGETS:
            for drop in DROPS:
                for level in LEVELS:
                    rng = np.random.default_rng(0)
                    found = [run(rng, num=num, drop=drop, budget=budget, level=level) for _ in range(REPEATS)]
                    cells.append(
                        {
                            "num_samples": num,
                            "budget": budget,
                            "drop": drop,
                            "level": level,
                            "truth_within": float(np.mean([f["truth"] <= budget + 1e-12 for f in found])),
                            "confirmation_within": float(np.mean([f["seen"] <= budget + 1e-12 for f in found])),
                            "confirmation_proves": float(np.mean([f["proved"] for f in found])),
                            "learning_kept": float(np.mean([f["learned"] for f in found])),
                        }
                    )
    result = {"schema": 1, "repeats": REPEATS, "churn": CHURN, "cells": cells}
    (HERE / "simulation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Simulates what the verdict promises, and what other rules do on the same data; writes simulations.json.

    python -m benchmarks.statistics.simulate && python scripts/write_simulation_tables.py

Every figure has its seed, its number of trials and its Monte Carlo standard error; figures without trials are
enumerated, so they are exact. Takes about four minutes on one core.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.statistics import intervals, suites
from scipy import stats

from forgetless.compare.detection import simulated_drop
from forgetless.compare.distributions import FloatArray
from forgetless.compare.intervals import FlipCounts
from forgetless.compare.power import mcnemar_power, min_detectable_drop

TARGET = Path(__file__).with_name("simulations.json")
FLIPS = (0.02, 0.05, 0.08)
SIZES = (50, 200, 600)
TWO_SIDED, ONE_SIDED = stats.norm.ppf(0.975), stats.norm.ppf(0.95)


def share(hits: suites.BoolArray) -> dict[str, float]:
    """Returns a rate and its Monte Carlo standard error."""
    rate = float(np.mean(hits))
    return {"rate": round(rate, 4), "error": round(math.sqrt(rate * (1.0 - rate) / len(hits)), 4)}


def outcomes(size: int, lost_rate: float, gained_rate: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    lost, gained = (axis.ravel() for axis in np.meshgrid(np.arange(size + 1.0), np.arange(size + 1.0)))
    lost, gained = lost[lost + gained <= size], gained[lost + gained <= size]
    counts = np.stack([lost, gained, size - lost - gained], axis=1)
    mass = stats.multinomial.pmf(counts, size, [lost_rate, gained_rate, 1.0 - lost_rate - gained_rate])
    return lost[mass > 1e-9], gained[mass > 1e-9], mass[mass > 1e-9]


def coverage_of_counts() -> dict[str, Any]:
    """Enumerates the coverage of every candidate interval for 0/1 grades: two-sided, and of the one-sided bound."""
    rows = []
    for size in SIZES:
        for flip in FLIPS:
            for drop in (0.0, 0.03, 0.10):
                lost, gained, mass = outcomes(size, flip + drop, flip)
                found = {}
                for name, interval in intervals.COUNT_INTERVALS.items():
                    low, high = interval(lost, gained, size, TWO_SIDED)
                    upper = interval(lost, gained, size, ONE_SIDED)[1]
                    inside = (low <= drop + 1e-12) & (high >= drop - 1e-12)
                    found[name] = [mass[inside].sum(), mass[upper >= drop - 1e-12].sum()]
                if size == 50:  # too slow beyond, and of no interest there
                    likely = mass > 1e-6
                    for name, mid_p in (("enumerated", False), ("enumerated mid-p", True)):
                        accepted = intervals.accepts_by_enumeration(
                            lost[likely], gained[likely], size, drop, mid_p=mid_p
                        )
                        found[name] = [mass[likely][kept].sum() for kept in accepted]
                coverage = {name: [round(float(value), 4) for value in pair] for name, pair in found.items()}
                rows.append({"n": size, "flip": flip, "drop": drop, "coverage": coverage})
    return {"trials": None, "rows": rows}


MEAN_SIZES = {"quarters": 0.625, "word F1": 0.375}


def graded(
    rng: np.random.Generator, *, sets: int, size: int, cluster: int, flip: float, drop: float, kind: str
) -> FloatArray:
    """Draws differences, shape (sets, clusters, samples): rates and directions vary between clusters."""
    groups = size // cluster
    rate, leaning = np.full((sets, groups, 1), flip), np.full((sets, groups, 1), 0.5)
    if cluster > 1:
        rate = np.minimum(flip * rng.gamma(1.0, size=(sets, groups, 1)), 0.4)
        leaning = rng.choice([0.2, 0.8], size=(sets, groups, 1))
    place = rng.random((sets, groups, cluster))
    sign = np.where(place < 2 * rate * leaning, -1.0, np.where(place < 2 * rate, 1.0, 0.0))
    more = drop / MEAN_SIZES[kind] / (1.0 - 2.0 * flip)
    sign = np.where((sign == 0.0) & (rng.random(sign.shape) < more), -1.0, sign)
    return sign * flip_sizes(rng, sign.shape, kind)


def flip_sizes(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> FloatArray:
    return rng.choice([0.25, 0.5, 0.75, 1.0], size=shape) if kind == "quarters" else rng.beta(1.2, 2.0, size=shape)


GRADED = [("quarters", flip) for flip in FLIPS] + [("word F1", flip) for flip in (0.10, 0.25)]


def coverage_of_grades(
    *, seed: int = 101, sets: int = 4_000, bootstrap_sets: int = 1_000, num_resamples: int = 999
) -> dict[str, Any]:
    """Simulates the coverage of the candidates for graded and clustered scores."""
    rng, rows = np.random.default_rng(seed), []
    for kind, flip in GRADED:
        for size in SIZES:
            for cluster in (1, 3, 4):
                for drop in (0.0, 0.03):
                    make = partial(graded, rng, cluster=cluster, flip=flip, drop=drop, kind=kind)
                    data = make(sets=sets, size=size // cluster * cluster)
                    truth = make(sets=20_000, size=240).mean() if drop else 0.0
                    degrees = data.shape[1] - 1
                    tails = {0.025: stats.t.ppf(0.975, degrees), 0.05: stats.t.ppf(0.95, degrees)}
                    found: dict[str, list[FloatArray]] = {}  # bounds at both tails, shape (2, data sets) each
                    for name, interval in (("effective Tango", intervals.effective), ("t", intervals.cluster_t)):
                        found[name] = [np.array(interval(data, quantile)) for quantile in tails.values()]
                    few = data[:bootstrap_sets]
                    boot: dict[str, dict[float, list[FloatArray]]] = {}
                    for start in range(0, bootstrap_sets, 200):
                        for tail in tails:
                            part = intervals.bootstraps(
                                few[start : start + 200], tail, num_resamples=num_resamples, rng=rng
                            )
                            for name, bounds in part.items():
                                boot.setdefault(name, {}).setdefault(tail, []).append(bounds)
                    for name, pieces in boot.items():
                        found[name] = [np.concatenate(pieces[tail], axis=1) for tail in tails]
                    coverage = {}
                    for name, (two, one) in found.items():
                        inside = (two[0] <= truth + 1e-12) & (two[1] >= truth - 1e-12)
                        coverage[name] = [round(float(hits.mean()), 4) for hits in (inside, one[0] <= truth + 1e-12)]
                    rows.append(
                        {"n": size, "kind": kind, "flip": flip, "cluster": cluster, "drop": drop, "coverage": coverage}
                    )
    return {
        "seed": seed,
        "trials": sets,
        "bootstrap_trials": bootstrap_sets,
        "resamples": num_resamples,
        "error": round(math.sqrt(0.05 * 0.95 / sets), 4),
        "rows": rows,
    }


def false_alarms(*, seed: int = 11, trials: int = 20_000, num_tasks: int = 12) -> dict[str, Any]:
    """Simulates FAIL without any change, and PASS at a true drop of exactly the margin."""
    rng, rows = np.random.default_rng(seed), []
    for size in SIZES:
        for flip in FLIPS:
            draw = partial(suites.draw, rng, trials=trials, num_tasks=num_tasks, size=size, flip=flip)
            lost, gained, _ = draw(drops=[0.0] * num_tasks)
            fails, passes = suites.judge(lost, gained, size=size)
            lost, gained, _ = draw(drops=[suites.MARGIN] * num_tasks)
            at_margin = suites.judge(lost, gained, size=size)[1]
            rows.append(
                {
                    "n": size,
                    "flip": flip,
                    "fail": share(fails),
                    "pass": share(passes),
                    "pass_at_margin": share(at_margin),
                }
            )
    return {
        "seed": seed,
        "trials": trials,
        "tasks": num_tasks,
        "alpha": suites.ALPHA,
        "margin": suites.MARGIN,
        "rows": rows,
    }


def promised_power_of_counts() -> dict[str, Any]:
    """Enumerates the power at the promised drop of 0/1 grades, at alpha and at alpha / 13."""
    rows = []
    for size in SIZES:
        for flip in FLIPS:
            for num_gated in (1, 13):
                level = suites.ALPHA / num_gated
                drop = min_detectable_drop(FlipCounts(flip * size, flip * size, size), level=level)
                assert drop is not None
                w = max(2 * flip, drop)
                power = mcnemar_power(size, lost_rate=(w + drop) / 2, gained_rate=(w - drop) / 2, level=level)
                rows.append(
                    {"n": size, "flip": flip, "gated": num_gated, "drop": round(drop, 4), "power": round(power, 4)}
                )
    return {"trials": None, "rows": rows}


def turned(rng: np.random.Generator, data: FloatArray, drop: float, kind: str) -> FloatArray:
    """Returns data sets with a true drop: gains become losses, clusters as wholes; then unchanged samples are lost."""
    gains = np.maximum(data, 0.0).mean()
    if drop <= 2.0 * gains:
        return np.where((data > 0.0) & (rng.random((*data.shape[:2], 1)) < drop / 2.0 / gains), -data, data)
    more = (drop - 2.0 * gains) / MEAN_SIZES[kind] / np.mean(data == 0.0)
    losses = -flip_sizes(rng, data.shape, kind)
    return np.where((data == 0.0) & (rng.random(data.shape) < more), losses, -np.abs(data))


def promised_power_of_grades(
    *, seed: int = 37, sets: int = 40, trials: int = 1_500, num_signs: int = 4_999
) -> dict[str, Any]:
    """Simulates the power at the drop that rows of graded and clustered scores promise (the median over data sets)."""
    rng, rows = np.random.default_rng(seed), []
    for kind, flip in (("quarters", 0.05), ("quarters", 0.08), ("word F1", 0.10), ("word F1", 0.25)):
        for size in SIZES:
            for cluster in (1, 3, 4):
                for num_gated in (1, 13):
                    level = suites.ALPHA / num_gated
                    make = partial(
                        graded, rng, size=size // cluster * cluster, cluster=cluster, flip=flip, drop=0.0, kind=kind
                    )
                    seen = make(sets=sets)
                    labels = np.repeat(np.arange(seen.shape[1]), cluster) if cluster > 1 else None
                    drops = [simulated_drop(d.ravel(), labels, level=level) for d in seen]
                    drop = float(np.median([1.0 if d is None else d for d in drops]))
                    sums = turned(rng, make(sets=trials), drop, kind).sum(axis=2)
                    signs = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), size=(num_signs, sums.shape[1]))
                    flipped = signs @ np.abs(sums).T.astype(np.float32)
                    p = (1 + (flipped <= sums.sum(1) + 1e-5).sum(0)) / (1 + num_signs)
                    rows.append(
                        {
                            "n": size,
                            "kind": kind,
                            "flip": flip,
                            "cluster": cluster,
                            "gated": num_gated,
                            "drop": round(drop, 4),
                            "power": share(p <= level),
                        }
                    )
    return {"seed": seed, "trials": trials, "data_sets": sets, "rows": rows}


def other_rules(*, seed: int = 53, trials: int = 20_000) -> dict[str, Any]:
    """Applies our rule and those of others to the same simulated models."""
    rng, rows = np.random.default_rng(seed), []
    for num_tasks, size in ((8, 38), (12, 50), (12, 200)):
        changes = {
            "none": [0.0] * num_tasks,
            "5 points on every task": [0.05] * num_tasks,
            "10 points on every task": [0.10] * num_tasks,
            "20 points on one task": [0.20] + [0.0] * (num_tasks - 1),
        }
        for flip in FLIPS:
            for change, drops in changes.items():
                lost, gained, right = suites.draw(
                    rng, trials=trials, num_tasks=num_tasks, size=size, flip=flip, drops=drops
                )
                five = suites.five_questions(rng, trials=trials, flip=flip, drop=float(np.mean(drops)))
                refused = {
                    "forgetless FAIL": suites.judge(lost, gained, size=size)[0],
                    "unpaired z-test per task": suites.unpaired_falls(lost, gained, right, size=size),
                    "any task down by more than .05": suites.threshold_falls(lost, gained, size=size, threshold=0.05),
                    "five questions, more than .10": five,
                }
                rows.append(
                    {
                        "tasks": num_tasks,
                        "n": size,
                        "flip": flip,
                        "change": change,
                        "refused": {name: share(hits) for name, hits in refused.items()},
                    }
                )
    return {"seed": seed, "trials": trials, "rows": rows}


def noise_floor(*, seed: int = 71, trials: int = 2_000, num_tasks: int = 12) -> dict[str, Any]:
    """Simulates sampled decoding: FAIL with and without the noise floor, of models that changed and that didn't."""
    rng, rows = np.random.default_rng(seed), []
    for size in (50, 200):
        for shift in (0.0, 0.15):
            for drop in (0.0, 0.05, 0.10, 0.15):
                for repeats in (2, 4):
                    grades = suites.sampled_answers(
                        rng, trials=trials, num_tasks=num_tasks, size=size, num_runs=repeats + 1, drop=drop, shift=shift
                    )
                    without, with_floor = suites.judge_sampled(grades)
                    rows.append(
                        {
                            "n": size,
                            "shift": shift,
                            "drop": drop,
                            "repeats": repeats,
                            "spread": round(float(grades[:-1].mean((2, 3)).std(0, ddof=1).mean()), 4),
                            "without": share(without),
                            "with": share(with_floor),
                        }
                    )
    return {"seed": seed, "trials": trials, "tasks": num_tasks, "rows": rows}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "coverage_of_counts": coverage_of_counts,
    "coverage_of_grades": coverage_of_grades,
    "false_alarms": false_alarms,
    "promised_power_of_counts": promised_power_of_counts,
    "promised_power_of_grades": promised_power_of_grades,
    "other_rules": other_rules,
    "noise_floor": noise_floor,
}


def main(names: Sequence[str]) -> None:
    """Runs the named parts, or all, and writes them over those in simulations.json."""
    results = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    for name in names or PARTS:
        print(name, flush=True)
        results[name] = PARTS[name]()
    ordered = {name: results[name] for name in PARTS if name in results}
    TARGET.write_text(json.dumps({"schema": 1, **ordered}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

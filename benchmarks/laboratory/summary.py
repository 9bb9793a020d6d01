"""From the journal to the table: means with intervals, paired comparisons with plain fine-tuning and both controls."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from benchmarks.laboratory.scene import NUM_BASES
from benchmarks.laboratory.search import LONGEST, SEEDS, VALIDATION, Choice, Journal, MissingRunError, choose
from benchmarks.laboratory.table import FEWER, GOAL, LOWER, PLAIN, SLACK, Row
from scipy import stats

from forgetless.compare.statistics import holm

COMMANDS = (
    "python -m benchmarks.laboratory run --work DIR",
    "python -m benchmarks.laboratory summarise --work DIR",
    "python scripts/write_laboratory_page.py",
)
ALPHA = 0.05
NOT_RUN = "not run"
FEWEST_SEEDS = 3  # below, a row has no interval worth showing


def summarise(rows: Sequence[Row], journal: Path, *, bases: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Returns all that the page shows.

    Args:
        rows: The rows of the table, plain fine-tuning and the controls among them.
        journal: The file that `run` wrote, on one set of base models: what is forgotten from others can't be compared.
        bases: Accuracy of each base model by skill, on the questions that judge.

    Returns:
        The result, ready for JSON.
    """
    done = Journal(journal, None)
    records = {row.name: _record(row, done) for row in rows}
    judge(records)
    return {
        "schema": 1,
        "commands": COMMANDS,
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "python": platform.python_version(),
        "goal": GOAL,
        "slack": SLACK,
        "alpha": ALPHA,
        "longest": LONGEST,
        "num_seeds": len(SEEDS),
        "num_validation": len(VALIDATION),
        "bases": bases,
        "hours": sum(line.get("seconds", 0.0) for line in done.lines.values()) / 3600,
        "num_runs": len(done.lines),
        "rows": list(records.values()),
    }


def judge(records: Mapping[str, dict[str, Any]]) -> None:
    """Compares rows with the references among them, and adds what is found to each.

    Args:
        records: Rows by name, all of one set of base models.
    """
    for record in records.values():
        _compare(record, records)
    judged = [record for record in records.values() if "p_value" in record]
    for own, adjusted in (("p_value", "p_adjusted"), ("p_value_of_bases", "p_adjusted_of_bases")):
        for record, value in zip(judged, holm([record[own] for record in judged]), strict=True):
            record[adjusted] = float(value)
    for record in records.values():
        record["finding"] = _finding(record, records[PLAIN.name])


def _record(row: Row, done: Journal) -> dict[str, Any]:
    """Returns what a row's own runs say; what is missing is said under `missing`."""
    record: dict[str, Any] = {
        "name": row.name,
        "family": row.family,
        "kept": row.kept,
        "is_control": row.is_control or row.name == PLAIN.name,
    }
    try:
        choice = choose(row, done.run)
    except MissingRunError:
        return {**record, "missing": NOT_RUN}
    if isinstance(choice, str):
        return {**record, "missing": choice}
    lines = _lines(choice, done)
    if len(lines) < FEWEST_SEEDS:
        return {**record, "missing": NOT_RUN}
    forgetting = {str(line["seed"]): fmean(line["forgetting"].values()) for line in lines}
    return {
        **record,
        "methods": list(choice.recipe.methods),
        "rate": choice.recipe.rate,
        "steps": choice.steps,
        "rates": list(row.rates),
        "is_lowest_rate": len(row.rates) > 1 and choice.recipe.rate == min(row.rates),
        "is_strongest": len(row.settings) > 1 and list(choice.recipe.methods) == list(row.settings[-1]),
        "is_reached": choice.is_reached,
        "num_tried": choice.num_tried,
        "num_seeds": len(lines),
        "target": interval([line["target"] for line in lines]),
        "unseen": fmean(line["unseen"] for line in lines),
        "forgetting": interval(list(forgetting.values())),
        "by_seed": forgetting,
        "skills": {skill: fmean(line["forgetting"][skill] for line in lines) for skill in lines[0]["forgetting"]},
        "step_seconds": {str(line["seed"]): line["step_seconds"] for line in lines},
        "prepare_seconds": median(line["prepare_seconds"] for line in lines),
        "memory_bytes": median(line["memory_bytes"] for line in lines),
    }


def _lines(choice: Choice, done: Journal) -> list[Mapping[str, Any]]:
    """Returns the runs of a choice that are there, by seed; one that failed counts as not there."""
    found = []
    for seed in SEEDS:
        try:
            line = done.run(choice.recipe, seed, choice.steps, False)
        except MissingRunError:
            continue
        if "failed" not in line:
            found.append(line)
    return found


def interval(values: Sequence[float], *, confidence: float = 0.95) -> dict[str, float]:
    """Returns the mean over seeds with Student's interval."""
    mean, error = fmean(values), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _compare(record: dict[str, Any], records: Mapping[str, Any]) -> None:
    """Sets a row beside plain fine-tuning and the controls, paired over the seeds that both have."""
    plain = records[PLAIN.name]
    if "missing" in record or "missing" in plain:
        return
    ratios = [value / plain["step_seconds"][seed] for seed, value in record["step_seconds"].items()]
    record["step_ratio"] = median(ratios)
    record["training_ratio"] = record["step_ratio"] * record["steps"] / plain["steps"]
    record["memory_ratio"] = record["memory_bytes"] / plain["memory_bytes"]
    if record["name"] == PLAIN.name:
        return
    record["saved"] = paired(plain["by_seed"], record["by_seed"])
    controls = [records[row.name] for row in (LOWER, FEWER)]
    if not record["is_control"] and not any("missing" in control for control in controls):
        record["against"] = {c["name"]: paired(c["by_seed"], record["by_seed"]) for c in controls}
        # Both have to be beaten: the larger of the two is the p-value of that.
        record["p_value"] = max(found["p_value"] for found in record["against"].values())
        # Seeds share base models. What would be said of others has the base models as its units, few as they are.
        own, others = by_base(record["by_seed"]), [by_base(control["by_seed"]) for control in controls]
        record["p_value_of_bases"] = max(paired(other, own)["p_value"] for other in others)
        record["num_bases_won"] = sum(own[base] < min(other[base] for other in others) for base in own)
        record["num_bases"] = len(own)


def by_base(by_seed: Mapping[str, float]) -> dict[str, float]:
    """Returns the means over the seeds of each base model."""
    groups: dict[str, list[float]] = {}
    for seed, value in by_seed.items():
        groups.setdefault(str(int(seed) % NUM_BASES), []).append(value)
    return {base: fmean(values) for base, values in groups.items()}


def paired(other: Mapping[str, float], own: Mapping[str, float]) -> dict[str, float]:
    """Returns how much less is forgotten than by another row, with the one-sided p-value of the paired t-test."""
    differences = [other[seed] - own[seed] for seed in own if seed in other]
    found = interval(differences)
    spread = float(np.std(differences, ddof=1))
    if spread == 0:
        return {**found, "p_value": 1.0}
    statistic = found["mean"] / (spread / np.sqrt(len(differences)))
    return {**found, "p_value": float(stats.t.sf(statistic, len(differences) - 1))}


RULES: Sequence[tuple[str, Callable[[Mapping[str, Any], Mapping[str, Any]], bool]]] = (
    (NOT_RUN, lambda row, plain: "missing" in row),
    ("not compared", lambda row, plain: "missing" in plain),
    ("reference", lambda row, plain: row["is_control"]),
    ("does not reach the target", lambda row, plain: not row["is_reached"]),
    ("learns less", lambda row, plain: row["target"]["mean"] < plain["target"]["mean"] - SLACK),
    ("beats both controls", lambda row, plain: row.get("p_adjusted", 1.0) <= ALPHA),
    ("no better than the controls", lambda row, plain: True),
)


def _finding(record: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    """Returns in a few words what became of a row."""
    return next(words for words, holds in RULES if holds(record, plain))

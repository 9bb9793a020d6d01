"""What a sequence of phases comes to: `phases.json`, as one frozen record.

R[i][j] is the score on phase j's target after phase i. Signs as everywhere: transfers and learning are after - before,
a forgetting is before - after. Losses are in nats per token, lower is better; the measures made of them keep their
meaning (a forgetting above 0 = forgot), so that a transfer of a loss is before - after.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from forgetless.errors import DataError
from forgetless.files import read_object
from forgetless.records import SCHEMA, Comparison, Unit, Verdict


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its two-sided interval; None where it doesn't exist."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """One way of scoring the targets, over the whole sequence.

    Attributes:
        name: `answers` or `loss`.
        unit: What a score counts.
        phases: Names of the phases whose targets are scored this way, in order; those of the columns of R.
        num_samples: Held-out samples of each.
        base: Scores of the base, one of each target.
        matrix: R, a row for each phase of the sequence that is in `phases`.
        average: ACC, the mean over the targets after the last phase.
        learning: Mean over the targets of what their own phase brought, from the base to right after it.
        backward_transfer: BWT, mean over earlier targets of the change since right after their own phase.
        forward_transfer: FWT, mean over later targets of the change from the base to right before their own phase.
        forgetting: Mean over earlier targets of their best score before the last phase minus their last.
    """

    name: str
    unit: Unit
    phases: list[str]
    num_samples: list[int]
    base: list[Estimate]
    matrix: list[list[Estimate]]
    average: Estimate
    learning: Estimate
    backward_transfer: Estimate
    forward_transfer: Estimate
    forgetting: Estimate


@dataclass(frozen=True, slots=True)
class PhaseJudgement:
    """What was judged after one phase.

    Attributes:
        name: Name of the phase.
        methods: Its methods.
        num_examples: Its training examples.
        general: The general suite, and all targets, against the base.
        earlier: Earlier targets against the model right after their own phase; None in the first phase.
    """

    name: str
    methods: list[str]
    num_examples: int
    general: Comparison
    earlier: Comparison | None = None


@dataclass(frozen=True, slots=True)
class PhasesRecord:
    """A whole sequence.

    Attributes:
        verdict: General skills and earlier targets together, after the last phase.
        margin: Largest tolerated drop of a grade.
        alpha: Level of tests and intervals.
        reasons: What the verdict rests on, one sentence each.
        phases: What was judged after each phase, in order.
        measures: R and what is made of it, of answers and of losses.
        advice: What to do next.
        schema: Version of the record.
    """

    verdict: Verdict
    margin: float
    alpha: float
    reasons: list[str]
    phases: list[PhaseJudgement]
    measures: list[Measure]
    advice: list[str] = field(default_factory=list)
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Returns the record as indented JSON, with null for figures that don't exist."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_phases(path: Path) -> PhasesRecord:
    """Reads a `phases.json`.

    Args:
        path: The file, as `PhasesRecord.to_json` writes it.

    Returns:
        The record.

    Raises:
        DataError: The file is missing, not JSON, or not such a record.
    """
    raw = read_object(path, absent="there is no such file; `forgetless run` with phases writes it")
    if raw.get("schema") != SCHEMA:
        raise DataError(f"is not a record of phases of schema {SCHEMA}", path=path)
    try:
        return PhasesRecord(
            verdict=Verdict(raw["verdict"]),
            margin=raw["margin"],
            alpha=raw["alpha"],
            reasons=list(raw["reasons"]),
            phases=[_judgement(phase, path) for phase in raw["phases"]],
            measures=[_measure(measure) for measure in raw["measures"]],
            advice=list(raw.get("advice", [])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"is not a record of phases that this version reads ({error})", path=path) from None


def _judgement(raw: Mapping[str, Any], path: Path) -> PhaseJudgement:
    earlier = raw["earlier"]
    return PhaseJudgement(
        name=raw["name"],
        methods=list(raw["methods"]),
        num_examples=raw["num_examples"],
        general=Comparison.from_mapping(raw["general"], path=path),
        earlier=None if earlier is None else Comparison.from_mapping(earlier, path=path),
    )


def _measure(raw: Mapping[str, Any]) -> Measure:
    single = ("average", "learning", "backward_transfer", "forward_transfer", "forgetting")
    values: dict[str, Any] = {name: Estimate(**raw[name]) for name in single}
    values |= {name: raw[name] for name in ("name", "phases", "num_samples")}
    values["unit"] = Unit(raw["unit"])
    values["base"] = [Estimate(**cell) for cell in raw["base"]]
    values["matrix"] = [[Estimate(**cell) for cell in row] for row in raw["matrix"]]
    return Measure(**values)

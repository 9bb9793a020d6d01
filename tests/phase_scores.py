"""Scores of a sequence of two phases, made up, for the tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forgetless.compare.comparison import compare
from forgetless.compare.phases import compare_earlier, judge_phases, measure_phases
from forgetless.phase_records import PhaseJudgement, PhasesRecord
from forgetless.records import Role, SampleScore, Unit

NUM = 400
NAMES = ("one", "two")
TASKS = {what: {name: f"{name}.{what}" for name in NAMES} for what in ("answers", "loss")}


def grades(task: str, right: float, *, num: int = NUM, role: Role = Role.TARGET) -> list[SampleScore]:
    """Returns grades of which the first ones, in this share, are right."""
    return [
        SampleScore(task, f"{task}-{number:04d}", float(number < right * num), role=role, answer="x", gold="y")
        for number in range(num)
    ]


def losses(task: str, level: float, *, num: int = NUM) -> list[SampleScore]:
    """Returns losses around a level; the same samples are hard whatever the level."""
    spread = np.random.default_rng(0).normal(0, 0.2, num)
    return [
        SampleScore(
            task,
            f"{task}-{n:04d}",
            level + float(spread[n]),
            role=Role.TARGET,
            unit=Unit.NATS_PER_TOKEN,
            weight=1 + n % 3,
        )
        for n in range(num)
    ]


def scores(general: float, answers: Sequence[float], levels: Sequence[float]) -> list[SampleScore]:
    """Returns what a model scored: a general task, and both ways of scoring of both targets."""
    found = grades("facts", general, role=Role.RETENTION)
    for name, right, level in zip(NAMES, answers, levels, strict=True):
        found += grades(f"{name}.answers", right) + losses(f"{name}.loss", level)
    return found


BASE = scores(0.6, (0.1, 0.2), (3.0, 2.5))
FIRST = scores(0.6, (0.7, 0.3), (1.5, 2.25))
KEPT = scores(0.6, (0.7, 0.8), (1.5, 1.0))
LOST = scores(0.6, (0.4, 0.8), (2.0, 1.0))


def record(last: Sequence[SampleScore]) -> PhasesRecord:
    """Returns the record of a sequence whose second phase ends with these scores."""
    after = [FIRST, last]
    measures = [measure_phases(BASE, after, tasks=TASKS[name], name=name) for name in ("answers", "loss")]
    earlier = compare_earlier({"one": FIRST}, last, tasks={"one": ["one.answers", "one.loss"]})
    general = [compare(BASE, one) for one in after]
    verdict, reasons = judge_phases(general[-1], earlier)
    return PhasesRecord(
        verdict=verdict,
        margin=0.03,
        alpha=0.05,
        reasons=reasons,
        phases=[
            PhaseJudgement("one", ["lora"], 16, general[0]),
            PhaseJudgement("two", ["lora", "replay"], 20, general[1], earlier),
        ],
        measures=[measure for measure in measures if measure is not None],
        advice=["Replay examples of `one`."],
    )

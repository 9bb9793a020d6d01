"""A walk asks no more than it takes to know that a point can't be chosen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from forgetless import walking
from forgetless.curve import Point
from forgetless.progress import Silent
from forgetless.records import SampleScore
from forgetless.tasks.base import Task, load_suite
from forgetless.walking import judge_part, judge_point, walk

NAMES = ("geography", "arithmetic", "reading")
LIMITS = {"budget": 0.05, "alpha": 0.05}


def graded(rates: Sequence[float], *, rng: random.Random, num_samples: int = 60) -> list[SampleScore]:
    return [
        SampleScore(name, f"{name}-{number}", float(rng.random() < rate))
        for name, rate in zip(NAMES, rates, strict=True)
        for number in range(num_samples)
    ]


def test_what_a_part_calls_forgotten_the_whole_calls_forgotten_too() -> None:
    rng = random.Random(0)
    num_early = 0
    for _ in range(60):
        base = graded([0.9] * 3, rng=rng)
        tuned = graded([rng.uniform(0.5, 0.95) for _ in NAMES], rng=rng)
        asked = [score for score in tuned if score.task == "geography"]
        early = judge_part(Point.scale(0.5), base, asked, num_gated=4, **LIMITS)
        whole = judge_point(Point.scale(0.5), base, tuned, **LIMITS)
        if early is not None:
            num_early += 1
            assert early.forgot == ["geography"]
            assert "geography" in whole.forgot
            assert (early.forgetting, early.forgetting_upper, early.num_samples) == (None, None, 60)
            assert not early.is_within
            assert not whole.is_within
            assert early.reason == "forgot geography; the rest was not asked"
    assert 10 < num_early < 55


def test_a_small_part_of_a_large_family_is_not_enough() -> None:
    """Ten losses of sixty against one gain: FORGOT alone at 0.05, not among a hundred rows."""
    base = graded([1.0] * 3, rng=random.Random(0))
    tuned = [SampleScore("geography", f"geography-{n}", float(n >= 10)) for n in range(60)]
    assert judge_part(Point.scale(0.5), base, tuned, num_gated=4, **LIMITS) is not None
    assert judge_part(Point.scale(0.5), base, tuned, num_gated=100, **LIMITS) is None


class Line:
    """A path that only remembers where it stands."""

    def __init__(self) -> None:
        self.model, self.at = None, Point.scale(1.0)

    def move(self, point: Point) -> None:
        self.at = point


@dataclass(frozen=True)
class Loaded:
    """Stands for a loaded model."""

    model: None = None


def test_tasks_that_were_forgotten_before_are_asked_first_and_the_rest_only_where_they_were_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Geography is forgotten above a scale of 0.3, arithmetic never; reading is lost in the tuned model alone."""
    asked: list[tuple[str, tuple[str, ...]]] = []
    line = Line()
    path: Any = line
    tasks = load_suite(",".join(NAMES))

    def evaluate(_: Loaded, tasks: Sequence[Task], **__: Any) -> list[SampleScore]:
        asked.append((line.at.label, tuple(task.name for task in tasks)))
        bad = {"geography"} if line.at.high > 0.3 else set()
        bad |= {"reading"} if line.at.is_tuned else set()
        return [SampleScore(task.name, str(n), float(task.name not in bad)) for task in tasks for n in range(60)]

    monkeypatch.setattr(walking, "evaluate", evaluate)
    base = [SampleScore(name, str(n), 1.0) for name in NAMES for n in range(60)]
    loaded: Any = Loaded()
    curve = walk(path, loaded, tasks, base, budget=0.05, reporter=Silent())
    assert curve.chosen.label == "scale 0.25"
    assert asked[0] == ("tuned", NAMES)
    first, rest = ("geography", "reading"), ("arithmetic",)
    assert asked[1:5] == [
        ("scale 0.5", first),
        ("scale 0.25", first),
        ("scale 0.25", rest),
        ("scale 0.375", first),
    ]
    unasked = [entry.point.label for entry in curve.points if entry.forgetting is None]
    assert unasked[:2] == ["scale 0.5", "scale 0.375"]


def test_a_suite_of_one_task_is_asked_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    line: Any = Line()

    def evaluate(_: Loaded, tasks: Sequence[Task], **__: Any) -> list[SampleScore]:
        asked.append(len(tasks))
        return [SampleScore("geography", str(n), float(n >= 30 * line.at.high)) for n in range(60)]

    monkeypatch.setattr(walking, "evaluate", evaluate)
    base = [SampleScore("geography", str(n), 1.0) for n in range(60)]
    loaded: Any = Loaded()
    curve = walk(line, loaded, load_suite("geography"), base, budget=0.05, reporter=Silent())
    assert set(asked) == {1}
    assert len(asked) == len([entry for entry in curve.points if not entry.point.is_base])

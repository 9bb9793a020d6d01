"""Score lists that are made by saying what happens to the samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from forgetless.records import SampleScore, Unit

Scores = list[SampleScore]
PairMaker = Callable[..., tuple[Scores, Scores]]


@pytest.fixture
def grades() -> PairMaker:
    """Makes one task in 0/1 grades: `grades("arithmetic", lost=3, gained=1, right=30, wrong=16)`."""

    def make(
        task: str, *, lost: int = 0, gained: int = 0, right: int = 0, wrong: int = 0, **fields: Any
    ) -> tuple[Scores, Scores]:
        outcomes = [(1.0, 0.0)] * lost + [(0.0, 1.0)] * gained + [(1.0, 1.0)] * right + [(0.0, 0.0)] * wrong
        base = [SampleScore(task, f"{task}-{i}", before, **fields) for i, (before, _) in enumerate(outcomes)]
        tuned = [SampleScore(task, f"{task}-{i}", after, **fields) for i, (_, after) in enumerate(outcomes)]
        return base, tuned

    return make


@pytest.fixture
def losses() -> PairMaker:
    """Makes one cross-entropy task whose samples rise by `rise` on average: `losses("text", rise=0.1, size=30)`."""

    def make(task: str, *, rise: float, size: int, spread: float = 0.02, **fields: Any) -> tuple[Scores, Scores]:
        weights = [50.0 + 10.0 * (i % 5) for i in range(size)]
        shifts = [rise + spread * (1 if i % 2 else -1) for i in range(size)]
        shared: dict[str, Any] = {"unit": Unit.NATS_PER_TOKEN, **fields}
        base = [SampleScore(task, f"{task}-{i}", 3.0, weight=w, **shared) for i, w in enumerate(weights)]
        tuned = [
            SampleScore(task, f"{task}-{i}", 3.0 + shift, weight=w, **shared)
            for i, (w, shift) in enumerate(zip(weights, shifts, strict=True))
        ]
        return base, tuned

    return make


@pytest.fixture
def together() -> Callable[..., tuple[Scores, Scores]]:
    """Joins pairs of score lists into one suite."""

    def join(*pairs: tuple[Scores, Scores]) -> tuple[Scores, Scores]:
        return [s for base, _ in pairs for s in base], [s for _, tuned in pairs for s in tuned]

    return join

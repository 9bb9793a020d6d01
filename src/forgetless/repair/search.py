"""The search along the line from base to tuned: which points to look at, and which of them to choose.

What a point has learned is known in seconds, what it has lost in minutes. So scales are bisected rather than swept, and
a point is asked what it lost only where it learned more than the best one known: no other can be chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from forgetless.curve import CurvePoint, Point

STEPS = 3  # a bisection of eighths
GAIN = 0.02
"""Share of the tuned model's learning by which a point must have learned more than the best one to be worth a look."""

Reach = Callable[[Point], float]
"""How far a point lies from the base: it orders points where nothing says what they have learned."""


class Look(Protocol):
    """Judges points between base and tuned."""

    def __call__(self, point: Point) -> CurvePoint:
        """Returns what a point has learned and lost."""
        ...

    def learned(self, point: Point) -> float | None:
        """Returns what a point has learned, in nats per token; None without held-out data."""
        ...


def reach(point: Point) -> float:
    """Returns the mean share of the change at bottom and top: all that a point itself knows of how far it lies."""
    return (point.low + point.high) / 2


class Trail:
    """The points that were looked at, and whether another one is worth a look.

    Args:
        look: Judges a point; called at most once for each.
        reach: How far a point lies from the base, which counts as learning where there is no held-out data.

    Attributes:
        seen: What was looked at, in that order; the tuned model first.
        passed: Points that were not worth a look, in that order.
    """

    seen: list[CurvePoint]
    passed: list[Point]

    def __init__(self, look: Look, *, reach: Reach = reach) -> None:
        self._look, self._reach = look, reach
        self.seen, self.passed = [], []

    def look(self, point: Point) -> CurvePoint:
        """Looks at a point."""
        entry = self._look(point)
        self.seen.append(entry)
        return entry

    def is_worth(self, point: Point) -> bool:
        """Returns whether a point learned enough to be chosen before the best one known, should it have lost little."""
        best = choose(self.seen, reach=self._reach)
        if best is None:
            return True
        learned, tuned = self._look.learned(point), self.seen[0].learning
        if learned is None or tuned is None or best.learning is None:
            is_worth = self._reach(point) > self._reach(best.point)
        else:
            is_worth = learned > best.learning + GAIN * max(tuned, 0.0)
        if not is_worth and point not in self.passed:
            self.passed.append(point)
        return is_worth

    def bisect(self, at: Callable[[float], Point], *, steps: int = STEPS) -> None:
        """Looks for the largest share within the budget; that at 0 is taken to be within it, that at 1 not."""
        low, high = 0.0, 1.0
        for _ in range(steps):
            middle = (low + high) / 2
            # A point that is not worth a look has moved too little to learn more: more of the change is wanted.
            moves_up = not self.is_worth(at(middle)) or self.look(at(middle)).is_within
            low, high = (middle, high) if moves_up else (low, middle)


def walk_line(trail: Trail, *, layered: bool = True) -> None:
    """Looks at points between base and tuned until the best within the budget is known to an eighth.

    Args:
        trail: Takes what is looked at: the tuned model alone where it is within the budget.
        layered: Whether points with a share that grows with depth (LiNeS) are tried too.
    """
    if trail.look(Point.scale(1.0)).is_within:
        return
    trail.bisect(Point.scale)
    if layered:
        steepest = Point(0.0, 1.0)
        if not trail.is_worth(steepest) or trail.look(steepest).is_within:
            trail.bisect(lambda share: Point(share, 1.0), steps=STEPS - 1)
        else:
            trail.bisect(lambda share: Point(0.0, share), steps=STEPS - 1)


def walk_factor(trail: Trail, kind: Callable[[float], str]) -> None:
    """Looks at points whose change was treated by a factor: 0 = most, 1 = not at all, which is the tuned model.

    Args:
        trail: What has been looked at before, the tuned model at least; takes what is looked at.
        kind: The kind of a point from the factor.
    """
    most = Point(1.0, 1.0, kind(0.0))
    if not trail.is_worth(most) or trail.look(most).is_within:
        trail.bisect(lambda factor: Point(1.0, 1.0, kind(factor)), steps=STEPS - 1)
    else:
        trail.bisect(lambda share: Point(share, share, most.kind))


def walk_treated(trail: Trail, kind: str) -> None:
    """Looks at the points of a kind: the whole change first, then less of it where that may beat what was seen.

    Args:
        trail: What has been looked at before, the tuned model at least; takes what is looked at.
        kind: The kind of the points.
    """
    whole = Point(1.0, 1.0, kind)
    if trail.is_worth(whole) and not trail.look(whole).is_within:
        trail.bisect(lambda share: Point(share, share, kind))


def choose(seen: Sequence[CurvePoint], *, reach: Reach = reach) -> CurvePoint | None:
    """Returns the point that learned most within the budget; None where there is none beside the base.

    Without held-out data, the one that moved furthest counts as the one that learned most.
    """
    within = [entry for entry in seen if entry.is_within and not entry.point.is_base]
    return max(within, key=lambda entry: (_learned(entry), reach(entry.point)), default=None)


def _learned(entry: CurvePoint) -> float:
    return float("-inf") if entry.learning is None else entry.learning

"""The search along the line from base to tuned: which points to look at, and which of them to choose.

Every look costs an evaluation, so scales are bisected rather than swept, and the layered points (LiNeS: bottom layers
nearer to the base than top ones) are looked at only as far as they could still learn more than the best scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forgetless.curve import CurvePoint, Point

STEPS = 3  # a bisection of eighths
Look = Callable[[Point], CurvePoint]
Reach = Callable[[Point], float]
"""How far a point lies from the base: it orders points where nothing says what they have learned."""


def reach(point: Point) -> float:
    """Returns the mean share of the change at bottom and top: all that a point itself knows of how far it lies."""
    return (point.low + point.high) / 2


def walk_line(look: Look, *, layered: bool = True) -> list[CurvePoint]:
    """Looks at points between base and tuned until the best within the budget is known to an eighth.

    Args:
        look: Judges a point; called once for each.
        layered: Whether points with a share that grows with depth are tried too.

    Returns:
        What was looked at, in that order; the tuned model first. It alone where it is within the budget.
    """
    seen = [look(Point.scale(1.0))]
    if seen[0].is_within:
        return seen
    seen += _bisect(look, lambda share: Point.scale(share))
    if layered:
        first = look(Point(0.0, 1.0))
        seen.append(first)
        best = choose(seen)
        if first.is_within:
            seen += _bisect(look, lambda share: Point(share, 1.0), steps=STEPS - 1)
        elif best is None or _learned(first) > _learned(best):
            seen += _bisect(look, lambda share: Point(0.0, share), steps=STEPS - 1)
    return seen


def walk_factor(look: Look, kind: Callable[[float], str], seen: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Looks at points whose change was treated by a factor: 0 = most, 1 = not at all, which is the tuned model.

    Args:
        look: Judges a point; called once for each.
        kind: The kind of a point from the factor.
        seen: What has been looked at before; a treatment that has learned less than the best of it isn't scaled too.

    Returns:
        What was looked at, in that order.
    """
    first = look(Point(1.0, 1.0, kind(0.0)))
    if first.is_within:
        return [first, *_bisect(look, lambda factor: Point(1.0, 1.0, kind(factor)), steps=STEPS - 1)]
    return [first, *_scaled(look, first, seen)]


def walk_treated(look: Look, kind: str, seen: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Looks at the points of a kind: the whole change first, then less of it where that may beat what was seen.

    Args:
        look: Judges a point; called once for each.
        kind: The kind of the points.
        seen: What has been looked at before.

    Returns:
        What was looked at, in that order.
    """
    first = look(Point(1.0, 1.0, kind))
    return [first] if first.is_within else [first, *_scaled(look, first, seen)]


def _scaled(look: Look, first: CurvePoint, seen: Sequence[CurvePoint]) -> list[CurvePoint]:
    best = choose(seen)
    if best is not None and first.learning is not None and first.learning <= _learned(best):
        return []
    return _bisect(look, lambda share: Point(share, share, first.point.kind))


def choose(seen: Sequence[CurvePoint], *, reach: Reach = reach) -> CurvePoint | None:
    """Returns the point that learned most within the budget; None where there is none beside the base.

    Without held-out data, the one that moved furthest counts as the one that learned most.
    """
    within = [entry for entry in seen if entry.is_within and not entry.point.is_base]
    return max(within, key=lambda entry: (_learned(entry), reach(entry.point)), default=None)


def _bisect(look: Look, at: Callable[[float], Point], *, steps: int = STEPS) -> list[CurvePoint]:
    """Looks for the largest share within the budget; what lies at 0 is taken to be within it, what lies at 1 not."""
    low, high, seen = 0.0, 1.0, []
    for _ in range(steps):
        middle = (low + high) / 2
        entry = look(at(middle))
        seen.append(entry)
        low, high = (middle, high) if entry.is_within else (low, middle)
    return seen


def _learned(entry: CurvePoint) -> float:
    return float("-inf") if entry.learning is None else entry.learning

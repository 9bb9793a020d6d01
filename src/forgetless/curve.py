"""The line from base to tuned: its points, what each has learned and lost, and the one that was chosen.

The general suite is split in two. The selection half picks the point; the confirmation half, which nothing has looked
at before, judges it. Figures of the selection half flatter the chosen point, so a verdict never rests on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from forgetless.errors import DataError
from forgetless.files import read_object
from forgetless.records import SCHEMA


@dataclass(frozen=True, slots=True)
class Point:
    """A place between base and tuned: by which share of its change each layer has moved.

    Attributes:
        low: Share at the bottom layer and the embeddings, in [0, 1]; 0 = base, 1 = tuned.
        high: Share at the top layer and the head, likewise; between them it grows evenly with depth (LiNeS).
        kind: What else was done to the change; `line` = nothing.
    """

    low: float
    high: float
    kind: str = "line"

    @classmethod
    def scale(cls, share: float) -> Point:
        """Returns the point that has moved by the same share in every layer (WiSE-FT)."""
        return cls(share, share)

    def share(self, depth: int, num_layers: int) -> float:
        """Returns the share of the change at a depth: 0 = embeddings, 1 to `num_layers`, then the head."""
        if self.low == self.high or num_layers < 2:
            return self.high
        place = min(max(depth - 1, 0), num_layers - 1) / (num_layers - 1)
        return self.low + (self.high - self.low) * place

    @property
    def is_base(self) -> bool:
        return self.low == 0 and self.high == 0

    @property
    def is_tuned(self) -> bool:
        return self.low == 1 and self.high == 1 and self.kind == "line"

    @property
    def label(self) -> str:
        """The point in words: `base`, `tuned`, `scale 0.5`, `layers 0 to 1`; with another kind, that and its place."""
        place = f"scale {self.low:g}" if self.low == self.high else f"layers {self.low:g} to {self.high:g}"
        if self.kind == "line":
            return "base" if self.is_base else "tuned" if self.is_tuned else place
        return self.kind if self.low == self.high == 1 else f"{self.kind}, {place}"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A point with what it has learned and lost, as one half of the samples shows it.

    Attributes:
        point: Where it lies.
        forgetting: base - point in the pool of the retention grades, positive = forgot, in score units; None where a
            task was FORGOT before the others were asked.
        forgetting_upper: Upper one-sided bound of it at the level that selects; None likewise.
        learning: Held-out loss of the base minus that of the point, in nats per token; None without held-out data.
        forgot: Retention tasks that are FORGOT there.
        is_within: Whether the bound is within the budget and no task is FORGOT.
        num_samples: Retention samples in the pool; those of the tasks that were asked where there is no pool.
    """

    point: Point
    forgetting: float | None
    forgetting_upper: float | None
    learning: float | None
    forgot: Sequence[str]
    is_within: bool
    num_samples: int

    @property
    def reason(self) -> str:
        """Why the point is within the budget or not, in a few words."""
        if self.forgot:
            rest = "" if self.forgetting is not None else "; the rest was not asked"
            return f"forgot {', '.join(self.forgot)}{rest}"
        return "within the budget" if self.is_within else "may have lost more than the budget"


@dataclass(frozen=True, slots=True)
class Curve:
    """What a walk from base to tuned found.

    Attributes:
        budget: Largest tolerated drop of the general skills, in score units.
        level: One-sided confidence of the bound that selects.
        points: Every point that was tried, in the order of trial.
        chosen: The point that learned most within the budget, on the selection half.
        confirmed: The chosen point on the confirmation half; None before it was judged.
        verdict: PASS, FAIL or INCONCLUSIVE of the confirmation half; empty before it was judged.
        schema: Version of the record.
    """

    budget: float
    level: float
    points: Sequence[CurvePoint]
    chosen: Point
    confirmed: CurvePoint | None = None
    verdict: str = ""
    schema: int = field(default=SCHEMA)

    @property
    def tuned(self) -> CurvePoint:
        """What training left, on the selection half."""
        return next(entry for entry in self.points if entry.point.is_tuned)

    @property
    def selected(self) -> CurvePoint:
        """The chosen point, on the selection half."""
        return next(entry for entry in self.points if entry.point == self.chosen)

    @property
    def learning_kept(self) -> float | None:
        """Share of the learning of the tuned model that the chosen point keeps; None where that learned nothing."""
        whole, kept = self.tuned.learning, self.selected.learning
        return None if whole is None or kept is None or whole <= 0 else kept / whole

    @property
    def sentence(self) -> str:
        """What came of the budget, in one sentence."""
        budget, kept = _points(self.budget), self.learning_kept
        learned = "" if kept is None else f" and keeps {100 * kept:.0f} % of what was learned"
        if self.chosen.is_tuned:
            found = f"the tuned model is within the budget of {budget} on the selection half"
        elif self.chosen.is_base:
            found = f"no point that learned anything was within the budget of {budget}: the base is what is left"
        else:
            found = f"the tuned model broke the budget of {budget}; {self.chosen.label} is within it{learned}"
        if self.confirmed is None or self.confirmed.forgetting is None:
            return f"{found}; not confirmed yet"
        lost = self.confirmed.forgetting
        change = f"lost {_points(lost)}" if lost >= 0 else f"gained {_points(-lost)}"
        where = f"on {self.confirmed.num_samples} samples that nothing had looked at it {change}"
        if self.verdict == "PASS":
            return f"{found}; {where}, no drop larger than the budget"
        if self.confirmed.forgot:
            return f"{found}; {where}, and it forgot {', '.join(self.confirmed.forgot)}: the budget is MISSED"
        if lost > self.budget:
            return f"{found}; {where}, more than the budget: it is not confirmed"
        return f"{found}; {where}, within the budget, but so few samples can't exclude more"

    def to_json(self) -> str:
        """Returns the record as indented JSON."""
        return json.dumps(asdict(self) | {"sentence": self.sentence}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any], *, path: str | Path | None = None) -> Curve:
        """Builds a curve from the parsed file.

        Args:
            raw: What `to_json` wrote.
            path: Its file, for the message.

        Returns:
            The curve.

        Raises:
            DataError: A field is missing or the schema is not known.
        """
        if raw.get("schema") != SCHEMA:
            raise DataError(f"schema {raw.get('schema')!r} is not {SCHEMA}", path=path, field="schema")
        try:
            confirmed = raw.get("confirmed")
            return cls(
                budget=float(raw["budget"]),
                level=float(raw["level"]),
                points=[_curve_point(entry) for entry in raw["points"]],
                chosen=_point(raw["chosen"]),
                confirmed=None if confirmed is None else _curve_point(confirmed),
                verdict=str(raw.get("verdict", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"is not a curve that this version reads ({error})", path=path) from None


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"


def _optional(raw: Any) -> float | None:
    return None if raw is None else float(raw)


def _point(raw: Mapping[str, Any]) -> Point:
    return Point(float(raw["low"]), float(raw["high"]), str(raw.get("kind", "line")))


def _curve_point(raw: Mapping[str, Any]) -> CurvePoint:
    return CurvePoint(
        point=_point(raw["point"]),
        forgetting=_optional(raw["forgetting"]),
        forgetting_upper=_optional(raw["forgetting_upper"]),
        learning=_optional(raw["learning"]),
        forgot=[str(name) for name in raw["forgot"]],
        is_within=bool(raw["is_within"]),
        num_samples=int(raw["num_samples"]),
    )


def read_curve(path: Path) -> Curve:
    """Reads a `curve.json`.

    Args:
        path: The file, as `Curve.to_json` writes it.

    Returns:
        The curve.

    Raises:
        DataError: The file is missing, not JSON, or not a curve.
    """
    return Curve.from_mapping(read_object(path), path=path)

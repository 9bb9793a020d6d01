"""What a pilot's steps showed at each rate, and which rate they recommend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

ENOUGH = 0.5  # of the best rate's learning


@dataclass(frozen=True)
class Leg:
    """What the steps at one rate did; losses and divergences in nats per token.

    Attributes:
        learning_rate: The rate.
        learned: Fall of the held-out loss.
        learned_low: Lower end of its 95 % interval, over examples.
        learned_high: Upper end.
        divergence: KL(base || tuned) on general texts and answers.
        text_rise: Rise of the cross-entropy of general text.
        answer_rise: Rise of that of good answers under the chat template.
        failure: Why there are no figures; empty where there are.
    """

    learning_rate: float
    learned: float = math.nan
    learned_low: float = math.nan
    learned_high: float = math.nan
    divergence: float = math.nan
    text_rise: float = math.nan
    answer_rise: float = math.nan
    failure: str = ""

    @property
    def price(self) -> float | None:
        """Divergence per nat learned; None where nothing was learned."""
        return self.divergence / self.learned if not self.failure and self.learned_low > 0 else None


@dataclass(frozen=True)
class Pilot:
    """What the pilot showed.

    Attributes:
        steps: Optimizer steps at each rate.
        legs: One for each rate, highest first.
        recommended: The rate to take; None where none learned.
        reason: Why, in a sentence or two.
    """

    steps: int
    legs: tuple[Leg, ...]
    recommended: float | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the pilot for scripts; figures that are missing are null."""
        legs = [{k: _finite(v) for k, v in asdict(leg).items()} | {"price": leg.price} for leg in self.legs]
        return {"steps": self.steps, "recommended": self.recommended, "reason": self.reason, "legs": legs}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def recommend(legs: Sequence[Leg], steps: int) -> tuple[float | None, str]:
    """Chooses the cheapest of the rates that learned at least half of what the best one did.

    Args:
        legs: What each rate did.
        steps: Steps at each rate.

    Returns:
        The rate, None where none learned, and the reason.
    """
    learning = [leg for leg in legs if leg.price is not None]
    if not learning:
        return None, (
            f"None of the rates lowered the held-out loss beyond doubt in {steps} steps: take more steps "
            "(--pilot-steps), or look at data and template before any rate."
        )
    best = max(learning, key=lambda leg: leg.learned)
    fast = [leg for leg in learning if leg.learned >= ENOUGH * best.learned]
    chosen = min(fast, key=lambda leg: leg.divergence / leg.learned)
    cheapest = (
        f"{chosen.learning_rate:.3g} learned {chosen.learned:.3f} nats per token in {steps} steps at "
        f"{chosen.divergence / chosen.learned:.3f} nats of KL to the base for each"
    )
    if chosen is not best:
        compared = (
            f"; {best.learning_rate:.3g} learned more ({best.learned:.3f}), at "
            f"{best.divergence / best.learned:.3f} for each"
        )
    else:
        slower = [leg.learning_rate for leg in legs if leg not in fast and not leg.failure]
        named = ", ".join(f"{rate:.3g}" for rate in slower)
        compared = f"; {named} learned less than half as much" if slower else "; no lower rate is cheaper"
    return chosen.learning_rate, f"Take {chosen.learning_rate:.3g}: {cheapest}{compared}."

"""The statistics of repeated looks at a training: bounds that hold at all looks together.

Every look asks another model the same examples. What a confidence sequence allows for, examples that keep coming, is
not what happens here, and its guarantee doesn't carry over. The looks therefore share the error rate: each gets
(what is left of alpha) / (looks that are still planned), and by the union bound the chance that any bound is wrong at
any look is at most alpha, however the looks depend on one another. The plan may follow the clock, never the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WITHIN, APPROACHING, OVER = "within", "approaching", "over"
_STAKES = np.array([0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
_HALVINGS = 45  # of the interval that the bound is searched in: to the last digit


@dataclass(frozen=True)
class Look:
    """What one look saw.

    Attributes:
        step: Optimizer steps done.
        cross_entropy: Of the model on the probe, in nats per token; the mean over examples.
        rise: How much higher that is than the base's, on the same examples.
        kl: KL(base || model) in nats per token; the mean over examples.
        low: One-sided lower bound of the measure that has the budget.
        high: One-sided upper bound of it.
        status: "within" the budget, "approaching" where the estimate is above it, "over" where `low` is.
        num_examples: Examples of the probe that were looked at.
        seconds: Time it took.
        rate_factor: What the learning rate is multiplied with from here on.
        strength_factor: What the strength of a method that holds the model is multiplied with from here on.
    """

    step: int
    cross_entropy: float
    rise: float
    kl: float
    low: float
    high: float
    status: str
    num_examples: int
    seconds: float
    rate_factor: float = 1.0
    strength_factor: float = 1.0

    def record(self) -> dict[str, Any]:
        """Returns what a log keeps, without the step; None for what is not a finite number, rounded for reading."""
        values = {name: value for name, value in asdict(self).items() if name != "step"}
        return {name: _readable(value) for name, value in values.items()}

    def curves(self) -> dict[str, float]:
        """Returns what a tracker draws, by name."""
        names = ("cross_entropy", "rise", "kl", "low", "high", "rate_factor", "strength_factor")
        return {f"retention/{name}": value for name in names if np.isfinite(value := float(getattr(self, name)))}


def _readable(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if np.isfinite(value) else None


def judge(estimate: float, low: float, budget: float) -> str:
    """Returns the status of an estimate with its lower bound."""
    if low > budget:
        return OVER
    return WITHIN if estimate <= budget else APPROACHING


def level_of_look(alpha: float, *, spent: float, num_left: int) -> float:
    """Returns the error rate of the next look: an equal part of what is left.

    Args:
        alpha: Error rate of all looks together, in (0, 1).
        spent: What earlier looks were given of it.
        num_left: Looks that are still planned, the next one among them.

    Returns:
        The rate, above 0.
    """
    return max(alpha - spent, 1e-12) / max(num_left, 1)


def bounds(values: Sequence[float] | NDArray[np.float64], alpha: float, *, is_positive: bool) -> tuple[float, float]:
    """Returns one-sided bounds of the mean of the population that examples were drawn from.

    Args:
        values: One of each example, independent draws.
        alpha: Error rate of each bound, in (0, 1).
        is_positive: Whether no value can be below 0, as a divergence can't: then the lower bound assumes nothing else.

    Returns:
        Lower and upper bound; the upper one is Student's, which is approximate.
    """
    found = np.asarray(values, dtype=np.float64)
    if not np.isfinite(found).all():
        return float("inf"), float("inf")  # a model that answers with no number at all
    low, high = _student_bounds(found, alpha)
    return (positive_lower_bound(found, alpha) if is_positive else low), high


def positive_lower_bound(values: NDArray[np.float64], alpha: float) -> float:
    """Returns a lower bound of the mean of what can't be below 0, valid at every sample size and for every shape.

    For a mean of at most m, prod_i (1 + s (x_i / m - 1)) has an expectation of at most 1 for every stake s in [0, 1];
    so has its mean over several stakes, which by Markov's inequality reaches 1 / alpha with a chance of at most alpha.
    The bound is the largest m at which it does (betting, Waudby-Smith and Ramdas 2024, arXiv 2010.09686, for values
    that are bounded on one side).

    Args:
        values: At least one value, none below 0.
        alpha: Error rate, in (0, 1).

    Returns:
        The bound, from 0 to the mean of the values.
    """
    mean = float(values.mean())
    if mean <= 0:
        return 0.0
    low, high = 0.0, mean
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle <= 0 or log_wealth(values, middle) >= -np.log(alpha):
            low = middle
        else:
            high = middle
    return low


def log_wealth(values: NDArray[np.float64], mean: float) -> Any:
    """Returns the logarithm of the evidence that a mean is above `mean`: the mean over stakes of a betting product.

    Args:
        values: Draws of what can't be below 0, (..., examples).
        mean: The largest mean that is doubted, above 0.

    Returns:
        One logarithm for each set of examples, (...).
    """
    factors = 1 + _STAKES[:, None] * (values[..., None, :] / mean - 1)  # (..., stakes, examples)
    logs = np.log(factors).sum(axis=-1)
    top = logs.max(axis=-1, keepdims=True)
    return top[..., 0] + np.log(np.exp(logs - top).mean(axis=-1))


def _student_bounds(values: NDArray[np.float64], alpha: float) -> tuple[float, float]:
    from scipy.stats import t

    num = len(values)
    if num < 2:
        return float("-inf"), float("inf")
    reach = float(t.isf(alpha, num - 1)) * float(values.std(ddof=1)) / num**0.5
    mean = float(values.mean())
    return mean - reach, mean + reach

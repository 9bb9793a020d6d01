"""One weight, learned at 1 by task A and pulled to -2 by task B: how it gets there, and where a penalty lets it rest.

    loss of A = (w - 1)^2                 loss of B = (w + 2)^2

A step of gradient descent at rate r on a parabola c (w - w*)^2 multiplies the distance to w* by 1 - 2 r c: at r = 0.5
and c = 1 by zero, which is one step to the optimum. With EWC the loss is B's and (strength / 2) F (w - 1)^2, itself a
parabola, with c = 1 + strength F / 2 and its optimum at (2 w_B + strength F w_A) / (2 + strength F).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from forgetless.errors import ConfigError
from forgetless.mechanisms.quadratic import QuadraticPenalty

BEST_A, BEST_B = 1.0, -2.0
# A's loss (w - 1)^2 is, up to a constant, the negative log-likelihood of a Gaussian of variance 1/2 around w. Its
# information is 1 / variance.
FISHER = 2.0
RATES = (0.02, 0.1, 0.5, 0.95, 1.05)
STRENGTHS = (0.0, 0.25, 1.0, 4.0, 20.0)
LESSON_RATE = 0.5
DIVERGED = 1e6


@dataclass(frozen=True)
class Path:
    """The way of the weight.

    Attributes:
        rate: Learning rate of gradient descent.
        strength: Of EWC; 0 = without.
        weights: The weight after 0, 1, ... steps; cut off where it leaves the picture for good.
    """

    rate: float
    strength: float
    weights: list[float]

    @property
    def end(self) -> float:
        return self.weights[-1]

    @property
    def num_steps(self) -> int | None:
        """Steps until it is within 0.001 of where it rests, and stays; None where it never is."""
        rest = equilibrium(self.strength)
        inside = [abs(weight - rest) < 1e-3 for weight in self.weights]
        return next((step for step in range(len(inside)) if all(inside[step:])), None)


@dataclass(frozen=True)
class SingleWeight:
    """What the lesson shows.

    Attributes:
        plain: Paths without a penalty, one for each rate.
        anchored: Paths with EWC at a rate that is stable for each strength.
        at_lesson_rate: The same at the lesson's rate.
    """

    plain: list[Path] = field(default_factory=list)
    anchored: list[Path] = field(default_factory=list)
    at_lesson_rate: list[Path] = field(default_factory=list)


class Weight(nn.Module):
    """A model of one weight, which starts where task A has left it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([BEST_A]))


def loss_a(weight: float) -> float:
    """Returns the loss of task A."""
    return (weight - BEST_A) ** 2


def loss_b(weight: float) -> float:
    """Returns the loss of task B."""
    return (weight - BEST_B) ** 2


def equilibrium(strength: float) -> float:
    """Returns where loss of B and penalty balance: the closed form."""
    return (2 * BEST_B + strength * FISHER * BEST_A) / (2 + strength * FISHER)


def largest_rate(strength: float) -> float:
    """Returns the rate from which descent no longer settles: 2 over the curvature, which the penalty raises."""
    return 2 / (2 + strength * FISHER)


def descend(rate: float, *, strength: float = 0.0, num_steps: int = 60) -> Path:
    """Trains task B from where A is learned, by plain gradient descent, with EWC's penalty in closed form.

    Args:
        rate: Learning rate.
        strength: Of EWC; 0 = without.
        num_steps: Steps at most.

    Returns:
        The path, start included.
    """
    model = Weight()
    penalty = QuadraticPenalty(model, {"weight": torch.full_like(model.weight, FISHER)}, strength=strength)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    weights = [model.weight.item()]
    for _ in range(num_steps):
        optimizer.zero_grad()
        (model.weight - BEST_B).square().sum().backward()
        if strength:
            penalty.add_gradient(model)
        optimizer.step()
        weights.append(model.weight.item())
        if abs(weights[-1]) > DIVERGED:
            break
    return Path(rate, strength, weights)


def run_single_weight(rates: Sequence[float] = RATES, strengths: Sequence[float] = STRENGTHS) -> SingleWeight:
    """Pulls the weight from task A's optimum to task B's at several rates, and against EWC at several strengths.

    Args:
        rates: Learning rates without a penalty.
        strengths: Strengths of EWC, at a third of the largest stable rate and at the lesson's.

    Returns:
        The paths.

    Raises:
        ConfigError: A rate isn't above 0, or a strength is below.
    """
    if any(rate <= 0 for rate in rates) or any(strength < 0 for strength in strengths):
        raise ConfigError(f"rates {list(rates)} must be above 0, and strengths {list(strengths)} 0 or more")
    return SingleWeight(
        plain=[descend(rate) for rate in rates],
        anchored=[descend(largest_rate(strength) / 3, strength=strength) for strength in strengths],
        at_lesson_rate=[descend(LESSON_RATE, strength=strength) for strength in strengths],
    )

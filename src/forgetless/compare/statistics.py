"""Tests for paired scores: what was lost and gained, how likely chance alone would do that, over how many rows.

Signs: a loss is a sample that the tuned model grades lower than the base; delta = tuned - base. Every one-sided
p-value is one-sided for a loss. Differences are handed over oriented so that negative is worse, cross-entropies
included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetless.compare.distributions import FloatArray, binomial_tail
from forgetless.compare.permutation import Alternative

IntArray = NDArray[np.int64]

NEAR_CERTAIN = 0.98
"""A task that both models answer at least this well is at its ceiling."""


@dataclass(frozen=True, slots=True)
class Transitions:
    """What happened to each sample between base and tuned; graded samples count as right from one half up.

    Attributes:
        lost: Samples graded lower by the tuned model.
        gained: Samples graded higher.
        kept_right: Samples graded the same, at one half or more.
        kept_wrong: Samples graded the same, below one half.
    """

    lost: int
    gained: int
    kept_right: int
    kept_wrong: int


def transitions(base: ArrayLike, tuned: ArrayLike) -> Transitions:
    """Counts the samples that were lost, gained, kept right and kept wrong."""
    before, after = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    same = before == after
    return Transitions(
        lost=int(np.sum(after < before)),
        gained=int(np.sum(after > before)),
        kept_right=int(np.sum(same & (before >= 0.5))),
        kept_wrong=int(np.sum(same & (before < 0.5))),
    )


def mcnemar_p(lost: int, gained: int, *, alternative: Alternative = "loss") -> float:
    """Tests paired 0/1 scores by the exact McNemar test.

    Given lost + gained flips, the number lost is binomial with probability one half when nothing changed on average.

    Args:
        lost: Samples right before and wrong after.
        gained: Samples wrong before and right after.
        alternative: `loss` asks whether more were lost than gained; `two-sided` doubles the smaller tail.

    Returns:
        The p-value, in (0, 1]; 1 where nothing flipped.
    """
    flips = lost + gained
    if alternative == "loss":
        return float(binomial_tail(lost, flips, 0.5))
    return min(1.0, 2.0 * float(binomial_tail(max(lost, gained), flips, 0.5)))


def holm(p_values: ArrayLike) -> FloatArray:
    """Adjusts p-values by Holm's step-down method: rejecting those <= alpha keeps the family-wise error <= alpha.

    Holds under any dependence between the rows, so a pool may stand in one family with its own parts.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


@dataclass(frozen=True, slots=True)
class ChanceAdjusted:
    """Forgetting on multiple choice after taking out what two guessers would show.

    Attributes:
        forgetting: Share of samples lost beyond chance.
        gain: Share gained beyond chance.
        largest_forgetting: The most that the base could lose beyond chance.
    """

    forgetting: float
    gain: float
    largest_forgetting: float


def chance_adjusted(base: ArrayLike, tuned: ArrayLike, *, chance: float) -> ChanceAdjusted:
    """Takes the flips that guessing alone produces out of forgetting and gain.

    A model with accuracy a knows a share (a - chance) / (1 - chance) and guesses the rest. If both guess independently,
    (1 - a0)(1 - a1) / (k - 1) of the samples, k = 1 / chance, are lost by luck and as many gained. Greedy choices of
    two related models agree more often than that, so this over-corrects: read it as a lower bound. (`post-forget`,
    2025.)

    Args:
        base: 0/1 grades of the base, shape (n,).
        tuned: 0/1 grades of the tuned model, in the same order.
        chance: Expected grade of guessing, in (0, 1).

    Returns:
        Forgetting, gain, and the most that could be forgotten, as shares of the samples, in [0, 1].

    Raises:
        ValueError: `chance` is not in (0, 1).
    """
    if not 0.0 < chance < 1.0:
        raise ValueError(f"chance {chance} is not in (0, 1): free answers have no chance level to adjust for")
    before, after = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    counts = transitions(before, after)
    num_choices = 1.0 / chance
    accuracy = float(before.mean())
    by_luck = (1.0 - accuracy) * (1.0 - float(after.mean())) / (num_choices - 1.0)
    return ChanceAdjusted(
        forgetting=max(0.0, counts.lost / before.size - by_luck),
        gain=max(0.0, counts.gained / before.size - by_luck),
        largest_forgetting=max(0.0, (num_choices * accuracy - 1.0) / (num_choices - 1.0)),
    )


def is_at_floor(base: ArrayLike, *, chance: float, margin: float, alpha: float) -> bool:
    """Whether the base has nothing to lose that the margin could catch.

    True if its grades are not significantly above chance (one-sided exact binomial; for grades between 0 and 1 the same
    beta tail at the real-valued sum, which errs on the side of the floor), or if it stands less than `margin` above
    chance, so that losing everything it knows would still pass.
    """
    grades = np.asarray(base, dtype=np.float64)
    total = float(grades.sum())
    if total / grades.size - chance < margin:
        return True
    return float(binomial_tail(total, grades.size, chance)) > alpha


def is_at_ceiling(base: ArrayLike, tuned: ArrayLike, *, margin: float = 1.0 - NEAR_CERTAIN) -> bool:
    """Whether both models are right (nearly) always, so that the task tells nothing about them.

    A margin below two points asks for more: a drop beyond it must not hide under a ceiling.
    """
    ceiling = max(NEAR_CERTAIN, 1.0 - margin)
    return min(float(np.mean(np.asarray(base))), float(np.mean(np.asarray(tuned)))) >= ceiling

"""Intervals for the mean paired difference that keep their coverage where scores hardly change.

Grades use Tango's score interval for the difference of paired proportions (Tango, Statistics in Medicine 17, 1998). By
exact enumeration at n = 50, 200, 600, flips of 2, 5, 8 % each way and true drops of 0, 3, 10 points, its 95 % interval
covers 94.7 to 95.8 % in 25 of 27 cells, and its one-sided bound 94.9 to 96.0 %. In the other two (n = 50 at 2 %, one
or two flips a side) coverage moves in coarse steps and it errs upwards, to 98.6 %. Of the others tried, Wald sinks to
91.4 %, Newcombe's and Agresti and Min's one-sided bounds to 94.2 % and 92.2 %, and Bonett and Price's interval climbs
to 100 %. Tango's inverts the non-inferiority score test, so the bound and KEPT agree by construction.

Grades between 0 and 1, and grades in clusters, go through the same interval on effective counts (`FlipCounts`) with a t
quantile. Over the simulated cells of `docs/verdict.md` it never covers less than 94 %, and errs upwards where a data
set holds few flips or few clusters; a cluster-robust t interval sinks to 91 %, every bootstrap below 89 %. It is
Tango's for independent 0/1 grades.

Cross-entropies change in every sample, so they take the cluster-robust t interval of a ratio of sums (`MeanShift`): 94
to 96 % in simulation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from forgetless.compare.distributions import FloatArray, normal_quantile, t_quantile
from forgetless.compare.permutation import cluster_sums


def tango_score(lost: ArrayLike, gained: ArrayLike, num_samples: ArrayLike, *, forgetting: ArrayLike) -> FloatArray:
    """Returns Tango's score statistic for the hypothesis that the mean of base - tuned equals `forgetting`.

    Falls as the hypothesised forgetting rises; standard normal under the hypothesis. Broadcasts. Equations 3 and 4 of
    the paper, with the share of gained samples estimated under the hypothesis.
    """
    b, c, n, f = (np.asarray(value, dtype=np.float64) for value in (lost, gained, num_samples, forgetting))
    linear = -b - c + (2.0 * n - b + c) * f
    constant = -c * f * (1.0 - f)
    share = (np.sqrt(np.maximum(linear**2 - 8.0 * n * constant, 0.0)) - linear) / (4.0 * n)
    variance = n * (2.0 * share + f * (1.0 - f))
    return np.asarray((b - c - n * f) / np.sqrt(np.maximum(variance, 1e-300)), dtype=np.float64)


def tango_upper(lost: ArrayLike, gained: ArrayLike, num_samples: ArrayLike, *, quantile: float) -> FloatArray:
    """Returns the upper bound of forgetting: where the score statistic falls to -quantile. Broadcasts.

    The lower bound is the upper bound with lost and gained exchanged, and its sign changed.
    """
    b, c, n = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (lost, gained, num_samples)))
    low, high = np.asarray((b - c) / n), np.ones(b.shape)
    for _ in range(60):  # bisection to the last bit
        middle = (low + high) / 2.0
        outside = tango_score(b, c, n, forgetting=middle) < -quantile
        low, high = np.where(outside, low, middle), np.where(outside, middle, high)
    return np.asarray((low + high) / 2.0, dtype=np.float64)


IMAGINED_FLIP = 0.25
"""Weight of one imagined flip of size 1 in the typical size of a flip. Chosen by simulation: a whole one covers up to
99.6 % at 200 samples, this weight and the next up to 97.3 %, and neither less than 94.5 %."""

IMAGINED_CLUSTER = 0.1
"""Weight of one imagined flip, shared by its whole cluster, in the design effect."""


@dataclass(frozen=True, slots=True)
class FlipCounts:
    """Flips between two models' grades, in units that make graded and clustered samples comparable to 0/1 ones.

    A mean of n differences with total loss L, total gain G and typical size s has the mean and the variance of s times
    a paired difference of proportions with L / s lost and G / s gained of n; samples that share clusters count as n
    divided by the design effect. For independent 0/1 grades all of this is the identity.

    Attributes:
        lost: Effective number of samples lost.
        gained: Effective number gained.
        num_samples: Effective number of samples.
        size: Typical size s of a flip; 1 for 0/1 grades.
        design_effect: By how much clusters inflate the variance, at least 1.
        degrees: Degrees of freedom of the quantile; None = the normal one, for independent 0/1 grades.
    """

    lost: float
    gained: float
    num_samples: float
    size: float = 1.0
    design_effect: float = 1.0
    degrees: int | None = None

    @property
    def discordance(self) -> float:
        """Share of the effective samples that flipped."""
        return min(1.0, (self.lost + self.gained) / self.num_samples)

    def quantile(self, probability: float) -> float:
        """Returns the quantile that bounds are built with."""
        return normal_quantile(probability) if self.degrees is None else t_quantile(probability, self.degrees)

    def upper_forgetting(self, confidence: float) -> float:
        """Returns the one-sided upper bound of the mean of base - tuned."""
        quantile = self.quantile(confidence)
        return self.size * float(tango_upper(self.lost, self.gained, self.num_samples, quantile=quantile))

    def upper_gain(self, confidence: float) -> float:
        """Returns the one-sided upper bound of the mean of tuned - base."""
        quantile = self.quantile(confidence)
        return self.size * float(tango_upper(self.gained, self.lost, self.num_samples, quantile=quantile))


def flip_counts(differences: ArrayLike, clusters: ArrayLike | None = None) -> FlipCounts | None:
    """Returns the effective counts of differences tuned - base, or None if fewer than two clusters tell their spread.

    Size and design effect each take part of an imagined flip of size 1, shared by its whole cluster, into their
    estimate: with few real flips the unseen ones are assumed large, and the assumption fades as flips are seen.
    """
    d = np.asarray(differences, dtype=np.float64)
    losses, gains = float(np.maximum(-d, 0.0).sum()), float(np.maximum(d, 0.0).sum())
    sizes = cluster_sums(np.ones(d.size), clusters)
    is_clustered = bool(sizes.max() > 1.0)
    is_zero_one = bool(np.isin(np.abs(d), (0.0, 1.0)).all())
    if is_zero_one and not is_clustered:
        return FlipCounts(losses, gains, float(d.size))
    if sizes.size < 2:
        return None
    size = (float((d**2).sum()) + IMAGINED_FLIP) / (losses + gains + IMAGINED_FLIP)
    design_effect = 1.0
    if is_clustered:
        residuals = d - d.mean()
        within = float((residuals**2).sum())
        between = float((cluster_sums(residuals, clusters) ** 2).sum()) * sizes.size / (sizes.size - 1)
        design_effect = max(1.0, (between + IMAGINED_CLUSTER * float(sizes.mean())) / (within + IMAGINED_CLUSTER))
    scale = size * design_effect
    return FlipCounts(
        lost=losses / scale,
        gained=gains / scale,
        num_samples=d.size / design_effect,
        size=size,
        design_effect=design_effect,
        degrees=sizes.size - 1,
    )


@dataclass(frozen=True, slots=True)
class MeanShift:
    """A weighted mean difference tuned - base with its cluster-robust standard error.

    Attributes:
        mean: Weighted mean difference.
        standard_error: By linearisation of the ratio of sums, clusters as units, times sqrt(G / (G - 1)).
        num_clusters: Number of units G.
    """

    mean: float
    standard_error: float
    num_clusters: int

    def upper(self, confidence: float) -> float:
        """Returns the one-sided upper bound of the mean; the lower one is that of the confidence's complement."""
        return self.mean + t_quantile(confidence, self.num_clusters - 1) * self.standard_error


def mean_shift(differences: ArrayLike, weights: ArrayLike, clusters: ArrayLike | None = None) -> MeanShift | None:
    """Returns the ratio estimate sum(w * d) / sum(w) and its standard error, or None for fewer than two clusters."""
    d, w = np.asarray(differences, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    mean = float((w * d).sum() / w.sum())
    residuals = cluster_sums(w * (d - mean), clusters)
    if residuals.size < 2:
        return None
    variance = float((residuals**2).sum()) * residuals.size / (residuals.size - 1)
    return MeanShift(mean, math.sqrt(variance) / float(w.sum()), residuals.size)

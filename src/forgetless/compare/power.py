"""What a comparison of a given size can see: the smallest drop it detects, and the samples that would decide it.

Both figures take the discordance that was observed as the truth; it is the only nuisance parameter of a paired test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from forgetless.compare.distributions import (
    FloatArray,
    binomial_mass,
    binomial_tail,
    normal_quantile,
    t_quantile,
)
from forgetless.compare.intervals import FlipCounts, MeanShift, tango_score

POWER = 0.8
"""Probability with which the promised drop is detected, and with which the promised samples decide."""

LARGEST_EXACT_SIZE = 3_000
"""Samples up to which the non-inferiority power is enumerated; beyond, the normal approximation is as good."""


@lru_cache(maxsize=64)
def _critical_losses(num_samples: int, level: float) -> FloatArray:
    """Returns, for 0 to `num_samples` flips, the fewest losses among them at which exact McNemar has p <= level."""
    flips = np.arange(num_samples + 1.0)
    start = np.floor(flips / 2.0 + normal_quantile(1.0 - level) * np.sqrt(flips) / 2.0)
    candidates = start[:, None] + np.arange(-6.0, 12.0)[None, :]
    rejects = binomial_tail(candidates, flips[:, None], 0.5) <= level
    critical = np.asarray(candidates[np.arange(flips.size), rejects.argmax(axis=1)])
    return np.where(critical > flips, flips + 1.0, critical)  # more losses than flips: can't reject


def mcnemar_power(num_samples: int, *, lost_rate: float, gained_rate: float, level: float) -> float:
    """Computes the power of exact McNemar, one-sided for a loss.

    Args:
        num_samples: Number of pairs.
        lost_rate: Probability that a sample is lost.
        gained_rate: Probability that it is gained; at most 1 - lost_rate.
        level: One-sided level of the test, in (0, 1).

    Returns:
        The probability that p <= level, in [0, 1]; 0 where nothing flips.
    """
    discordance = lost_rate + gained_rate
    if discordance <= 0.0:
        return 0.0
    flips = _likely_counts(num_samples, min(1.0, discordance))
    critical = _critical_losses(num_samples, level)[flips.astype(np.int64)]
    mass = binomial_mass(flips, num_samples, min(1.0, discordance))
    return float((mass * binomial_tail(critical, flips, lost_rate / discordance)).sum())


def noninferiority_power(num_samples: int, *, discordance: float, margin: float, alpha: float) -> float:
    """Computes how likely it is that the margin is shown to hold when nothing is forgotten.

    Args:
        num_samples: Number of pairs.
        discordance: Share of samples that flip, half of them each way, in [0, 1].
        margin: The bound that must be undercut, in (0, 1).
        alpha: One-sided level of the bound.

    Returns:
        The probability that the upper bound of forgetting is below the margin, in [0, 1].
    """
    flips = _likely_counts(num_samples, discordance)
    mass = binomial_mass(flips, num_samples, discordance)
    reach = math.ceil(5.0 * math.sqrt(float(flips[-1])) / 2.0 + 5.0)
    excess = np.arange(-reach, reach + 1.0)
    lost = np.floor(flips[:, None] / 2.0) + excess[None, :]
    gained = flips[:, None] - lost
    is_possible = (lost >= 0.0) & (gained >= 0.0)
    lost, gained = np.where(is_possible, lost, 0.0), np.where(is_possible, gained, 0.0)
    is_below = tango_score(lost, gained, num_samples, forgetting=margin) < -normal_quantile(1.0 - alpha)
    split = np.where(is_possible, binomial_mass(lost, lost + gained, 0.5), 0.0)
    return float((mass[:, None] * split * is_below).sum())


def min_detectable_drop(evidence: FlipCounts | MeanShift, *, level: float) -> float | None:
    """Returns the smallest true drop (rise, for cross-entropy) that the row's test detects with 80 % power.

    For independent 0/1 grades the power is exact: at the observed discordance w a drop m means lost at rate (w + m) / 2
    and gained at (w - m) / 2, and m alone once it exceeds w. Cross-entropies use the normal approximation of the mean.
    Graded and clustered rows go through `detection.simulated_drop`.

    Args:
        evidence: The row's differences.
        level: One-sided level; alpha over the number of gated rows, the level at which Holm's first step rejects.

    Returns:
        The drop, or None when not even losing everything would be detected with that power.

    Raises:
        ValueError: The grades are between 0 and 1, or clustered.
    """
    if isinstance(evidence, MeanShift):
        degrees = evidence.num_clusters - 1
        return (t_quantile(1.0 - level, degrees) + t_quantile(POWER, degrees)) * evidence.standard_error
    if evidence.degrees is not None:
        raise ValueError("graded and clustered scores have no exact power: simulate it (detection.simulated_drop)")
    return smallest_share(lambda drop: _detects(evidence, drop, level=level))


def _detects(counts: FlipCounts, drop: float, *, level: float) -> bool:
    """Whether a drop of 0/1 grades is detected with the promised power."""
    discordance = max(counts.discordance, drop)
    rates = {"lost_rate": (discordance + drop) / 2.0, "gained_rate": (discordance - drop) / 2.0}
    return mcnemar_power(round(counts.num_samples), **rates, level=level) >= POWER


def num_samples_needed(evidence: FlipCounts | MeanShift, *, margin: float, alpha: float, num_samples: int) -> int:
    """Computes how many samples would decide the row: KEPT with 80 % power if the true forgetting is zero.

    That is, the fewest samples at which the one-sided 1 - alpha bound of forgetting falls below the margin with
    probability 0.8, given the observed discordance (or spread), cluster sizes like those seen, and no true change. If
    the model did forget, fewer or more samples may decide; this figure promises nothing then.

    Args:
        evidence: The row's differences.
        margin: Largest tolerated drop, in the unit of the row.
        alpha: One-sided level of the bound.
        num_samples: Samples that the evidence was computed from.

    Returns:
        Number of samples in all, those that were scored included.
    """
    if isinstance(evidence, MeanShift):
        per_cluster = num_samples / evidence.num_clusters
        spread = evidence.standard_error**2 * evidence.num_clusters
        num_clusters = 2.0
        for _ in range(20):  # fixed point: the quantiles depend on the number of clusters
            degrees = max(num_clusters - 1.0, 1.0)
            quantiles = t_quantile(1.0 - alpha, degrees) + t_quantile(POWER, degrees)
            num_clusters = max(2.0, quantiles**2 * spread / margin**2)
        return math.ceil(num_clusters * per_cluster)
    relative = min(margin / evidence.size, 0.999)
    needed = _decisive_size(evidence.discordance, margin=relative, alpha=alpha)
    return math.ceil(needed * evidence.design_effect)


@lru_cache(maxsize=256)
def _decisive_size(discordance: float, *, margin: float, alpha: float) -> int:
    """Returns the fewest independent 0/1 pairs with the promised non-inferiority power."""
    quantiles = normal_quantile(1.0 - alpha) + normal_quantile(POWER)
    approximate = quantiles**2 * discordance / margin**2
    if approximate > LARGEST_EXACT_SIZE:
        return math.ceil(approximate)
    without_flips = normal_quantile(1.0 - alpha) ** 2 * (1.0 - margin) / margin
    low, high = 1, math.ceil(2.0 * (approximate + without_flips)) + 2
    while low < high:
        middle = (low + high) // 2
        power = noninferiority_power(middle, discordance=discordance, margin=margin, alpha=alpha)
        low, high = (low, middle) if power >= POWER else (middle + 1, high)
    return low


def _likely_counts(num_samples: int, probability: float) -> FloatArray:
    """Returns the counts of a binomial variable that hold all but a negligible share of its mass."""
    mean = num_samples * probability
    reach = 8.0 * math.sqrt(mean * (1.0 - probability)) + 8.0
    return np.arange(max(0.0, math.floor(mean - reach)), min(float(num_samples), math.ceil(mean + reach)) + 1.0)


def smallest_share(is_enough: Callable[[float], bool], *, precision: float = 1e-5) -> float | None:
    """Returns the smallest value in [0, 1] from which a monotone condition holds, or None if it never does."""
    if not is_enough(1.0):
        return None
    low, high = 0.0, 1.0
    while high - low > precision:
        middle = (low + high) / 2.0
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high

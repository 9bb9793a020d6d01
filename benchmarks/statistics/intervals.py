"""Intervals for a paired difference that were tried, as arrays over data sets; `simulate.py` measures their coverage.

Counts are losses b and gains c of n pairs; intervals bound forgetting (b - c) / n. For grades between 0 and 1 the
candidates work on sums of equal clusters, shape (data sets, clusters).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from forgetless.compare.distributions import FloatArray
from forgetless.compare.intervals import IMAGINED_CLUSTER, IMAGINED_FLIP, tango_score, tango_upper

Bounds = tuple[FloatArray, FloatArray]


def wald(b: FloatArray, c: FloatArray, n: float, z: float) -> Bounds:
    difference, error = (b - c) / n, np.sqrt(np.maximum(b + c - (b - c) ** 2 / n, 0.0)) / n
    return difference - z * error, difference + z * error


def agresti_min(b: FloatArray, c: FloatArray, n: float, z: float) -> Bounds:
    """Half a pair added to each of the four cells (Agresti and Min, 2005)."""
    return wald(b + 0.5, c + 0.5, n + 2.0, z)


def bonett_price(b: FloatArray, c: FloatArray, n: float, z: float) -> Bounds:
    """One pair added to each discordant cell (Bonett and Price, 2012)."""
    lost, gained = (b + 1.0) / (n + 2.0), (c + 1.0) / (n + 2.0)
    error = np.sqrt((lost + gained - (lost - gained) ** 2) / (n + 2.0))
    return lost - gained - z * error, lost - gained + z * error


def newcombe(b: FloatArray, c: FloatArray, n: float, z: float) -> Bounds:
    """Square-and-add of two Wilson intervals with a correlation (Newcombe, 1998, method 10); half the rest is right."""
    a = d = (n - b - c) / 2.0

    def wilson(count: FloatArray) -> list[FloatArray]:
        share, half = count / n, z * np.sqrt(count / n * (1.0 - count / n) / n + z * z / 4.0 / n / n)
        return [(share + z * z / 2.0 / n + sign * half) / (1.0 + z * z / n) for sign in (-1.0, 1.0)]

    before, after = (a + b) / n, (a + c) / n
    (low1, high1), (low2, high2) = wilson(a + b), wilson(a + c)
    product = (a + b) * (c + d) * (a + c) * (b + d)
    excess = a * d - b * c
    excess = np.where(excess > n / 2.0, excess - n / 2.0, np.minimum(excess, 0.0))
    phi = np.divide(excess, np.sqrt(product), out=np.zeros_like(product), where=product > 0)
    down = (before - low1) ** 2 - 2.0 * phi * (before - low1) * (high2 - after) + (high2 - after) ** 2
    up = (high1 - before) ** 2 - 2.0 * phi * (high1 - before) * (after - low2) + (after - low2) ** 2
    return before - after - np.sqrt(np.maximum(down, 0.0)), before - after + np.sqrt(np.maximum(up, 0.0))


def tango(b: FloatArray, c: FloatArray, n: float, z: float) -> Bounds:
    return -tango_upper(c, b, n, quantile=z), tango_upper(b, c, n, quantile=z)


COUNT_INTERVALS = {
    "Wald": wald,
    "Agresti-Min": agresti_min,
    "Bonett-Price": bonett_price,
    "Newcombe": newcombe,
    "Tango": tango,
}


def accepts_by_enumeration(
    b: FloatArray, c: FloatArray, n: int, forgetting: float, *, mid_p: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns which outcomes an unconditional test of `forgetting` accepts, two-sided at .95 and one-sided.

    The test orders outcomes by Tango's score and sums their mass at the estimated share of gains (Lloyd, 2008).
    """
    linear = -b - c + (2.0 * n - b + c) * forgetting
    root = np.sqrt(np.maximum(linear**2 + 8.0 * n * c * forgetting * (1.0 - forgetting), 0.0))
    gained = np.maximum((root - linear) / (4.0 * n), 0.0)
    every_b, every_c = (axis.ravel() for axis in np.meshgrid(np.arange(n + 1.0), np.arange(n + 1.0)))
    is_possible = every_b + every_c <= n
    every_b, every_c = every_b[is_possible], every_c[is_possible]
    scores, own = (tango_score(x, y, n, forgetting=forgetting) for x, y in ((every_b, every_c), (b, c)))
    counts = np.stack([every_b, every_c, n - every_b - every_c], axis=1)
    below, above = np.empty(b.size), np.empty(b.size)
    for i, (score, share) in enumerate(zip(own, gained, strict=True)):
        mass = stats.multinomial.pmf(counts, n, [share + forgetting, share, 1.0 - 2.0 * share - forgetting])
        ties = np.abs(scores - score) < 1e-9
        tied = mass[ties].sum() * (0.5 if mid_p else 1.0)
        below[i], above[i] = mass[(scores < score) & ~ties].sum() + tied, mass[(scores > score) & ~ties].sum() + tied
    return (below > 0.025) & (above > 0.025), below > 0.05


def effective(differences: FloatArray, quantile: float) -> Bounds:
    """Returns Tango's interval of delta on effective counts, as `flip_counts` makes it, for (data sets, G, c)."""
    sets, groups, size = differences.shape
    lost, gained = (np.maximum(side, 0.0).sum((1, 2)) for side in (-differences, differences))
    typical = ((differences**2).sum((1, 2)) + IMAGINED_FLIP) / (lost + gained + IMAGINED_FLIP)
    design = np.ones(sets)
    if size > 1:
        residuals = differences - differences.mean((1, 2), keepdims=True)
        between = (residuals.sum(2) ** 2).sum(1) * groups / (groups - 1)
        within = (residuals**2).sum((1, 2))
        design = np.maximum(1.0, (between + IMAGINED_CLUSTER * size) / (within + IMAGINED_CLUSTER))
    lost, gained, num = lost / typical / design, gained / typical / design, groups * size / design
    return (
        -typical * tango_upper(lost, gained, num, quantile=quantile),
        typical * tango_upper(gained, lost, num, quantile=quantile),
    )


def cluster_t(differences: FloatArray, quantile: float) -> Bounds:
    means = differences.mean(2)
    error = means.std(1, ddof=1) / np.sqrt(means.shape[1])
    return means.mean(1) - quantile * error, means.mean(1) + quantile * error


def bootstraps(
    differences: FloatArray, probability: float, *, num_resamples: int, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Returns the percentile, BCa and studentised intervals at tail `probability`, shape (2, data sets) each.

    Data sets share their resamples.
    """
    x = differences.mean(2)
    groups = x.shape[1]
    weights = rng.multinomial(groups, np.full(groups, 1.0 / groups), size=num_resamples).astype(float)
    mean, error = x.mean(1), x.std(1, ddof=1) / np.sqrt(groups)
    means = weights @ x.T / groups
    spread = np.sqrt(np.maximum(weights @ (x**2).T / groups - means**2, 0.0) / (groups - 1))
    percentile = np.quantile(means, [probability, 1.0 - probability], axis=0)
    below = np.clip(((means < mean) + 0.5 * (means == mean)).mean(0), 1 / num_resamples, 1 - 1 / num_resamples)
    bias, centred = special.ndtri(below), x - mean[:, None]
    cubed = (centred**2).sum(1) ** 1.5
    acceleration = np.divide((centred**3).sum(1), 6.0 * cubed, out=np.zeros_like(cubed), where=cubed > 0)
    ordered, bca = np.sort(means, axis=0), []
    for tail in (probability, 1.0 - probability):
        moved = bias + special.ndtri(tail)
        place = special.ndtr(bias + moved / (1.0 - acceleration * moved)) * (num_resamples - 1)
        bca.append(ordered[np.clip(np.rint(place).astype(int), 0, num_resamples - 1), np.arange(x.shape[0])])
    ratios = np.where(spread > 1e-12, (means - mean) / np.where(spread > 1e-12, spread, 1.0), 0.0)
    high, low = np.quantile(ratios, [probability, 1.0 - probability], axis=0)
    return {
        "percentile": percentile,
        "BCa": np.array(bca),
        "studentised": np.array([mean - low * error, mean - high * error]),
    }

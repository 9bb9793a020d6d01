"""The paired bootstrap of a mean difference; clusters are resampled whole.

A reference, and a distribution-free cross-check for whoever wants one. Rows show the interval of `flip_counts` instead:
where few differences are not zero every bootstrap covers too little, for it can't imagine a flip that it hasn't seen
(`docs/verdict.md` has the comparison).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from forgetless.compare.distributions import FloatArray
from forgetless.compare.permutation import cluster_sums

BootstrapMethod = Literal["bca", "studentised", "percentile"]

CHUNK = 4_000_000
"""Numbers that are drawn at a time, which bounds the memory."""


def bootstrap_bounds(
    differences: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    method: BootstrapMethod = "bca",
    num_resamples: int = 9_999,
    generator: np.random.Generator | None = None,
) -> tuple[float, float]:
    """Bounds the mean difference by the paired bootstrap.

    - `bca`: percentiles, corrected for bias and skewness (Efron, 1987).
    - `studentised`: quantiles of (resampled mean - mean) / its cluster-robust standard error (bootstrap t).
    - `percentile`: percentiles of the resampled means.

    Args:
        differences: tuned - base per sample, shape (n,).
        clusters: Cluster label of each sample, shape (n,); None makes each sample its own.
        confidence: Two-sided, in (0, 1).
        method: Which interval.
        num_resamples: Number of bootstrap samples.
        generator: Source of the resamples; seed 0 by default.

    Returns:
        Lower and upper end, in the unit of the differences; the mean itself, twice, where all clusters agree.

    Raises:
        ValueError: There are fewer than two clusters, so that nothing tells their spread.
    """
    rng = generator if generator is not None else np.random.default_rng(0)
    sums = cluster_sums(differences, clusters)
    sizes = cluster_sums(np.ones(np.asarray(differences).size), clusters)
    if sums.size < 2:
        raise ValueError(f"{sums.size} cluster tells nothing about the spread between clusters: hand over more")
    mean = float(sums.sum() / sizes.sum())
    error = _standard_error(sums, sizes, np.arange(sums.size)[None, :])[0]
    if error == 0.0:
        return mean, mean
    drawn = list(_resamples(sums.size, num_resamples, rng))
    means = np.concatenate([sums[rows].sum(axis=1) / sizes[rows].sum(axis=1) for rows in drawn])
    tails = np.array([(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    if method == "studentised":
        errors = np.concatenate([_standard_error(sums, sizes, rows) for rows in drawn])
        # A resample without spread says nothing about how far off a mean is: it counts as exact.
        ratios = np.divide(means - mean, errors, out=np.zeros_like(means), where=errors > 0.0)
        high, low = np.quantile(ratios, tails)
        return mean - float(low) * float(error), mean - float(high) * float(error)
    if method == "bca":
        tails = _corrected(tails, means, mean, sums=sums, sizes=sizes)
    low, high = np.quantile(means, tails)
    return float(low), float(high)


def _resamples(num_units: int, num_resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int32]]:
    """Yields the indices of drawn units, shape (resamples, units), a bounded number at a time."""
    chunk = max(1, CHUNK // num_units)
    for start in range(0, num_resamples, chunk):
        yield rng.integers(0, num_units, size=(min(chunk, num_resamples - start), num_units), dtype=np.int32)


def _standard_error(sums: FloatArray, sizes: FloatArray, rows: NDArray[Any]) -> FloatArray:
    """Returns the standard error of the ratio of sums of each resample, by linearisation."""
    drawn_sums, drawn_sizes = sums[rows], sizes[rows]
    total = drawn_sizes.sum(axis=1)
    residuals = drawn_sums - (drawn_sums.sum(axis=1) / total)[:, None] * drawn_sizes
    num = sums.size
    return np.asarray(np.sqrt((residuals**2).sum(axis=1) * num / (num - 1)) / total, dtype=np.float64)


def _corrected(tails: FloatArray, means: FloatArray, mean: float, *, sums: FloatArray, sizes: FloatArray) -> FloatArray:
    """Moves the tail probabilities by the median bias of the resamples and by the jackknife's acceleration."""
    below = (np.mean(means < mean) + np.mean(means <= mean)) / 2.0
    bias = special.ndtri(np.clip(below, 1.0 / means.size, 1.0 - 1.0 / means.size))
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    influence = without.mean() - without
    acceleration = float((influence**3).sum() / (6.0 * (influence**2).sum() ** 1.5))
    moved = bias + special.ndtri(tails)
    return np.asarray(special.ndtr(bias + moved / (1.0 - acceleration * moved)), dtype=np.float64)

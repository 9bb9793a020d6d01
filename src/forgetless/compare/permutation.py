"""The sign-flip permutation test of paired scores: graded, weighted, clustered.

The distribution of the total is exact where the units lie on a grid (sums of 0/1 grades, quarters, tenths): one fast
Fourier transform of its characteristic function, whatever their number. It is exact too for up to 16 units of any
size. Beyond, it is sampled; above 20,000 units the normal tail with its next term is nearer than any sample.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, special

from forgetless.compare.distributions import FloatArray

Alternative = Literal["loss", "two-sided"]

MAX_ENUMERATED_UNITS = 16
"""Units of any size up to which all signs are enumerated."""

MAX_GRID_POINTS = 2**20
"""Points of the grid of totals up to which the distribution is transformed instead of sampled."""

MAX_GRID_VALUES = 256
"""Distinct sizes of units up to which a grid is looked for: each costs one pass over it."""

LARGEST_DENOMINATOR = 120
"""Grades are taken to lie on a grid when they are multiples of 1 / d for some d up to this one."""

MAX_SAMPLED_UNITS = 20_000
"""Units up to which signs are drawn; beyond, the tail of the total is normal to within a millionth."""

CHUNK = 1_000_000
"""Numbers that are drawn at a time, which bounds the memory."""


def sign_flip_p(
    differences: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    alternative: Alternative = "loss",
    num_draws: int = 9_999,
    generator: np.random.Generator | None = None,
) -> float:
    """Tests paired scores by permutation: under no change, each difference is as likely with either sign.

    With clusters the unit whose sign flips is the cluster's sum. Where the distribution of the total must be sampled,
    p = (1 + draws at least as extreme) / (1 + draws), which is never zero and never too small on average (Phipson and
    Smyth, 2010).

    Args:
        differences: tuned - base per sample, shape (n,), times its weight where samples weigh differently.
        clusters: Cluster label of each sample, shape (n,); None makes each sample its own.
        alternative: `loss` asks whether the total is unusually low; `two-sided` whether it is unusually far from zero.
        num_draws: Number of Monte Carlo draws.
        generator: Source of the draws; a fresh one with seed 0 by default, so that a comparison repeats exactly.

    Returns:
        The p-value, in (0, 1]; 1 where no unit differs from zero.
    """
    sums = cluster_sums(differences, clusters)
    observed = float(sums.sum())
    units = np.abs(sums)
    units = units[units > 1e-12]
    if units.size == 0:
        return 1.0
    slack = 1e-9 * max(1.0, float(units.sum()))
    exact = _enumerated(units) if units.size <= MAX_ENUMERATED_UNITS else _transformed(units)
    if exact is not None:
        totals, masses = exact
        mass = float(masses[_is_extreme(totals, observed, slack=slack, alternative=alternative)].sum())
        return min(1.0, max(mass, 2.0**-units.size, 1e-15))  # what one assignment weighs, or the transform's noise
    if units.size > MAX_SAMPLED_UNITS:
        return _normal_tail(units, observed, alternative=alternative)
    rng = generator if generator is not None else np.random.default_rng(0)
    hits, left = 0, num_draws
    table = _table_of_eights(units)
    while left:
        size = min(left, max(1, CHUNK // table.shape[1]))
        codes = rng.integers(0, 256, size=(size, table.shape[1]), dtype=np.uint8)
        totals = np.take_along_axis(table, codes, axis=0).sum(axis=1)
        hits += int(np.sum(_is_extreme(totals, observed, slack=slack, alternative=alternative)))
        left -= size
    return (1 + hits) / (1 + num_draws)


def cluster_sums(values: ArrayLike, clusters: ArrayLike | None) -> FloatArray:
    """Returns the sum of the values of each cluster, in the order of sorted labels; each sample without labels."""
    array = np.asarray(values, dtype=np.float64)
    if clusters is None:
        return array
    codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
    return np.asarray(np.bincount(codes, weights=array), dtype=np.float64)


def _is_extreme(totals: FloatArray, observed: float, *, slack: float, alternative: Alternative) -> NDArray[np.bool_]:
    if alternative == "loss":
        return np.asarray(totals <= observed + slack)
    return np.asarray(np.abs(totals) >= abs(observed) - slack)


def _enumerated(units: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Returns all 2^k totals of k units, and their probabilities."""
    totals: FloatArray = np.zeros(1)
    for unit in units:
        totals = np.concatenate([totals - unit, totals + unit])
    return totals, np.full(totals.size, 1.0 / totals.size)


def _transformed(units: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Returns the totals of units on a grid and their probabilities, or None where there is no grid.

    A total is 2 X - T grid steps, T the sum of all units and X the sum of those that stay positive. X has the
    characteristic function prod((1 + exp(-i t a)) / 2) over units of a steps each.
    """
    sizes, counts = np.unique(np.round(units, 9), return_counts=True)
    if sizes.size > MAX_GRID_VALUES:
        return None
    scaled = sizes[None, :] * np.arange(1.0, LARGEST_DENOMINATOR + 1.0)[:, None]
    is_grid = np.all(np.abs(scaled - np.round(scaled)) < 1e-6, axis=1)
    if not is_grid.any():
        return None
    steps = np.round(scaled[is_grid.argmax()]).astype(np.int64)
    divisor = math.gcd(*(int(step) for step in steps))
    steps //= divisor
    whole = int((steps * counts).sum())
    if whole >= MAX_GRID_POINTS:
        return None
    length = fft.next_fast_len(whole + 1)
    angles = -2.0 * np.pi / length * np.arange(length // 2 + 1)
    characteristic = np.ones(angles.size, dtype=np.complex128)
    for step, count in zip(steps, counts, strict=True):
        characteristic *= ((1.0 + np.exp(1j * (angles * step))) / 2.0) ** int(count)
    masses = np.clip(fft.irfft(characteristic, n=length)[: whole + 1], 0.0, None)
    grid_step = float((is_grid.argmax() + 1) / divisor)
    return (2.0 * np.arange(whole + 1.0) - whole) / grid_step, np.asarray(masses, dtype=np.float64)


def _normal_tail(units: FloatArray, observed: float, *, alternative: Alternative) -> float:
    """Returns the p-value by the Edgeworth expansion; odd cumulants of the total are zero, so the error is O(n^-2)."""
    variance = float((units**2).sum())
    kurtosis = -2.0 * float((units**4).sum()) / variance**2

    def tail(x: float) -> float:
        term = kurtosis / 24.0 * (x**3 - 3.0 * x) * math.exp(-x * x / 2.0) / math.sqrt(2.0 * math.pi)
        return float(special.ndtr(-x)) + term

    x = -observed / math.sqrt(variance)
    p_value = tail(x) if alternative == "loss" else 2.0 * tail(abs(x))
    return min(1.0, max(p_value, 1e-15))


def _table_of_eights(units: FloatArray) -> FloatArray:
    """Returns the signed sums of each eight units under all 256 choices of signs, shape (256, ceil(n / 8))."""
    padded = np.zeros(8 * math.ceil(units.size / 8))
    padded[: units.size] = units
    signs = 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) - 1.0
    return np.asarray(signs @ padded.reshape(-1, 8).T, dtype=np.float64)

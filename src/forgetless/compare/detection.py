"""The smallest drop that graded or clustered scores detect, by simulating their own test on their own differences.

Which alternative: a drop turns observed gains into losses of the same size, those of a cluster together; once all gains
are used up, samples that didn't change are lost too, one by one, by sizes like those seen.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from forgetless.compare.distributions import FloatArray, normal_quantile
from forgetless.compare.permutation import cluster_sums
from forgetless.compare.power import POWER, smallest_share

MAX_FLIPPED_UNITS = 250
"""Clusters (or samples) up to which the test itself is simulated; beyond, its statistic is normal enough."""

NUM_DATA_SETS = 200
"""Data sets that are drawn for each power, the same random numbers for every drop."""

MIN_SIGNS, MAX_SIGNS = 499, 9_999
"""Signs that are drawn for each test: so many that twelve draws lie in its tail, within these bounds."""

MAX_NUMBERS = 1_000_000
"""Differences that are drawn at a time, which bounds time and memory."""

PRECISION = 2e-4


def simulated_drop(
    differences: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    level: float,
    generator: np.random.Generator | None = None,
) -> float | None:
    """Returns the smallest true drop that the sign-flip test detects with 80 % power in data like these.

    Args:
        differences: tuned - base per sample, shape (n,), times its weight where samples weigh differently.
        clusters: Cluster label of each sample, shape (n,); None makes each sample its own.
        level: One-sided level of the test.
        generator: Source of the draws; seed 0 by default.

    Returns:
        The drop, or None when not even losing everything would be detected with that power.
    """
    rng = generator if generator is not None else np.random.default_rng(0)
    data = _Alternatives(np.asarray(differences, dtype=np.float64), clusters, level=level, rng=rng)
    power = data.tested_power if data.num_units <= MAX_FLIPPED_UNITS else data.normal_power
    return smallest_share(lambda drop: power(drop) >= POWER, precision=PRECISION)


class _Alternatives:
    """Data sets like the one that was seen, but with a given true drop.

    Args:
        differences: tuned - base per sample.
        clusters: Cluster label of each sample, or None.
        level: One-sided level of the test.
        rng: Source of the draws.
    """

    def __init__(
        self, differences: FloatArray, clusters: ArrayLike | None, *, level: float, rng: np.random.Generator
    ) -> None:
        self._level = level
        table, is_sample = _by_cluster(differences, clusters)
        self.num_units = table.shape[0]
        sizes = np.append(np.abs(differences[differences != 0.0]), 1.0)
        self._mean_size = float(sizes.mean())
        self._gains = float(np.maximum(differences, 0.0).mean())
        self._losses = float(np.maximum(-differences, 0.0).mean())
        self._unchanged = float(np.mean(differences == 0.0))
        is_small = self.num_units <= MAX_FLIPPED_UNITS
        # Small tables are resampled, clusters as wholes; the moments of large ones need the turned signs alone.
        fewest, most = (30, NUM_DATA_SETS) if is_small else (1, 20)
        shape = (min(most, max(fewest, MAX_NUMBERS // table.size)), self.num_units)
        rows = rng.integers(0, self.num_units, size=shape) if is_small else np.arange(self.num_units)[None, :]
        self._data = np.broadcast_to(table[rows], (*shape, table.shape[1]))
        filled = np.broadcast_to(is_sample[rows], self._data.shape)
        self._is_unchanged = (self._data == 0.0) & filled
        self._turns = rng.random((*shape, 1))
        self._draws = rng.random(self._data.shape)
        self._new_losses = -rng.choice(sizes, size=self._data.shape)
        num_signs = min(MAX_SIGNS, max(MIN_SIGNS, math.ceil(12.0 / level)))
        signs = rng.integers(0, 2, size=(num_signs, self.num_units if is_small else 0), dtype=np.int8)
        self._signs = (2 * signs - 1).astype(np.float32)

    def _with_drop(self, drop: float) -> FloatArray:
        """Returns the sums of the units, shape (data sets, units), at a mean difference of -drop."""
        turned = (drop + self._gains - self._losses) / 2.0
        data = self._data
        if turned < 0.0:  # more was lost than the drop: some losses become gains
            changed = np.where((data < 0.0) & (self._turns < -turned / self._losses), -data, data)
        elif turned <= self._gains:
            share = turned / self._gains if self._gains else 0.0
            changed = np.where((data > 0.0) & (self._turns < share), -data, data)
        else:
            rest = drop - self._gains - self._losses
            reachable = self._mean_size * self._unchanged
            share = min(1.0, rest / reachable) if reachable > 0.0 else 0.0
            changed = np.where(self._is_unchanged & (self._draws < share), self._new_losses, -np.abs(data))
        return np.asarray(changed.sum(axis=2), dtype=np.float64)

    def tested_power(self, drop: float) -> float:
        """Returns the share of the data sets whose sign-flip p-value is at most the level."""
        sums = self._with_drop(drop)
        flipped = self._signs @ np.abs(sums).T.astype(np.float32)
        hits = (flipped <= sums.sum(axis=1) + 1e-4).sum(axis=0)
        return float(np.mean((1 + hits) / (1 + len(self._signs)) <= self._level))

    def normal_power(self, drop: float) -> float:
        """Returns the power of comparing the total with its sign-flip standard deviation."""
        sums = self._with_drop(drop)
        total = float(sums.sum(axis=1).mean())
        null = float((sums**2).sum(axis=1).mean())
        spread = max(null - total**2 / self.num_units, 1e-12)
        return float(special.ndtr((-total - normal_quantile(1.0 - self._level) * np.sqrt(null)) / np.sqrt(spread)))


def _by_cluster(differences: FloatArray, clusters: ArrayLike | None) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Returns the differences as one row per cluster, padded with zeros, and which entries are samples."""
    if clusters is None:
        return differences[:, None], np.ones((differences.size, 1), dtype=bool)
    codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    counts = cluster_sums(np.ones(codes.size), codes).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    column = np.arange(codes.size) - np.repeat(starts, counts)
    table, is_sample = np.zeros((counts.size, counts.max())), np.zeros((counts.size, counts.max()), dtype=bool)
    table[codes[order], column], is_sample[codes[order], column] = differences[order], True
    return table, is_sample

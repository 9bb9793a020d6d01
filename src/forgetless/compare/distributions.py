"""Tails and quantiles of the distributions that the statistics need.

Built on `scipy.special` alone: `scipy.stats` and statsmodels answer the same (the tests hold us to them) but take
about a second to import, and `forgetless compare` should start faster than that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

FloatArray = NDArray[np.float64]


def normal_quantile(probability: float) -> float:
    """Returns the quantile of the standard normal distribution."""
    return float(special.ndtri(probability))


def t_quantile(probability: float, degrees: float) -> float:
    """Returns the quantile of Student's t distribution."""
    return float(special.stdtrit(degrees, probability))


def binomial_tail(successes: ArrayLike, trials: ArrayLike, probability: ArrayLike) -> FloatArray:
    """Returns P(X >= successes) for X binomial; real-valued counts interpolate through the beta function."""
    k, n, p = (np.asarray(value, dtype=np.float64) for value in (successes, trials, probability))
    inside = (k > 0) & (k <= n)
    tail = special.betainc(np.where(inside, k, 1.0), np.where(inside, n - k + 1.0, 1.0), p)
    return np.asarray(np.where(k <= 0, 1.0, np.where(k > n, 0.0, tail)), dtype=np.float64)


def binomial_mass(successes: ArrayLike, trials: ArrayLike, probability: ArrayLike) -> FloatArray:
    """Returns P(X = successes) for X binomial."""
    k, n, p = (np.asarray(value, dtype=np.float64) for value in (successes, trials, probability))
    log_choices = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return np.asarray(np.exp(log_choices + special.xlogy(k, p) + special.xlog1py(n - k, -p)), dtype=np.float64)

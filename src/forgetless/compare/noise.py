"""The noise floor: how far the base's own scores move when the same questions are asked again.

Answers that are sampled flip without any training, and those flips already count in the paired test: each is as likely
a loss as a gain. What no paired test can see is whatever moves all samples of a run together, as a server does that
batches, routes or rounds differently from one hour to the next. Repeated runs of the base show both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from forgetless.compare.distributions import t_quantile
from forgetless.compare.pairing import PairedTask
from forgetless.records import Unit

MIN_REPEATS = 2
"""Repeats of the base below which nothing is said about its spread."""


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """What the runs of the base say about one task.

    Attributes:
        num_runs: Runs of the base, the first included.
        spread: Standard deviation of the task's mean between runs, in its unit.
        flips: Share of the samples whose score differs between two runs, the mean over all pairs of runs.
        bound: The drop from the mean of the runs that one more run of the base exceeds with probability alpha.
        drop: Mean of the runs - tuned (tuned - mean, for cross-entropy): positive = worse.
    """

    num_runs: int
    spread: float
    flips: float
    bound: float
    drop: float

    @property
    def is_exceeded(self) -> bool:
        """Whether the tuned model fell by more than one more run of the base plausibly would."""
        return self.drop > self.bound

    def detectable(self, power_quantile: float) -> float:
        """Returns the true drop that exceeds the bound with the power of that normal quantile."""
        return self.bound + power_quantile * self.spread * math.sqrt(1.0 + 1.0 / self.num_runs)


def measure_noise(task: PairedTask, *, alpha: float) -> NoiseFloor | None:
    """Measures the base's spread between runs.

    The bound is the one-sided prediction bound of one more run, t * s * sqrt(1 + 1 / m) with m runs and m - 1 degrees
    of freedom. It needs no model of the noise beyond run means that are about normal.

    Args:
        task: The paired scores, with the repeats of the base.
        alpha: Probability with which one more run of the base falls below the bound.

    Returns:
        The figures, or None where the task wasn't asked again.
    """
    if task.repeats.shape[0] < MIN_REPEATS or not task.num_samples:
        return None
    runs = np.vstack([task.base, task.repeats])
    means = runs @ task.weights / task.weights.sum()
    tuned = float(task.tuned @ task.weights / task.weights.sum())
    num_runs = runs.shape[0]
    # The spread of equal means is rounding, not noise.
    spread = 0.0 if bool(np.all(runs == runs[0])) else float(means.std(ddof=1))
    pairs = [np.mean(runs[i] != runs[j]) for i in range(num_runs) for j in range(i)]
    drop = float(means.mean()) - tuned
    return NoiseFloor(
        num_runs=num_runs,
        spread=spread,
        flips=float(np.mean(pairs)),
        bound=t_quantile(1.0 - alpha, num_runs - 1) * spread * math.sqrt(1.0 + 1.0 / num_runs),
        drop=drop if task.unit is Unit.GRADE else -drop,
    )

"""How often the retention monitor raises a false alarm over all its looks, and what rise it finds.

    python benchmarks/statistics/monitor_alarms.py [--trainings 4000] [--out monitor_alarms.json]

A simulated training asks the same n examples at K looks. What an example gives is its own lasting effect times one of
the look, scaled so that its expectation lies exactly on the budget at every look (the hardest case without an excess),
or a multiple of it at every look (power). Divergences are log-normal, with the spread of their logarithm; rises of the
cross-entropy are normal around the budget, or skewed (a shifted exponential to either side). Beside the monitor's bound
stands what an unadjusted t bound at each look would do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from forgetless.train.looks import level_of_look, log_wealth

HERE = Path(__file__).parent
ALPHA, BUDGET, LASTING = 0.05, 0.05, 0.7  # LASTING: the part of the variance that an example keeps over the looks
CASES = [(12, 3), (24, 10), (64, 10), (64, 50)]  # examples, looks
Draw = Callable[[np.random.Generator, int, int], Any]


def log_normal(spread: float) -> Draw:
    """Returns draws, (looks, examples), whose expectation is the budget."""

    def draw(rng: np.random.Generator, num_looks: int, num: int) -> Any:
        lasting, passing = rng.normal(size=num), rng.normal(size=(num_looks, num))
        normal = np.sqrt(LASTING) * lasting + np.sqrt(1 - LASTING) * passing
        return BUDGET * np.exp(spread * normal - spread**2 / 2)

    return draw


def centred(shape: Callable[[np.random.Generator, Any], Any], spread: float) -> Draw:
    """Returns draws, (looks, examples), around the budget."""

    def draw(rng: np.random.Generator, num_looks: int, num: int) -> Any:
        mixed = np.sqrt(LASTING) * shape(rng, num) + np.sqrt(1 - LASTING) * shape(rng, (num_looks, num))
        return BUDGET + spread * mixed

    return draw


POPULATIONS: dict[str, tuple[str, Draw]] = {
    "KL, log-normal, spread 0.5": ("kl", log_normal(0.5)),
    "KL, log-normal, spread 1": ("kl", log_normal(1.0)),
    "KL, log-normal, spread 1.5": ("kl", log_normal(1.5)),
    "rise, normal": ("cross_entropy", centred(lambda rng, size: rng.normal(size=size), 0.2)),
    "rise, skewed up": ("cross_entropy", centred(lambda rng, size: rng.exponential(size=size) - 1, 0.2)),
    "rise, skewed down": ("cross_entropy", centred(lambda rng, size: 1 - rng.exponential(size=size), 0.2)),
}


def raises_alarm(values: Any, measure: str) -> bool:
    """Whether any look of a training, (looks, examples), finds the lower bound above the budget."""
    levels, spent = [], 0.0
    for done in range(len(values)):
        levels.append(level_of_look(ALPHA, spent=spent, num_left=len(values) - done))
        spent += levels[-1]
    if measure == "kl":  # the same as a bound above the budget, without searching for the bound
        return bool((log_wealth(values, BUDGET) >= -np.log(levels)).any())
    return raises_student_alarm(values, np.array(levels))


def raises_student_alarm(values: Any, levels: Any) -> bool:
    """Whether a t bound of the given error rate at each look is above the budget at any look."""
    num = values.shape[-1]
    statistics = (values.mean(-1) - BUDGET) / (values.std(-1, ddof=1) / num**0.5)
    return bool((statistics > t.isf(levels, num - 1)).any())


def simulate(trainings: int) -> dict[str, Any]:
    """Simulates trainings at the budget, and with one lasting rise for power."""
    rows = []
    for name, (measure, draw) in POPULATIONS.items():
        for num, num_looks in CASES:
            rng = np.random.default_rng([0, num, num_looks])
            drawn = [draw(rng, num_looks, num) for _ in range(trainings)]
            some = drawn[: trainings // 4]
            rows.append(
                {
                    "population": name,
                    "examples": num,
                    "looks": num_looks,
                    "alarms": float(np.mean([raises_alarm(one, measure) for one in drawn])),
                    "naive": float(np.mean([raises_student_alarm(one, np.full(num_looks, ALPHA)) for one in drawn])),
                    "found": {
                        str(times): float(
                            np.mean([raises_alarm(_raised(one, measure, times), measure) for one in some])
                        )
                        for times in (1.5, 2.0, 3.0)
                    },
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return {"alpha": ALPHA, "budget": BUDGET, "trainings": trainings, "rows": rows}


def _raised(values: Any, measure: str, times: float) -> Any:
    return values * times if measure == "kl" else values + (times - 1) * BUDGET


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trainings", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=HERE / "monitor_alarms.json")
    arguments = parser.parse_args()
    results = simulate(arguments.trainings)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

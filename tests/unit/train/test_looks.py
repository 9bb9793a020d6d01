"""The statistics of repeated looks: known bounds, shared error rates, and few false alarms."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from forgetless.train.looks import Look, bounds, judge, level_of_look, log_wealth, positive_lower_bound

RESULTS = Path(__file__).parents[3] / "benchmarks" / "statistics" / "monitor_alarms.json"


def test_a_rise_gets_students_bounds() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.2, size=20)
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.98)
    assert bounds(values, 0.01, is_positive=False) == pytest.approx((interval.low, interval.high))
    assert bounds([0.3], 0.01, is_positive=False) == (-math.inf, math.inf)


def test_the_bound_of_a_divergence_is_where_the_evidence_reaches_one_over_alpha() -> None:
    values = np.random.default_rng(0).exponential(0.1, size=24)
    low, high = bounds(values, 0.01, is_positive=True)
    assert 0 < low < values.mean() < high
    assert log_wealth(values, low) == pytest.approx(math.log(100))
    assert positive_lower_bound(values, 0.1) > low


def test_what_never_rose_has_the_bound_zero_and_what_is_no_number_has_none() -> None:
    assert positive_lower_bound(np.zeros(8), 0.05) == 0.0
    assert positive_lower_bound(np.full(8, 5e-324), 0.05) >= 0.0
    assert bounds([math.nan, 1.0], 0.05, is_positive=True) == (math.inf, math.inf)


def test_looks_share_the_error_rate() -> None:
    spent, levels = 0.0, []
    for left in (4, 3, 5, 2, 1):  # the plan may change on the way
        levels.append(level_of_look(0.05, spent=spent, num_left=left))
        spent += levels[-1]
    assert sum(levels) == pytest.approx(0.05)
    assert levels[0] == pytest.approx(0.0125)
    assert level_of_look(0.05, spent=0.05, num_left=0) > 0


@pytest.mark.parametrize("spread", [0.5, 1.5])
def test_a_training_at_its_budget_raises_few_alarms(spread: float) -> None:
    rng = np.random.default_rng(0)
    num_looks, num, budget = 10, 24, 0.05
    alarms = 0
    for _ in range(200):
        logs = spread * (0.8 * rng.normal(size=num) + 0.6 * rng.normal(size=(num_looks, num)))
        values = budget * np.exp(logs - spread**2 / 2)
        alarms += any(log_wealth(look, budget) >= math.log(num_looks / 0.05) for look in values)
    assert alarms <= 10  # of 200, at 5 %
    assert all(log_wealth(look * 8, budget) >= math.log(num_looks / 0.05) for look in values)


def test_status() -> None:
    assert [judge(*pair, 0.05) for pair in ((0.05, 0.0), (0.06, 0.05), (0.08, 0.06))] == [
        "within",
        "approaching",
        "over",
    ]


def test_logs_hold_finite_numbers_only() -> None:
    look = Look(3, 2.0, 0.123456789, math.nan, -math.inf, 0.4, "within", 8, 0.5)
    record = look.record()
    assert (record["rise"], record["kl"], record["low"], record["num_examples"]) == (0.123457, None, None, 8)
    assert "step" not in record
    json.dumps(record, allow_nan=False)
    assert "retention/kl" not in look.curves()
    assert look.curves()["retention/high"] == 0.4


def test_the_simulated_false_alarms_keep_the_promise() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    for row in results["rows"]:
        if row["population"].startswith("KL"):
            assert row["alarms"] <= results["alpha"]
    assert max(row["naive"] for row in results["rows"]) > 3 * results["alpha"]

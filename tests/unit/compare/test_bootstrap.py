import numpy as np
import pytest
from scipy import stats

from forgetless.compare.bootstrap import BootstrapMethod, bootstrap_bounds

GRADES = np.random.default_rng(3).choice([-1.0, -0.5, 0.0, 0.5], size=120, p=[0.1, 0.1, 0.7, 0.1])
SKEWED = np.random.default_rng(8).exponential(0.3, size=40) - 0.2


@pytest.mark.parametrize("differences", [GRADES, SKEWED], ids=["grades", "skewed"])
@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_bootstrap_equals_scipy(differences: np.ndarray, method: BootstrapMethod) -> None:
    name = "BCa" if method == "bca" else method
    rng = np.random.default_rng(0)
    reference = stats.bootstrap((differences,), np.mean, method=name, n_resamples=9_999, rng=rng).confidence_interval
    bounds = bootstrap_bounds(differences, method=method)
    assert bounds == pytest.approx((reference.low, reference.high), abs=0.008)


def test_bootstrap_of_unequal_clusters_equals_scipy() -> None:
    clusters = np.repeat(np.arange(30), np.arange(30) % 5 + 1)
    differences = np.random.default_rng(1).normal(0.0, 0.3, size=30)[clusters] + 0.05
    sums, sizes = np.bincount(clusters, weights=differences), np.bincount(clusters)
    reference = stats.bootstrap(
        (sums, sizes),
        lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert bootstrap_bounds(differences, clusters) == pytest.approx((reference.low, reference.high), abs=0.008)


def test_studentised_bootstrap_of_normal_differences_is_the_t_interval() -> None:
    differences = np.random.default_rng(2).normal(0.1, 0.3, size=80)
    reference = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    bounds = bootstrap_bounds(differences, method="studentised")
    assert bounds == pytest.approx((reference.low, reference.high), abs=0.01)


@pytest.mark.parametrize("method", ["bca", "studentised", "percentile"])
def test_bootstrap_draws_whole_clusters(method: BootstrapMethod) -> None:
    d, clusters = np.repeat([-1.0, 0.0, 0.0, 1.0] * 10, 5), np.repeat(np.arange(40), 5)
    plain = bootstrap_bounds(d, method=method, num_resamples=999)
    whole = bootstrap_bounds(d, clusters, method=method, num_resamples=999)
    assert np.ptp(whole) == pytest.approx(np.sqrt(5) * np.ptp(plain), rel=0.12)


def test_bootstrap_takes_its_draws_from_the_generator() -> None:
    bounds = [bootstrap_bounds(GRADES, generator=np.random.default_rng(seed), num_resamples=499) for seed in (1, 1, 2)]
    assert bounds[0] == bounds[1] != bounds[2]


def test_bootstrap_without_spread_is_a_point() -> None:
    assert bootstrap_bounds([0.25] * 9) == (0.25, 0.25)


def test_bootstrap_with_resamples_without_spread_stays_finite() -> None:
    assert np.isfinite(bootstrap_bounds([0.0] * 20 + [1.0], method="studentised", num_resamples=999)).all()


def test_bootstrap_needs_two_clusters() -> None:
    with pytest.raises(ValueError, match="spread between clusters"):
        bootstrap_bounds([0.1, 0.2], [3, 3])

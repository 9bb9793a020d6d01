import numpy as np
import pytest
from scipy import optimize, stats

from forgetless.compare.intervals import flip_counts, mean_shift, tango_score, tango_upper

Z = stats.norm.ppf(0.975)


@pytest.mark.parametrize(
    ("lost", "gained", "size", "low", "high"),
    [
        (16, 6, 161, 0.0054, 0.1240),  # Cavo et al. (2012), as R's contingencytables prints it, sign changed
        (7, 1, 21, 0.026, 0.517),  # Bentur et al. (2009), in Fagerland, Lydersen and Laake (2014)
    ],
)
def test_tango_equals_published_intervals(lost: int, gained: int, size: int, low: float, high: float) -> None:
    digits = 5e-4 if size == 21 else 6e-5
    assert float(tango_upper(lost, gained, size, quantile=Z)) == pytest.approx(high, abs=digits)
    assert -float(tango_upper(gained, lost, size, quantile=Z)) == pytest.approx(low, abs=digits)


def test_tango_score_is_that_of_the_constrained_likelihood() -> None:
    lost, gained, size, forgetting = 9, 4, 60, 0.12

    def minus_log_likelihood(share: float) -> float:
        mass = [share + forgetting, share, 1 - 2 * share - forgetting]
        return -float(np.dot([lost, gained, size - lost - gained], np.log(mass)))

    best = optimize.minimize_scalar(minus_log_likelihood, bounds=(1e-9, 0.43), method="bounded").x
    expected = (lost - gained - size * forgetting) / np.sqrt(size * (2 * best + forgetting * (1 - forgetting)))
    assert float(tango_score(lost, gained, size, forgetting=forgetting)) == pytest.approx(expected, rel=1e-4)


def test_tango_bounds_are_where_the_score_reaches_the_quantile() -> None:
    upper = tango_upper([12, 0, 3], [2, 0, 30], [100, 100, 600], quantile=1.7)
    np.testing.assert_allclose(tango_score([12, 0, 3], [2, 0, 30], [100, 100, 600], forgetting=upper), -1.7, atol=1e-6)


def test_tango_without_flips_is_closed_form() -> None:
    assert float(tango_upper(0, 0, 100, quantile=1.645)) == pytest.approx(1.645**2 / (100 + 1.645**2))


def test_tango_score_at_zero_is_mcnemars() -> None:
    assert float(tango_score(12, 2, 100, forgetting=0.0)) == pytest.approx(10 / np.sqrt(14))


def test_flip_counts_of_zero_one_grades_are_plain() -> None:
    counts = flip_counts([-1.0] * 5 + [1.0] * 2 + [0.0] * 93)
    assert counts is not None
    assert (counts.lost, counts.gained, counts.num_samples, counts.size, counts.degrees) == (5, 2, 100, 1.0, None)
    assert counts.upper_forgetting(0.95) == pytest.approx(float(tango_upper(5, 2, 100, quantile=stats.norm.ppf(0.95))))


def test_flip_counts_keep_mean_and_variance_of_grades() -> None:
    differences = np.random.default_rng(0).normal(-0.05, 0.2, size=4_000).clip(-1, 1)
    counts = flip_counts(differences)
    assert counts is not None
    mean = counts.size * (counts.gained - counts.lost) / counts.num_samples
    variance = counts.size**2 * counts.discordance / counts.num_samples
    assert mean == pytest.approx(differences.mean())
    assert variance == pytest.approx((differences**2).mean() / differences.size, rel=0.02)
    t_upper = -differences.mean() + stats.t.ppf(0.95, 3_999) * differences.std(ddof=1) / np.sqrt(4_000)
    assert counts.upper_forgetting(0.95) == pytest.approx(t_upper, abs=3e-4)


def test_copies_in_a_cluster_count_once() -> None:
    once = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], size=400, p=[0.15, 0.75, 0.1])
    single, fourfold = flip_counts(once), flip_counts(np.repeat(once, 4), np.repeat(np.arange(400), 4))
    assert single is not None
    assert fourfold is not None
    assert fourfold.design_effect == pytest.approx(4.0, rel=0.02)
    assert fourfold.upper_forgetting(0.95) == pytest.approx(single.upper_forgetting(0.95), abs=2e-3)


def test_clusters_without_any_flip_still_have_a_bound() -> None:
    counts = flip_counts(np.zeros(200), np.repeat(np.arange(50), 4))
    assert counts is not None
    assert counts.num_samples == pytest.approx(50.0)
    t = stats.t.ppf(0.95, 49)
    assert counts.upper_forgetting(0.95) == pytest.approx(t**2 / (50 + t**2))


def test_one_tiny_change_does_not_shrink_the_bound_to_its_size() -> None:
    counts = flip_counts([-0.001] + [0.0] * 49)
    assert counts is not None
    assert 0.04 < counts.upper_forgetting(0.95) < 0.07


def test_a_single_cluster_has_no_spread() -> None:
    assert flip_counts([-1.0, 0.0, 1.0], [7, 7, 7]) is None
    assert mean_shift([0.1, 0.2], [1.0, 1.0], [7, 7]) is None


def test_mean_shift_of_equal_weights_is_the_t_interval() -> None:
    d = np.random.default_rng(2).normal(0.1, 0.3, size=25)
    shift = mean_shift(d, np.full(25, 40.0))
    reference = stats.ttest_1samp(d, 0.0).confidence_interval(0.95)
    assert shift is not None
    assert (shift.upper(0.025), shift.upper(0.975)) == pytest.approx((reference.low, reference.high))


def test_mean_shift_weighs_by_tokens_and_clusters() -> None:
    shift = mean_shift([0.0, 1.0, 1.0], [10.0, 20.0, 10.0], [0, 1, 1])
    assert shift is not None
    assert shift.mean == pytest.approx(0.75)
    # residual sums -7.5 and +7.5 over 40 tokens, G / (G - 1) = 2
    assert shift.standard_error == pytest.approx(np.sqrt(2 * (7.5**2 + 7.5**2)) / 40)

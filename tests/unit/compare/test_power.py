import numpy as np
import pytest
from scipy import stats

from forgetless.compare.intervals import FlipCounts, MeanShift, tango_upper
from forgetless.compare.power import mcnemar_power, min_detectable_drop, noninferiority_power, num_samples_needed


@pytest.mark.parametrize("level", [0.05, 0.05 / 13, 1e-6])
def test_mcnemar_power_equals_brute_force(level: float) -> None:
    size, lost_rate, gained_rate = 30, 0.3, 0.1
    expected = sum(
        stats.multinomial.pmf([b, c, size - b - c], size, [lost_rate, gained_rate, 1 - lost_rate - gained_rate])
        for b in range(size + 1)
        for c in range(size + 1 - b)
        if b + c and stats.binomtest(b, b + c, 0.5, alternative="greater").pvalue <= level
    )
    power = mcnemar_power(size, lost_rate=lost_rate, gained_rate=gained_rate, level=level)
    assert power == pytest.approx(expected, abs=1e-9)


def test_noninferiority_power_equals_brute_force() -> None:
    size, discordance, margin = 60, 0.1, 0.08
    b, c = (axis.ravel() for axis in np.meshgrid(np.arange(size + 1), np.arange(size + 1)))
    b, c = b[b + c <= size], c[b + c <= size]
    mass = stats.multinomial.pmf(np.stack([b, c, size - b - c], axis=1), size, [0.05, 0.05, 0.9])
    expected = mass[tango_upper(b, c, size, quantile=stats.norm.ppf(0.95)) < margin].sum()
    power = noninferiority_power(size, discordance=discordance, margin=margin, alpha=0.05)
    assert power == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("margin", "discordance", "textbook"), [(0.05, 0.10, 248), (0.03, 0.10, 687), (0.02, 0.1, 1546)]
)
def test_samples_needed_are_near_the_normal_approximation(margin: float, discordance: float, textbook: int) -> None:
    counts = FlipCounts(discordance * 100, 0.0, 100.0)
    assert num_samples_needed(counts, margin=margin, alpha=0.05, num_samples=100) == pytest.approx(textbook, rel=0.07)


def test_samples_needed_without_flips_are_closed_form() -> None:
    needed = num_samples_needed(FlipCounts(0.0, 0.0, 20.0), margin=0.03, alpha=0.05, num_samples=20)
    assert tango_upper(0, 0, needed, quantile=stats.norm.ppf(0.95)) < 0.03
    assert tango_upper(0, 0, needed - 1, quantile=stats.norm.ppf(0.95)) >= 0.03


def test_samples_needed_for_many_samples_follow_the_same_law() -> None:
    rare, common = (FlipCounts(share * 1_000, 0.0, 1_000.0) for share in (0.19, 0.2))
    small, large = (num_samples_needed(c, margin=0.02, alpha=0.05, num_samples=1_000) for c in (rare, common))
    assert large / small == pytest.approx(0.2 / 0.19, rel=0.03)  # enumerated against approximated


def test_clusters_need_more_samples() -> None:
    plain = FlipCounts(10.0, 10.0, 200.0)
    clustered = FlipCounts(10.0, 10.0, 200.0, design_effect=3.0, degrees=60)
    needed = [num_samples_needed(c, margin=0.03, alpha=0.05, num_samples=600) for c in (plain, clustered)]
    assert needed[1] == pytest.approx(3 * needed[0], rel=0.01)


def test_cross_entropy_samples_needed() -> None:
    shift = MeanShift(mean=0.0, standard_error=0.05, num_clusters=400)
    expected = (1.645 + 0.842) ** 2 * 0.05**2 * 400 / 0.04**2
    assert num_samples_needed(shift, margin=0.04, alpha=0.05, num_samples=400) == pytest.approx(expected, rel=0.01)


def test_drop_beyond_the_discordance_raises_it() -> None:
    drop = min_detectable_drop(FlipCounts(0.0, 0.0, 100.0), level=0.05)
    assert drop is not None
    # Five losses without a gain reject: P(X >= 5) = .8 at this rate.
    assert stats.binom.sf(4, 100, drop) == pytest.approx(0.8, abs=1e-3)


def test_four_samples_detect_nothing() -> None:
    assert min_detectable_drop(FlipCounts(1.0, 0.0, 4.0), level=0.05) is None


def test_more_gated_rows_see_less() -> None:
    counts = FlipCounts(5.0, 5.0, 100.0)
    alone, of_twelve = (min_detectable_drop(counts, level=level) for level in (0.05, 0.05 / 12))
    assert alone is not None
    assert of_twelve is not None
    assert of_twelve > 1.2 * alone


def test_graded_scores_have_no_exact_power() -> None:
    with pytest.raises(ValueError, match="simulated_drop"):
        min_detectable_drop(FlipCounts(40.0, 40.0, 800.0, degrees=799), level=0.05)


def test_cross_entropy_drop() -> None:
    shift = MeanShift(mean=0.3, standard_error=0.02, num_clusters=2_000)
    assert min_detectable_drop(shift, level=0.05) == pytest.approx((1.645 + 0.842) * 0.02, rel=0.01)

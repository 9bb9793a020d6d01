import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from forgetless.compare.distributions import binomial_mass, binomial_tail, normal_quantile, t_quantile
from forgetless.compare.statistics import (
    Transitions,
    chance_adjusted,
    holm,
    is_at_ceiling,
    is_at_floor,
    mcnemar_p,
    transitions,
)


def test_distributions_equal_scipy_stats() -> None:
    k = np.arange(0, 12)
    np.testing.assert_allclose(binomial_tail(k, 10, 0.3), stats.binom.sf(k - 1, 10, 0.3), atol=1e-14)
    np.testing.assert_allclose(binomial_mass(k[:-1], 10, 0.3), stats.binom.pmf(k[:-1], 10, 0.3), atol=1e-14)
    np.testing.assert_allclose(binomial_mass([0, 10], 10, [0.0, 1.0]), [1.0, 1.0])
    assert normal_quantile(0.95) == pytest.approx(stats.norm.ppf(0.95))
    assert t_quantile(0.95, 7) == pytest.approx(stats.t.ppf(0.95, 7))


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (5, 0), (0, 5), (12, 2), (7, 7), (3, 8), (400, 350)])
def test_mcnemar_equals_scipy_and_statsmodels(lost: int, gained: int) -> None:
    flips = lost + gained
    one_sided = stats.binomtest(lost, flips, 0.5, alternative="greater").pvalue if flips else 1.0
    two_sided = float(mcnemar([[50, lost], [gained, 50]], exact=True).pvalue)
    assert mcnemar_p(lost, gained) == pytest.approx(one_sided, rel=1e-9)
    assert mcnemar_p(lost, gained, alternative="two-sided") == pytest.approx(two_sided, rel=1e-9)


def test_five_lost_of_five_is_not_significant_on_both_sides() -> None:
    assert mcnemar_p(5, 0, alternative="two-sided") == pytest.approx(0.0625)


@pytest.mark.parametrize("size", [1, 2, 12, 40])
def test_holm_equals_statsmodels(size: int) -> None:
    p = np.random.default_rng(size).random(size) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_holm_of_nothing_is_empty() -> None:
    assert holm([]).size == 0


def test_transitions_count_each_way() -> None:
    assert transitions([1, 1, 0, 0, 1], [0, 1, 1, 0, 1]) == Transitions(lost=1, gained=1, kept_right=2, kept_wrong=1)
    assert transitions([0.4, 0.8], [0.5, 0.8]) == Transitions(lost=0, gained=1, kept_right=1, kept_wrong=0)


def test_chance_adjustment_of_the_reference_code() -> None:
    base = np.array([1.0] * 80 + [0.0] * 20)
    tuned = np.concatenate([np.zeros(10), np.ones(70), np.zeros(20)])
    adjusted = chance_adjusted(base, tuned, chance=0.25)
    assert adjusted.forgetting == pytest.approx(0.10 - 0.2 * 0.3 / 3)
    assert adjusted.gain == 0.0
    assert adjusted.largest_forgetting == pytest.approx((4 * 0.8 - 1) / 3)


def test_two_independent_guessers_show_no_adjusted_forgetting() -> None:
    rng = np.random.default_rng(0)
    base, tuned = (rng.random((2, 200_000)) < 0.25).astype(float)
    assert chance_adjusted(base, tuned, chance=0.25).forgetting == pytest.approx(0.0, abs=0.003)


def test_chance_adjustment_needs_a_chance() -> None:
    with pytest.raises(ValueError, match="free answers"):
        chance_adjusted([1.0], [0.0], chance=0.0)


@pytest.mark.parametrize(
    ("right", "size", "chance", "expected"),
    [
        (0, 50, 0.0, True),  # nothing to lose
        (1, 50, 0.0, True),  # losing all of it stays within three points
        (5, 50, 0.0, False),
        (15, 50, 0.25, True),  # P(X >= 15) = .25 under guessing
        (25, 50, 0.25, False),
        (2_700, 10_000, 0.25, True),  # above chance beyond doubt, but by less than the margin
    ],
)
def test_floor(right: int, size: int, chance: float, expected: bool) -> None:
    base = np.array([1.0] * right + [0.0] * (size - right))
    assert is_at_floor(base, chance=chance, margin=0.03, alpha=0.05) is expected


def test_ceiling_needs_both_models() -> None:
    right, almost = np.ones(100), np.array([1.0] * 95 + [0.0] * 5)
    assert is_at_ceiling(right, right)
    assert not is_at_ceiling(right, almost)
    assert not is_at_ceiling(almost, right)

import numpy as np
import pytest
from scipy import stats

from forgetless.compare import permutation
from forgetless.compare.permutation import Alternative, cluster_sums, sign_flip_p
from forgetless.compare.statistics import mcnemar_p


def test_sign_flip_of_zero_one_scores_is_mcnemar() -> None:
    differences = np.array([-1.0] * 12 + [1.0] * 4 + [0.0] * 50)
    assert sign_flip_p(differences) == pytest.approx(mcnemar_p(12, 4))
    assert sign_flip_p(differences, alternative="two-sided") == pytest.approx(mcnemar_p(12, 4, alternative="two-sided"))


@pytest.mark.parametrize("ours", ["loss", "two-sided"])
def test_exact_sign_flip_equals_scipy(ours: Alternative) -> None:
    differences = np.random.default_rng(3).normal(-0.2, 0.5, size=11)
    reference = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        alternative="less" if ours == "loss" else "two-sided",
        n_resamples=np.inf,
    )
    assert sign_flip_p(differences, alternative=ours) == pytest.approx(reference.pvalue, rel=1e-9)


def test_sampled_sign_flip_adds_one_and_is_near_scipy() -> None:
    differences = np.random.default_rng(4).normal(-0.1, 0.5, size=60)
    rng = np.random.default_rng(0)
    reference = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", alternative="less", n_resamples=9_999, rng=rng
    )
    assert sign_flip_p(differences) == pytest.approx(reference.pvalue, abs=0.01)
    assert sign_flip_p(differences - 10.0, num_draws=999) == 1 / 1000


def test_sign_flip_repeats_without_a_generator() -> None:
    differences = np.random.default_rng(5).normal(size=80)
    assert sign_flip_p(differences) == sign_flip_p(differences)


def test_clusters_flip_as_one() -> None:
    differences, clusters = [-1.0, -1.0, -1.0, -1.0, -1.0, 1.0, 0.0], [0, 0, 0, 0, 1, 2, 3]
    assert sign_flip_p(differences, clusters) == pytest.approx(sign_flip_p([-4.0, -1.0, 1.0, 0.0]))
    assert sign_flip_p(differences, clusters) == pytest.approx(0.375)  # (-4, -1, 1) has 2 + 1 of 8 as low


def test_cluster_sums_follow_sorted_labels() -> None:
    np.testing.assert_array_equal(cluster_sums([1.0, 2.0, 4.0], ["b", "a", "b"]), [2.0, 5.0])


def test_sign_flip_without_differences_is_one() -> None:
    assert sign_flip_p(np.zeros(10)) == 1.0


@pytest.mark.parametrize("grid", [[0.25, 0.5, 0.75], [1 / 3, 2 / 3], [0.1, 0.35], [2.0, 3.0]])
@pytest.mark.parametrize("alternative", ["loss", "two-sided"])
def test_transform_equals_enumeration(grid: list[float], alternative: Alternative) -> None:
    rng = np.random.default_rng(6)
    many = rng.choice([-1.0, 1.0], size=20) * rng.choice(grid, size=20)
    signs = 2.0 * np.unpackbits(np.arange(2**20, dtype=">u4").view(np.uint8).reshape(-1, 4), axis=1)[:, 12:] - 1.0
    totals = signs @ np.abs(many)
    is_low = totals <= many.sum() + 1e-9
    is_extreme = is_low if alternative == "loss" else np.abs(totals) >= abs(many.sum()) - 1e-9
    assert sign_flip_p(many, alternative=alternative) == pytest.approx(is_extreme.mean(), rel=1e-9)


def test_clusters_of_zero_one_grades_are_exact_whatever_their_number() -> None:
    rng = np.random.default_rng(7)
    differences, clusters = rng.choice([-1.0, 0.0, 1.0], size=3_000), np.repeat(np.arange(1_000), 3)
    sums = cluster_sums(differences, clusters)
    z = sums.sum() / np.sqrt((sums**2).sum())
    p = sign_flip_p(differences, clusters, generator=None, num_draws=1)
    assert p == pytest.approx(stats.norm.cdf(z), abs=0.02)
    assert p != 0.5  # one draw could only say one half or one


@pytest.mark.parametrize("alternative", ["loss", "two-sided"])
def test_the_tail_of_many_units_is_near_a_sample_of_it(
    alternative: Alternative, monkeypatch: pytest.MonkeyPatch
) -> None:
    differences = np.random.default_rng(9).normal(-0.002, 0.2, size=25_000)
    p = sign_flip_p(differences, alternative=alternative)
    monkeypatch.setattr(permutation, "MAX_SAMPLED_UNITS", 30_000)
    assert p == pytest.approx(sign_flip_p(differences, alternative=alternative, num_draws=1_999), abs=0.03)


def test_a_grid_that_is_too_long_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(10).choice([-0.5, -0.25, 0.25], size=60)
    exact = sign_flip_p(differences)
    monkeypatch.setattr(permutation, "MAX_GRID_POINTS", 10)
    assert sign_flip_p(differences) == pytest.approx(exact, abs=0.01)


def test_units_off_any_grid_are_sampled() -> None:
    differences = np.array([0.1, 0.10000123] * 20)
    assert sign_flip_p(differences) == 1.0

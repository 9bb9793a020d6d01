import numpy as np
import pytest
from scipy import stats

from forgetless.compare.detection import simulated_drop
from forgetless.compare.intervals import FlipCounts
from forgetless.compare.power import min_detectable_drop

LEVEL = 0.05


def flips(size: int, each_way: int) -> np.ndarray:
    return np.array([-1.0] * each_way + [1.0] * each_way + [0.0] * (size - 2 * each_way))


@pytest.mark.parametrize(("size", "each_way"), [(150, 12), (800, 40)])
def test_simulated_drop_of_zero_one_grades_is_near_the_exact_one(size: int, each_way: int) -> None:
    exact = min_detectable_drop(FlipCounts(each_way, each_way, size), level=LEVEL)
    assert simulated_drop(flips(size, each_way), level=LEVEL) == pytest.approx(exact, rel=0.1)


def test_copies_in_clusters_detect_what_one_copy_does() -> None:
    once = flips(120, 12)
    fourfold = simulated_drop(np.repeat(once, 4), np.repeat(np.arange(120), 4), level=LEVEL)
    alone = simulated_drop(once, level=LEVEL)
    assert alone is not None
    assert fourfold is not None
    assert fourfold == pytest.approx(alone, rel=0.05)


def test_without_any_flip_the_drop_is_that_of_new_losses() -> None:
    drop = simulated_drop(np.zeros(100), level=LEVEL)
    # Five losses without a gain reject: P(X >= 5) = .8 at this rate.
    assert drop is not None
    assert stats.binom.sf(4, 100, drop) == pytest.approx(0.8, abs=0.05)


def test_an_observed_drop_is_taken_out_first() -> None:
    balanced, fallen = flips(600, 60), np.where(np.arange(600) < 90, -1.0, np.where(np.arange(600) < 120, 1.0, 0.0))
    drops = [simulated_drop(d, level=LEVEL) for d in (balanced, fallen)]
    assert drops[0] == pytest.approx(drops[1], rel=0.1)


def test_too_few_samples_detect_nothing() -> None:
    assert simulated_drop([-0.5, 0.0, 0.25], level=LEVEL) is None


def test_all_samples_changed_leaves_nothing_new_to_lose() -> None:
    assert simulated_drop([-0.1, 0.1] * 3, level=1e-4) is None


def test_draws_come_from_the_generator() -> None:
    drops = [simulated_drop(flips(60, 6) / 2, level=LEVEL, generator=np.random.default_rng(s)) for s in (1, 1, 5)]
    assert drops[0] == drops[1]


def test_clusters_of_unequal_size() -> None:
    clusters = np.repeat(np.arange(40), np.arange(40) % 4 + 1)
    differences = np.random.default_rng(0).choice([-0.5, 0.0, 0.5], p=[0.1, 0.8, 0.1], size=clusters.size)
    drop = simulated_drop(differences, clusters, level=LEVEL)
    assert drop is not None
    assert 0.03 < drop < 0.2

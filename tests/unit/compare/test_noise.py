from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from forgetless.compare.comparison import compare
from forgetless.compare.noise import NoiseFloor, measure_noise
from forgetless.compare.pairing import pair_scores, pool_tasks
from forgetless.errors import ConfigError
from forgetless.records import SampleScore, Status, Unit, Verdict

Scores = list[SampleScore]


def side(task: str, grades: Any, **fields: Any) -> Scores:
    return [SampleScore(task, str(i), float(x), **fields) for i, x in enumerate(grades)]


def run(right: int, size: int = 100) -> list[float]:
    return [1.0] * right + [0.0] * (size - right)


def test_known_answer() -> None:
    task = pair_scores(side("a", run(60)), side("a", run(50)), repeats=[side("a", run(64)), side("a", run(62))]).tasks[
        0
    ]
    noise = measure_noise(task, alpha=0.05)
    assert noise is not None
    assert noise.num_runs == 3
    assert noise.spread == pytest.approx(0.02)  # of .60, .64, .62
    assert noise.flips == pytest.approx((0.04 + 0.02 + 0.02) / 3)
    assert noise.drop == pytest.approx(0.12)
    assert noise.bound == pytest.approx(stats.t.ppf(0.95, 2) * 0.02 * np.sqrt(4 / 3))
    assert noise.is_exceeded
    assert noise.detectable(0.0) == noise.bound
    assert noise.detectable(0.84) > noise.bound


def test_one_more_run_of_the_base_exceeds_the_bound_with_probability_alpha() -> None:
    runs = np.random.default_rng(0).normal(0.6, 0.02, size=(20_000, 4))
    spread = runs[:, :3].std(axis=1, ddof=1)
    bounds = stats.t.ppf(0.95, 2) * spread * np.sqrt(4 / 3)
    floors = [
        NoiseFloor(3, s, 0.1, b, d) for s, b, d in zip(spread, bounds, runs[:, :3].mean(1) - runs[:, 3], strict=True)
    ]
    assert np.mean([floor.is_exceeded for floor in floors]) == pytest.approx(0.05, abs=0.005)


def test_cross_entropy_rises_count_as_drops() -> None:
    base, tuned, again = (side("text", np.full(9, level), unit=Unit.NATS_PER_TOKEN) for level in (3.0, 3.5, 3.1))
    noise = measure_noise(pair_scores(base, tuned, repeats=[again, base]).tasks[0], alpha=0.05)
    assert noise is not None
    assert noise.drop == pytest.approx(3.5 - 9.1 / 3)


def test_a_base_that_repeats_itself_has_no_noise(grades: Any) -> None:
    base, tuned = grades("a", lost=16, gained=2, right=60, wrong=22)
    result = compare(base, tuned, noise=[base, base])
    row = result.tasks[0]
    assert (row.noise_runs, row.noise_spread, row.noise_flips, row.noise_bound) == (3, 0.0, 0.0, 0.0)
    assert row.status is Status.FORGOT
    assert (
        replace(row, noise_runs=None, noise_spread=None, noise_flips=None, noise_bound=None)
        == (compare(base, tuned).tasks[0])
    )
    assert "3 runs of the base gave the same scores: its noise floor is zero." in result.reasons


def test_a_loss_within_the_noise_is_undecided() -> None:
    base, tuned = side("a", run(60)), side("a", run(48))
    assert compare(base, tuned).verdict is Verdict.FAIL
    result = compare(base, tuned, noise=[side("a", run(52)), side("a", run(66))])
    assert result.tasks[0].status is Status.UNDECIDED
    assert result.verdict is Verdict.INCONCLUSIVE
    assert any(reason.startswith("The base alone moves by 7.0 points between runs") for reason in result.reasons)
    assert any("one more run of the base could do as badly" in reason for reason in result.reasons)
    drop, alone = result.tasks[0].min_detectable_drop, compare(base, tuned).tasks[0].min_detectable_drop
    assert drop is not None
    assert alone is not None
    assert drop > alone


def test_a_loss_beyond_the_noise_is_forgotten() -> None:
    noise = [side("a", run(61)), side("a", run(59))]
    assert compare(side("a", run(60)), side("a", run(40)), noise=noise).tasks[0].status is Status.FORGOT


def test_a_noisy_cross_entropy_says_so(losses: Any, grades: Any, together: Any) -> None:
    base, tuned = together(grades("a", lost=4, gained=4, right=180, wrong=112), losses("text", rise=0.2, size=40))
    runs = [[replace(s, score=s.score + shift) if s.task == "text" else s for s in base] for shift in (0.3, -0.2)]
    result = compare(base, tuned, noise=runs)
    assert result.tasks[1].status is Status.UNDECIDED
    assert any("its runs allow" in reason and "nats per token" in reason for reason in result.reasons)


def test_tasks_that_were_not_asked_again_have_no_noise(grades: Any, together: Any) -> None:
    base, tuned = together(grades("a", right=30, wrong=20), grades("b", right=30, wrong=20))
    only_a = [score for score in base if score.task == "a"]
    flipped = [replace(score, score=1.0 - score.score) for score in only_a]
    pairing = pair_scores(base, tuned, repeats=[only_a, flipped])
    assert pairing.problems == []
    assert [task.repeats.shape for task in pairing.tasks] == [(2, 50), (0, 50)]
    np.testing.assert_array_equal(pool_tasks(pairing.tasks).repeats[1, 50:], pairing.tasks[1].base)
    result = compare(base, tuned, noise=[only_a, flipped])
    assert result.tasks[1].noise_runs is None
    assert result.pooled.noise_flips == pytest.approx(1 / 3)


def test_samples_that_a_run_lacks_are_named(grades: Any) -> None:
    base, tuned = grades("a", right=30, wrong=20)
    pairing = pair_scores(base, tuned, repeats=[base, base[4:]])
    assert pairing.tasks[0].repeats.shape == (0, 50)
    assert "noise run 2 lacks 4 samples" in pairing.problems[0]
    assert "a-0, a-1, a-2 and 1 more" in pairing.problems[0]


def test_tasks_that_only_a_noise_run_has_are_named(grades: Any) -> None:
    base, tuned = grades("a", right=30, wrong=20)
    other = grades("b", right=3)[0]
    assert "on b, which are left out" in pair_scores(base, tuned, repeats=[base + other, base]).problems[0]


def test_one_noise_run_is_too_few(grades: Any) -> None:
    base, tuned = grades("a", right=30, wrong=20)
    with pytest.raises(ConfigError, match="1 noise run is too few"):
        compare(base, tuned, noise=[base])

"""The single weight moves as the algebra says."""

from __future__ import annotations

import pytest

from forgetless.errors import ConfigError
from forgetless.lessons.single_weight import (
    BEST_A,
    BEST_B,
    DIVERGED,
    FISHER,
    Path,
    descend,
    equilibrium,
    largest_rate,
    loss_a,
    loss_b,
    run_single_weight,
)


def test_at_the_lessons_rate_it_takes_one_step() -> None:
    path = descend(0.5)
    assert path.weights[:3] == [1.0, -2.0, -2.0]
    assert path.num_steps == 1


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.95, 1.05])
def test_every_step_scales_the_distance_by_the_same_factor(rate: float) -> None:
    path = descend(rate, num_steps=20)
    expected = [BEST_B + (BEST_A - BEST_B) * (1 - 2 * rate) ** step for step in range(21)]
    assert path.weights == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("strength", [0.25, 1.0, 4.0, 20.0])
def test_ewc_rests_where_the_closed_form_says(strength: float) -> None:
    path = descend(largest_rate(strength) / 3, strength=strength)
    assert path.end == pytest.approx(equilibrium(strength), abs=1e-5)
    slope = 2 * (path.end - BEST_B) + strength * FISHER * (path.end - BEST_A)
    assert slope == pytest.approx(0, abs=1e-3)


def test_the_equilibrium_goes_from_b_to_a() -> None:
    assert equilibrium(0.0) == BEST_B
    assert equilibrium(1e9) == pytest.approx(BEST_A)
    joint = min((loss_a(w / 1000) + loss_b(w / 1000), w / 1000) for w in range(-2000, 1001))[1]
    assert equilibrium(1.0) == pytest.approx(joint)


@pytest.mark.parametrize("strength", [0.0, 1.0, 4.0])
def test_it_settles_below_the_largest_rate_and_not_above(strength: float) -> None:
    start = abs(BEST_A - equilibrium(strength))
    below = descend(0.97 * largest_rate(strength), strength=strength)
    above = descend(1.03 * largest_rate(strength), strength=strength)
    assert abs(below.end - equilibrium(strength)) < start < abs(above.end - equilibrium(strength))


def test_a_path_that_runs_away_is_cut_off() -> None:
    path = descend(0.5, strength=20.0)
    assert len(path.weights) < 61
    assert abs(path.weights[-2]) <= DIVERGED < abs(path.end)
    assert path.num_steps is None


def test_a_weight_that_only_passes_by_does_not_rest() -> None:
    assert Path(0.1, 0.0, [1.0, -2.0, 1.0]).num_steps is None
    assert Path(0.1, 0.0, [1.0, -2.0, 1.0, -2.0, -2.0]).num_steps == 3


def test_the_lesson_holds_a_path_for_each_rate_and_strength() -> None:
    lesson = run_single_weight(rates=[0.1, 0.5], strengths=[0.0, 2.0])
    assert [path.rate for path in lesson.plain] == [0.1, 0.5]
    assert (
        [path.strength for path in lesson.anchored] == [path.strength for path in lesson.at_lesson_rate] == [0.0, 2.0]
    )
    assert {path.rate for path in lesson.at_lesson_rate} == {0.5}


@pytest.mark.parametrize(("rates", "strengths"), [([0.0], [1.0]), ([0.1], [-1.0])])
def test_what_cannot_be_descended_with_is_refused(rates: list[float], strengths: list[float]) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        run_single_weight(rates, strengths)

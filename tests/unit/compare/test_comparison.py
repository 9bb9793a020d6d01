from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from forgetless.check_records import CheckResult
from forgetless.compare.comparison import compare
from forgetless.compare.statistics import mcnemar_p
from forgetless.errors import ConfigError
from forgetless.records import Comparison, Role, SampleScore, Status, Unit, Verdict

STEADY = {"lost": 4, "gained": 4, "right": 180, "wrong": 112}  # 300 samples, no change on average


def known(value: float | None) -> float:
    assert value is not None
    return value


def statuses(comparison: Comparison) -> dict[str, Status]:
    return {row.task: row.status for row in comparison.tasks}


def test_kept_suite_passes(grades: Any, together: Any) -> None:
    result = compare(*together(grades("a", **STEADY), grades("b", **STEADY)))
    assert result.verdict is Verdict.PASS
    assert result.pooled.status is Status.KEPT
    assert result.pooled.num_samples == 600
    assert result.reasons[0] == "General skills: no drop larger than 1.2 points (95 %, n = 600)."
    assert result.problems == []


def test_row_figures(grades: Any) -> None:
    row = compare(*grades("a", lost=12, gained=2, right=60, wrong=26)).tasks[0]
    assert (row.num_samples, row.base, row.tuned, row.lost, row.gained) == (100, 0.72, 0.62, 12, 2)
    assert row.delta == pytest.approx(-0.10)
    assert row.p_value == pytest.approx(mcnemar_p(12, 2))
    assert row.p_adjusted == row.p_value
    assert row.test == "exact McNemar"
    assert known(row.ci_low) < -known(row.forgetting_upper) < known(row.delta) < known(row.ci_high)
    assert (row.margin, row.num_clusters, row.unit) == (0.03, None, Unit.GRADE)


def test_one_fallen_task_fails(grades: Any, together: Any) -> None:
    result = compare(*together(grades("arithmetic", lost=16, gained=2, right=60, wrong=22), grades("b", **STEADY)))
    assert result.verdict is Verdict.FAIL
    assert statuses(result) == {"arithmetic": Status.FORGOT, "b": Status.KEPT}
    assert result.reasons[0] == (
        "arithmetic fell by 14.0 points (0.76 → 0.62, 16 lost, 2 gained, p = .002 after Holm)."
    )
    assert "arithmetic" in result.advice[0]


def test_family_is_all_gated_tasks_and_the_pool(grades: Any, losses: Any, together: Any) -> None:
    suite = together(
        grades("a", lost=9, gained=2, right=50, wrong=30),
        grades("b", lost=5, gained=5, right=50, wrong=30),
        losses("text", rise=0.001, size=12),
        grades("domain", gained=30, wrong=30, role=Role.TARGET),
    )
    result = compare(*suite)
    gated = [row for row in result.tasks if row.role is Role.RETENTION] + [result.pooled]
    expected = multipletests([row.p_value for row in gated], method="holm")[1]
    assert [row.p_adjusted for row in gated] == pytest.approx(list(expected))
    assert result.tasks[3].p_adjusted is None


def test_a_pool_of_one_task_is_that_task(grades: Any) -> None:
    result = compare(*grades("a", **STEADY))
    assert replace(result.pooled, task="a") == result.tasks[0]


def test_thin_drop_over_all_tasks_fails_by_the_pool(grades: Any, together: Any) -> None:
    thin = {"lost": 6, "gained": 2, "right": 24, "wrong": 18}
    result = compare(*together(*(grades(f"t{i}", **thin) for i in range(8))))
    assert set(statuses(result).values()) == {Status.UNDECIDED}
    assert result.pooled.status is Status.FORGOT
    assert result.verdict is Verdict.FAIL
    assert result.reasons[0].startswith("General skills fell by 8.0 points")


def test_significant_but_within_the_margin_is_kept(grades: Any) -> None:
    row = compare(*grades("a", lost=30, gained=5, right=2_965, wrong=2_000)).tasks[0]
    assert row.p_adjusted is not None
    assert row.p_adjusted < 0.001
    assert row.status is Status.KEPT


def test_few_samples_are_inconclusive(grades: Any) -> None:
    result = compare(*grades("a", lost=1, gained=1, right=20, wrong=18))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.pooled.status is Status.UNDECIDED
    needed = result.pooled.num_samples_needed
    assert needed is not None
    assert needed > 40
    assert "can't be ruled out" in result.reasons[0]
    assert f"Score about {needed} retention samples instead of 40" in result.advice[0]


def test_a_doubtful_drop_with_enough_samples_is_taken_seriously(grades: Any) -> None:
    result = compare(*grades("a", lost=17, gained=8, right=380, wrong=95), margin=0.03)
    assert result.pooled.status is Status.UNDECIDED
    assert "take the drop of 1.8 points seriously" in result.advice[0]


def test_improved_passes(grades: Any) -> None:
    result = compare(*grades("a", lost=2, gained=30, right=150, wrong=100))
    assert result.pooled.status is Status.IMPROVED
    assert result.verdict is Verdict.PASS
    assert "rose by 9.9 points" in result.reasons[0]


def test_floor_and_ceiling_stay_out_of_the_pool(grades: Any, together: Any) -> None:
    result = compare(*together(grades("seen", **STEADY), grades("zero", wrong=500), grades("full", right=500)))
    assert statuses(result) == {"seen": Status.KEPT, "zero": Status.FLOOR, "full": Status.CEILING}
    assert result.pooled.num_samples == 300
    assert "zero, full" in result.pooled.note
    assert any("near chance on zero" in reason for reason in result.reasons)
    assert any("nearly always on full" in reason for reason in result.reasons)


def test_the_pool_may_not_fail_by_what_it_leaves_out(grades: Any, together: Any) -> None:
    # Without the guessed task, whose base was unlucky, the pool looks lost; with it nothing changed on average.
    suite = together(
        grades("a", lost=12, gained=2, right=60, wrong=26),
        grades("b", lost=11, gained=3, right=60, wrong=26),
        grades("guessed", lost=4, gained=20, right=20, wrong=56, chance=0.25),
    )
    result = compare(*suite)
    assert statuses(result)["guessed"] is Status.FLOOR
    assert result.pooled.p_value is not None
    assert result.pooled.p_value < 0.001
    assert result.pooled.p_adjusted is not None
    assert result.pooled.p_adjusted > 0.3
    assert result.pooled.status is Status.UNDECIDED


@pytest.mark.parametrize(("kind", "status"), [("wrong", Status.FLOOR), ("right", Status.CEILING)])
def test_floor_or_ceiling_alone_cannot_pass(grades: Any, together: Any, kind: str, status: Status) -> None:
    result = compare(*together(grades("a", **{kind: 500}), grades("b", **{kind: 500})))
    assert result.pooled.status is status
    assert result.verdict is Verdict.INCONCLUSIVE
    assert any("solves often but not always" in advice for advice in result.advice)


def test_a_fall_from_the_ceiling_is_a_fall(grades: Any) -> None:
    assert compare(*grades("a", lost=30, right=70)).tasks[0].status is Status.FORGOT


def test_missing_task_cannot_pass(grades: Any, together: Any) -> None:
    base, tuned = together(grades("a", **STEADY), grades("b", **STEADY), grades("c", right=10, wrong=10))
    result = compare(base, [score for score in tuned if score.task != "c"])
    assert statuses(result)["c"] is Status.MISSING
    assert result.pooled.status is Status.KEPT
    assert result.verdict is Verdict.INCONCLUSIVE
    assert any(reason.startswith("c has no sample") for reason in result.reasons)
    assert "Score both models on c" in result.advice[0]


def test_missing_task_does_not_hide_a_fall(grades: Any, together: Any) -> None:
    base, tuned = together(grades("a", lost=30, right=70), grades("c", right=10))
    assert compare(base, [score for score in tuned if score.task != "c"]).verdict is Verdict.FAIL


def test_few_unpaired_samples_are_counted_as_losses_and_survive(grades: Any) -> None:
    base, tuned = grades("a", **STEADY)
    result = compare(base, tuned[:-1])
    assert result.verdict is Verdict.PASS
    assert len(result.problems) == 1


def test_many_unpaired_samples_cannot_pass(grades: Any) -> None:
    base, tuned = grades("a", **STEADY)
    result = compare(base, tuned[:5] + tuned[15:])  # the samples that the base got right
    assert result.pooled.status is Status.KEPT
    assert result.verdict is Verdict.INCONCLUSIVE
    assert any("10 retention samples could not be paired (a)" in reason for reason in result.reasons)


@pytest.mark.parametrize(
    ("rise", "status", "verdict"),
    [
        (0.2, Status.FORGOT, Verdict.FAIL),
        (0.0, Status.KEPT, Verdict.PASS),
        (-0.2, Status.IMPROVED, Verdict.PASS),
    ],
)
def test_cross_entropy_gates_by_its_own_margin(
    grades: Any, losses: Any, together: Any, rise: float, status: Status, verdict: Verdict
) -> None:
    result = compare(*together(grades("a", **STEADY), losses("text", rise=rise, size=40)))
    row = result.tasks[1]
    assert (row.status, row.margin, row.unit) == (status, 0.05, Unit.NATS_PER_TOKEN)
    assert row.delta == pytest.approx(rise, abs=0.01)
    assert result.verdict is verdict
    assert result.pooled.num_samples == 300


def test_cross_entropy_upper_bounds_the_rise(losses: Any, grades: Any, together: Any) -> None:
    row = compare(*together(grades("a", **STEADY), losses("text", rise=0.2, size=40))).tasks[1]
    assert known(row.ci_low) < known(row.delta) < known(row.forgetting_upper) < known(row.ci_high)
    assert (row.lost, row.gained) == (40, 0)
    assert known(row.p_value) < 0.001


def test_undecided_cross_entropy_does_not_deny_a_pass(grades: Any, losses: Any, together: Any) -> None:
    result = compare(*together(grades("a", **STEADY), losses("text", rise=0.0, size=6, spread=0.3)))
    assert result.tasks[1].status is Status.UNDECIDED
    assert result.verdict is Verdict.PASS
    assert any(reason.startswith("text: a rise of up to") for reason in result.reasons)


def test_unpaired_cross_entropy_denies_a_pass(grades: Any, losses: Any, together: Any) -> None:
    base, tuned = together(grades("a", **STEADY), losses("text", rise=0.0, size=40))
    assert compare(base, tuned[:-1]).verdict is Verdict.INCONCLUSIVE


def test_cross_entropy_alone_cannot_pass(losses: Any) -> None:
    result = compare(*losses("text", rise=0.0, size=40))
    assert result.pooled.status is Status.MISSING
    assert result.pooled.num_samples == 0
    assert result.verdict is Verdict.INCONCLUSIVE
    assert any("cross-entropy alone can't pass" in advice for advice in result.advice)


def test_targets_never_gate(grades: Any, together: Any) -> None:
    fallen = grades("domain", lost=40, right=20, role=Role.TARGET)
    result = compare(*together(grades("a", **STEADY), fallen))
    assert result.tasks[1].status is Status.NOT_LEARNED
    assert result.tasks[1].margin is None
    assert result.verdict is Verdict.PASS
    assert any("has forgotten nothing" in reason for reason in result.reasons)
    assert any("raise learning_rate" in advice for advice in result.advice)


def test_learning_is_shown(grades: Any, losses: Any, together: Any) -> None:
    result = compare(
        *together(
            grades("a", **STEADY),
            grades("domain", gained=20, right=10, wrong=30, role=Role.TARGET),
            losses("domain_loss", rise=-0.5, size=30, role=Role.TARGET),
        )
    )
    assert statuses(result) == {"a": Status.KEPT, "domain": Status.LEARNED, "domain_loss": Status.LEARNED}
    assert "Learned: domain rose by 33.3 points (0.17 → 0.50, n = 60)." in result.reasons
    assert "Learned: domain_loss fell by 0.500 nats per token (3.00 → 2.50, n = 30)." in result.reasons


def test_missing_target_says_so_and_does_not_deny_a_pass(grades: Any, together: Any) -> None:
    base, tuned = together(grades("a", **STEADY), grades("domain", wrong=9, role=Role.TARGET))
    result = compare(base, [score for score in tuned if score.task == "a"])
    assert result.verdict is Verdict.PASS
    assert any("what was learned is not shown" in reason for reason in result.reasons)


@pytest.mark.parametrize(
    ("severity", "base_passed", "verdict"),
    [
        ("critical", True, Verdict.FAIL),
        ("critical", False, Verdict.PASS),
        ("high", True, Verdict.PASS),
    ],
)
def test_lost_critical_check_fails(grades: Any, severity: str, base_passed: bool, verdict: Verdict) -> None:
    check = CheckResult("ends_its_turn", severity, base_passed, False, "no end-of-turn token")
    result = compare(*grades("a", **STEADY), checks=[check])
    assert result.verdict is verdict
    assert result.checks == [check]
    assert any("ends_its_turn" in reason for reason in result.reasons) is base_passed


def graded(size: int, *, drop: float, cluster: int | None = None) -> tuple[list[SampleScore], list[SampleScore]]:
    """Samples worth .2 to .8, every fourth of which falls by `drop` and every eighth rises by .1."""
    names = [None if cluster is None else f"p{i // cluster}" for i in range(size)]
    base = [SampleScore("f1", str(i), 0.2 + 0.1 * (i % 7), cluster=names[i]) for i in range(size)]
    falls = [max(0.0, drop if i % 4 == 0 else -0.1 if i % 8 == 1 else 0.0) - 0.1 * (i % 8 == 1) for i in range(size)]
    tuned = [replace(s, score=min(1.0, max(0.0, s.score - fall))) for s, fall in zip(base, falls, strict=True)]
    return base, tuned


def test_graded_scores_are_permuted() -> None:
    result = compare(*graded(200, drop=0.2))
    row = result.tasks[0]
    assert row.test == "sign-flip permutation"
    assert row.status is Status.FORGOT
    assert (row.lost, row.gained) == (50, 25)
    assert compare(*graded(200, drop=0.2)).to_json() == result.to_json()


def test_clustered_scores_are_flipped_by_cluster(grades: Any) -> None:
    base, tuned = grades("a", lost=12, gained=2, right=60, wrong=26)
    passages = [f"p{i // 7}" for i in range(100)]
    clustered = [[replace(s, cluster=p) for s, p in zip(side, passages, strict=True)] for side in (base, tuned)]
    row = compare(*clustered).tasks[0]
    assert row.test == "cluster sign-flip permutation"
    assert row.num_clusters == 15
    plain = compare(base, tuned).tasks[0]
    assert known(row.p_value) > known(plain.p_value)
    assert known(row.forgetting_upper) > known(plain.forgetting_upper)


def test_one_cluster_decides_nothing(grades: Any) -> None:
    result = compare(*grades("a", lost=12, gained=2, right=60, wrong=26, cluster="p"))
    row = result.tasks[0]
    assert row.status is Status.UNDECIDED
    assert row.ci_low is row.forgetting_upper is row.min_detectable_drop is row.num_samples_needed is None
    assert "too few independent samples" in result.reasons[0]


def test_weights_move_the_mean(grades: Any) -> None:
    heavy, light = grades("a", right=1, weight=3.0), grades("a", lost=1, wrong=8)
    renamed = [[replace(s, sample_id=f"light-{s.sample_id}") for s in side] for side in light]
    row = compare(*(h + r for h, r in zip(heavy, renamed, strict=True))).tasks[0]
    assert (row.base, row.tuned) == pytest.approx((4 / 12, 3 / 12))
    assert row.test == "sign-flip permutation"


def test_choice_rows_carry_chance_adjusted_forgetting(grades: Any) -> None:
    row = compare(*grades("a", lost=10, right=70, wrong=20, chance=0.25)).tasks[0]
    assert row.note == "Beyond guessing, 8.0 % of the samples were lost and 0.0 % gained; at most 73.3 % could be lost."
    figures = (row.forgetting_beyond_chance, row.gain_beyond_chance, row.largest_forgetting)
    assert figures == pytest.approx((0.08, 0.0, 2.2 / 3))
    assert (row.lost, row.gained, row.kept_right, row.kept_wrong) == (10, 0, 70, 20)


def test_free_answers_have_no_figures_beyond_chance(grades: Any) -> None:
    row = compare(*grades("a", lost=10, right=70, wrong=20)).tasks[0]
    assert row.forgetting_beyond_chance is row.gain_beyond_chance is row.largest_forgetting is row.noise_runs is None


def test_a_small_margin_raises_the_ceiling(grades: Any) -> None:
    suite = grades("a", lost=8, right=790, wrong=2)  # 99.75 % before, 98.75 % after
    assert compare(*suite, margin=0.03).tasks[0].status is not Status.KEPT
    assert compare(*suite, margin=0.005).tasks[0].status is Status.FORGOT


def test_many_rows_get_enough_draws_to_be_forgotten(grades: Any, together: Any) -> None:
    rng = np.random.default_rng(0)
    base = [SampleScore("f1", str(i), 0.9) for i in range(60)]
    tuned = [replace(score, score=0.2 + 0.3 * float(x)) for score, x in zip(base, rng.random(60), strict=True)]
    suite = together((base, tuned), *(grades(f"t{i}", right=6, wrong=4) for i in range(600)))
    row = compare(*suite).tasks[0]
    assert known(row.p_adjusted) < 0.05


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"margin": 0.0}, r"margin 0.0 is not in \(0, 1\)"),
        ({"margin": 2.0}, "0.03 for three points"),
        ({"alpha": 0.5}, r"alpha 0.5 is not in \(0, 0.5\)"),
        ({"alpha": 5.0}, "0.05 by custom"),
        ({"cross_entropy_margin": -1.0}, "largest tolerated rise"),
    ],
)
def test_limits_are_checked(grades: Any, limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(*grades("a", **STEADY), **limits)


def test_comparison_survives_its_file(grades: Any, losses: Any, together: Any) -> None:
    import json

    result = compare(*together(grades("a", **STEADY), losses("text", rise=0.2, size=40)))
    assert Comparison.from_mapping(json.loads(result.to_json())) == result


def test_no_sentence_claims_that_nothing_was_forgotten(grades: Any, together: Any) -> None:
    for suite in (grades("a", **STEADY), grades("a", right=9, wrong=9), grades("a", lost=30, right=70)):
        result = compare(*together(suite, grades("b", **STEADY)))
        assert "no forgetting" not in " ".join([*result.reasons, *result.advice]).lower()

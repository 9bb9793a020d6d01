from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from forgetless.compare.pairing import pair_scores, pool_tasks
from forgetless.errors import DataError
from forgetless.records import Role, SampleScore, Unit


def test_pairs_follow_ids_not_order(grades: Any) -> None:
    base, tuned = grades("a", lost=2, gained=1, right=3)
    task = pair_scores(base, reversed(tuned)).tasks[0]
    np.testing.assert_array_equal(task.base - task.tuned, [1, 1, -1, 0, 0, 0])


def test_tasks_keep_the_order_of_the_base(grades: Any, together: Any) -> None:
    base, tuned = together(grades("b", right=2), grades("a", right=2))
    assert [task.name for task in pair_scores(base, tuned[::-1]).tasks] == ["b", "a"]


def test_missing_samples_are_named_and_counted(grades: Any) -> None:
    base, tuned = grades("a", right=10)
    pairing = pair_scores(base, tuned[5:])
    assert pairing.tasks[0].num_samples == 5
    assert pairing.tasks[0].num_unpaired == 5
    assert pairing.problems == [
        "a: 5 samples scored for the base only, missing for the tuned model: a-0, a-1, a-2 and 2 more"
    ]
    assert pair_scores(base[1:], tuned).problems == [
        "a: 1 sample scored for the tuned model only, missing for the base: a-0"
    ]


@pytest.mark.parametrize("side", ["tuned model", "base"])
def test_a_missing_task_is_named(grades: Any, together: Any, side: str) -> None:
    full, part = together(grades("a", right=2), grades("b", right=2))[0], grades("a", right=2)[0]
    pairing = pair_scores(full, part) if side == "tuned model" else pair_scores(part, full)
    assert pairing.tasks[1].num_samples == 0
    assert pairing.problems[0].startswith(f"b: the {side} has no scores (2 samples")


def test_different_gold_is_no_pair(grades: Any) -> None:
    base, tuned = grades("a", right=3, gold="Paris")
    tuned[1] = replace(tuned[1], gold="Lyon")
    pairing = pair_scores(base, tuned)
    assert pairing.tasks[0].num_samples == 2
    assert pairing.tasks[0].num_unpaired == 1
    assert pairing.problems == ["a: 1 sample with different gold answers on the two sides, not compared: a-1"]


def test_gold_may_be_absent_or_padded(grades: Any) -> None:
    base, tuned = grades("a", right=3, gold="Paris")
    tuned[0], tuned[1] = replace(tuned[0], gold=""), replace(tuned[1], gold=" Paris\n")
    assert pair_scores(base, tuned).problems == []


def test_different_token_counts_are_no_pair(losses: Any) -> None:
    base, tuned = losses("text", rise=0.0, size=4)
    tuned[0] = replace(tuned[0], weight=7.0)
    assert "different token counts" in pair_scores(base, tuned).problems[0]


@pytest.mark.parametrize(("field", "value"), [("role", Role.TARGET), ("cluster", "p2"), ("chance", 0.25)])
def test_the_bases_role_cluster_and_chance_hold(grades: Any, field: str, value: object) -> None:
    base, tuned = grades("a", right=3)
    pairing = pair_scores(base, [replace(score, **{field: value}) for score in tuned])
    assert pairing.tasks[0].num_samples == 3
    assert pairing.tasks[0].role is Role.RETENTION
    assert f"3 samples with a different {field}" in pairing.problems[0]


def test_worst_loss_of_unpaired_grades(grades: Any) -> None:
    base, tuned = grades("a", right=2, wrong=2, gold="x")
    base, tuned[3] = base[:3], replace(tuned[3], score=0.25)
    tuned = [replace(tuned[1], gold="y"), *tuned[2:]]
    # a-0 the base alone got right, a-3 the tuned model alone got .25, a-1 has another gold.
    np.testing.assert_array_equal(sorted(pair_scores(base, tuned).tasks[0].worst_loss), [0.75, 1.0, 1.0])


def test_clusters_get_codes_and_lone_samples_their_own() -> None:
    def side() -> list[SampleScore]:
        return [SampleScore("a", str(i), 1.0, cluster=c) for i, c in enumerate(["p", None, "p", "1", None])]

    task = pair_scores(side(), side()).tasks[0]
    np.testing.assert_array_equal(task.clusters, [0, 1, 0, 2, 3])
    assert task.has_clusters


def test_pool_keeps_clusters_of_tasks_apart(grades: Any, together: Any) -> None:
    base, tuned = together(grades("a", right=2, cluster="p"), grades("b", right=3, cluster="p", chance=0.25))
    pool = pool_tasks(pair_scores(base, tuned).tasks)
    np.testing.assert_array_equal(pool.clusters, [0, 0, 1, 1, 1])
    assert pool.chance == pytest.approx(0.15)


def test_pool_weighs_every_sample_alike(grades: Any, together: Any) -> None:
    base, tuned = together(grades("a", right=2, weight=9.0), grades("b", wrong=2))
    np.testing.assert_array_equal(pool_tasks(pair_scores(base, tuned).tasks).weights, np.ones(4))


def test_nothing_in_common_is_an_error(grades: Any) -> None:
    with pytest.raises(DataError, match="no sample in common"):
        pair_scores(grades("a", right=2)[0], grades("b", right=2)[1])


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_an_empty_side_is_an_error(grades: Any, side: str) -> None:
    scores = grades("a", right=2)[0]
    with pytest.raises(DataError, match=f"no {side} scores"):
        pair_scores(*(([], scores) if side == "base" else (scores, [])))


def test_a_sample_twice_is_an_error(grades: Any) -> None:
    base, tuned = grades("a", right=2)
    with pytest.raises(DataError, match="tuned scores hold sample 'a-0' of task 'a' twice"):
        pair_scores(base, [*tuned, tuned[0]])


def test_mixed_units_are_an_error(grades: Any) -> None:
    base, tuned = grades("a", right=2)
    with pytest.raises(DataError, match="mix units or roles"):
        pair_scores(base, [tuned[0], replace(tuned[1], unit=Unit.NATS_PER_TOKEN)])


def test_units_that_differ_between_sides_leave_no_pair(grades: Any) -> None:
    base, tuned = grades("a", right=2)
    with pytest.raises(DataError, match="different units"):
        pair_scores(base, [replace(score, unit=Unit.NATS_PER_TOKEN) for score in tuned])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": float("nan")}, "must be a finite number"),
        ({"score": 1.5}, r"1.5, not in \[0, 1\]"),
        ({"weight": 0.0}, "weight 0.0: it must be above 0"),
    ],
)
def test_impossible_scores_are_errors(grades: Any, changes: dict[str, float], message: str) -> None:
    base, tuned = grades("a", right=2)
    with pytest.raises(DataError, match=message):
        pair_scores(base, [tuned[0], replace(tuned[1], **changes)])


def test_different_prompts_of_one_origin_are_named_and_compared(grades: Any) -> None:
    base, tuned = grades("a", right=3, details={"prompt": "Say a"})
    tuned[1] = replace(tuned[1], details={"prompt": "Say b"})
    pairing = pair_scores(base, tuned)
    assert pairing.tasks[0].num_samples == 3
    assert pairing.problems == ["a: 1 sample with a different prompt on the two sides, compared all the same: a-1"]
    elsewhere = [replace(score, origin="lm_eval") for score in tuned]
    assert pair_scores(base, elsewhere).problems == []

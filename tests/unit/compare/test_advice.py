from typing import Any

import pytest

from forgetless.check_records import CheckResult
from forgetless.compare.comparison import compare
from forgetless.compare.explanation import name_some, probability
from forgetless.records import Role

FALL = {"lost": 30, "gained": 2, "right": 50, "wrong": 18}


def advice(suite: Any, **arguments: Any) -> str:
    return "\n".join(compare(*suite, **arguments).advice)


def test_full_tuning_is_told_its_own_settings(grades: Any) -> None:
    recipe = {"methods": [], "learning_rate": 5e-5, "epochs": 10, "num_examples": 64, "has_general": False}
    text = advice(grades("arithmetic", **FALL), recipe=recipe)
    assert "win back arithmetic (down 28.0 points)" in text
    assert "lower learning_rate from 5e-05 to 1.25e-05" in text
    assert "fewer epochs than 10 over 64 examples" in text
    assert "train with `lora` instead of all weights" in text
    assert "`replay: {share: 0.1}`" in text
    assert "--general FILE" in text


def test_users_general_data_is_used_for_replay(grades: Any) -> None:
    text = advice(grades("a", **FALL), recipe={"has_general": True})
    assert "`replay: {share: 0.1}`" in text
    assert "--general FILE" not in text


def test_gentle_adapter_with_replay_gets_other_advice(grades: Any) -> None:
    recipe = {"methods": ["lora", "replay"], "learning_rate": 1e-4, "epochs": 2, "num_examples": 500}
    text = advice(grades("arithmetic", **FALL), recipe=recipe)
    assert "halve learning_rate to 5e-05" in text
    assert "Raise the share of `replay`, with examples that resemble arithmetic" in text
    assert "epochs than" not in text
    assert "train with `lora`" not in text


def test_an_unknown_recipe_gets_general_advice(grades: Any) -> None:
    text = advice(grades("a", **FALL))
    assert "lower learning_rate two to four times" in text
    assert "replay" in text


def test_the_worst_row_in_margins_comes_first(grades: Any, losses: Any, together: Any) -> None:
    suite = together(grades("a", lost=18, gained=2, right=150, wrong=80), losses("text", rise=0.9, size=40))
    assert "win back text (up 0.900 nats per token)" in advice(suite)


def test_a_lost_check_points_at_template_and_end_of_turn(grades: Any) -> None:
    check = CheckResult("ends_its_turn", "critical", True, False)
    text = advice(grades("a", lost=4, gained=4, right=180, wrong=112), checks=[check])
    assert "answers behind ends_its_turn" in text
    assert "end-of-turn" in text


def test_nothing_learned_names_what_to_raise(grades: Any, together: Any) -> None:
    suite = together(grades("a", lost=4, gained=4, right=180, wrong=112), grades("d", wrong=50, role=Role.TARGET))
    text = advice(suite, recipe={"learning_rate": 1e-6, "epochs": 1, "num_examples": 20})
    assert "To learn d, raise learning_rate above 1e-06 or epochs above 1, or add more examples than 20" in text


def test_forgetting_without_learning_points_at_the_data(grades: Any, together: Any) -> None:
    suite = together(grades("a", **FALL), grades("d", wrong=50, role=Role.TARGET))
    assert "check the data and the chat template" in advice(suite)


def test_a_pass_says_what_to_keep(grades: Any) -> None:
    assert "Keep both score files" in advice(grades("a", lost=4, gained=4, right=180, wrong=112))


def test_unpaired_samples_are_to_be_scored(grades: Any) -> None:
    base, tuned = grades("a", lost=4, gained=4, right=180, wrong=112)
    assert "exactly the same samples" in advice((base, tuned[20:]))


@pytest.mark.parametrize(("value", "text"), [(0.0131, "p = .013"), (0.0004, "p < .001"), (1.0, "p = 1.000")])
def test_probabilities_read_like_papers(value: float, text: str) -> None:
    assert probability(value) == text


def test_long_lists_are_cut() -> None:
    assert name_some(list("abcdefg")) == "a, b, c, d, e and 2 more"

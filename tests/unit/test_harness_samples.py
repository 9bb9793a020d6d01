"""Logged samples of lm-evaluation-harness as scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forgetless.errors import DataError
from forgetless.harness_samples import Choice, LoggedTask, as_scores
from forgetless.records import SampleScore


def sample(doc_id: int = 0, **values: Any) -> dict[str, Any]:
    """A multiple-choice sample with three choices, of which the first is right and picked."""
    return {
        "doc_id": doc_id,
        "doc_hash": f"d{doc_id}",
        "prompt_hash": f"p{doc_id}",
        "target": "0",
        "filter": "none",
        "arguments": {f"gen_args_{n}": {"arg_0": "Pick", "arg_1": f" {text}"} for n, text in enumerate("xyz")},
        "resps": [[["-1.25", "False"]], [["-2.0", "False"]], [["-3.0", "False"]]],
        "metrics": ["acc", "acc_norm"],
        "acc": 1.0,
        "acc_norm": 0.0,
        **values,
    }


def answer(doc_id: int = 0, **values: Any) -> dict[str, Any]:
    """A freely answered sample."""
    call = {"gen_args_0": {"arg_0": "Q: 6*7", "arg_1": {"until": ["\n"]}}}
    defaults = {
        "arguments": call,
        "resps": [[" It is 42"]],
        "target": "42",
        "metrics": ["exact_match"],
        "exact_match": 1,
    }
    return sample(doc_id, **defaults | values)


def scores(*samples: dict[str, Any], choice: Choice | None = None, **settings: Any) -> list[SampleScore]:
    return as_scores(LoggedTask("made", list(enumerate(samples, start=1)), **settings), choice)[0]


def test_a_choice() -> None:
    score = scores(sample())[0]
    assert score == SampleScore(
        task="made",
        sample_id="0",
        score=1.0,
        answer="0: x",
        gold="0",
        origin="lm_eval",
        chance=1 / 3,
        details={
            "prompt": "Pick",
            "metric": "acc",
            "doc_hash": "d0",
            "prompt_hash": "p0",
            "metrics": {"acc": 1.0, "acc_norm": 0.0},
            "log_likelihoods": [-1.25, -2.0, -3.0],
        },
    )


def test_a_free_answer_is_kept_as_it_was_written() -> None:
    score = scores(answer(filtered_resps=["42"]))[0]
    assert (score.score, score.answer, score.gold, score.chance) == (1.0, " It is 42", "42", 0.0)
    assert "log_likelihoods" not in score.details


def test_the_answer_is_shown_as_the_target_is_written() -> None:
    assert scores(sample(target="x"))[0].answer == "x"
    assert scores(sample(), choice=Choice(("acc_norm",)))[0].answer == ""  # by what it was divided isn't logged


@pytest.mark.parametrize(
    ("values", "chance"),
    [
        ({}, 1 / 3),
        ({"target": "[0, 2]"}, 2 / 3),
        ({"target": "(b"}, 1 / 3),
        ({"metrics": ["exact_match"], "exact_match": 0.0}, 0.0),
        ({"resps": [[["-1.0", "True"]]]}, 0.0),
        ({"metrics": ["acc_mutual_info"], "acc_mutual_info": 1.0, "resps": [[["-1.0", "False"]]] * 6}, 1 / 3),
    ],
)
def test_the_level_of_guessing(values: dict[str, Any], chance: float) -> None:
    assert scores(sample(**values))[0].chance == pytest.approx(chance)


def test_filters_grade_the_same_samples_so_one_counts() -> None:
    lines = [answer(n, filter=name, exact_match=n % 2) for name in ("strict", "flexible") for n in (0, 1)]
    lines[2]["exact_match"] = 1
    lines.append(answer(7, filter="flexible"))
    task = LoggedTask("made", list(enumerate(lines, start=1)))
    found, notes = as_scores(task)
    assert [(score.sample_id, score.score) for score in found] == [("0", 0.0), ("1", 1.0)]
    assert found[0].details["other_filters"] == {"flexible": {"exact_match": 1.0}}
    assert notes == [
        "made: the grades by filter 'strict' count; those of the same samples by 'flexible' don't "
        "(`forgetless compare --filter` chooses)",
        "made: 1 samples without a grade by filter 'strict', not compared: 7",
    ]
    assert [score.score for score in as_scores(task, Choice(filter_name="flexible"))[0]] == [1.0, 1.0, 1.0]
    with pytest.raises(DataError, match="it has no filter 'loose' but strict, flexible"):
        as_scores(task, Choice(filter_name="loose"))


def test_a_wanted_filter_is_no_matter_where_there_is_one() -> None:
    assert len(scores(sample(), choice=Choice(filter_name="strict"))) == 1


def test_metrics_are_picked() -> None:
    both = answer(metrics=["bleu", "f1", "exact_match"], bleu=[1, 2], f1=0.5)
    assert scores(both)[0].details["metric"] == "exact_match"
    assert scores(both, is_higher_better={"exact_match": False})[0].score == 0.5
    assert scores(both, choice=Choice(("rouge", "f1")))[0].score == 0.5
    assert scores(sample(metrics=["pick", "prompt_acc"], pick=7, prompt_acc=True))[0].score == 1.0


def test_a_metric_is_a_grade_in_every_sample_or_not_at_all() -> None:
    lines = [sample(n, metrics=["loss", "ok"], loss=0.5 + n, ok=1.0) for n in range(2)]
    assert [score.score for score in scores(*lines)] == [1.0, 1.0]


def test_metrics_that_are_not_listed_are_found() -> None:
    old = sample()
    del old["metrics"]
    assert scores(old)[0].details["metrics"] == {"acc": 1.0, "acc_norm": 0.0}


@pytest.mark.parametrize(
    ("line", "choice", "directions", "message"),
    [
        (sample(metrics=["word_perplexity"], word_perplexity=[-3.0, 5]), None, {}, "cannot be judged"),
        (sample(metrics=[]), None, {}, r"none of its metrics \(none\)"),
        (sample(acc=float("nan"), metrics=["acc"]), None, {}, "metric 'acc' is not a number"),
        (sample(), Choice(("bleu", "f1")), {}, "it has no metric bleu or f1 but acc, acc_norm"),
        (sample(acc=3), Choice(("acc",)), {}, "metric 'acc' is not a grade in .* but 3"),
        (sample(), Choice(("acc",)), {"acc": False}, "less is better for metric 'acc'"),
        (sample(resps=[[["nan", "False"]]] * 3), None, {}, "weights are damaged"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    line: dict[str, Any], choice: Choice | None, directions: dict[str, bool], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        scores(line, choice=choice, is_higher_better=directions)


def test_errors_name_the_file_where_there_is_one() -> None:
    with pytest.raises(DataError, match=r"^x.jsonl, line 2: task 'made': sample '0' stands already in line 1"):
        scores(sample(), sample(), path=Path("x.jsonl"))
    with pytest.raises(DataError, match=r"^task 'made': holds no samples"):
        scores()


@pytest.mark.parametrize(
    "values",
    [
        {"arguments": None, "resps": []},
        {"arguments": {"gen_args_0": 3}, "resps": [[["x", "True"]]]},
        {"arguments": {}, "resps": [["text"]], "filtered_resps": []},
        {"resps": [[["-inf", "False"]], [["-1", "False"]]]},
        {"resps": "text"},
        {"resps": [7]},
    ],
)
def test_odd_samples_keep_their_grade(values: dict[str, Any]) -> None:
    score = scores(sample(**values))[0]
    assert score.score == 1.0
    assert "log_likelihoods" not in score.details
    score.to_json()

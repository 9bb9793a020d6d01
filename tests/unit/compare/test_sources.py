"""Scores of lm-evaluation-harness and of run directories, read for a comparison."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from forgetless.compare.comparison import compare
from forgetless.compare.sources import read_any_scores, read_source
from forgetless.errors import DataError
from forgetless.records import SampleScore, Verdict, write_scores

TIME = "2026-11-20T10-00-00.000001"


def sample(doc_id: int, **values: Any) -> dict[str, Any]:
    """A line as lm-evaluation-harness 0.4 writes it."""
    return {
        "doc_id": doc_id,
        "doc_hash": sha256(str(doc_id).encode()).hexdigest(),
        "target": "B",
        "filter": "none",
        "arguments": {"gen_args_0": {"arg_0": f"Question {doc_id}", "arg_1": " A"}},
        "resps": [[["-1.0", "False"]]] * 4,
        "metrics": ["acc", "acc_norm"],
        "acc": 1.0,
        "acc_norm": 0.0,
        **values,
    }


def write(directory: Path, lines: list[dict[str, Any]], *, task: str = "arc_easy", time: str = TIME) -> Path:
    model = directory / "some__model"
    model.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (model / f"samples_{task}_{time}.jsonl").write_text(text, encoding="utf-8")
    return directory


def test_samples_become_scores(tmp_path: Path) -> None:
    scores = read_any_scores(write(tmp_path, [sample(0), sample(1, acc=0.0)]))
    assert [(s.task, s.sample_id, s.score, s.chance, s.origin) for s in scores] == [
        ("arc_easy", "0", 1.0, 0.25, "lm_eval"),
        ("arc_easy", "1", 0.0, 0.25, "lm_eval"),
    ]
    assert scores[0].details["prompt"] == "Question 0"


def test_a_metric_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path, [sample(0)])
    assert read_any_scores(tmp_path, metric="acc_norm")[0].score == 0.0
    assert read_any_scores(tmp_path, metric="bleu, acc_norm")[0].score == 0.0
    with pytest.raises(DataError, match="no metric bleu but acc, acc_norm"):
        read_any_scores(tmp_path, metric="bleu")


def test_generated_answers_have_no_chance_level(tmp_path: Path) -> None:
    line = sample(0, metrics=["exact_match"], exact_match=1.0, resps=[["42"]])
    assert read_any_scores(write(tmp_path, [line], task="gsm8k"))[0].chance == 0.0


def test_the_first_filter_is_compared(tmp_path: Path) -> None:
    lines = [sample(0, filter="strict", acc=0.0), sample(0, filter="flexible")]
    source = read_source(write(tmp_path, lines))
    assert [s.score for s in source.scores] == [0.0]
    assert "'strict' count" in source.notes[0]
    assert [s.score for s in read_any_scores(tmp_path, filter_name="flexible")] == [1.0]
    with pytest.raises(DataError, match="no task has a filter 'loose'; known: flexible, strict"):
        read_any_scores(tmp_path, filter_name="loose")


def test_the_newest_file_of_each_task_counts(tmp_path: Path) -> None:
    write(tmp_path, [sample(0, acc=0.0)], time="2026-11-19T10-00-00.000001")
    write(tmp_path, [sample(0)])
    write(tmp_path, [sample(0)], task="arc_challenge_2026")
    assert [(s.task, s.score) for s in read_any_scores(tmp_path)] == [("arc_challenge_2026", 1.0), ("arc_easy", 1.0)]


def test_different_documents_under_one_id_are_a_problem(tmp_path: Path) -> None:
    base = read_any_scores(write(tmp_path / "a", [sample(n) for n in range(50)]))
    other = [sample(n, doc_hash="f" * 64) for n in range(9)] + [sample(n) for n in range(9, 50)]
    tuned = read_any_scores(write(tmp_path / "b", other))
    comparison = compare(base, tuned)
    assert comparison.verdict is not Verdict.PASS
    assert any("9 samples with different documents" in problem for problem in comparison.problems)


@pytest.mark.parametrize(
    ("settings", "problem"), [({"metric": "acc_norm"}, "metrics"), ({"filter_name": "b"}, "filters")]
)
def test_grades_of_different_kinds_are_not_compared(tmp_path: Path, settings: dict[str, str], problem: str) -> None:
    write(tmp_path, [sample(n, filter=name) for name in "ab" for n in range(5)])
    scores = read_any_scores(tmp_path)
    with pytest.raises(DataError, match=f"5 samples with different {problem} on the two sides"):
        compare(scores, read_any_scores(tmp_path, **settings))


def test_different_prompts_are_named_but_compared(tmp_path: Path) -> None:
    base = read_any_scores(write(tmp_path / "a", [sample(n, prompt_hash="p") for n in range(5)]))
    tuned = read_any_scores(write(tmp_path / "b", [sample(n, prompt_hash="q" if n else "p") for n in range(5)]))
    comparison = compare(base, tuned)
    assert comparison.tasks[0].num_samples == 5
    assert any("4 samples with a different prompt" in problem for problem in comparison.problems)


def test_the_output_of_several_models_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "one", [sample(0)])
    write(tmp_path / "two", [sample(0)])
    with pytest.raises(DataError, match="task 'arc_easy' of 2 models or runs"):
        read_any_scores(tmp_path)
    assert len(read_any_scores(tmp_path / "one")) == 1


def test_one_sample_file_is_enough(tmp_path: Path) -> None:
    write(tmp_path, [sample(0)], task="a,b_2024-01-01T00-00-00")
    file = next(tmp_path.rglob("samples_*"))
    assert [s.task for s in read_any_scores(file)] == ["a,b_2024-01-01T00-00-00"]


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    write(tmp_path, [sample(0, acc=0.0)], time="2026-11-19T10-00-00.000001")
    write(tmp_path, [sample(0)])
    (tmp_path / "samples_of_mine.json").write_text("{}")
    assert read_source(tmp_path).notes == [
        "samples_of_mine.json: not named samples_TASK_TIME.jsonl, not compared",
        f"arc_easy: the newest of 2 runs is compared (samples_arc_easy_{TIME}.jsonl)",
    ]


@pytest.mark.parametrize(
    ("results", "metric"),
    [
        ({"higher_is_better": {"arc_easy": {"acc": False, "acc_norm": True}}}, "acc_norm"),
        ({"higher_is_better": {"arc_easy": {"acc": None}}}, "acc"),
        ({"higher_is_better": {"another": {"acc": False}}}, "acc"),
        ([], "acc"),
    ],
)
def test_what_the_results_say_of_a_metric_counts(tmp_path: Path, results: Any, metric: str) -> None:
    write(tmp_path, [sample(0)])
    (tmp_path / "some__model" / f"results_{TIME}.json").write_text(json.dumps(results))
    assert read_any_scores(tmp_path)[0].details["metric"] == metric


def test_a_run_directory_gives_the_wanted_side(tmp_path: Path) -> None:
    write_scores(tmp_path / "base.scores.jsonl", [SampleScore("a", "1", 1.0)])
    write_scores(tmp_path / "tuned.scores.jsonl", [SampleScore("a", "1", 0.0)])
    assert read_any_scores(tmp_path, side="base")[0].score == 1.0
    assert read_any_scores(tmp_path)[0].score == 0.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"doc_id": 0, "metr', "line 1: is not JSON"),
        ('{"question": 1}', "no doc_id"),
        ('{"doc_id": 0, "metrics": ["word_perplexity"], "word_perplexity": [-3.0, 5]}', "none of its metrics"),
    ],
)
def test_what_cannot_be_read_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / f"samples_x_{TIME}.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_any_scores(tmp_path)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / f"samples_x_{TIME}.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        read_any_scores(tmp_path)


def test_a_score_file_is_read_as_one(tmp_path: Path) -> None:
    write_scores(tmp_path / "a.scores.jsonl", [SampleScore("a", "1", 1.0)])
    assert read_source(tmp_path / "a.scores.jsonl").notes == []


def test_an_empty_directory_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--log_samples"):
        read_any_scores(tmp_path)

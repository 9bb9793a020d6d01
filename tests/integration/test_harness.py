"""`compare` on what lm-evaluation-harness itself writes about two models, and `evaluate` with its tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import build_model, build_tokenizer
from forgetless.cli import app
from forgetless.records import read_scores, write_scores
from harness import NUM_DOCUMENTS, run_harness, write_harness_tasks

TASKS = ["made_choice", "made_answer", "made_last_word"]
# The harness and what it imports call what their own libraries have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_harness_tasks(tmp_path_factory.mktemp("harness"))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, directory: Path) -> dict[str, Path]:
    """What the harness's own model writes about two tiny models."""
    from lm_eval.models.huggingface import HFLM

    root = tmp_path_factory.mktemp("outputs")
    tokenizer: Any = build_tokenizer()
    for seed, side in enumerate(("base", "tuned")):
        model: Any = build_model(seed)
        run_harness(HFLM(pretrained=model, tokenizer=tokenizer), TASKS, directory, out=root / side)
    return {side: root / side for side in ("base", "tuned")}


def compare(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    return result.exit_code, result.output


def test_two_directories(outputs: dict[str, Path]) -> None:
    code, text = compare(outputs["base"], outputs["tuned"], "--json")
    comparison = json.loads(text)
    assert code == 3
    assert {row["task"]: row["num_samples"] for row in comparison["tasks"]} == dict.fromkeys(TASKS, NUM_DOCUMENTS)
    assert len(comparison["problems"]) == 1
    assert "those of the same samples by 'flexible-extract' don't" in comparison["problems"][0]


def test_the_means_are_those_that_the_harness_reports(outputs: dict[str, Path]) -> None:
    results = json.loads(next(outputs["base"].rglob("results_*.json")).read_text())["results"]
    for metric, name in (("acc", "acc,none"), ("acc_norm,exact_match,acc", "acc_norm,none")):
        comparison = json.loads(
            compare(outputs["base"], outputs["tuned"], "--json", "--metric", f"{metric},exact_match")[1]
        )
        row = next(row for row in comparison["tasks"] if row["task"] == "made_choice")
        assert row["base"] == pytest.approx(results["made_choice"][name])


def test_a_score_file_against_a_directory(
    outputs: dict[str, Path], directory: Path, tmp_path: Path, cache: Path
) -> None:
    model: Any = build_model(0)
    tokenizer: Any = build_tokenizer()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    suite = f"lm_eval:{','.join(TASKS)}"
    arguments = ["evaluate", str(tmp_path / "model"), "--suite", suite, "--tasks-dir", str(directory)]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "base.scores.jsonl"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert list((cache / "scores").glob("lm_eval-*.jsonl"))
    code, text = compare(tmp_path / "base.scores.jsonl", outputs["base"], "--json")
    comparison = json.loads(text)
    assert code == 3
    assert all(row["delta"] == 0 and row["lost"] == row["gained"] == 0 for row in comparison["tasks"])
    assert sum(row["num_samples"] for row in comparison["tasks"]) == len(TASKS) * NUM_DOCUMENTS


def test_damage_is_named(outputs: dict[str, Path], tmp_path: Path) -> None:
    scores = read_scores_of(outputs["base"], tmp_path)
    write_scores(tmp_path / "fewer.scores.jsonl", [score for score in scores if score.sample_id != "3"])
    _, text = compare(outputs["base"], tmp_path / "fewer.scores.jsonl", "--json")
    problems = json.loads(text)["problems"]
    assert sum("1 sample scored for the base only, missing for the tuned model: 3" in line for line in problems) == 3


def read_scores_of(directory: Path, scratch: Path) -> list[Any]:
    out = scratch / "copied"
    compare(directory, directory, "--out", out)
    return read_scores(out / "base.scores.jsonl")


def test_perplexities_are_refused_in_one_sentence(directory: Path, tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    tokenizer: Any = build_tokenizer()
    model: Any = build_model(0)
    run_harness(HFLM(pretrained=model, tokenizer=tokenizer), ["made_text"], directory, out=tmp_path)
    code, text = compare(tmp_path, tmp_path)
    assert code == 2
    assert "task 'made_text': none of its metrics (word_perplexity) is a grade" in " ".join(text.split())


def test_a_run_judges_by_the_harness_s_tasks_too(
    tiny_directory: Path, questions: Path, tasks_directory: Path, cache: Path, directory: Path, tmp_path: Path
) -> None:
    for file in directory.glob("*.yaml"):
        (tasks_directory / file.name).write_text(file.read_text())
    result = CliRunner().invoke(
        app,
        [
            *("run", "--model", str(tiny_directory), "--data", str(questions), "--out", str(tmp_path / "out")),
            *("--tasks-dir", str(tasks_directory), "--suite", "picks,lm_eval:made_choice,made_answer"),
            *("--limit", "5", "--num-fewshot", "1", "--epochs", "1", "--max-tokens", "64", "--max-examples", "4"),
        ],
    )
    assert result.exit_code in (0, 1, 3), result.output
    assert (cache / "scores").is_dir()
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    sizes = {row["task"]: row["num_samples"] for row in comparison["tasks"] if row["role"] == "retention"}
    assert sizes == {"picks": 5, "made_choice": 5, "made_answer": 5}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert '["made_choice", "made_answer"], 1, 5' in manifest["fingerprints"]["lm_eval"]


def test_an_endpoint_cannot_answer_the_harness() -> None:
    result = CliRunner().invoke(app, ["evaluate", "http://127.0.0.1:9/v1", "--suite", "core,lm_eval:arc_easy"])
    assert result.exit_code == 2
    assert "an endpoint gives no likelihoods in token ids" in " ".join(result.output.split())

"""The whole job on a tiny model, through the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from forgetless.cli import app
from forgetless.records import Role, read_comparison, read_scores

FILES = (
    "manifest.json mixture.jsonl base.scores.jsonl tuned.scores.jsonl train.jsonl comparison.json "
    "report.html report.md junit.xml MODEL_CARD.md model/adapter_model.safetensors"
)


@pytest.fixture
def flags(tiny_directory: Path, questions: Path, tasks_directory: Path, cache: Path, tmp_path: Path) -> list[str]:
    assert cache.parent == tmp_path
    return [
        *("run", "--model", str(tiny_directory), "--data", str(questions)),
        *("--tasks-dir", str(tasks_directory), "--suite", "letters,picks,prose"),
        *("--epochs", "1", "--max-tokens", "64", "--logging-steps", "1", "--out", str(tmp_path / "out")),
    ]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_run_leaves_all_its_files_and_exits_by_the_verdict(flags: list[str], tmp_path: Path) -> None:
    result = invoke(*flags)
    comparison = read_comparison(tmp_path / "out" / "comparison.json")
    assert result.exit_code == comparison.verdict.exit_code
    assert comparison.verdict.value in result.output
    assert str(tmp_path / "out" / "report.html") in result.output
    for name in FILES.split():
        assert (tmp_path / "out" / name).is_file(), name
    assert {row.task for row in comparison.tasks if row.role is Role.TARGET} == {"target_loss", "target_answers"}
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_base_and_tuned_answer_the_same_samples(flags: list[str], tmp_path: Path) -> None:
    invoke(*flags)
    keys = [
        [(score.task, score.sample_id) for score in read_scores(tmp_path / "out" / f"{side}.scores.jsonl")]
        for side in ("base", "tuned")
    ]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 30 + 2 * 2  # ten samples a task, and a tenth of 24 examples held out, asked twice


def test_a_second_run_takes_the_base_from_the_cache(flags: list[str], tmp_path: Path) -> None:
    invoke(*flags)
    invoke(*flags[:-1], str(tmp_path / "again"))
    stages = [json.loads((tmp_path / name / "manifest.json").read_text())["stages"] for name in ("out", "again")]
    assert [stage["base"]["cached"] for stage in stages] == [False, True]
    base = [(tmp_path / name / "base.scores.jsonl").read_bytes() for name in ("out", "again")]
    assert base[0] == base[1]


def test_the_same_seed_gives_the_same_model(flags: list[str], tmp_path: Path) -> None:
    invoke(*flags)
    invoke(*flags[:-1], str(tmp_path / "again"))
    weights = [(tmp_path / name / "model/adapter_model.safetensors").read_bytes() for name in ("out", "again")]
    assert weights[0] == weights[1]


def test_a_finished_run_is_not_done_again(flags: list[str], tmp_path: Path) -> None:
    invoke(*flags)
    before = (tmp_path / "out" / "model" / "adapter_model.safetensors").stat().st_mtime_ns
    invoke(*flags)
    assert (tmp_path / "out" / "model" / "adapter_model.safetensors").stat().st_mtime_ns == before


def test_another_config_does_not_overwrite_a_run(flags: list[str], tmp_path: Path) -> None:
    invoke(*flags)
    result = invoke(*flags, "--seed", "1")
    assert result.exit_code == 2
    assert "another config or data" in result.output
    assert invoke(*flags, "--seed", "1", "--fresh").exit_code in {0, 1, 3}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["seed"] == 1


def test_full_fine_tuning_and_replay(flags: list[str], tmp_path: Path) -> None:
    general = tmp_path / "general.jsonl"
    general.write_text('{"text": "Water boils at 100 degrees."}\n' * 3)
    result = invoke(*flags, "--method", "replay:share=0.25", "--general", str(general), "--learning-rate", "1e-3")
    assert result.exit_code in {0, 1, 3}, result.output
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["data"]["num_domain"] == 22
    assert manifest["data"]["num_general"] == 7  # round(.25 / .75 * 22)
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("after_stage", ["base", "train"])
def test_a_killed_run_goes_on_where_it_was(flags: list[str], tmp_path: Path, after_stage: str) -> None:
    slow = [*flags, "--epochs", "30", "--save-steps", "5"]
    manifest = tmp_path / "out" / "manifest.json"
    process = subprocess.Popen([sys.executable, "-m", "forgetless", *slow], env=dict(os.environ))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if manifest.is_file() and after_stage in json.loads(manifest.read_text()).get("stages", {}):
            has_checkpoint = any((tmp_path / "out" / "checkpoints").glob("checkpoint-*/trainer_state.json"))
            if after_stage == "base" or has_checkpoint:
                break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert invoke(*slow).exit_code in {0, 1, 3}
    invoke(*slow[:-5], str(tmp_path / "whole"), *slow[-4:])
    resumed, whole = ((tmp_path / name / "model/adapter_model.safetensors").read_bytes() for name in ("out", "whole"))
    assert resumed == whole

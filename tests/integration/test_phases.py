"""A sequence of phases on a tiny model: through the command line, stopped and gone on, and by every way to carry on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from conftest import build_model
from forgetless.cli import app
from forgetless.errors import RunError
from forgetless.models import load_model
from forgetless.phase_records import read_phases
from forgetless.phases.run import PhasesResult, run
from forgetless.records import Role, read_comparison, read_scores
from forgetless.stages import scores

PHASE_FILES = (
    "manifest.json mixture.jsonl base.scores.jsonl tuned.scores.jsonl train.jsonl comparison.json report.html report.md"
)


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def config(tiny_directory: Path, tasks_directory: Path, cache: Path, tmp_path: Path) -> dict[str, Any]:
    assert cache.parent == tmp_path
    sets = {
        name: write(
            tmp_path / f"{name}.jsonl",
            [{"question": f"What {verb} thing {n}?", "answer": f"{name} {n} {verb} it."} for n in range(12)],
        )
        for name, verb in (("remedy", "treats"), ("colour", "paints"), ("tune", "sings"))
    }
    general = [{"question": f"Say fact {n}", "answer": f"Water is wet {n}."} for n in range(8)]
    return {
        "model": str(tiny_directory),
        "data": {"general": write(tmp_path / "general.jsonl", general)},
        "methods": ["lora"],
        "training": {"max_steps": 2, "max_tokens": 64, "batch_size": 4, "logging_steps": 1, "learning_rate": 1e-2},
        "evaluation": {"suite": "letters", "tasks_dir": str(tasks_directory)},
        "phases": [{"name": name, "data": {"train": sets[name], "max_test_examples": 1}} for name in sets],
    }


def first_two(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return config | {"phases": config["phases"][:2]} | changes


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def weights(directory: Path) -> dict[str, Any]:
    """Returns the weights that a saved model computes with."""
    model: Any = load_model(str(directory), device="cpu").model
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_three_phases_leave_their_files_and_exit_by_the_verdict(config: dict[str, Any], tmp_path: Path) -> None:
    config["methods"] = ["lora", {"replay": {"share": 0.2, "earlier_share": 0.2}}, "kl", {"ewc": {"num_sequences": 4}}]
    path, out = tmp_path / "sequence.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(config))
    result = invoke("run", str(path), "--out", str(out))
    record = read_phases(out / "phases.json")
    assert result.exit_code == record.verdict.exit_code, result.output
    assert "after colour" in result.output
    assert {"manifest.json", "base.scores.jsonl", "phases.json", "report.html", "report.md"} <= {
        path.name for path in out.iterdir()
    }
    folders = [out / "phases" / name for name in ("01-remedy", "02-colour", "03-tune")]
    for folder in folders:
        assert all((folder / name).is_file() for name in PHASE_FILES.split())
        assert (folder / "model" / "adapter_model.safetensors").is_file()
        targets = {s.task for s in read_scores(folder / "tuned.scores.jsonl") if s.role is Role.TARGET}
        assert targets == {f"{name}.{what}" for name in ("remedy", "colour", "tune") for what in ("loss", "answers")}
    origins = [json.loads(line)["origin"] for line in (folders[2] / "mixture.jsonl").read_text().splitlines()]
    assert {name: origins.count(name) for name in set(origins)} == {"domain": 11, "general": 4, "earlier": 4}
    assert {row.task for row in read_comparison(folders[2] / "earlier.json").tasks} == {
        f"{name}.{what}" for name in ("remedy", "colour") for what in ("loss", "answers")
    }
    loss = next(measure for measure in record.measures if measure.name == "loss")
    assert [len(loss.matrix), len(loss.matrix[0]), len(loss.base)] == [3, 3, 3]
    assert [phase.earlier is None for phase in record.phases] == [True, False, False]
    again = invoke("run", str(path), "--out", str(out), "--json")
    assert json.loads(again.stdout) == json.loads((out / "phases.json").read_text())


def test_a_phase_starts_from_what_the_one_before_left(config: dict[str, Any], tmp_path: Path) -> None:
    result = run(first_two(config), out=tmp_path / "out")
    assert isinstance(result, PhasesResult)
    assert result.comparison.verdict is result.record.verdict
    first, second = (tmp_path / "out" / "phases" / name for name in ("01-remedy", "02-colour"))
    merged, start = weights(first / "model"), weights(second / "start")
    assert all((merged[name] - start[name]).abs().max() < 1e-6 for name in merged)
    model: Any = build_model()
    base = model.state_dict()
    assert any((start[name] - base[name]).abs().max() > 1e-4 for name in base)
    # What is compared with is the model before all phases, not the one that the phase started from.
    assert (second / "base.scores.jsonl").read_bytes() == (tmp_path / "out" / "base.scores.jsonl").read_bytes()


def test_a_stopped_sequence_goes_on_within_its_phase(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, job = tmp_path / "out", first_two(config)
    tuned_stage = scores.tuned_stage

    def stop(job: Any, directory: Any, reporter: Any) -> None:
        if directory.path.name == "02-colour":
            raise KeyboardInterrupt
        tuned_stage(job, directory, reporter)

    monkeypatch.setattr(scores, "tuned_stage", stop)
    with pytest.raises(KeyboardInterrupt):
        run(job, out=out)
    kept = [out / "phases" / name / "model" / "adapter_model.safetensors" for name in ("01-remedy", "02-colour")]
    times = [path.stat().st_mtime_ns for path in kept]
    assert not (out / "phases.json").exists()
    monkeypatch.setattr(scores, "tuned_stage", tuned_stage)
    run(job, out=out)
    assert [path.stat().st_mtime_ns for path in kept] == times
    whole = run(job, out=tmp_path / "whole")
    assert read_phases(out / "phases.json").measures == read_phases(whole.directory / "phases.json").measures


def test_a_killed_sequence_repeats_no_phase(config: dict[str, Any], tmp_path: Path) -> None:
    job = first_two(config)
    job["phases"][1]["training"] = {"max_steps": 40, "save_steps": 5}
    path, out = tmp_path / "sequence.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "forgetless", "run", str(path), "--out", str(out)]
    process = subprocess.Popen(command, env=dict(os.environ))
    checkpoints = out / "phases" / "02-colour" / "checkpoints"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if any(checkpoints.glob("checkpoint-*/trainer_state.json")):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = out / "phases" / "01-remedy" / "model" / "adapter_model.safetensors"
    before = first.stat().st_mtime_ns
    assert invoke("run", str(path), "--out", str(out)).exit_code in {0, 1, 3}
    assert first.stat().st_mtime_ns == before
    run(job, out=tmp_path / "whole")
    resumed, whole = (place / "phases/02-colour/model/adapter_model.safetensors" for place in (out, tmp_path / "whole"))
    assert resumed.read_bytes() == whole.read_bytes()


def test_the_average_over_time_is_exact(config: dict[str, Any], tmp_path: Path) -> None:
    run(first_two(config, sequence={"average": "time"}), out=tmp_path / "average")
    run(first_two(config), out=tmp_path / "plain")
    one, average, plain = (
        weights(tmp_path / run_name / "phases" / name / "model")
        for run_name, name in (("plain", "01-remedy"), ("average", "02-colour"), ("plain", "02-colour"))
    )
    # Both second phases train alike from the same start: only what is kept of them differs.
    for name, tensor in average.items():
        assert (tensor - (one[name] + plain[name]) / 2).abs().max() < 1e-6, name
    assert any((average[name] - plain[name]).abs().max() > 1e-4 for name in average)


def test_full_weights_are_averaged_over_time_too(config: dict[str, Any], tmp_path: Path) -> None:
    full = first_two(config, methods=[], training=config["training"] | {"learning_rate": 1e-3})
    run(full | {"sequence": {"average": "time", "keep": "last"}}, out=tmp_path / "average")
    run(full, out=tmp_path / "plain")
    one, average, plain = (
        weights(tmp_path / run_name / "phases" / name / "model")
        for run_name, name in (("plain", "01-remedy"), ("average", "02-colour"), ("plain", "02-colour"))
    )
    assert all((average[name] - (one[name] + plain[name]) / 2).abs().max() < 1e-6 for name in average)
    assert not (tmp_path / "average" / "phases" / "01-remedy" / "model").exists()
    assert run(full | {"sequence": {"average": "time", "keep": "last"}}, out=tmp_path / "average").exit_code in {
        0,
        1,
        3,
    }


@pytest.mark.parametrize("average", ["none", "time"])
def test_an_adapter_can_be_trained_on(config: dict[str, Any], average: str, tmp_path: Path) -> None:
    run(first_two(config, sequence={"carry": "continue", "average": average}), out=tmp_path / "out")
    second = tmp_path / "out" / "phases" / "02-colour"
    assert not (second / "start").exists()
    saved = json.loads((second / "model" / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == str(config["model"])
    methods = [method["name"] for method in json.loads((second / "manifest.json").read_text())["methods"]]
    assert methods == (["lora"] if average == "none" else ["lora", "time_average"])


@pytest.mark.parametrize("method", ["osf", {"corda": {"rank": 4}}, {"null_space": {"rank": 4}}])
def test_other_adapters_are_carried_over(config: dict[str, Any], method: Any, tmp_path: Path) -> None:
    result = run(first_two(config, methods=[method]), out=tmp_path / "out")
    loss = result.record.measures[-1] if isinstance(result, PhasesResult) else None
    assert loss is not None
    assert loss.learning.value is not None


def test_what_a_phase_starts_from_must_still_be_there(config: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(first_two(config), out=out)
    shutil.rmtree(out / "phases" / "01-remedy" / "model")
    shutil.rmtree(out / "phases" / "02-colour")
    with pytest.raises(RunError, match="isn't there any more, and phase 2 starts from it"):
        run(first_two(config), out=out)


def test_train_takes_no_phases(config: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "sequence.yaml"
    path.write_text(yaml.safe_dump(config))
    result = invoke("train", str(path), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "the config has phases" in result.output
    result = invoke("run", str(path), "--data", str(tmp_path / "remedy.jsonl"), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "data.train belongs to a single run" in result.output

"""The monitor as a part of a run: whether there is one, and what it looks at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forgetless import pipeline
from forgetless.config import parse_config
from forgetless.errors import ConfigError
from forgetless.job import plan
from forgetless.monitor_stage import facts_of, open_monitor
from forgetless.progress import Silent
from forgetless.report.evidence import Evidence
from forgetless.report.monitoring import monitor_sentence, retention_curve
from training import context


@pytest.fixture
def config(tiny_directory: Path, questions: Path, tasks_directory: Path, cache: Path, tmp_path: Path) -> dict[str, Any]:
    assert not cache.exists()
    general = tmp_path / "general.jsonl"
    rows = [{"text": f"Fact {number}: water is wet."} for number in range(12)]
    general.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": str(tiny_directory),
        "data": {"train": str(questions), "general": str(general)},
        "methods": ["lora"],
        "evaluation": {"suite": "letters", "tasks_dir": str(tasks_directory)},
        "training": {"max_steps": 4, "max_tokens": 64, "learning_rate": 0.05, "logging_steps": 2},
        "monitor": {"every": 2, "num_examples": 8, "max_share": 1.0},
    }


def opened(config: dict[str, Any], **settings: Any) -> Any:
    job = plan(config | {"monitor": config["monitor"] | settings})
    told = replace(context(), general=job.general)
    return open_monitor(job, job.domain, told, log=Path("train.jsonl"), reporter=Silent())


def test_a_run_with_general_examples_is_watched_by_default(config: dict[str, Any]) -> None:
    assert opened(config).policy.name == "warn"
    assert opened(config, policy="stop").policy.name == "stop"
    assert opened(config, policy="off") is None
    assert opened(config | {"data": {"train": config["data"]["train"]}}) is None
    assert opened(config, data="self") is None
    assert facts_of(None) == {}


def test_yaml_reads_off_as_false() -> None:
    assert parse_config({"monitor": {"policy": False}}).monitor.policy == "off"
    with pytest.raises(ConfigError, match=r"monitor\.policy"):
        parse_config({"monitor": {"policy": True}})


def test_the_base_writes_where_it_is_asked_to(config: dict[str, Any]) -> None:
    watcher = opened(config, policy="warn", data="self")
    assert {example.origin for example in watcher.examples} == {"self"}
    assert len(watcher.examples) == 8
    without = config | {"data": {"train": config["data"]["train"]}}
    with pytest.raises(ConfigError, match="needs general examples"):
        opened(without, policy="warn", data="general")


def test_what_is_trained_on_is_not_looked_at_where_there_is_enough_else(config: dict[str, Any]) -> None:
    job = plan(config | {"monitor": config["monitor"] | {"policy": "warn"}})
    told = replace(context(), general=job.general)
    for replayed, left in ((job.general[:4], 8), (job.general[:5], 12)):
        mixture = [*job.domain, *replayed]
        watcher = open_monitor(job, mixture, told, log=Path("train.jsonl"), reporter=Silent())
        assert watcher is not None
        assert len(watcher.examples) == left


def test_a_run_leaves_curves_and_a_summary(config: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipeline.train(config | {"monitor": config["monitor"] | {"policy": "rollback", "budget": 1e-6}}, out=out)
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    looks = [line for line in lines if "retention" in line]
    manifest = json.loads((out / "manifest.json").read_text())
    facts = manifest["stages"]["train"]["monitor"]
    assert len(looks) == facts["num_looks"] >= 1
    assert facts["actions"][-1]["action"] == "went back to step 0"
    assert not (out / "checkpoints").exists()
    evidence: Any = Evidence("run", None, manifest=manifest, training_log=lines)  # type: ignore[arg-type]
    figure = retention_curve(evidence)
    assert figure is not None
    assert len(figure.rows) == len(looks)
    assert figure.layout["shapes"][0]["y0"] == 1e-6
    assert figure.data[0]["y"] == [line["retention"]["kl"] for line in looks]
    sentence = monitor_sentence(evidence)
    assert "policy rollback" in sentence
    assert "went back to step 0" in sentence


def test_pages_of_other_runs_say_nothing_of_a_monitor() -> None:
    evidence: Any = Evidence("run", None, training_log=[{"step": 1, "loss": 2.0}])  # type: ignore[arg-type]
    assert retention_curve(evidence) is None
    assert monitor_sentence(evidence) == ""
    odd = {"step": 2, "retention": {"rise": 0.1, "low": None, "measure": "cross_entropy"}}
    manifest = {"stages": {"train": {"monitor": {"num_looks": 1, "policy": "warn", "actions": None}}}}
    evidence = Evidence("run", None, manifest=manifest, training_log=[odd])  # type: ignore[arg-type]
    figure = retention_curve(evidence)
    assert figure is not None
    assert figure.layout["shapes"] == []
    assert "It had nothing to do." in monitor_sentence(evidence)

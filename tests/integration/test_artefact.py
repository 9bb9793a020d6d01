"""What a run saves, merged or not, and the quantised copies that it judges beside it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless import run
from forgetless.errors import ConfigError
from forgetless.pipeline import RunResult
from forgetless.records import Verdict, read_scores
from forgetless.stages.copies import round_to_int8


@pytest.fixture
def config(tiny_directory: Path, questions: Path, tasks_directory: Path, cache: Path) -> dict[str, Any]:
    assert cache
    return {
        "model": str(tiny_directory),
        "data": {"train": str(questions)},
        "methods": [{"lora": {"rank": 2}}],
        "training": {"epochs": 1, "max_tokens": 64},
        "evaluation": {"tasks_dir": str(tasks_directory), "suite": "letters,picks,prose"},
    }


def test_a_merged_adapter_stands_alone_and_answers_alike(config: dict[str, Any], tmp_path: Path) -> None:
    answers = []
    changes: list[dict[str, Any]] = [{}, {"merge": True}, {"merge": True, "budget": 0.3}]
    for number, change in enumerate(changes):
        result = run(config | change, out=tmp_path / str(number))
        answers.append({s.sample_id: s.answer for s in read_scores(result.directory / "tuned.scores.jsonl")})
        assert (result.directory / "model/model.safetensors").is_file() == bool(number)
        assert (result.directory / "model/adapter_config.json").is_file() != bool(number)
    assert answers[0] == answers[1]
    assert answers[2].items() <= answers[0].items()  # the confirmation half


def test_a_quantised_copy_is_asked_and_judged_once(config: dict[str, Any], tmp_path: Path) -> None:
    wanted = config | {"evaluation": config["evaluation"] | {"quantised": ["int8"]}}
    result = run(wanted, out=tmp_path / "out")
    assert isinstance(result, RunResult)
    tuned, copy = (read_scores(result.directory / name) for name in ("tuned.scores.jsonl", "copies/int8.scores.jsonl"))
    assert [(s.task, s.sample_id) for s in tuned] == [(s.task, s.sample_id) for s in copy]
    assert [s.score for s in tuned] != [s.score for s in copy]  # a little else
    assert "Quantised copies" in (result.directory / "report.html").read_text()
    assert "Quantised copy int8" in (result.directory / "report.md").read_text()
    before = (result.directory / "copies/int8.scores.jsonl").stat().st_mtime_ns
    run(wanted, out=tmp_path / "out")
    assert (result.directory / "copies/int8.scores.jsonl").stat().st_mtime_ns == before


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra qlora (bitsandbytes)")
@pytest.mark.parametrize("merge", [False, True])
def test_a_copy_in_four_bits_is_asked_and_judged(
    config: dict[str, Any], wide_directory: Path, tmp_path: Path, merge: bool
) -> None:
    wanted = config | {"model": str(wide_directory), "device": "cpu", "merge": merge}
    result = run(wanted | {"evaluation": config["evaluation"] | {"quantised": ["nf4"]}}, out=tmp_path / "out")
    assert isinstance(result, RunResult)
    assert set(result.copies) == {"nf4"}
    tuned, copy = (read_scores(result.directory / name) for name in ("tuned.scores.jsonl", "copies/nf4.scores.jsonl"))
    pairs = [(a.score, b.score) for a, b in zip(tuned, copy, strict=True) if a.task == "prose"]
    assert pairs
    assert all(a != b and abs(a - b) < 0.1 for a, b in pairs)  # nats per token: other weights, not another model


def test_weights_are_rounded_to_255_steps_of_each_channel() -> None:
    model: Any = build_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    round_to_int8(model)
    assert torch.equal(model.model.embed_tokens.weight, before["model.embed_tokens.weight"])
    name = "model.layers.0.mlp.up_proj.weight"
    scale = before[name].abs().amax(1, keepdim=True) / 127
    after = dict(model.named_parameters())[name].detach()
    steps = after / scale
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert float((after - before[name]).abs().max()) <= float(scale.max()) / 2 + 1e-7
    assert float(steps.abs().max()) == pytest.approx(127)


@pytest.mark.parametrize(
    ("own", "copy", "code"),
    [("PASS", "PASS", 0), ("PASS", "FAIL", 1), ("INCONCLUSIVE", "PASS", 3), ("FAIL", "INCONCLUSIVE", 1)],
)
def test_the_worst_verdict_is_the_runs(own: str, copy: str, code: int) -> None:
    both: list[Any] = [SimpleNamespace(verdict=Verdict(name)) for name in (own, copy)]
    assert RunResult(Path(), both[0], [], copies={"int8": both[1]}).exit_code == code


def test_what_cannot_be_made_is_refused_before_a_model_loads(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config["evaluation"]
    with pytest.raises(ConfigError, match="there is no kind 'int2'"):
        run(config | {"evaluation": settings | {"quantised": ["int2"]}}, out=tmp_path / "out")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises((ConfigError, ValueError), match="bitsandbytes"):
        run(config | {"evaluation": settings | {"quantised": ["nf4"]}}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()

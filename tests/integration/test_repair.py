"""`repair` on tiny models: what is saved is the chosen point, and the half that nobody looked at judges it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import forgetless
from conftest import build_model, build_tokenizer
from forgetless import walking
from forgetless.cli import app
from forgetless.curve import CurvePoint, Point, read_curve
from forgetless.models import load_model
from forgetless.quiet import quiet_transformers
from forgetless.records import read_comparison, read_scores
from writers import stub_writer

SPIKED = "model.layers.1.mlp.up_proj.weight"


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["repair", *map(str, arguments)])


def disturb(model: Any, *, spike: float = 0.0) -> Any:
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        parameter.data += 0.002 * torch.randn(parameter.shape, generator=generator)
        if name == SPIKED and spike:
            left = torch.linalg.svd(parameter.data, full_matrices=True).U[:, -1]
            parameter.data += spike * torch.outer(left, torch.ones(parameter.shape[1]))
    return model


def save(model: Any, directory: Path, **options: Any) -> Path:
    with quiet_transformers():
        model.save_pretrained(directory, **options)
    tokenizer: Any = build_tokenizer()
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Whole weights in several shards, disturbed."""
    return save(disturb(build_model()), tmp_path / "whole", max_shard_size="40KB")


@pytest.fixture
def adapter(tmp_path: Path, tiny_directory: Path) -> Path:
    """An adapter with a change of its own on the tiny model."""
    from peft import LoraConfig, get_peft_model

    with quiet_transformers():
        model: Any = get_peft_model(load_model(str(tiny_directory)).model, LoraConfig(r=4, target_modules="all-linear"))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.005 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def flags(tasks_directory: Path, cache: Path, tmp_path: Path) -> list[str]:
    assert cache.parent == tmp_path
    suite = ("--suite", "letters,picks,prose")
    return ["--tasks-dir", str(tasks_directory), *suite, "--margin", "0.2", "--out", str(tmp_path / "out")]


def learned_by_share(point: Point) -> float:
    """Stands for what a point has learned; a treated change has learned a little less."""
    if point.kind.startswith("intruders"):
        return point.high - 0.1 * (1 - float(point.kind.split()[-1]))
    return point.high - (0.01 if point.kind == "healed" else 0.0)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """Replaces the judgement of points: within up to half of the change; a model of random weights has no skill."""
    seen: list[Point] = []
    judge_point = walking.judge_point

    def judge(point: Point, *scores: Any, **limits: Any) -> CurvePoint:
        seen.append(point)
        entry = judge_point(point, *scores, **limits)
        is_within = point.high <= 0.5 or point.kind == "intruders x 0"
        return replace(entry, is_within=is_within, learning=learned_by_share(point))

    monkeypatch.setattr(walking, "judge_point", judge)
    monkeypatch.setattr(walking.Walker, "learned", lambda self, point: learned_by_share(point))
    return seen


@pytest.mark.usefixtures("judged")
def test_whole_weights_in_shards_are_walked_back(
    flags: list[str], tiny_directory: Path, whole: Path, questions: Path, tmp_path: Path
) -> None:
    result = invoke(tiny_directory, whole, *flags, "--data", questions)
    out = tmp_path / "out"
    comparison, curve = read_comparison(out / "comparison.json"), read_curve(out / "curve.json")
    assert result.exit_code == comparison.verdict.exit_code, result.output
    assert curve.chosen == Point.scale(0.5)
    assert curve.verdict == comparison.verdict.value
    shards = sorted(path.name for path in whole.glob("*.safetensors"))
    assert sorted(path.name for path in (out / "model").glob("*.safetensors")) == shards
    assert len(shards) > 1
    models = [dict(load_model(str(place)).model.named_parameters()) for place in (tiny_directory, whole, out)]
    for name, saved in models[2].items():
        torch.testing.assert_close(saved, (models[0][name] + models[1][name]) / 2)
    said = " ".join(result.output.split())
    assert curve.sentence in said
    assert "learning = fall of the loss on 12 held-out examples" in said
    assert "scale 0.5 *" in said
    selection, confirmation = (
        {(score.task, score.sample_id) for score in read_scores(path)}
        for path in (out / "selection/base.scores.jsonl", out / "tuned.scores.jsonl")
    )
    assert not selection & confirmation
    assert (out / "report.html").is_file()
    assert CliRunner().invoke(app, ["report", str(out)]).exit_code == 0
    again = CliRunner().invoke(app, ["compare", str(out), str(out), "--margin", "0.2"])
    assert again.exit_code == comparison.verdict.exit_code


@pytest.mark.usefixtures("judged")
def test_an_adapter_stays_one(flags: list[str], tiny_directory: Path, adapter: Path, tmp_path: Path) -> None:
    result = invoke(tiny_directory, adapter, *flags, "--json")
    record = json.loads(result.stdout)
    assert record["curve"]["chosen"] == {"low": 0.5, "high": 0.5, "kind": "line"}
    assert record["model"] == str(tmp_path / "out/model")
    assert "nearer to the tuned weights" in record["learning"]
    assert (tmp_path / "out/model/adapter_model.safetensors").is_file()
    assert load_model(str(tmp_path / "out")).tokenizer is not None


@pytest.mark.usefixtures("judged")
def test_an_adapter_whose_base_has_moved_is_given_its_new_place(
    flags: list[str], tiny_directory: Path, adapter: Path, tmp_path: Path
) -> None:
    config = adapter / "adapter_config.json"
    named = json.loads(config.read_text()) | {"base_model_name_or_path": "/no/such/base"}
    config.write_text(json.dumps(named))
    result = invoke(tiny_directory, adapter, *flags)
    assert result.exit_code in {0, 1, 3}, result.output
    assert "can't be checked here" in " ".join(result.output.split())
    saved = json.loads((tmp_path / "out/model/adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == str(tiny_directory)


@pytest.mark.usefixtures("judged")
def test_an_adapter_that_is_not_linear_in_b_becomes_whole_weights(
    flags: list[str], tiny_directory: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    with quiet_transformers():
        base = load_model(str(tiny_directory)).model
        model: Any = get_peft_model(base, LoraConfig(r=2, target_modules=["up_proj"], use_dora=True))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.3
    model.save_pretrained(tmp_path / "dora")
    result = invoke(tiny_directory, tmp_path / "dora", *flags)
    assert result.exit_code in {0, 1, 3}, result.output
    assert (tmp_path / "out/model/model.safetensors").is_file()


def test_an_intruder_is_scaled_down(
    flags: list[str], tiny_directory: Path, questions: Path, tmp_path: Path, judged: list[Point]
) -> None:
    tuned = save(disturb(build_model(), spike=4.0), tmp_path / "spiked")
    result = invoke(tiny_directory, tuned, *flags, "--data", questions)
    assert "intruder dimensions: 1 in 1 matrices" in " ".join(result.output.split())
    curve = read_curve(tmp_path / "out/curve.json")
    assert curve.chosen.kind == "intruders x 0"
    assert [point.kind for point in judged if "intruders" in point.kind][-2:] == ["intruders x 0.5", "intruders x 0.25"]
    models = [dict(load_model(str(p)).model.named_parameters()) for p in (tiny_directory, tuned, tmp_path / "out")]
    change = [float((model[SPIKED] - models[0][SPIKED]).norm().detach()) for model in models[1:]]
    assert change[1] < 0.5 * change[0]
    other = SPIKED.replace("layers.1", "layers.0")
    torch.testing.assert_close(models[2][other], models[1][other])


@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_healing_trains_on_what_the_base_writes(
    kind: str,
    flags: list[str],
    tiny_directory: Path,
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    from forgetless import healing

    tuned: Path = request.getfixturevalue(kind)
    judge_point = walking.judge_point
    writers = []

    def judge(point: Point, *scores: Any, **limits: Any) -> CurvePoint:
        entry = judge_point(point, *scores, **limits)
        is_within = point.kind == "healed" and point.high <= 0.5
        return replace(entry, is_within=is_within, learning=learned_by_share(point))

    def open_writer(loaded: Any, **_: Any) -> Any:
        inputs = torch.arange(9)[None]
        base: Any = load_model(str(tiny_directory)).model
        with torch.no_grad():
            logits = [model(input_ids=inputs).logits for model in (base, loaded.model)]
        assert torch.equal(*logits)  # it is the base that writes
        writers.append(stub_writer())
        return writers[-1]

    monkeypatch.setattr(walking, "judge_point", judge)
    monkeypatch.setattr(walking.Walker, "learned", lambda self, point: learned_by_share(point))
    monkeypatch.setattr(healing, "open_writer", open_writer)
    result = invoke(tiny_directory, tuned, *flags, "--data", questions, "--heal")
    assert result.exit_code in {0, 1, 3}, result.output
    curve = read_curve(tmp_path / "out/curve.json")
    assert curve.chosen == Point(0.5, 0.5, "healed")
    assert len(writers) == 1
    # Stopped after healing, it is not done again.
    (tmp_path / "out/curve.json").unlink()
    shutil.rmtree(tmp_path / "out/model")
    assert invoke(tiny_directory, tuned, *flags, "--data", questions, "--heal").exit_code == result.exit_code
    assert len(writers) == 1
    assert read_curve(tmp_path / "out/curve.json").chosen == curve.chosen


def test_where_nothing_is_within_healing_is_named(
    flags: list[str], tiny_directory: Path, whole: Path, tmp_path: Path
) -> None:
    result = invoke(tiny_directory, whole, *flags, "--margin", "0.001")  # ten samples can't show so little
    assert read_curve(tmp_path / "out/curve.json").chosen.is_base
    assert "--heal" in result.output
    base, saved = (dict(load_model(str(p)).model.named_parameters()) for p in (tiny_directory, tmp_path / "out"))
    assert all(torch.equal(weight, saved[name]) for name, weight in base.items())


def test_a_model_within_the_margin_is_left_as_it_is(
    flags: list[str], tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = save(build_model(), tmp_path / "same")  # the same weights elsewhere: nothing was lost
    judge_point = walking.judge_point
    monkeypatch.setattr(
        walking, "judge_point", lambda *scores, **limits: replace(judge_point(*scores, **limits), is_within=True)
    )
    invoke(tiny_directory, tuned, *flags)
    curve = read_curve(tmp_path / "out/curve.json")
    assert [entry.point for entry in curve.points] == [Point.scale(1.0)]


def test_a_repair_that_was_stopped_goes_on(
    flags: list[str], tiny_directory: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forgetless import repairing
    from forgetless.evaluate.local import LocalModel

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def ask_nothing(_: LocalModel, requests: Any) -> Any:
        assert not list(requests)
        return iter(())

    with monkeypatch.context() as patch:
        patch.setattr(repairing, "write_curve", stop)
        assert invoke(tiny_directory, whole, *flags).exit_code == 130
    with monkeypatch.context() as patch:
        patch.setattr(LocalModel, "generate", ask_nothing)  # everything is known by its content
        patch.setattr(LocalModel, "score", ask_nothing)
        patch.setattr(repairing, "_judge_stage", lambda *_: stop())
        assert invoke(tiny_directory, whole, *flags).exit_code == 130
        stages = json.loads((tmp_path / "out/manifest.json").read_text())["stages"]
        assert stages["walk"]["state"] == "done", stages
    monkeypatch.setattr(repairing, "walk", stop)
    assert invoke(tiny_directory, whole, *flags).exit_code in {0, 1, 3}
    assert read_curve(tmp_path / "out/curve.json").verdict


def test_python_has_the_same_call(
    tiny_directory: Path, whole: Path, tasks_directory: Path, tmp_path: Path, cache: Path
) -> None:
    result = forgetless.repair(
        tiny_directory,
        whole,
        suite="letters",
        tasks_directories=[tasks_directory],
        out=tmp_path / "out",
        use_cache=False,
    )
    assert isinstance(result, forgetless.RepairResult)
    assert result.exit_code == result.comparison.verdict.exit_code
    assert not (cache / "scores").exists()


def test_a_model_in_memory_is_to_be_saved_first(tiny_directory: Path) -> None:
    model: Any = build_model()
    with pytest.raises(forgetless.ConfigError, match="LlamaForCausalLM is in memory: save it"):
        forgetless.repair(tiny_directory, model)


def test_quantised_weights_are_refused(
    flags: list[str], tiny_directory: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "hf_quantizer", object(), raising=False)
    result = invoke(tiny_directory, whole, *flags)
    assert result.exit_code == 2
    assert "are quantised" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--margin", "1.5"], "margin 1.5 is not in (0, 1)"),
        (["--alpha", "0.7"], "alpha 0.7 is not in (0, 0.5)"),
        (["--suite", "prose"], "has no retention tasks in grades"),
        (["--suite", "letters,lm_eval:arc_easy"], "lm-evaluation-harness"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    flags: list[str], tiny_directory: Path, whole: Path, change: list[str], words: str
) -> None:
    result = invoke(tiny_directory, whole, *flags, *change)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_directory_with_something_else_is_left_alone(
    flags: list[str], tiny_directory: Path, whole: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("mine")
    result = invoke(tiny_directory, whole, *flags)
    assert result.exit_code == 2
    assert "not empty and not a run" in " ".join(result.output.split())
    assert (tmp_path / "out/thesis.tex").read_text() == "mine"


def test_weights_of_another_shape_are_refused_before_the_tuned_model_is_asked(
    flags: list[str], tiny_directory: Path, whole: Path
) -> None:
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    result = invoke(tiny_directory, whole, *flags)
    assert result.exit_code == 2
    assert "vocab_size is 258 in the base and 300 in the tuned model" in " ".join(result.output.split())

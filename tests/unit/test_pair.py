"""A base and an adapter on it, scored with one load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from forgetless import models, rundir
from forgetless.cli import app
from forgetless.errors import ConfigError, ForgetlessError, ModelError, RunError
from forgetless.evaluate import local
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA
from forgetless.models import load_model, save_model
from forgetless.pair import evaluate_pair
from forgetless.quiet import quiet_transformers
from forgetless.records import read_scores
from forgetless.scoring import evaluate_model

SUITE = "letters,picks,prose"


def save_adapter(base: Path, directory: Path, **options: Any) -> Path:
    """Saves an adapter that changes what the model says."""
    from peft import LoraConfig, get_peft_model

    loaded = load_model(str(base), device="cpu")
    if options:
        with quiet_transformers():
            model: Any = get_peft_model(loaded.model, LoraConfig(r=2, task_type="CAUSAL_LM", **options))
    else:
        model = LoRA(rank=2).prepare_model(loaded.model, Context())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1
    save_model(model, loaded.tokenizer, directory)
    return directory


@pytest.fixture
def adapter(tiny_directory: Path, tmp_path: Path) -> Path:
    return save_adapter(tiny_directory, tmp_path / "adapter")


def test_both_sides_are_those_that_are_scored_alone(
    adapter: Path, tiny_directory: Path, tasks_directory: Path, tmp_path: Path
) -> None:
    sides = evaluate_pair(str(adapter), suite=SUITE, tasks_directories=[tasks_directory], out=tmp_path / "pair",
                          device="cpu", use_cache=False)  # fmt: skip
    alone = {
        side: evaluate_model(str(name), suite=SUITE, tasks_directories=[tasks_directory], device="cpu", use_cache=False)
        for side, name in (("base", tiny_directory), ("tuned", adapter))
    }
    assert sides == alone
    assert sides["base"] != sides["tuned"]
    assert read_scores(tmp_path / "pair" / "base.scores.jsonl") == sides["base"]
    assert read_scores(tmp_path / "pair" / "tuned.scores.jsonl") == sides["tuned"]


def test_a_base_that_was_scored_alone_is_not_asked_again(
    adapter: Path, tiny_directory: Path, tasks_directory: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(name: Path) -> Any:
        return evaluate_model(str(name), suite=SUITE, tasks_directories=[tasks_directory], device="cpu")

    alone = {"base": ask(tiny_directory), "tuned": ask(adapter)}
    loads = []
    load = models.load_model

    def watched(name: str, **options: Any) -> Any:
        loads.append(name)
        return load(name, **options)

    monkeypatch.setattr(models, "load_model", watched)
    monkeypatch.setattr(local.LocalModel, "score", lambda *_: pytest.fail("asked") if _[1] else iter(()))
    monkeypatch.setattr(local.LocalModel, "generate", lambda *_: pytest.fail("asked") if _[1] else iter(()))
    sides = evaluate_pair(str(adapter), suite=SUITE, tasks_directories=[tasks_directory], device="cpu")
    assert sides == alone
    assert loads == [str(tiny_directory)]
    # The adapter switched off in memory is the base, and found in the cache as such.
    from forgetless.evaluate.runner import EvaluationOptions, evaluate
    from forgetless.tasks.base import load_suite

    tuned = load(str(adapter), device="cpu")
    options = EvaluationOptions(cache=cache / "scores")
    model: Any = tuned.model
    with model.disable_adapter():
        assert evaluate(tuned, load_suite(SUITE, [tasks_directory]), options=options) == alone["base"]


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_the_base_is_the_base_whatever_the_adapter_starts_with(
    tiny_directory: Path, tasks_directory: Path, tmp_path: Path, start: str
) -> None:
    adapter = save_adapter(tiny_directory, tmp_path / "adapter", init_lora_weights=start, target_modules=["q_proj"])
    sides = evaluate_pair(str(adapter), suite="prose", tasks_directories=[tasks_directory], device="cpu",
                          use_cache=False)  # fmt: skip
    alone = evaluate_model(str(tiny_directory), suite="prose", tasks_directories=[tasks_directory], device="cpu",
                           use_cache=False)  # fmt: skip
    assert sides["base"] == alone


def test_what_is_no_adapter_is_refused(tiny_directory: Path, tasks_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no adapter"):
        evaluate_pair(str(tiny_directory), suite="prose", tasks_directories=[tasks_directory])
    nested = tmp_path / "nested"
    nested.mkdir()
    (nested / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(nested)}))
    with pytest.raises(ModelError, match="an adapter itself: merge that"):
        evaluate_pair(str(nested), suite="prose", tasks_directories=[tasks_directory])
    (nested / "adapter_config.json").write_text("[]")
    with pytest.raises(ModelError, match="is no JSON object"):
        load_model(str(nested))


def test_files_of_the_user_are_left_alone(adapter: Path, tasks_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "base.scores.jsonl").write_text("mine\n")
    with pytest.raises(ForgetlessError):
        evaluate_pair(str(adapter), suite="prose", tasks_directories=[tasks_directory], out=tmp_path)
    assert (tmp_path / "base.scores.jsonl").read_text() == "mine\n"


def test_scores_that_cannot_be_written(
    adapter: Path, tasks_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    options: dict[str, Any] = {"tasks_directories": [tasks_directory], "device": "cpu", "use_cache": False, "limit": 1}
    with pytest.raises(ConfigError, match="cannot be written"):
        evaluate_pair(str(adapter), suite="prose", out=tmp_path / "file" / "deep", **options)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rundir, "write_scores", full)
    with pytest.raises(RunError, match=r"cannot be written .No space left on device"):
        evaluate_pair(str(adapter), suite="prose", out=tmp_path / "out", **options)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("flags", [[], ["--json"]], ids=str)
def test_on_the_command_line(adapter: Path, tasks_directory: Path, tmp_path: Path, flags: list[str]) -> None:
    out = tmp_path / "pair"
    arguments = ["evaluate", str(adapter), "--with-base", "--suite", SUITE, "--tasks-dir", str(tasks_directory)]
    shown = CliRunner().invoke(app, [*arguments, "--out", str(out), "--limit", "4", "--device", "cpu", *flags])
    assert shown.exit_code == 0, shown.output
    assert len(read_scores(out / "tuned.scores.jsonl")) == 12
    if flags:
        found = json.loads(shown.stdout)
        assert [row["num_samples"] for row in found["base"]] == [4, 4, 4]
        assert {row["task"] for row in found["tuned"]} == {"letters", "picks", "prose"}
    else:
        assert "base" in shown.stdout
        assert f"forgetless compare {out} {out}" in shown.stdout
    judged = CliRunner().invoke(app, ["compare", str(out), str(out), "--json"])
    assert judged.exit_code in {0, 1, 3}


@pytest.mark.usefixtures("cache")
def test_a_part_uses_what_the_whole_knows(
    tiny_directory: Path, tasks_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(limit: int | None) -> Any:
        return evaluate_model(str(tiny_directory), suite=SUITE, tasks_directories=[tasks_directory], device="cpu",
                              limit=limit)  # fmt: skip

    part = ask(3)
    whole = ask(None)
    assert [score for score in whole if score in part] == part
    assert len(part) == 9
    monkeypatch.setattr(local.LocalModel, "score", lambda *_: pytest.fail("asked") if _[1] else iter(()))
    monkeypatch.setattr(local.LocalModel, "generate", lambda *_: pytest.fail("asked") if _[1] else iter(()))
    assert ask(3) == part
    assert len(ask(5)) == 15

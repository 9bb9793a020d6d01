"""What is trained in place is trained in float32, and saved as it was loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import forgetless
import forgetless.stages.scores as scores
import forgetless.stages.training as stage
from conftest import build_model
from forgetless.methods.half import Half
from forgetless.methods.lora import LoRA
from forgetless.train import trainer
from forgetless.train.precision import lower_precision, raise_precision
from forgetless.train.trainer import train_model


def types(model: Any) -> set[torch.dtype]:
    return {parameter.dtype for parameter in model.parameters()}


@pytest.mark.parametrize("kept", [torch.bfloat16, torch.float16])
def test_weights_are_raised_and_lowered_again(kept: torch.dtype) -> None:
    model: Any = build_model()
    model.to(kept)
    own: Any = model.model.norm.weight  # as models keep a few of their parts in float32
    own.data = own.data.float() + 1e-4
    model.register_buffer("bias", torch.full((2,), 1.0001))
    before = own.clone()
    found = raise_precision(model, [Half()], dtype="auto")
    assert types(model) == {torch.float32}
    assert "model.norm.weight" not in found
    lower_precision(model, found)
    assert torch.equal(own, before)
    assert model.bias.dtype == torch.float32
    own.data = own.data.to(kept)
    assert types(model) == {kept}


@pytest.mark.parametrize(("methods", "dtype"), [([LoRA(rank=2)], "auto"), ([], "bfloat16")])
def test_adapters_and_what_was_asked_for_stay(methods: list[Any], dtype: str) -> None:
    model: Any = build_model()
    assert raise_precision(model, methods, dtype=dtype) == {}  # float32 already
    model.to(torch.bfloat16)
    assert raise_precision(model, methods, dtype=dtype) == {}
    lower_precision(model, {})
    assert types(model) == {torch.bfloat16}


@pytest.mark.usefixtures("cache")
def test_a_run_raises_them_for_the_training_alone(
    tiny_directory: Path, questions: Path, tasks_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an accelerator loads them; on the CPU `auto` loads float32."""
    load, trained = scores.load, []

    def load_short(*args: Any, **options: Any) -> Any:
        loaded = load(*args, **options)
        loaded.model.to(torch.bfloat16)
        return loaded

    def watched(model: Any, *args: Any, **options: Any) -> Any:
        trained.append(types(model))
        return train_model(model, *args, **options)

    monkeypatch.setattr(stage, "load", load_short)
    monkeypatch.setattr(scores, "load", load_short)
    monkeypatch.setattr(trainer, "train_model", watched)
    config = {
        "model": str(tiny_directory),
        "data": {"train": str(questions)},
        "methods": ["half"],
        "training": {"max_steps": 2, "batch_size": 4, "max_tokens": 64},
        "evaluation": {"suite": "letters,picks,prose", "tasks_dir": str(tasks_directory)},
        "device": "cpu",
    }
    result = forgetless.run(config, out=tmp_path / "run")
    assert result.comparison.tasks
    assert trained == [{torch.float32}]
    saved = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.bfloat16}

"""Every adapter through training, saving and loading: what lies on disk computes what was trained."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import build_tokenizer
from forgetless.config import TrainingConfig
from forgetless.methods import METHODS
from forgetless.methods.base import build_method
from forgetless.models import load_model, save_model
from forgetless.train.trainer import train_model
from training import context, mixture

IDS = torch.arange(20)[None]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["corda", "lora", "null_space", "osf"])
def test_what_is_loaded_computes_what_was_trained(name: str, dtype: str, tiny_directory: Path, tmp_path: Path) -> None:
    method = build_method(METHODS.load, name if name == "osf" else {name: {"rank": 4}})
    loaded = load_model(str(tiny_directory), device="cpu", dtype=dtype)
    trained: Any
    trained, _ = train_model(
        method.prepare_model(loaded.model, context()),
        build_tokenizer(),
        mixture([]),
        methods=[method],
        config=TrainingConfig(batch_size=4, max_steps=4),
        learning_rate=5e-3,
        seed=0,
        directory=tmp_path,
    )
    save_model(trained, build_tokenizer(), tmp_path / "model")
    again: Any = load_model(str(tmp_path / "model"), device="cpu", dtype=dtype).model
    base: Any = load_model(str(tiny_directory), device="cpu", dtype=dtype).model
    with torch.no_grad():
        wanted = trained(input_ids=IDS).logits
        assert torch.equal(again(input_ids=IDS).logits, wanted)
        assert (base(input_ids=IDS).logits - wanted).abs().max() > 0.02


@pytest.mark.usefixtures("cache")
@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra qlora (bitsandbytes)")
def test_qlora_trains_on_four_bits_and_is_judged_on_them(
    wide_directory: Path, questions: Path, tasks_directory: Path, tmp_path: Path
) -> None:
    import forgetless

    config = {
        "model": str(wide_directory),
        "data": {"train": str(questions)},
        "methods": [{"qlora": {"rank": 4}}, {"l2_sp": {"strength": 0.01}}, {"wise_ft": {"share": 0.9}}],
        "training": {"max_steps": 2, "batch_size": 2, "max_tokens": 64},
        "evaluation": {"suite": "letters,picks,prose", "tasks_dir": str(tasks_directory)},
        "device": "cpu",
    }
    result = forgetless.run(config, out=tmp_path / "run")
    assert result.comparison.tasks
    learned = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    assert any((value != value.to(torch.bfloat16)).any() for value in learned.values())  # not rounded meanwhile
    four: Any = load_model(str(tmp_path / "run"), device="cpu", in_four_bits=True)
    full: Any = load_model(str(tmp_path / "run"), device="cpu")
    assert any("4 bits" in note for note in four.notes)
    with torch.no_grad():
        change = four.model(input_ids=IDS).logits - full.model(input_ids=IDS).logits
    assert 0.01 < change.abs().max() < 1

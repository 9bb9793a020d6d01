"""Averages over time, in numbers: after three phases the third of what the third one changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from conftest import build_model
from forgetless.mechanisms.adapters import lora_layers
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA
from forgetless.phases.carry import TimeAverage
from training import context


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_full_weights_keep_a_third_of_what_was_learned(tmp_path: Path) -> None:
    start: Any = build_model()
    start.save_pretrained(tmp_path / "start")
    before, trained = state(start), build_model(seed=5)
    after = state(trained)
    method: Any = TimeAverage(number=3, start=tmp_path / "start")
    method.prepare_model(trained, Context())
    assert method.finish(trained) is trained
    for name, tensor in state(trained).items():
        torch.testing.assert_close(tensor, before[name] + (after[name] - before[name]) / 3)


def test_a_fresh_adapter_keeps_a_third_of_its_product(tmp_path: Path) -> None:
    adapted: Any = LoRA(rank=2).prepare_model(build_model(), context())  # type: ignore[arg-type]
    layers = lora_layers(adapted)
    for layer in layers.values():
        torch.nn.init.ones_(layer.lora_B["default"].weight)
    products = {name: layer.get_delta_weight("default").clone() for name, layer in layers.items()}
    method = TimeAverage(number=3, start=tmp_path)
    method.finish(method.prepare_model(adapted, Context()))
    for name, layer in layers.items():
        torch.testing.assert_close(layer.get_delta_weight("default"), products[name] / 3)


def test_an_adapter_that_went_on_keeps_a_third_of_both_factors(tmp_path: Path) -> None:
    adapted: Any = LoRA(rank=2).prepare_model(build_model(), context())  # type: ignore[arg-type]
    before = state(adapted)
    method = TimeAverage(number=3, start=tmp_path, is_continued=True)
    method.prepare_model(adapted, Context())
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3)
    method.finish(adapted)
    for name, tensor in state(adapted).items():
        torch.testing.assert_close(tensor, before[name] + (0.1 if ".lora_" in name else 0.0))

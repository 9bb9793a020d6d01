"""L2-SP: to the start, not to zero, and on the product of an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless.methods.l2_sp import L2SP
from forgetless.methods.lora import LoRA
from training import context, fit


def test_a_strong_pull_keeps_the_start_where_weight_decay_would_not(tmp_path: Path) -> None:
    start: dict[str, torch.Tensor] = build_model().state_dict()  # type: ignore[attr-defined]
    moved = [
        float(torch.stack([(weights[n] - start[n]).square().sum() for n in start]).sum())
        for weights in (
            fit([L2SP(strength=strength)], tmp_path / str(strength), max_steps=8) for strength in (0.0, 10.0)
        )
    ]
    assert moved[1] < 0.8 * moved[0]


def test_its_value_is_half_the_squared_distance() -> None:
    model: Any = build_model()
    method = L2SP(strength=3.0)
    method.prepare_model(model, context())
    for parameter in model.parameters():
        parameter.data += 0.1
        parameter.grad = torch.zeros_like(parameter)
    num = sum(p.numel() for p in model.parameters())
    assert float(method.adjust_gradients(model)) == pytest.approx(3 / 2 * 0.01 * num, rel=1e-4)  # type: ignore[arg-type]
    assert all(torch.allclose(p.grad, torch.full_like(p, 0.3), rtol=1e-3) for p in model.parameters())


def test_for_lora_the_distance_is_that_of_the_product() -> None:
    adapted: Any = LoRA(rank=4, alpha=4).prepare_model(build_model(), context())  # type: ignore[arg-type]
    method = L2SP(strength=1.0)
    method.prepare_model(adapted, context())
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        parameter.grad = torch.zeros_like(parameter)
    assert float(method.adjust_gradients(adapted)) == 0  # type: ignore[arg-type]
    assert not any(p.grad.any() for p in trained.values())  # A is not pulled to zero, nor to its start

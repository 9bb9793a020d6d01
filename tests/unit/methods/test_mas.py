"""MAS: importances without labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.mechanisms.fisher import load_fisher
from forgetless.methods.base import Context
from forgetless.methods.mas import MAS
from training import context


def test_the_penalty_weighs_by_the_sensitivity(tmp_path: Path) -> None:
    model: Any = build_model()
    method = MAS(strength=2.0, num_sequences=3)
    method.prepare_model(model, replace(context(), directory=tmp_path))
    importance = load_fisher(tmp_path / "mas.safetensors")
    assert importance.kind == "mas"
    assert importance.num_sequences == 3
    for parameter in model.parameters():
        parameter.data += 0.1
        parameter.grad = torch.zeros_like(parameter)
    expected = sum(float(value.sum()) for value in importance.values()) * 0.01
    assert float(method.adjust_gradients(model)) == pytest.approx(expected, rel=1e-4)  # type: ignore[arg-type]
    weight = model.lm_head.weight
    assert torch.allclose(weight.grad, 0.2 * importance["lm_head.weight"], rtol=1e-3, atol=1e-7)


def test_it_needs_data_to_keep() -> None:
    with pytest.raises(ConfigError, match="method 'mas' needs data"):
        MAS().check(Context())
    MAS(strength=0).check(Context())

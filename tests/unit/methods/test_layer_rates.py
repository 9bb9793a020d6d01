"""Layer-wise rates: each layer's rate, its decay, and what the trainer logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless.methods.base import Context
from forgetless.methods.layer_rates import LayerRates
from forgetless.methods.lora import LoRA
from training import fit


def rates(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_each_layer_has_its_rate_and_keeps_its_decay() -> None:
    model: Any = build_model()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0, "initial_lr": 1.0}], lr=1.0
    )
    LayerRates(gamma=0.5).prepare_optimizer(optimizer, model)
    found = rates(model, optimizer)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert found["model.embed_tokens.weight"] == (0.25, 0.1)
    assert found["model.layers.0.mlp.up_proj.weight"] == (0.5, 0.1)
    assert found["model.layers.0.input_layernorm.weight"] == (0.5, 0.0)
    assert found["model.layers.1.mlp.up_proj.weight"] == (1.0, 0.1)
    assert found["model.norm.weight"] == (1.0, 0.0)
    assert found["lm_head.weight"] == (1.0, 0.1)
    assert all(group.get("initial_lr", group["lr"]) == group["lr"] for group in optimizer.param_groups)


def test_gamma_1_leaves_the_groups_alone() -> None:
    model: Any = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    LayerRates(gamma=1.0).prepare_optimizer(optimizer, model)
    assert len(optimizer.param_groups) == 1


def test_the_top_of_an_adapter_has_the_full_rate() -> None:
    base: Any = build_model()
    model = LoRA(rank=2).prepare_model(base, Context())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1.0)
    LayerRates(gamma=0.5).prepare_optimizer(optimizer, model)
    found = rates(model, optimizer)
    assert {name.partition(".layers.")[2][0]: rate for name, (rate, _) in found.items()} == {"0": 0.5, "1": 1.0}


def test_the_first_step_of_adam_moves_each_layer_by_its_rate(tmp_path: Path) -> None:
    base: Any = build_model()
    trained = fit([LayerRates(gamma=0.1)], tmp_path, max_steps=1, scheduler="constant", weight_decay=0.0)
    moved = {name: float((trained[name] - weights).abs().max()) for name, weights in base.state_dict().items()}
    assert moved["lm_head.weight"] == pytest.approx(1e-2, rel=0.01)
    assert moved["model.layers.0.mlp.up_proj.weight"] == pytest.approx(1e-3, rel=0.01)
    assert moved["model.embed_tokens.weight"] == pytest.approx(1e-4, rel=0.01)


def test_the_rate_that_is_logged_is_that_of_the_config(tmp_path: Path) -> None:
    fit([LayerRates(gamma=0.1)], tmp_path, scheduler="constant")
    records = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert {record["learning_rate"] for record in records} == {1e-2}

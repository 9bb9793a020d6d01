"""MoFO: exactly the entries with the largest momentum move, and those move as Adam would move them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.methods.lora import LoRA
from forgetless.methods.mofo import MoFO, select_largest
from training import fit


@pytest.mark.parametrize("num", [1, 2, 9, 1000, 40_000])
@pytest.mark.parametrize("fraction", [1e-6, 0.15, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_are_selected(num: int, fraction: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(num)
    momentum = (torch.randn(num, generator=generator) * torch.rand(num, generator=generator) ** 8).to(dtype)
    selected = select_largest(momentum, fraction)
    assert int(selected.sum()) == max(1, round(fraction * num))
    rest = momentum[~selected].abs()
    assert rest.numel() == 0 or rest.max() <= momentum[selected].abs().min()


@pytest.mark.parametrize("value", [0.0, 1.0, float("inf"), 1e-45])
def test_among_equals_as_many_are_selected_as_asked_for(value: float) -> None:
    assert int(select_largest(torch.full((4, 25), value), 0.15).sum()) == 15


def steps(method: MoFO | None, *, num: int = 3) -> tuple[list[torch.Tensor], torch.optim.Optimizer]:
    """Minimises a quadratic with AdamW and returns the weights after each step."""
    generator = torch.Generator().manual_seed(0)
    weights = nn.Parameter(torch.randn(10, 20, generator=generator))
    scale = torch.rand(10, 20, generator=generator)
    model = nn.Module()
    model.register_parameter("weights", weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    if method is not None:
        method.prepare_optimizer(optimizer, model)
    path = [weights.detach().clone()]
    for _ in range(num):
        optimizer.zero_grad()
        (scale * weights**2).sum().backward()
        if method is not None:
            method.adjust_gradients(model)
        optimizer.step()
        if method is not None:
            method.after_step(model)
        path.append(weights.detach().clone())
    return path, optimizer


def test_what_moves_moves_as_under_adam_with_its_decay_and_the_rest_stays() -> None:
    plain, _ = steps(None, num=1)
    filtered, optimizer = steps(MoFO(fraction=0.15), num=1)
    (state,) = optimizer.state.values()
    selected = select_largest(state["exp_avg"], 0.15)
    assert int(selected.sum()) == 30
    assert torch.equal(filtered[1][selected], plain[1][selected])
    assert torch.equal(filtered[1][~selected], filtered[0][~selected])


def test_each_step_moves_the_share_of_that_step() -> None:
    path, _ = steps(MoFO(fraction=0.1), num=5)
    assert [int((after != before).sum()) for before, after in pairwise(path)] == [20] * 5


def test_a_share_of_all_copies_nothing_and_is_adam() -> None:
    plain, _ = steps(None)
    method = MoFO(fraction=1.0)
    filtered, _ = steps(method)
    assert all(map(torch.equal, plain, filtered))


def test_in_training_norms_are_filtered_too(tmp_path: Path) -> None:
    base: Any = build_model()
    trained = fit([MoFO(fraction=0.1)], tmp_path, max_steps=1)
    for name, weights in base.state_dict().items():
        moved = int((trained[name] != weights).sum())
        assert moved <= max(1, round(0.1 * weights.numel())), name
        assert moved, name


def test_an_empty_part_of_a_sharded_tensor_has_nothing_to_select() -> None:
    assert select_largest(torch.zeros(0, 4), 0.25).shape == (0, 4)


def test_adapters_can_be_filtered(tmp_path: Path) -> None:
    method = MoFO(fraction=0.25)
    adapted = fit([LoRA(rank=2), method], tmp_path, max_steps=1)
    moved = [tensor for name, tensor in adapted.items() if "lora_B" in name]
    assert all(int((tensor != 0).sum()) <= round(0.25 * tensor.numel()) for tensor in moved)


def test_optimizers_without_adams_momentum_are_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="SGD keeps none: train with AdamW"):
        MoFO().prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), model)
    method = MoFO()
    optimizer = torch.optim.Adamax(model.parameters(), lr=0.1)
    method.prepare_optimizer(optimizer, model)
    model(torch.ones(1, 2)).sum().backward()
    method.adjust_gradients(model)
    method.after_step(model)  # a step that was skipped: there is no state yet, and nothing to set back
    method.adjust_gradients(model)
    optimizer.step()
    optimizer.state[model.weight]["momentum"] = optimizer.state[model.weight].pop("exp_avg")
    with pytest.raises(ConfigError, match="Adamax keeps none"):
        method.after_step(model)

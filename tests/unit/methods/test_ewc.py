"""EWC: its equilibrium, its trajectory, its phases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.mechanisms.kept_importance import estimate_kept_importance
from forgetless.mechanisms.quadratic import QuadraticPenalty
from forgetless.mechanisms.weight_change import low_rank_updates
from forgetless.methods.base import Context, Method
from forgetless.methods.ewc import EWC
from forgetless.methods.lora import LoRA
from training import context, fit

STRENGTH = 50.0


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("fisher", [0.0, 0.25, 4.0])
def test_a_single_weight_comes_to_rest_where_the_closed_form_says(fisher: float) -> None:
    class Weight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.tensor([1.0]))

    model = Weight()
    penalty = QuadraticPenalty(model, {"theta": torch.tensor([fisher])}, strength=3.0)
    for _ in range(200):
        model.theta.grad = 2.0 * (model.theta.detach() + 2.0)  # of (theta + 2)^2
        penalty.add_gradient(model)
        model.theta.data -= 0.05 * model.theta.grad
    expected = (2 * -2.0 + 3 * fisher * 1.0) / (2 + 3 * fisher)
    assert float(model.theta.detach()) == pytest.approx(expected, abs=1e-4)


class ByAutograd(Method):
    """The same penalty as a part of the loss."""

    name = "by_autograd"

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        self.fisher = estimate_kept_importance(
            model, context, name="x", kind="sampled", data="auto", num_sequences=128, dtype="float32"
        )
        self.anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
        return model

    def penalty(self, step: Any) -> Tensor:
        if updates := low_rank_updates(step.model):
            changes = {
                u.name.removeprefix("base_model.model.").replace(".base_layer", ""): u.scale
                * step.model.get_parameter(u.b)
                @ step.model.get_parameter(u.a)
                for u in updates
            }
        else:
            changes = {name: p - self.anchor[name] for name, p in step.model.named_parameters()}
        return STRENGTH / 2 * torch.stack([(self.fisher[n] * d.square()).sum() for n, d in changes.items()]).sum()


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 1}, {"max_grad_norm": 0.05}])
@pytest.mark.parametrize("is_lora", [False, True])
def test_its_trajectory_is_that_of_autograd(is_lora: bool, settings: dict[str, Any], tmp_path: Path) -> None:
    before: list[Method] = [LoRA(rank=4)] if is_lora else []
    ours = fit([*before, EWC(strength=STRENGTH)], tmp_path / "ours", **settings)
    theirs = fit([*before, ByAutograd()], tmp_path / "theirs", **settings)
    plain = fit(before, tmp_path / "plain", **settings)
    assert largest_difference(ours, theirs) < 2e-4  # Adam turns rounding of small gradients into steps
    assert largest_difference(ours, plain) > 5e-3
    one, other = (
        [json.loads(line)["penalties"][name] for line in (tmp_path / run / "train.jsonl").read_text().splitlines()]
        for run, name in (("ours", "ewc"), ("theirs", "by_autograd"))
    )
    assert one == pytest.approx(other, rel=1e-2)
    assert one[0] == 0
    assert one[-1] > 0


def test_it_keeps_weights_nearer_to_where_they_started_by_their_importance(tmp_path: Path) -> None:
    start: dict[str, Tensor] = build_model().state_dict()  # type: ignore[attr-defined]
    fisher = estimate_kept_importance(
        build_model(),  # type: ignore[arg-type]
        context(),
        name="x",
        kind="sampled",
        data="auto",
        num_sequences=128,
        dtype="float32",
    )
    distances = [
        sum(float((fisher[n] * (weights[n] - start[n]).square()).sum()) for n in fisher)
        for weights in (fit([EWC(strength=s)], tmp_path / str(s)) for s in (0.0, 10.0, 1000.0))
    ]
    assert distances[0] > distances[1] > distances[2]


def test_adapters_may_come_before_or_after_it(tmp_path: Path) -> None:
    one = fit([LoRA(rank=4), EWC(strength=STRENGTH)], tmp_path / "one")
    other = fit([EWC(strength=STRENGTH), LoRA(rank=4)], tmp_path / "other")
    # The estimates differ by rounding: below an adapter that adds zero, sums are taken in another order.
    assert largest_difference(one, other) < 2e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_later_phase_adds_the_fisher_of_the_earlier(dtype: Any, tmp_path: Path) -> None:
    job = replace(context(), directory=tmp_path)
    model: Any = build_model()
    EWC(num_sequences=3, dtype=dtype).prepare_model(model, job)
    later = EWC(num_sequences=3, dtype=dtype, previous=str(tmp_path / "ewc.safetensors"), gamma=0.5)
    assert json.loads(json.dumps(later.options()))["previous"] == str(tmp_path / "ewc.safetensors")
    later.prepare_model(model, replace(context(), directory=tmp_path / "later"))
    for parameter in model.parameters():
        parameter.data += 0.1
        parameter.grad = torch.zeros_like(parameter)
    once = EWC(num_sequences=3, dtype=dtype)
    once.prepare_model(build_model(), context())  # type: ignore[arg-type]
    values = [float(method.adjust_gradients(model)) for method in (later, once)]  # type: ignore[arg-type]
    assert values[0] == pytest.approx(1.5 * values[1], rel=2e-2)


def test_it_needs_data_to_keep() -> None:
    with pytest.raises(ConfigError, match="needs data that stands for what is to be kept"):
        EWC().check(Context())
    EWC(strength=0).check(Context())

"""The penalty in closed form against autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forgetless.mechanisms.quadratic as quadratic
from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.mechanisms.quadratic import QuadraticPenalty
from forgetless.mechanisms.weight_change import low_rank_updates
from language_models import build, wrap


def importance_of(model: nn.Module, *, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(p.shape, generator=generator) for name, p in model.named_parameters()}


def move(model: nn.Module, *, seed: int = 1) -> None:
    """Moves the trained weights away from the anchor and gives them gradients."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def adapted(**options: Any) -> Any:
    return wrap(build_model(), **{"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"], **options})


@pytest.mark.parametrize("group", [100, 5000, 2**20])
@pytest.mark.parametrize("is_weighted", [True, False])
def test_gradient_and_value_are_those_of_autograd(
    is_weighted: bool, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quadratic, "GROUP_ON_CPU", group)
    model: Any = build_model()
    weights = importance_of(model) if is_weighted else None
    anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
    penalty = QuadraticPenalty(model, weights, strength=3.0)
    move(model)
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    terms = [
        ((1 if weights is None else weights[name]) * (p - anchor[name]).square()).sum()
        for name, p in model.named_parameters()
    ]
    expected = 3.0 / 2 * torch.stack(terms).sum()
    slopes = torch.autograd.grad(expected, list(model.parameters()))
    for _ in range(2):  # the anchor stays
        for name, parameter in model.named_parameters():
            parameter.grad = before[name].clone()
        value = penalty.add_gradient(model)
        assert not value.requires_grad
        assert torch.allclose(value, expected.detach(), rtol=1e-5)
        for (name, parameter), slope in zip(model.named_parameters(), slopes, strict=True):
            assert torch.allclose(parameter.grad, before[name] + slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("is_trained_already", [True, False])
@pytest.mark.parametrize("is_weighted", [True, False])
def test_lora_is_held_in_the_space_of_the_weight_change(is_weighted: bool, is_trained_already: bool) -> None:
    model = adapted()
    if is_trained_already:
        move(model, seed=5)
    weights = importance_of(build_model()) if is_weighted else None  # type: ignore[arg-type]
    penalty = QuadraticPenalty(model, weights, strength=2.0)
    anchors = {u.name: _product(model, u).detach().clone() for u in low_rank_updates(model)}
    assert len(anchors) == 4
    move(model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.grad.clone() for name, p in trained.items()}
    terms = [
        ((1 if weights is None else weights[_plain(u.name)]) * (_product(model, u) - anchors[u.name]).square()).sum()
        for u in low_rank_updates(model)
    ]
    expected = 2.0 / 2 * torch.stack(terms).sum()
    slopes = torch.autograd.grad(expected, list(trained.values()))
    assert torch.allclose(penalty.add_gradient(model), expected.detach(), rtol=1e-4)
    for (name, parameter), slope in zip(trained.items(), slopes, strict=True):
        assert torch.allclose(parameter.grad, before[name] + slope, rtol=1e-4, atol=1e-6)


def _product(model: Any, update: Any) -> Tensor:
    product: Tensor = update.scale * model.get_parameter(update.b) @ model.get_parameter(update.a)
    return product


def _plain(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def test_a_rotation_of_a_and_b_that_leaves_the_product_costs_nothing() -> None:
    model = adapted()
    move(model)
    penalty = QuadraticPenalty(model, strength=1.0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data *= 2.0 if "lora_A" in name else 0.5
    assert abs(float(penalty.add_gradient(model))) < 1e-4


def test_an_adapter_may_be_added_after_the_anchor_was_taken() -> None:
    base: Any = build_model()
    weights = importance_of(base)
    penalty = QuadraticPenalty(base, weights, strength=2.0)
    late = wrap(base, r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"])
    early = adapted()
    expected = QuadraticPenalty(early, weights, strength=2.0)
    for model in (late, early):
        move(model)
    assert torch.equal(penalty.add_gradient(late), expected.add_gradient(early))


def test_modules_that_are_trained_whole_beside_the_adapter_are_held_too() -> None:
    model = adapted(modules_to_save=["lm_head"])
    penalty = QuadraticPenalty(model, importance_of(build_model()), strength=1.0)  # type: ignore[arg-type]
    head = next(p for name, p in model.named_parameters() if "lm_head.modules_to_save" in name)
    head.data += 1
    head.grad = torch.zeros_like(head)
    weight = importance_of(build_model())["lm_head.weight"]  # type: ignore[arg-type]
    assert torch.allclose(penalty.add_gradient(model), weight.sum() / 2, rtol=1e-5)
    assert torch.allclose(head.grad, weight, atol=1e-5)


@pytest.mark.parametrize("target", ["linear", "conv1d"])
def test_transposed_weights_are_held_as_they_are_stored(target: str) -> None:
    base = build("gpt2" if target == "conv1d" else "llama")
    weights = importance_of(base)
    names = ["c_fc"] if target == "conv1d" else ["up_proj"]
    model = wrap(base, target_modules=names, fan_in_fan_out=target == "conv1d")
    penalty = QuadraticPenalty(model, weights, strength=1.0)
    before = {u.name: model.get_parameter(u.name).detach().clone() for u in low_rank_updates(model)}
    move(model)
    value = penalty.add_gradient(model)
    model.merge_adapter()
    expected = sum(
        (weights[_plain(name)] * (model.get_parameter(name) - start).square()).sum() / 2
        for name, start in before.items()
    )
    assert torch.allclose(value, torch.as_tensor(expected).detach(), rtol=1e-3)


def test_what_gets_no_gradient_is_left_alone() -> None:
    model: Any = build_model()
    penalty = QuadraticPenalty(model, strength=1.0)
    move(model)
    model.lm_head.weight.grad = None
    penalty.add_gradient(model)
    assert model.lm_head.weight.grad is None
    lora = adapted()
    penalty = QuadraticPenalty(lora, strength=1.0)
    move(lora)
    for parameter in lora.parameters():
        parameter.grad = None
    assert float(penalty.add_gradient(lora)) > 0
    assert all(parameter.grad is None for parameter in lora.parameters())


def test_what_is_frozen_at_the_first_step_is_held_later() -> None:
    model: Any = build_model()
    penalty = QuadraticPenalty(model, strength=1.0)
    model.lm_head.requires_grad_(False)
    penalty.add_gradient(model)
    model.lm_head.requires_grad_(True)
    model.lm_head.weight.data += 1
    model.lm_head.weight.grad = torch.zeros_like(model.lm_head.weight)
    assert torch.allclose(penalty.add_gradient(model), torch.tensor(model.lm_head.weight.numel() / 2))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_halves_are_added_up_in_float32(kind: torch.dtype) -> None:
    model: Any = build_model()
    model.to(torch.bfloat16)
    weights = {name: value.to(kind) for name, value in importance_of(model).items()}
    penalty = QuadraticPenalty(model, weights, strength=1.0)
    anchor = {name: p.detach().float() for name, p in model.named_parameters()}
    move(model)
    expected = sum(
        (weights[name].float() * (p.float() - anchor[name]).square()).sum() / 2 for name, p in model.named_parameters()
    )
    value = penalty.add_gradient(model)
    assert value.dtype == torch.float32
    assert torch.allclose(value, torch.as_tensor(expected).detach(), rtol=0.02)


def test_strangers_are_refused() -> None:
    model: Any = build_model()
    model.lm_head.requires_grad_(False)
    penalty = QuadraticPenalty(model, strength=1.0)
    model.lm_head.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"'lm_head.weight' is trained but has no anchor"):
        penalty.add_gradient(model)
    weights = importance_of(model) | {"model.norm.weight": torch.ones(3)}
    with pytest.raises(ConfigError, match=r"'model.norm.weight' is \[32\] while"):
        QuadraticPenalty(model, weights, strength=1.0).add_gradient(model)
    lora = adapted()
    name = "model.layers.0.self_attn.q_proj.weight"
    with pytest.raises(ConfigError, match=r"q_proj.base_layer.weight' is \[32, 32\] while"):
        QuadraticPenalty(lora, importance_of(model) | {name: torch.ones(3, 1)}, strength=1.0).add_gradient(lora)
    with pytest.raises(ConfigError, match=r"isn't W \+ scale \* B A"):
        QuadraticPenalty(adapted(use_dora=True), strength=1.0)


def test_weights_in_double_precision_are_held_in_it() -> None:
    model = nn.Linear(3, 1, bias=False).double()
    penalty = QuadraticPenalty(model, strength=2.0)
    model.weight.data += 0.5
    model.weight.grad = torch.zeros_like(model.weight)
    assert float(penalty.add_gradient(model)) == pytest.approx(0.75, abs=1e-12)
    assert model.weight.grad.tolist() == [[1.0, 1.0, 1.0]]


def test_the_sum_of_two_adapters_is_refused() -> None:
    from peft import LoraConfig

    model = adapted()
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"]))
    QuadraticPenalty(model, strength=1.0)
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(ConfigError, match=r"2 adapters of 'model\.layers\.0\.self_attn\.q_proj\.weight' are trained"):
        QuadraticPenalty(model, strength=1.0)

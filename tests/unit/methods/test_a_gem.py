"""A-GEM: what is left of a gradient doesn't raise the loss on the data to keep, to first order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model, build_tokenizer
from forgetless.errors import ConfigError
from forgetless.methods.a_gem import AGEM, reference_gradients
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA
from training import GENERAL, context, fit


def flat(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def prepared(strength: float = 1.0) -> tuple[Any, AGEM, torch.Tensor]:
    """Returns a model, the method, and the gradient on its first batch of data to keep."""
    model: Any = build_model().train()  # type: ignore[attr-defined]
    method = AGEM(strength=strength, batch_size=4)
    method.prepare_model(model, context())
    order = AGEM(batch_size=4)
    order.prepare_model(model, context())
    reference = reference_gradients(model, list(model.parameters()), order.batches_.next())
    return model, method, torch.cat([g.flatten() for g in reference])


def set_gradient(model: Any, values: torch.Tensor) -> None:
    for parameter, part in zip(model.parameters(), values.split([p.numel() for p in model.parameters()]), strict=True):
        parameter.grad = part.view_as(parameter).clone()


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_a_conflict_is_projected_out(strength: float) -> None:
    model, method, reference = prepared(strength)
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0)) * reference.std()
    gradient = noise - 2 * reference
    set_gradient(model, gradient)
    method.adjust_gradients(model)
    expected = gradient - strength * (gradient @ reference) / (reference @ reference) * reference
    assert torch.allclose(flat(model), expected, atol=1e-6)
    assert float(flat(model) @ reference) == pytest.approx((1 - strength) * float(gradient @ reference), abs=1e-3)
    assert (method.num_projections_, method.projected_share_) == (1, 1.0)
    assert model.training


def test_a_gradient_without_conflict_keeps_its_bits() -> None:
    model, method, reference = prepared()
    set_gradient(model, reference * 0.5)
    method.adjust_gradients(model)
    assert torch.equal(flat(model), reference * 0.5)
    assert (method.num_projections_, method.num_steps_, method.projected_share_) == (0, 1, 0.0)


def test_the_reference_is_the_gradient_of_the_mean_loss_per_token() -> None:
    model, method, reference = prepared()
    batch = method.batches_.next()
    model.zero_grad()
    model.eval()
    model(**batch).loss.backward()
    assert torch.allclose(flat(model), reference)


def test_the_batches_of_a_resumed_training_go_on() -> None:
    _, method, _ = prepared()
    method.num_steps_, method.num_projections_ = 7, 3
    other = AGEM(batch_size=4)
    model: Any = build_model()
    other.prepare_model(model, context())
    assert other.projected_share_ == 0
    other.load_state_dict(method.state_dict())
    assert (other.num_steps_, other.num_projections_) == (7, 3)


def test_what_plays_no_part_has_a_gradient_of_zero() -> None:
    model: Any = build_model()
    spare = torch.nn.Parameter(torch.ones(3))
    method = AGEM(batch_size=4)
    method.prepare_model(model, context())
    weight = model.model.norm.weight
    found = reference_gradients(model, [spare, weight], method.batches_.next())
    assert torch.equal(found[0], torch.zeros(3))
    assert found[1].abs().sum() > 0


def test_strength_0_needs_no_data() -> None:
    model: Any = build_model()
    method = AGEM(strength=0.0)
    method.check(Context())
    method.prepare_model(model, Context())
    method.adjust_gradients(model)
    assert method.num_steps_ == 0


def test_without_data_to_keep_it_is_refused_before_a_model_loads() -> None:
    with pytest.raises(ConfigError, match="method 'a_gem' needs data that stands for what is to be kept"):
        AGEM().check(Context())
    AGEM().check(Context(general=GENERAL, tokenizer=build_tokenizer()))


def test_it_projects_in_training_and_adapters_can_be_projected(tmp_path: Path) -> None:
    method = AGEM(batch_size=1)
    projected = fit([method], tmp_path / "projected", max_steps=12)
    assert method.num_projections_
    plain = fit([], tmp_path / "plain", max_steps=12)
    assert not torch.equal(projected["lm_head.weight"], plain["lm_head.weight"])
    adapter = AGEM(batch_size=1)
    fit([LoRA(rank=2), adapter], tmp_path / "adapter")
    assert adapter.num_steps_ == 4

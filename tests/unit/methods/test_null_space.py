"""Null-space LoRA: what the data to keep uses doesn't pass, and the start is the base."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless.data.encoding import encode_examples
from forgetless.data.examples import Example
from forgetless.errors import ConfigError
from forgetless.mechanisms.adapters import is_base_behind_adapter, lora_layers
from forgetless.methods.base import Context
from forgetless.methods.null_space import NullSpace
from language_models import build
from training import GENERAL, context

IDS = torch.arange(20)[None]


def adapt(method: NullSpace, examples: Any = GENERAL, notes: list[str] | None = None) -> Any:
    model: Any = build_model()
    return method.prepare_model(model, replace(context(), general=examples, notes=[] if notes is None else notes))


def fill(model: Any) -> None:
    """Gives B any values, as training might."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            weight = layer.lora_B["default"].weight
            weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))


def test_it_starts_as_the_base_and_the_base_stays_behind_it() -> None:
    adapted, base = adapt(NullSpace(rank=4)), build_model()
    with torch.no_grad():
        wanted = base(input_ids=IDS).logits  # type: ignore[operator]
        assert torch.equal(adapted(input_ids=IDS).logits, wanted)
        fill(adapted)
        assert is_base_behind_adapter(adapted)
        assert not torch.equal(adapted(input_ids=IDS).logits, wanted)
        with adapted.disable_adapter():
            assert torch.equal(adapted(input_ids=IDS).logits, wanted)


def test_only_b_is_trained_and_a_is_orthonormal() -> None:
    adapted = adapt(NullSpace(rank=4))
    assert all("lora_B" in name for name, p in adapted.named_parameters() if p.requires_grad)
    for layer in lora_layers(adapted).values():
        weight = layer.lora_A["default"].weight
        assert torch.allclose(weight @ weight.T, torch.eye(4), atol=1e-5)


def test_what_was_kept_does_not_pass_whatever_b_becomes() -> None:
    # Fewer tokens than inputs: there is a null space, and nothing of these tokens may pass it.
    examples = [Example(text="Water is wet.")]
    method = NullSpace(rank=4)
    adapted, base = adapt(method, examples), build_model()
    fill(adapted)
    kept = torch.tensor([encode_examples(examples, context().tokenizer, max_tokens=64)[0].input_ids])
    assert kept.shape[1] + 4 < 32
    with torch.no_grad():
        change, other = (
            float((adapted(input_ids=ids).logits - base(input_ids=ids).logits).norm())  # type: ignore[operator]
            for ids in (kept, IDS)
        )
    assert other > 1
    assert change < 0.01 * other
    assert max(method.retained_energy_.values()) < 1e-3


def test_the_energy_that_passes_is_that_of_the_activations() -> None:
    method = NullSpace(rank=4, num_sequences=8)
    adapted = adapt(method)
    name, layer = list(lora_layers(adapted).items())[6]  # down_proj
    rows: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _, args: rows.append(args[0][0]))
    with torch.no_grad():
        for sequence in encode_examples(GENERAL, context().tokenizer, max_tokens=64):
            adapted(input_ids=torch.tensor([sequence.input_ids]))
    inputs = torch.cat(rows)
    inputs = inputs / inputs.norm(dim=1, keepdim=True)
    passed = (inputs @ layer.lora_A["default"].weight.T).norm() / inputs.norm()
    assert method.retained_energy_[name] == pytest.approx(float(passed), rel=1e-2)
    assert 0 < float(passed) < 0.1


def test_too_little_data_is_said_and_enough_is_not() -> None:
    notes: list[str] = []
    adapt(NullSpace(rank=4), notes=notes)
    assert not notes
    adapt(NullSpace(rank=4), [Example(text="Water is wet.")], notes)
    (note,) = notes
    assert "saw 14 tokens" in note
    assert "down_proj has 64 inputs" in note


def test_layers_that_share_an_input_share_their_directions() -> None:
    layers = lora_layers(adapt(NullSpace(rank=4)))
    query, key = (next(v for n, v in layers.items() if n.endswith(part)) for part in ("q_proj", "k_proj"))
    assert torch.equal(query.lora_A["default"].weight, key.lora_A["default"].weight)


def test_a_job_without_data_to_keep_is_refused_before_a_model_loads() -> None:
    with pytest.raises(ConfigError, match="null_space"):
        NullSpace().check(Context())


def test_the_experts_of_a_mixture_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, of the same experts
        with pytest.raises(ConfigError, match="no linear layer: name linear layers in target_modules"):
            NullSpace(rank=2).prepare_model(build("mixtral"), context())


def test_an_embedding_is_refused() -> None:
    with pytest.raises(ConfigError, match="embed_tokens, an embedding"):
        adapt(NullSpace(target_modules=["embed_tokens"]))


def test_a_rank_above_the_inputs_of_a_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="1000 is more than the 32 inputs of a layer"):
        adapt(NullSpace(rank=1000))

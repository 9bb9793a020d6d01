"""Which parameters stand for a model's change, and what they are called."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.mechanisms.fisher import estimate_fisher
from forgetless.mechanisms.weight_change import base_name, low_rank_updates, measured_parameters
from language_models import build, padded_batch, relative_error, wrap


def test_without_an_adapter_it_is_what_is_trained() -> None:
    model: Any = build_model()
    model.lm_head.requires_grad_(False)
    assert low_rank_updates(model) == []
    assert measured_parameters(model) == [n for n, _ in model.named_parameters() if n != "lm_head.weight"]


def test_frozen_weights_stand_in_for_their_adapters() -> None:
    model = wrap(build_model(), modules_to_save=["lm_head"])
    names = measured_parameters(model)
    assert [base_name(name) for name in names] == [
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
        "lm_head.weight",
    ]
    assert base_name("_orig_mod.module.model.norm.weight") == "model.norm.weight"
    model.base_model.model.model.layers[0].self_attn.q_proj.lora_A.requires_grad_(False)
    model.base_model.model.model.layers[0].self_attn.q_proj.lora_B.requires_grad_(False)
    assert len(low_rank_updates(model)) == 1


def test_rank_stabilised_scales_are_read_as_they_are() -> None:
    assert low_rank_updates(wrap(build_model(), r=4, lora_alpha=8, use_rslora=True))[0].scale == 4.0


def test_the_fisher_of_a_fresh_adapter_is_that_of_the_weight_beneath() -> None:
    whole = estimate_fisher(build("llama"), [padded_batch()])
    found = estimate_fisher(wrap(build("llama")), [padded_batch()])
    assert len(found) == 2
    named = {base_name(name): value for name, value in found.items()}
    assert relative_error(named, {name: whole[name] for name in named}) < 1e-5
    model = wrap(build("llama"))
    factors = estimate_fisher(model, [padded_batch()], parameters=[u.a for u in low_rank_updates(model)])
    assert not any(value.any() for value in factors.values())  # why A and B are not what is held


def test_what_is_no_product_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"DoRA\) isn't"):
        low_rank_updates(wrap(build_model(), use_dora=True))
    with pytest.raises(ConfigError, match=r"Embedding\) isn't"):
        low_rank_updates(wrap(build_model(), target_modules=["embed_tokens"]))

"""Adapters: what stays frozen, what `assert_base_frozen` refuses, and when switching off restores the base."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoraConfig, OSFConfig, get_peft_model

from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.mechanisms.adapters import add_adapter, assert_base_frozen, is_base_behind_adapter, merge_adapter
from forgetless.quiet import quiet_transformers
from language_models import build


def wrap(**options: Any) -> Any:
    model: Any = build_model()
    with quiet_transformers():
        return get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", **options))


def test_a_plain_adapter_is_fine() -> None:
    assert_base_frozen(wrap())


def test_a_model_without_an_adapter_is_refused() -> None:
    model: Any = build_model()
    with pytest.raises(ConfigError, match="carries no adapter"):
        assert_base_frozen(model)


def test_a_trained_base_parameter_is_named() -> None:
    adapted = wrap()
    adapted.base_model.model.model.norm.weight.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"norm\.weight"):
        assert_base_frozen(adapted)


def test_a_start_that_changes_the_base_is_refused() -> None:
    with pytest.raises(ConfigError, match="changes the base's weights"):
        assert_base_frozen(wrap(init_lora_weights="pissa_niter_2"))


def test_an_adapter_that_nothing_trains_is_refused() -> None:
    adapted = wrap()
    adapted.requires_grad_(False)
    with pytest.raises(ConfigError, match="no adapter parameter is trainable"):
        assert_base_frozen(adapted)


def put(config: Any) -> Any:
    model: Any = build_model()
    with quiet_transformers():
        return get_peft_model(model, config)


IDS = torch.arange(20)[None]


@pytest.mark.parametrize(
    ("config", "is_behind"),
    [
        (LoraConfig(r=2, target_modules=["q_proj"]), True),
        (LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="gaussian"), True),
        (LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="orthogonal"), True),
        (LoraConfig(r=2, target_modules=["q_proj"], use_dora=True), True),
        (LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]), True),
        (OSFConfig(target_modules=["q_proj"], effective_rank=4), True),
        (LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa"), False),
        (LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="olora"), False),
        (LoraConfig(r=2, target_modules=["q_proj"], bias="lora_only"), False),
        (LoHaConfig(r=2, target_modules=["q_proj"]), False),
    ],
    ids=lambda value: value if isinstance(value, bool) else value.peft_type.value,
)
def test_what_is_called_the_base_is_the_base(config: Any, is_behind: bool) -> None:
    adapted = put(config)
    assert is_base_behind_adapter(adapted) == is_behind
    if is_behind:
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
            base: Any = build_model()
            on = adapted(input_ids=IDS).logits
            with adapted.disable_adapter():
                assert torch.equal(adapted(input_ids=IDS).logits, base(input_ids=IDS).logits)
            assert not torch.equal(on, base(input_ids=IDS).logits)


def test_a_plain_model_has_no_base_behind_it() -> None:
    assert not is_base_behind_adapter(build_model())
    assert not is_base_behind_adapter(object())


def test_a_merged_adapter_hides_the_base() -> None:
    adapted = wrap()
    adapted.merge_adapter()
    assert not is_base_behind_adapter(adapted)


def test_a_base_that_is_trained_beside_its_adapter_is_not_behind_it() -> None:
    adapted = wrap()
    adapted.base_model.model.model.norm.weight.requires_grad_(True)
    assert not is_base_behind_adapter(adapted)


def test_an_adapter_of_layers_that_are_not_there_is_refused_by_the_name_of_its_method() -> None:
    model: Any = build_model()
    with pytest.raises(ConfigError, match=r"method 'thin'.*c_attn"):
        add_adapter(model, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True), method="thin", seed=0)


def test_an_adapter_is_merged_into_full_weights_only() -> None:
    adapted = wrap()
    merged = merge_adapter(adapted)
    assert not any("lora" in name for name in merged.state_dict())
    assert merge_adapter(merged) is merged
    quantised = wrap()
    quantised.hf_quantizer = object()
    with pytest.raises(ConfigError, match="without loss"):
        merge_adapter(quantised)


def test_a_model_without_modules_that_the_adapter_knows_is_refused() -> None:
    """OSF splits linear modules, and GPT-2's are of another class."""
    model = build("gpt2")
    with pytest.raises(ConfigError, match=r"method 'osf' cannot be put on this model: none of its modules"):
        add_adapter(model, OSFConfig(effective_rank=0.5, target_modules="all-linear"), method="osf", seed=0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    again = add_adapter(model, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True), method="lora", seed=0)
    assert any(parameter.requires_grad for parameter in again.parameters())

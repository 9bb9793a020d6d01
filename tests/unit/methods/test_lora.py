"""LoRA: what is adapted, what stays frozen, and what `assert_base_frozen` refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA, assert_base_frozen
from forgetless.models import quiet_transformers


def adapt(method: LoRA, *, seed: int = 0) -> Any:
    model: Any = build_model()
    return method.prepare_model(model, Context(seed=seed))


def test_all_linear_modules_but_the_output_layer_are_adapted() -> None:
    adapted = adapt(LoRA(rank=2))
    names = {name.rpartition(".")[2] for name in adapted.targeted_module_names}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_alpha_is_twice_the_rank_unless_it_is_set() -> None:
    assert LoRA(rank=8).peft_options()["lora_alpha"] == 16
    assert LoRA(rank=8, alpha=4).peft_options()["lora_alpha"] == 4


@pytest.mark.parametrize(("variant", "scale"), [("lora", 8 / 4), ("rslora", 8 / 4**0.5), ("dora", 8 / 4)])
def test_the_scale_of_each_variant(variant: Any, scale: float) -> None:
    layer = adapt(LoRA(rank=4, alpha=8, variant=variant)).base_model.model.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == pytest.approx(scale)


def test_a_fresh_adapter_changes_nothing() -> None:
    ids = torch.arange(10)[None]
    base: Any = build_model()
    with torch.no_grad():
        assert torch.equal(adapt(LoRA(rank=4))(input_ids=ids).logits, base(input_ids=ids).logits)


def test_the_start_comes_from_the_seed_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, same, other = adapt(LoRA(rank=4), seed=1), adapt(LoRA(rank=4), seed=1), adapt(LoRA(rank=4), seed=2)
    assert torch.equal(torch.rand(1), expected)
    weights = [next(p for n, p in m.named_parameters() if "lora_A" in n) for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_model_with_an_adapter_is_refused() -> None:
    with pytest.raises(ConfigError, match="carries an adapter already"):
        LoRA().prepare_model(adapt(LoRA()), Context())


def test_target_modules_that_are_not_there_are_named() -> None:
    with pytest.raises(ConfigError, match="c_attn"):
        adapt(LoRA(target_modules=["c_attn"]))


def test_a_module_that_generates_nothing_is_adapted_too() -> None:
    plain = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    before = plain(inputs)
    adapted: Any = LoRA(rank=2, target_modules=["0"]).prepare_model(plain, Context())
    assert torch.equal(adapted(inputs), before)
    assert {
        name.rpartition(".")[0].rpartition(".")[0][-6:] for name, p in adapted.named_parameters() if p.requires_grad
    } == {
        "lora_A",
        "lora_B",
    }


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

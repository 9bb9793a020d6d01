"""LoRA: what is adapted, and how it starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA, QLoRA


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


def test_a_pattern_of_target_modules_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="'lora' cannot be put on this model"):
        adapt(LoRA(target_modules="q_proj("))


def test_qlora_is_refused_where_four_bits_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forgetless.quantised.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"'qlora'.* pip install bitsandbytes"):
        QLoRA().check(Context())
    monkeypatch.setattr("forgetless.quantised.find_spec", lambda name: object())
    QLoRA().check(Context())


def test_qlora_wants_the_base_in_four_bits() -> None:
    assert QLoRA().load_options() == {"in_four_bits": True}
    with pytest.raises(ConfigError, match="loaded in 4 bits"):
        adapt(QLoRA())


def test_a_module_that_generates_nothing_is_adapted_too() -> None:
    plain = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    before = plain(inputs)
    adapted: Any = LoRA(rank=2, target_modules=["0"]).prepare_model(plain, Context())
    assert torch.equal(adapted(inputs), before)
    trained = {name.split(".")[-3] for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained == {"lora_A", "lora_B"}

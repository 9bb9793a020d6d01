"""CorDA: the decomposition is PEFT's, the trained function is PEFT's, and the base stays behind the adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda

from conftest import build_model, build_tokenizer
from forgetless.config import TrainingConfig
from forgetless.data.encoding import encode_examples
from forgetless.errors import ConfigError
from forgetless.mechanisms.adapters import is_base_behind_adapter, lora_layers
from forgetless.methods.base import Context, Method
from forgetless.methods.corda import CorDA
from forgetless.quiet import quiet_transformers
from forgetless.train.trainer import train_model
from training import GENERAL, context, mixture

IDS = torch.arange(20)[None]
TARGETS = ["q_proj", "o_proj", "up_proj", "down_proj"]


def adapt(method: CorDA, **changes: Any) -> Any:
    model: Any = build_model()
    return method.prepare_model(model, replace(context(), **changes))


def train(model: Any, methods: list[Method], directory: Path, **settings: Any) -> Any:
    config = TrainingConfig(batch_size=4, max_steps=4, logging_steps=1, **settings)
    return train_model(
        model,
        build_tokenizer(),
        mixture([]),
        methods=methods,
        config=config,
        learning_rate=1e-3,
        seed=0,
        directory=directory,
    )[0]


def peft_corda(rank: int) -> Any:
    """PEFT's own CorDA, with our plain mean over tokens instead of its scaling of each sequence."""
    model: Any = build_model()
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=TARGETS,
        task_type="CAUSAL_LM",
        init_lora_weights="corda",
        corda_config=CordaConfig(corda_method="kpm"),
    )
    inputs = [s.input_ids for s in encode_examples(GENERAL, build_tokenizer(), max_tokens=64)]
    rows: dict[str, list[torch.Tensor]] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: rows.setdefault(name, []).append(args[0][0]))
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in TARGETS
    ]

    def run() -> None:
        for ids in inputs:
            model(input_ids=torch.tensor([ids]))
        for name, parts in rows.items():
            stacked = torch.cat(parts)
            model.get_submodule(name).covariance_matrix = stacked.T @ stacked / len(stacked)
            model.get_submodule(name).sample_count = 1

    preprocess_corda(model, config, run_model=run)
    for handle in handles:
        handle.remove()
    with quiet_transformers():
        return get_peft_model(model, config)


def test_the_start_and_the_trained_function_are_those_of_peft(tmp_path: Path) -> None:
    ours, theirs = CorDA(rank=4, target_modules=TARGETS), peft_corda(4)
    adapted = adapt(ours)
    for name, layer in lora_layers(adapted).items():
        reference = lora_layers(theirs)[name]
        wanted = reference.lora_B["default"].weight @ reference.lora_A["default"].weight
        found = layer.lora_B["default"].weight[:, :4] @ layer.lora_A["default"].weight[:4]
        assert torch.allclose(found, wanted, atol=1e-4), name
    one, other = train(adapted, [ours], tmp_path / "ours"), train(theirs, [], tmp_path / "theirs")
    base: Any = build_model()
    with torch.no_grad():
        change = one(input_ids=IDS).logits - base(input_ids=IDS).logits
        difference = (one(input_ids=IDS).logits - other(input_ids=IDS).logits).norm()
    assert difference < 0.05 * change.norm()


def test_it_starts_as_the_base_and_the_base_stays_behind_it(tmp_path: Path) -> None:
    method = CorDA(rank=4)
    adapted, base = adapt(method), build_model()
    with torch.no_grad():
        wanted = base(input_ids=IDS).logits  # type: ignore[operator]
        assert torch.allclose(adapted(input_ids=IDS).logits, wanted, atol=1e-5)
    trained = train(adapted, [method], tmp_path)
    assert is_base_behind_adapter(trained)
    with torch.no_grad():
        assert not torch.allclose(trained(input_ids=IDS).logits, wanted, atol=1e-3)
        with trained.disable_adapter():
            assert torch.equal(trained(input_ids=IDS).logits, wanted)


def test_the_frozen_half_stays_under_weight_decay(tmp_path: Path) -> None:
    method = CorDA(rank=4)
    adapted = adapt(method)
    layer = next(iter(lora_layers(adapted).values()))
    a, b = (part["default"].weight.detach().clone() for part in (layer.lora_A, layer.lora_B))
    train(adapted, [method], tmp_path, weight_decay=0.5)
    after_a, after_b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert torch.equal(after_a[4:], a[4:])
    assert torch.equal(after_b[:, 4:], b[:, 4:])
    assert not torch.equal(after_a[:4], a[:4])
    assert not torch.equal(after_b[:, :4], b[:, :4])


def test_the_frozen_half_takes_no_part_in_the_norm_of_the_gradient() -> None:
    method = CorDA(rank=4)
    adapted = adapt(method)
    adapted(input_ids=IDS, labels=IDS).loss.backward()
    method.adjust_gradients(adapted)
    layer = next(iter(lora_layers(adapted).values()))
    assert not layer.lora_A["default"].weight.grad[4:].any()
    assert layer.lora_A["default"].weight.grad[:4].any()
    assert not layer.lora_B["default"].weight.grad[:, 4:].any()
    adapted.zero_grad()
    method.adjust_gradients(adapted)  # where nothing was accumulated nothing happens


def test_a_scale_changes_the_factors_and_not_the_component() -> None:
    products = []
    for alpha in (4.0, 16.0):
        layer = next(iter(lora_layers(adapt(CorDA(rank=4, alpha=alpha))).values()))
        a, b = layer.lora_A["default"].weight[:4], layer.lora_B["default"].weight[:, :4]
        assert layer.scaling["default"] == alpha / 4
        products.append(layer.scaling["default"] * b @ a)
    assert torch.allclose(products[0], products[1], atol=1e-6)


def test_a_frozen_half_of_another_machine_is_taken_back() -> None:
    one, other = CorDA(rank=4), CorDA(rank=4)
    adapt(one)
    adapt(other)
    one.frozen_[0].neg_()
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.frozen_[0], one.frozen_[0])


def test_a_rank_beyond_the_matrix_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"k_proj has only 16 components, not 20"):
        adapt(CorDA(rank=20))


def test_quantised_weights_and_missing_data_are_refused() -> None:
    model: Any = build_model()
    model.hf_quantizer = object()
    with pytest.raises(ConfigError, match="quantised"):
        CorDA().prepare_model(model, context())
    with pytest.raises(ConfigError, match="corda"):
        CorDA().check(Context())

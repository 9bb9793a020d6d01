"""Half fine-tuning: half of each kind is trained, the other half keeps its bits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.mechanisms.layers import find_layers
from forgetless.methods.base import Context, refuse_conflicts
from forgetless.methods.freeze_bottom import FreezeBottom
from forgetless.methods.half import Half, draw_round, group_modules
from forgetless.methods.lora import LoRA
from training import fit


def llama(num_layers: int) -> Any:
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=num_layers, num_attention_heads=2
    )
    return LlamaForCausalLM(config)


def test_half_of_each_kind_is_drawn_in_each_layer_and_in_all() -> None:
    model = llama(6)
    groups = group_modules(find_layers(model), model)
    trained = draw_round(groups, fraction=0.5, rng=np.random.default_rng(0))
    counts = {key: sum(names[0] in trained for names in modules) for key, modules in groups.items()}
    assert {kind for _, kind in groups} == {"self_attn", "mlp", "norms"}
    assert all(counts[layer, "self_attn"] == 2 and counts[layer, "norms"] == 1 for layer in range(6))
    assert Counter(counts[layer, "mlp"] for layer in range(6)) == {1: 3, 2: 3}


def test_every_module_has_its_turn() -> None:
    model = llama(2)
    groups = group_modules(find_layers(model), model)
    turns = Counter(
        name for seed in range(200) for name in draw_round(groups, fraction=0.5, rng=np.random.default_rng(seed))
    )
    assert len(turns) == sum(len(modules) for modules in groups.values())
    assert all(65 < number < 135 for number in turns.values())  # 100 of 200; the standard deviation is 7


def test_a_bias_goes_with_its_weight_and_fused_matrices_are_one_module() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=2, n_head=2))
    groups = group_modules(find_layers(model), model)
    assert groups[0, "attn"] == [
        tuple(f"transformer.h.0.attn.{module}.{part}" for part in ("weight", "bias")) for module in ("c_attn", "c_proj")
    ]


def rested(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if torch.equal(before[name], after[name])}


def test_the_half_that_rests_keeps_its_bits_under_momentum_and_decay(tmp_path: Path) -> None:
    base: Any = build_model()
    method = Half()
    trained = fit([method], tmp_path, weight_decay=0.1)
    assert rested(base.state_dict(), trained) == method.resting_
    assert len(method.resting_) == 9  # of two layers of nine modules


def test_another_half_is_drawn_after_each_round(tmp_path: Path) -> None:
    states: list[dict[str, torch.Tensor]] = []

    class Watched(Half):
        def adjust_gradients(self, model: Any) -> None:
            super().adjust_gradients(model)
            states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})

    base: Any = build_model()
    method = Watched(steps_per_round=2)
    method.seed_ = 0
    states.append(fit([method], tmp_path, weight_decay=0.1))
    last, *before = states[-1], *states[:-1]
    first = rested(before[0], before[2])
    second = rested(before[2], last)
    assert len(first) == len(second) == 9
    assert first != second
    assert torch.equal(before[0]["lm_head.weight"], base.state_dict()["lm_head.weight"])


def test_what_rests_takes_no_part_in_the_backward_pass_and_is_trainable_again_at_the_end() -> None:
    model: Any = build_model()
    method = Half()
    method.prepare_model(model, Context(seed=1))
    method.prepare_optimizer(torch.optim.AdamW(model.parameters()), model)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == method.resting_
    method.finish(model)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("is_prepared", [False, True])
def test_a_checkpoint_leads_to_its_round_whether_it_is_read_before_the_optimizer_or_after(is_prepared: bool) -> None:
    def start(num_steps: int) -> Half:
        model: Any = build_model()
        method = Half(steps_per_round=2)
        method.prepare_model(model, Context())
        optimizer = torch.optim.AdamW(model.parameters())
        if is_prepared:
            method.prepare_optimizer(optimizer, model)
        method.load_state_dict({"num_steps": torch.tensor(num_steps)})
        if not is_prepared:
            method.prepare_optimizer(optimizer, model)
        assert {name for name, p in model.named_parameters() if not p.requires_grad} == method.resting_
        return method

    assert start(2).resting_ == start(3).resting_ != start(0).resting_


def test_under_several_processes_gradients_are_dropped_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    model: Any = build_model()
    method = Half()
    method.prepare_model(model, Context())
    method.prepare_optimizer(torch.optim.AdamW(model.parameters()), model)
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    method.adjust_gradients(model)
    assert {name for name, p in model.named_parameters() if p.grad is None} == method.resting_


def test_what_another_method_froze_is_not_thawed(tmp_path: Path) -> None:
    base: Any = build_model()
    for order in ([FreezeBottom(num_layers=1), Half(steps_per_round=1)], [Half(), FreezeBottom(num_layers=1)]):
        trained = fit(order, tmp_path / type(order[0]).__name__)
        frozen = {name for name in trained if "embed" in name or ".layers.0." in name}
        assert frozen <= rested(base.state_dict(), trained)


def test_adapters_are_refused() -> None:
    with pytest.raises(ConfigError, match="method 'half' can't be used with the adapter of method 'lora'"):
        refuse_conflicts([LoRA(), Half()])

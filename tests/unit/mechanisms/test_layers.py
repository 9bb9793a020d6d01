"""Layers are found from the modules, whatever the architecture calls them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.mechanisms.layers import find_layers
from forgetless.quiet import quiet_transformers


def depths(model: Any) -> dict[str, int]:
    layers = find_layers(model)
    return {name: layers.depth(name) for name, _ in model.named_parameters()}


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=3, n_head=2))


def adapt(model: Any, **options: Any) -> Any:
    with quiet_transformers():
        return get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", **options))


def test_llama_from_the_embedding_to_the_head() -> None:
    model: Any = build_model()
    layers = find_layers(model)
    assert (layers.path, layers.num, layers.is_tied) == ("model.layers", 2, False)
    found = depths(model)
    assert found["model.embed_tokens.weight"] == 0
    assert found["model.layers.0.self_attn.q_proj.weight"] == 1
    assert found["model.layers.1.mlp.up_proj.weight"] == 2
    assert found["model.norm.weight"] == found["lm_head.weight"] == 3


def test_gpt2_with_its_positions_and_tied_head() -> None:
    layers = find_layers(gpt2())
    assert (layers.path, layers.num, layers.is_tied) == ("transformer.h", 3, True)
    found = depths(gpt2())
    assert found["transformer.wte.weight"] == found["transformer.wpe.weight"] == 0
    assert found["transformer.h.2.mlp.c_fc.bias"] == 3
    assert found["transformer.ln_f.weight"] == 4


def test_opt_whose_final_norm_is_registered_before_its_layers() -> None:
    config = OPTConfig(
        vocab_size=16, hidden_size=8, ffn_dim=8, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=8
    )
    found = depths(OPTForCausalLM(config))
    assert found["model.decoder.final_layer_norm.weight"] == 3
    assert found["model.decoder.embed_positions.weight"] == 0


def test_an_adapter_lies_as_deep_as_what_it_adapts() -> None:
    base: Any = build_model()
    found = depths(adapt(base, target_modules=["q_proj", "embed_tokens", "lm_head"]))
    assert found["base_model.model.model.layers.1.self_attn.q_proj.lora_A.default.weight"] == 2
    assert found["base_model.model.model.embed_tokens.lora_embedding_A.default"] == 0
    assert found["base_model.model.lm_head.lora_B.default.weight"] == 3
    wrapped = adapt(gpt2(), target_modules=["wte", "c_fc"], fan_in_fan_out=True)
    assert find_layers(wrapped).path == "base_model.model.transformer.h"
    assert depths(wrapped)["base_model.model.transformer.wte.lora_embedding_A.default"] == 0


def test_a_tied_head_has_the_embeddings_name_and_depth() -> None:
    config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2)
    config.tie_word_embeddings = True
    model = LlamaForCausalLM(config)
    assert find_layers(model).is_tied
    assert "lm_head.weight" not in depths(model)


class Expert(nn.Module):
    """A layer of many experts, a list in a list, beside a tower of many small blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.ModuleList(nn.Linear(2, 2) for _ in range(5))
        self.layers = nn.ModuleList(nn.ModuleList(nn.Linear(8, 8) for _ in range(6)) for _ in range(2))
        self.empty = nn.ModuleList()


def test_experts_and_smaller_towers_are_not_taken_for_the_layers() -> None:
    layers = find_layers(Expert())
    assert (layers.path, layers.num, layers.embeddings, layers.is_tied) == ("layers", 2, (), False)
    assert layers.depth("layers.1.3.weight") == 2
    assert layers.depth("tower.0.weight") == 3


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear holds no list of layers"):
        find_layers(torch.nn.Linear(2, 2))


def test_an_output_layer_that_is_called_an_embedding_is_on_top() -> None:
    model: Any = build_model()
    model.embed_out = model.lm_head
    del model.lm_head
    model.get_output_embeddings = lambda: model.embed_out
    found = depths(model)
    assert found["model.embed_tokens.weight"] == 0
    assert found["embed_out.weight"] == found["model.norm.weight"] == 3


def test_two_stacks_have_no_bottom() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    with pytest.raises(ConfigError, match="two stacks of layers"):
        find_layers(model)

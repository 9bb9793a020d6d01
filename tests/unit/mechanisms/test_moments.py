"""Second moments of the inputs of layers: right, shared where inputs are, and gathered from every token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from conftest import build_model
from forgetless.data.encoding import Encoded
from forgetless.errors import ConfigError
from forgetless.mechanisms.moments import gather_moments
from training import mixture


def linear_layers(model: Any) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if name.endswith("_proj")}


def inputs_of(model: Any, name: str, sequences: list[list[int]]) -> torch.Tensor:
    rows: list[torch.Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, args: rows.append(args[0][0]))
    with torch.no_grad():
        for sequence in sequences:
            model(input_ids=torch.tensor([sequence]))
    handle.remove()
    return torch.cat(rows)


def test_moments_are_those_of_the_inputs_token_by_token() -> None:
    model: Any = build_model()
    sequences = mixture([])[:3]
    moments = gather_moments(model, linear_layers(model), sequences)
    scaled = gather_moments(model, linear_layers(model), sequences, is_normalised=True)
    for name in ("model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"):
        inputs = inputs_of(model, name, [sequence.input_ids for sequence in sequences])
        assert moments.num_tokens(name) == len(inputs) == sum(len(sequence.input_ids) for sequence in sequences)
        assert torch.allclose(moments.mean(name), inputs.T @ inputs / len(inputs), rtol=1e-4, atol=1e-6)
        inputs = nn.functional.normalize(inputs, dim=1)  # a zero stays one
        assert torch.allclose(scaled.mean(name), inputs.T @ inputs / len(inputs), rtol=1e-4, atol=1e-6)


def test_layers_with_one_input_share_its_moments() -> None:
    model: Any = build_model()
    moments = gather_moments(model, linear_layers(model), mixture([])[:2])
    groups = [[name.rpartition(".")[2] for name in names] for names in moments.groups().values()]
    assert groups == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]] * 2


def test_the_model_is_left_as_it_was() -> None:
    model: Any = build_model()
    model.train()
    gather_moments(model, linear_layers(model), mixture([])[:1])
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_no_data_is_refused() -> None:
    model: Any = build_model()
    with pytest.raises(ConfigError, match="no data"):
        gather_moments(model, linear_layers(model), [])


def test_a_layer_that_nothing_reaches_is_refused() -> None:
    model: Any = build_model()
    layers = linear_layers(model) | {"expert": nn.Linear(4, 4)}
    with pytest.raises(ConfigError, match=r"reaches 1 layers \(expert"):
        gather_moments(model, layers, [Encoded([5, 6], [5, 6])])

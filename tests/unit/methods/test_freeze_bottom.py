"""Freezing the bottom: what is frozen keeps its bits, of a model and of an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.mechanisms.layers import Layers
from forgetless.methods.base import Context, trainable_parameters
from forgetless.methods.freeze_bottom import FreezeBottom
from forgetless.methods.lora import LoRA
from training import fit


def test_the_bottom_keeps_its_bits_and_the_top_learns(tmp_path: Path) -> None:
    base: Any = build_model()
    trained = fit([FreezeBottom(num_layers=1)], tmp_path, weight_decay=0.1)
    for name, weights in base.state_dict().items():
        is_frozen = "embed" in name or ".layers.0." in name
        assert torch.equal(trained[name], weights) == is_frozen, name


@pytest.mark.parametrize(
    ("options", "num"),
    [({}, 8), ({"fraction": 0.0}, 0), ({"fraction": 0.001}, 1), ({"num_layers": 6}, 6), ({"fraction": 1.0}, 30)],
)
def test_a_share_is_rounded_and_freezes_one_layer_at_least(options: Any, num: int) -> None:
    assert FreezeBottom(**options).num_frozen(Layers("layers", 30, (), False)) == num


def test_the_embedding_can_be_left_trainable() -> None:
    model: Any = build_model()
    trained = trainable_parameters(FreezeBottom(num_layers=1, embeddings=False).prepare_model(model, Context()))
    assert "model.embed_tokens.weight" in trained
    assert not any(".layers.0." in name for name in trained)


def test_an_adapter_is_trained_in_the_upper_layers_only(tmp_path: Path) -> None:
    adapted = fit([LoRA(rank=2), FreezeBottom(num_layers=1)], tmp_path)
    moved = {name.partition(".layers.")[2][0] for name, t in adapted.items() if "lora_B" in name and t.any()}
    assert moved == {"1"}


def test_an_adapter_that_is_added_behind_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name 'freeze_bottom' after the method that adds them"):
        fit([FreezeBottom(num_layers=1), LoRA(rank=2)], tmp_path)


def test_more_layers_than_there_are_and_nothing_left_to_train_are_refused() -> None:
    model: Any = build_model()
    with pytest.raises(ConfigError, match="num_layers 3 is more than the model's 2 layers"):
        FreezeBottom(num_layers=3).prepare_model(model, Context())
    adapted = LoRA(rank=2).prepare_model(model, Context())
    with pytest.raises(ConfigError, match="freezes all that is trained of 2 layers"):
        FreezeBottom(fraction=1.0).prepare_model(adapted, Context())

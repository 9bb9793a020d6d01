"""Weights that are trained in two bytes: float16 is refused, bfloat16 is warned of, adapters are neither."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model, build_tokenizer
from forgetless.config import TrainingConfig
from forgetless.errors import ConfigError
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA
from forgetless.train.trainer import train_model
from training import mixture


def train(model: Any, directory: Path) -> None:
    train_model(
        model,
        build_tokenizer(),
        mixture([]),
        methods=[],
        config=TrainingConfig(batch_size=4, max_steps=1),
        learning_rate=1e-3,
        seed=0,
        directory=directory,
    )


def test_float16_weights_are_refused_before_the_first_step(tmp_path: Path) -> None:
    model: Any = build_model()
    with pytest.raises(ConfigError, match="float16 can't be trained"):
        train(model.half(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_weights_are_warned_of(tmp_path: Path) -> None:
    model: Any = build_model()
    with pytest.warns(UserWarning, match="rounds small updates away"):
        train(model.to(torch.bfloat16), tmp_path)


def test_an_adapter_on_a_bfloat16_base_is_not(tmp_path: Path) -> None:
    model: Any = build_model()
    adapted = LoRA(rank=2).prepare_model(model.to(torch.bfloat16), Context())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*rounds small updates.*")
        train(adapted, tmp_path)

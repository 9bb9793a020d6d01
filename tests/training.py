"""Trainings of the tiny model, for the tests that compare two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from conftest import QUESTIONS, build_model, build_tokenizer
from forgetless.config import TrainingConfig
from forgetless.data.encoding import Encoded, encode_examples
from forgetless.data.examples import Example, Message
from forgetless.methods.base import Context, Method
from writers import stub_writer

GENERAL = [Example(text=f"Fact {number}: water is wet.", origin="general") for number in range(8)]
DOMAIN = [
    Example(messages=(Message("user", row["question"]), Message("assistant", row["answer"]))) for row in QUESTIONS[:16]
]

# Options without which a method would have nothing to do within four steps of a model of random weights.
OPTIONS: dict[str, dict[str, Any]] = {"half": {"steps_per_round": 1}, "stm": {"threshold": 280.0}}


def context() -> Context:
    return Context(
        seed=0, general=GENERAL, tokenizer=build_tokenizer(), max_tokens=64, writer=stub_writer(), can_write=True
    )


def mixture(methods: Sequence[Method]) -> list[Encoded]:
    examples: Sequence[Example] = DOMAIN
    for method in methods:
        examples = method.prepare_data(examples, context())
    return encode_examples(examples, build_tokenizer(), max_tokens=64)


def fit(methods: Sequence[Method], directory: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """Trains the tiny model for four steps and returns its weights."""
    from forgetless.train.trainer import train_model

    config = TrainingConfig(**{"batch_size": 4, "max_steps": 4, "warmup_ratio": 0.0, "logging_steps": 1, **settings})
    model: Any = build_model()
    job = replace(context(), sequences=mixture(methods))
    for method in methods:
        # As far as the method looks: the tiny model is too narrow for bitsandbytes, which packs blocks of 64.
        base, base.is_loaded_in_4bit = model, "in_four_bits" in method.load_options()
        model = method.prepare_model(model, job)
        base.is_loaded_in_4bit = False
    trained, _ = train_model(
        model,
        build_tokenizer(),
        mixture(methods),
        methods=methods,
        config=config,
        learning_rate=1e-2,
        seed=0,
        directory=directory,
    )
    return {name: tensor.detach().clone() for name, tensor in trained.state_dict().items()}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two states hold the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

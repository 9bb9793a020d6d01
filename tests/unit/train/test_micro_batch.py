"""What methods see of a micro-batch: token losses and logits without the positions that nothing is learned at."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless.mechanisms.batches import pad_batch
from forgetless.train.weighting import MicroBatch
from training import mixture


def micro_batch(model: Any, num_items: int | None = None, **counts: Any) -> MicroBatch:
    inputs = pad_batch(mixture([])[:3], padding=1)
    return MicroBatch(model, inputs, num_items, forward=model, **counts)


def test_token_losses_are_those_of_the_model() -> None:
    model: Any = build_model()
    step = micro_batch(model)
    expected = model(**step.inputs).loss
    mean = step.token_losses.sum() / (step.labels[:, 1:] != -100).sum()
    torch.testing.assert_close(mean, expected)
    assert (step.token_losses[step.labels[:, 1:] == -100] == 0).all()


def test_logits_are_computed_once_for_all() -> None:
    model: Any = build_model()
    calls: list[int] = []
    model.register_forward_hook(lambda *args: calls.append(1))
    step = micro_batch(model)
    assert not step.is_projected
    lean = step.supervised_logits
    assert step.is_projected
    assert step.token_losses.requires_grad
    assert len(calls) == 1
    other = micro_batch(model)
    whole = other.logits
    torch.testing.assert_close(other.supervised_logits, lean)
    assert whole.shape[:2] == other.labels.shape
    assert other.is_projected
    assert len(calls) == 2


def test_a_mean_over_tokens_is_that_of_the_optimizer_step() -> None:
    values = torch.tensor([1.0, 2.0, 3.0])
    model: Any = build_model()
    assert float(micro_batch(model).mean_over_tokens(values)) == 2.0
    # Two micro-batches of two processes, twelve tokens: the trainer averages over both.
    part = micro_batch(model, 12, num_micro_batches=2, num_processes=2).mean_over_tokens(values)
    assert float(part) == pytest.approx(6 / 12 * 4)
    assert float(micro_batch(model).mean_over_tokens(values[:0])) == 0.0

"""Weights of tokens and examples, by hand: FLOW, STM, EAFT and TALR."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.mechanisms.batches import pad_batch
from forgetless.methods.base import Method
from forgetless.methods.eaft import EAFT
from forgetless.methods.flow import FLOW
from forgetless.methods.kl import KLToBase
from forgetless.methods.lora import LoRA
from forgetless.methods.stm import STM
from forgetless.methods.talr import TALR
from forgetless.train.weighting import MicroBatch
from training import context, fit, mixture

IGNORED = -100


class Given:
    """A step whose token losses and logits are given; -100 in the labels hides the first position."""

    def __init__(self, losses: list[float], logits: list[list[float]] | None = None) -> None:
        self.labels = torch.tensor([[IGNORED, IGNORED, *range(len(losses))]])
        self.token_losses = torch.tensor([[0.0, *losses]], requires_grad=True)
        self.supervised_logits = torch.tensor(logits or [[0.0]], requires_grad=True)


def weights_of(method: Method, given: Any) -> torch.Tensor:
    weights = method.token_weights(given)
    assert weights is not None
    assert not weights.requires_grad
    return weights


def test_talr_by_hand() -> None:
    weights = weights_of(TALR(floor=0.05), Given([0.5, 1.0, 10.0]))[0, 1:]  # the median is 1
    assert weights.tolist() == pytest.approx([math.exp(-0.5), math.exp(-1), 0.05])
    squared = weights_of(TALR(strength=2.0, floor=0.0), Given([0.5, 1.0, 10.0]))[0, 1:]
    assert squared.tolist() == pytest.approx([math.exp(-1), math.exp(-2), math.exp(-20)])


def test_talr_of_a_model_that_knows_all_and_of_nothing() -> None:
    assert weights_of(TALR(), Given([0.0, 0.0]))[0, 1:].tolist() == [1.0, 1.0]
    assert TALR().token_weights(Given([])) is None  # type: ignore[arg-type]


def test_eaft_by_hand() -> None:
    even = [0.0, 0.0, -50.0]  # two tokens, alike: ln 2 of ln 3 nats
    weights = weights_of(EAFT(top_k=3), Given([1.0, 1.0], [even, [50.0, 0.0, 0.0]]))[0, 1:]
    assert weights.tolist() == pytest.approx([math.log(2) / math.log(3), 0.0], abs=1e-6)
    root = weights_of(EAFT(top_k=3, exponent=0.5), Given([1.0], [even]))[0, 1:]
    assert root.tolist() == pytest.approx([math.sqrt(math.log(2) / math.log(3))])


def test_the_entropy_of_eaft_is_that_of_the_top_renormalised() -> None:
    logits = [[0.0, 0.0, -1.0, -1.0, -1.0]]
    assert weights_of(EAFT(top_k=2), Given([1.0], logits))[0, 1].item() == pytest.approx(1.0)
    small = weights_of(EAFT(), Given([1.0], [[0.0, 0.0]]))  # K is the vocabulary at most
    assert small[0, 1].item() == pytest.approx(1.0)


def base_losses(index: int) -> torch.Tensor:
    """Token losses of the base on a training sequence, computed plainly."""
    model: Any = build_model()
    sequence = mixture([])[index]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([sequence.input_ids])).logits[0, :-1]
    losses = torch.nn.functional.cross_entropy(logits, torch.tensor(sequence.labels[1:]), reduction="none")
    return losses[torch.tensor(sequence.labels[1:]) != IGNORED]


def prepared(method: Any, model: Any = None) -> Any:
    method.prepare_model(model or build_model(), replace(context(), sequences=mixture([])))
    return method


def step(*indices: int) -> MicroBatch:
    model: Any = build_model(seed=1)  # what is trained is no longer the base
    inputs = pad_batch([mixture([])[index] for index in indices], padding=1)
    return MicroBatch(model, inputs, None, forward=model)


def test_flow_by_hand() -> None:
    means = np.array([float(base_losses(index).mean()) for index in range(16)])
    counts = np.array([len(base_losses(index)) for index in range(16)])
    raw = np.exp(-means / np.median(means))
    expected = raw / ((raw * counts).sum() / counts.sum())
    method = prepared(FLOW())
    weights = weights_of(method, step(3, 12))
    for row, index in enumerate((3, 12)):
        supervised = torch.tensor(mixture([])[index].labels[1:]) != IGNORED
        values = weights[row, : len(supervised)][supervised]
        assert values.tolist() == pytest.approx([expected[index]] * counts[index], rel=1e-5)
    assert method.temperature_ == pytest.approx(float(np.median(means)), rel=1e-5)
    assert expected.std() > 1e-3  # the sequences do differ


def test_flow_with_a_temperature_of_the_users() -> None:
    means = [float(base_losses(index).mean()) for index in (0, 1)]
    weights = weights_of(prepared(FLOW(temperature=0.5)), step(0, 1))
    places = [max(i for i, label in enumerate(mixture([])[k].labels[1:]) if label != IGNORED) for k in (0, 1)]
    ratio = float(weights[0, places[0]] / weights[1, places[1]])
    assert ratio == pytest.approx(math.exp(-(means[0] - means[1]) / 0.5), rel=1e-4)


def test_stm_by_hand() -> None:
    everything = torch.cat([base_losses(index) for index in range(16)])
    threshold = math.exp(float(everything.median()))
    share = float((everything > math.log(threshold)).double().mean())
    method = prepared(STM(threshold=threshold))
    assert method.masked_share_ == pytest.approx(share)
    inputs = step(5)
    weights = weights_of(method, inputs)[0]
    values = weights[inputs.labels[0, 1:] != IGNORED]
    expected = (base_losses(5) <= math.log(threshold)).float() / (1 - share)
    torch.testing.assert_close(values, expected)
    assert 0 < float((values == 0).float().mean()) < 1


def test_the_threshold_of_stm_is_a_perplexity_and_not_a_loss() -> None:
    with pytest.raises(ConfigError, match="leaves no token to learn"):
        prepared(STM())  # a model of random weights is at about 258 at every token
    everything = torch.cat([base_losses(index) for index in range(16)])
    limit = math.exp(float(everything.quantile(0.2)))
    with pytest.warns(UserWarning, match="masks 80% of the target tokens"):
        prepared(STM(threshold=limit))
    assert prepared(STM(threshold=1e6)).masked_share_ == 0


@pytest.mark.parametrize("method", [FLOW(), STM()], ids=["flow", "stm"])
def test_the_training_sequences_must_be_known(method: Method) -> None:
    with pytest.raises(ConfigError, match="must know all training sequences"):
        method.prepare_model(build_model(), context())  # type: ignore[arg-type]


def test_a_row_without_answers_weighs_nothing_and_harms_nothing() -> None:
    method = prepared(FLOW())
    inputs = step(0, 1)
    inputs.labels[1] = IGNORED
    assert torch.isfinite(weights_of(method, inputs)).all()


@pytest.mark.parametrize("method", [FLOW(), STM(threshold=280.0)], ids=["flow", "stm"])
def test_behind_an_adapter_weights_are_those_without(method: Any) -> None:
    plain = weights_of(prepared(method), step(0, 1))
    adapted = LoRA(rank=2).prepare_model(build_model(), context())  # type: ignore[arg-type]
    torch.testing.assert_close(weights_of(prepared(method, adapted), step(0, 1)), plain)


def test_the_trained_loss_is_the_weighted_sum_over_all_supervised_tokens(tmp_path: Path) -> None:
    import json

    class Halving(Method):
        name, title, paper = "halving", "For tests", "https://example.org"

        def token_weights(self, step: Any) -> torch.Tensor:
            return torch.full_like(step.token_losses, 0.5).detach()

    for run, methods in (("plain", []), ("half", [Halving()]), ("both", [Halving(), KLToBase(strength=1e-9)])):
        fit(methods, tmp_path / run, max_steps=1)
    losses = [json.loads((tmp_path / run / "train.jsonl").read_text())["loss"] for run in ("plain", "half", "both")]
    assert losses[1:] == pytest.approx([losses[0] / 2] * 2, rel=1e-4)

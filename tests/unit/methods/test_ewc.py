"""EWC: its equilibrium, its trajectory, its phases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import build_model
from forgetless.data.encoding import encode_examples
from forgetless.data.examples import Example
from forgetless.errors import ConfigError
from forgetless.mechanisms.earlier import Earlier
from forgetless.mechanisms.fisher import load_fisher
from forgetless.mechanisms.kept_importance import estimate_kept_importance
from forgetless.mechanisms.quadratic import QuadraticPenalty
from forgetless.mechanisms.weight_change import low_rank_updates
from forgetless.methods.base import Context, Method
from forgetless.methods.ewc import EWC
from forgetless.methods.lora import LoRA
from training import context, fit

STRENGTH = 50.0


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("fisher", [0.0, 0.25, 4.0])
def test_a_single_weight_comes_to_rest_where_the_closed_form_says(fisher: float) -> None:
    class Weight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.tensor([1.0]))

    model = Weight()
    penalty = QuadraticPenalty(model, {"theta": torch.tensor([fisher])}, strength=3.0)
    for _ in range(200):
        model.theta.grad = 2.0 * (model.theta.detach() + 2.0)  # of (theta + 2)^2
        penalty.add_gradient(model)
        model.theta.data -= 0.05 * model.theta.grad
    expected = (2 * -2.0 + 3 * fisher * 1.0) / (2 + 3 * fisher)
    assert float(model.theta.detach()) == pytest.approx(expected, abs=1e-4)


class ByAutograd(Method):
    """The same penalty as a part of the loss."""

    name = "by_autograd"

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        self.fisher = estimate_kept_importance(
            model, context, name="x", kind="sampled", data="auto", num_sequences=128, dtype="float32"
        )
        self.anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
        return model

    def penalty(self, step: Any) -> Tensor:
        if updates := low_rank_updates(step.model):
            changes = {
                u.name.removeprefix("base_model.model.").replace(".base_layer", ""): u.scale
                * step.model.get_parameter(u.b)
                @ step.model.get_parameter(u.a)
                for u in updates
            }
        else:
            changes = {name: p - self.anchor[name] for name, p in step.model.named_parameters()}
        return STRENGTH / 2 * torch.stack([(self.fisher[n] * d.square()).sum() for n, d in changes.items()]).sum()


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 1}, {"max_grad_norm": 0.05}])
@pytest.mark.parametrize("is_lora", [False, True])
def test_its_trajectory_is_that_of_autograd(is_lora: bool, settings: dict[str, Any], tmp_path: Path) -> None:
    before: list[Method] = [LoRA(rank=4)] if is_lora else []
    ours = fit([*before, EWC(strength=STRENGTH)], tmp_path / "ours", **settings)
    theirs = fit([*before, ByAutograd()], tmp_path / "theirs", **settings)
    plain = fit(before, tmp_path / "plain", **settings)
    assert largest_difference(ours, theirs) < 2e-4  # Adam turns rounding of small gradients into steps
    assert largest_difference(ours, plain) > 5e-3
    one, other = (
        [json.loads(line)["penalties"][name] for line in (tmp_path / run / "train.jsonl").read_text().splitlines()]
        for run, name in (("ours", "ewc"), ("theirs", "by_autograd"))
    )
    assert one == pytest.approx(other, rel=1e-2)
    assert one[0] == 0
    assert one[-1] > 0


def test_it_keeps_weights_nearer_to_where_they_started_by_their_importance(tmp_path: Path) -> None:
    start: dict[str, Tensor] = build_model().state_dict()  # type: ignore[attr-defined]
    fisher = estimate_kept_importance(
        build_model(),  # type: ignore[arg-type]
        context(),
        name="x",
        kind="sampled",
        data="auto",
        num_sequences=128,
        dtype="float32",
    )
    distances = [
        sum(float((fisher[n] * (weights[n] - start[n]).square()).sum()) for n in fisher)
        for weights in (fit([EWC(strength=s)], tmp_path / str(s)) for s in (0.0, 10.0, 1000.0))
    ]
    assert distances[0] > distances[1] > distances[2]


def test_adapters_may_come_before_or_after_it(tmp_path: Path) -> None:
    one = fit([LoRA(rank=4), EWC(strength=STRENGTH)], tmp_path / "one")
    other = fit([EWC(strength=STRENGTH), LoRA(rank=4)], tmp_path / "other")
    # The estimates differ by rounding: below an adapter that adds zero, sums are taken in another order.
    assert largest_difference(one, other) < 2e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_later_phase_adds_the_fisher_of_the_earlier(dtype: Any, tmp_path: Path) -> None:
    job = replace(context(), directory=tmp_path)
    model: Any = build_model()
    EWC(num_sequences=3, dtype=dtype).prepare_model(model, job)
    later = EWC(num_sequences=3, dtype=dtype, previous=str(tmp_path / "ewc.safetensors"), gamma=0.5)
    assert json.loads(json.dumps(later.options()))["previous"] == str(tmp_path / "ewc.safetensors")
    later.prepare_model(model, replace(context(), directory=tmp_path / "later"))
    for parameter in model.parameters():
        parameter.data += 0.1
        parameter.grad = torch.zeros_like(parameter)
    once = EWC(num_sequences=3, dtype=dtype)
    once.prepare_model(build_model(), context())  # type: ignore[arg-type]
    values = [float(method.adjust_gradients(model)) for method in (later, once)]  # type: ignore[arg-type]
    assert values[0] == pytest.approx(1.5 * values[1], rel=2e-2)


def test_it_needs_data_to_keep() -> None:
    with pytest.raises(ConfigError, match="needs data that stands for what is to be kept"):
        EWC().check(Context())
    EWC(strength=0).check(Context())


class Bigrams(nn.Module):
    """A linear language model: the logits after a token are that token's row of one matrix."""

    def __init__(self, size: int = 258) -> None:
        super().__init__()
        self.rows = nn.Embedding(size, size)
        nn.init.zeros_(self.rows.weight)

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=self.rows(input_ids))


def fisher_by_hand(weight: Tensor, examples: Sequence[Example], tokenizer: Any) -> Tensor:
    """The mean over sequences of the squared gradient of the log-likelihood of their own labels, row by row."""
    total = torch.zeros_like(weight)
    for sequence in encode_examples(examples, tokenizer, max_tokens=64):
        gradient = torch.zeros_like(weight)
        for token, label in zip(sequence.input_ids[:-1], sequence.labels[1:], strict=True):
            if label != -100:
                gradient[token] -= weight[token].softmax(-1)
                gradient[token, label] += 1
        total += gradient.square()
    return total / len(examples)


def test_penalties_of_earlier_phases_add_up_as_a_hand_computation_says(tmp_path: Path) -> None:
    phases = {
        name: [Example(text=f"{name} {number}") for number in range(num)] for name, num in (("one", 3), ("two", 2))
    }
    method = EWC(strength=4.0, gamma=0.5, labels="empirical", data="earlier")
    job = replace(context(), general=[])
    model, generator = Bigrams(), torch.Generator().manual_seed(0)
    expected = torch.zeros_like(model.rows.weight)
    states = [Earlier(), Earlier({"one": phases["one"]}, directory=tmp_path / "1")]
    states.append(Earlier(phases, directory=tmp_path / "2"))
    for number, state in enumerate(states, start=1):
        anchor = model.rows.weight.detach().clone()
        method.prepare_model(model, replace(job, earlier=state, directory=tmp_path / str(number)))
        if state.phases:
            expected = 0.5 * expected + fisher_by_hand(anchor, state.latest, job.tokenizer)
        model.rows.weight.data += 0.1 * torch.randn(anchor.shape, generator=generator)
        model.rows.weight.grad = torch.zeros_like(anchor)
        value = method.adjust_gradients(model)
        moved = model.rows.weight.detach() - anchor
        assert (value is None) == (number == 1)  # in a first phase nothing earlier is to be kept
        if value is not None:
            assert float(value) == pytest.approx(2.0 * float((expected * moved.square()).sum()), rel=1e-4)
            torch.testing.assert_close(model.rows.weight.grad, 4.0 * expected * moved, rtol=1e-4, atol=1e-7)
    assert expected.max() > 0.1
    assert (tmp_path / "3" / "ewc.safetensors").is_file()


def test_general_data_are_the_first_task_of_a_sequence(tmp_path: Path) -> None:
    phases = {"one": [Example(text=f"one {number}") for number in range(3)]}
    job, model = context(), Bigrams()
    EWC(labels="empirical").prepare_model(model, replace(job, earlier=Earlier(), directory=tmp_path / "1"))
    state = Earlier(phases, directory=tmp_path / "1")
    EWC(labels="empirical").prepare_model(model, replace(job, earlier=state, directory=tmp_path / "2"))
    found = load_fisher(tmp_path / "2" / "ewc.safetensors")["rows.weight"]
    weight = model.rows.weight.detach()
    both = fisher_by_hand(weight, job.general, job.tokenizer) + fisher_by_hand(weight, phases["one"], job.tokenizer)
    torch.testing.assert_close(found, both, rtol=1e-4, atol=1e-7)

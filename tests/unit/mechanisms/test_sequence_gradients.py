"""Modules of unusual kinds: what the batched pass can't cover is taken one sequence at a time, and agrees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forgetless.mechanisms.gradient_rules as rules
from forgetless.mechanisms.fisher import estimate_fisher, estimate_sensitivity
from forgetless.mechanisms.sequence_gradients import _Recorder
from language_models import build, padded_batch, plain_fisher, relative_error

LOOPED: list[str] = []


@pytest.fixture(autouse=True)
def _watch(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = _Recorder.finish
    LOOPED.clear()

    def watched(self: _Recorder) -> list[str]:
        LOOPED.extend(left := finish(self))
        return left

    monkeypatch.setattr(_Recorder, "finish", watched)


class Odd(nn.Module):
    """A language model with one part of each awkward kind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(61, 8)
        self.frozen = nn.Embedding(61, 8).requires_grad_(False)
        self.norm = nn.LayerNorm(8)
        self.twice = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.pair = Pair()
        self.flat = nn.Linear(8, 8)
        self.functional = nn.Linear(8, 8)
        self.gate = Gate()
        self.scaled = Doubled(8, 8)
        self.free = nn.Parameter(torch.randn(8))
        self.unused = nn.Linear(8, 8)
        self.by_hand = nn.Embedding(61, 8)
        self.head = nn.Linear(8, 61, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        x = self.norm(self.embedding(input_ids) + self.frozen(input_ids) * self.embedding(input_ids))
        x = self.pair(self.again(self.again(x).tanh()))[0]
        x = self.twice(self.twice(x).relu_()) + self.flat(x.flatten(0, 1)).view_as(x)
        x = x + nn.functional.linear(x, self.functional.weight, self.functional.bias) * self.free
        x = self.scaled(self.gate(x, x.tanh()))

        class Output:
            logits = self.head(x) + (x + self.by_hand(input_ids)) @ self.by_hand.weight.T

        return Output


class Gate(nn.Module):
    """A module with two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return x * gate * self.weight


class Pair(nn.Module):
    """A module that gives more than one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.weight, self.weight


class Doubled(nn.Linear):
    """A linear module that computes something else."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


def test_what_the_batched_pass_can_not_cover_is_taken_one_by_one() -> None:
    model = Odd().eval()
    found = estimate_fisher(model, [padded_batch()], labels="empirical")
    expected = plain_fisher(model, padded_batch())
    assert relative_error(found, {name: expected[name] for name in found}) < 1e-5
    assert {name.partition(".")[0] for name in LOOPED} == {
        *("flat", "functional", "gate", "pair", "scaled", "free", "unused"),
        "by_hand",  # a tied output layer
        "twice",  # changed in place, which loses a hook
    }
    assert not found["unused.weight"].any()
    del model.frozen
    sensitivity = estimate_sensitivity(Odd(), [padded_batch()])
    assert all(sensitivity[name].any() for name in sensitivity if not name.startswith("unused"))


@pytest.mark.parametrize("kind", ["llama", "tied", "gpt2", "qwen3", "gemma3"])
def test_common_models_need_no_loop(kind: str) -> None:
    estimate_fisher(build(kind), [padded_batch()])
    assert not LOOPED


def test_experts_are_taken_one_by_one() -> None:
    estimate_fisher(build("mixtral"), [padded_batch()])
    assert LOOPED
    assert all(".mlp." in name for name in LOOPED)


@pytest.mark.parametrize("chunk", [1, 700, 2**20])
@pytest.mark.parametrize("estimate", [estimate_fisher, estimate_sensitivity])
def test_the_size_of_chunks_changes_nothing(chunk: int, estimate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = estimate(build("biased"), [padded_batch()])
    monkeypatch.setattr(rules, "CHUNK_ON_CPU", chunk)
    assert relative_error(estimate(build("biased"), [padded_batch()]), whole) < 1e-5


def test_a_model_whose_parts_are_all_frozen_but_late_ones_starts_its_graph_there() -> None:
    model = build("llama").requires_grad_(False)
    wanted = model.model.layers[1].mlp.requires_grad_(True)
    found = estimate_fisher(model, [padded_batch()], labels="empirical")
    assert len(found) == len(list(wanted.parameters()))
    expected = plain_fisher(build("llama"), padded_batch())
    assert relative_error(found, {name: expected[name] for name in found}) < 1e-5


def test_positions_that_all_sequences_share_are_kept_in_the_loop() -> None:
    model, batch = build("mixtral"), padded_batch()
    alone = estimate_fisher(model, [batch], labels="empirical")
    assert LOOPED
    shared = estimate_fisher(model, [batch | {"position_ids": torch.arange(12)[None]}], labels="empirical")
    assert relative_error(shared, alone) < 1e-5


def test_gradients_of_the_loop_are_not_kept_beside_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("mixtral")
    grad = torch.autograd.grad
    kept: list[int] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        found = grad(*args, **kwargs)
        if not any(torch._C._functorch.is_functorch_wrapped_tensor(value) for value in found):
            kept.extend(value.untyped_storage().nbytes() for value in found if value is not None)
        return found

    monkeypatch.setattr(torch.autograd, "grad", watched)
    estimate_fisher(model, [padded_batch()], labels="empirical")
    assert LOOPED
    assert len(kept) >= 3 * len(LOOPED)
    assert max(kept) <= 8  # a zero in place of each


def test_hooks_of_the_users_own_are_not_asked_and_gradients_stay() -> None:
    model = build("mixtral")
    parameter = next(p for name, p in model.named_parameters() if "experts" in name)
    parameter.grad = torch.ones_like(parameter)
    calls: list[Any] = []
    handle = parameter.register_post_accumulate_grad_hook(calls.append)
    estimate_fisher(model, [padded_batch()], labels="empirical")
    handle.remove()
    assert calls == []
    assert torch.equal(parameter.grad, torch.ones_like(parameter))


def test_a_model_that_computes_in_another_precision_than_its_weights_is_taken() -> None:
    """As a trainer leaves it that has evaluated under bf16: its forward pass runs under autocast."""
    model: Any = build("llama")
    exact = estimate_fisher(model, [padded_batch()], labels="empirical")
    forward = model.forward

    def lowered(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            output = forward(*args, **kwargs)
        output.logits = output.logits.float()
        return output

    model.forward = lowered
    near = estimate_fisher(model, [padded_batch()], labels="empirical")
    assert relative_error(near, exact) < 0.05


def test_sums_of_absolute_values_leave_the_gradients_of_others_alone() -> None:
    """A parameter that is added to activations of its own shape shares their gradient with what comes before."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.flat = nn.Embedding(61, 8), nn.Linear(8, 8)
            self.positions = nn.Parameter(torch.randn(1, 5, 8))
            self.shift = nn.Parameter(torch.randn(8))
            self.head = nn.Linear(8, 61)

        def forward(self, input_ids: Tensor) -> Any:
            x = self.flat(self.embedding(input_ids).flatten(0, 1)).view(*input_ids.shape, -1) + self.positions
            return self.head(x + self.shift.sum())

    model, ids = Positions(), torch.arange(5)[None]
    batch = {"input_ids": ids, "labels": ids}
    alone = {
        name: estimate_sensitivity(model, [batch], parameters=[name])[name] for name, _ in model.named_parameters()
    }
    assert relative_error(estimate_sensitivity(model, [batch]), alone) < 1e-5

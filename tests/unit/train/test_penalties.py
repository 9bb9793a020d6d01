"""What penalties are worth: values by name, shares of the gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from forgetless.methods.base import Method
from forgetless.train.penalties import PenaltyLog
from training import fit


class Weight(torch.nn.Module):
    """A model of one weight, at 2, and one that nothing touches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.0]))
        self.idle = torch.nn.Parameter(torch.tensor([1.0]))


def test_shares_are_those_of_gradients_computed_by_hand() -> None:
    model, log = Weight(), PenaltyLog()
    penalty = model.weight.square().sum()  # gradient 4
    log.add("square", penalty)
    log.add_gradient("square", penalty, model)
    (10 * model.weight.sum() + penalty).backward()
    assert log.has_gradients
    log.start(model)
    assert model.weight.grad is not None
    model.weight.grad -= 6.0  # a closed form with gradient -6
    log.add("pull", 1.5)
    log.note_change("pull", model, is_penalty=True)
    model.weight.grad *= 3.0
    log.note_change("projection", model, is_penalty=False)
    log.finish()
    assert log.take() == pytest.approx(
        {"penalty/square": 4.0, "penalty/pull": 1.5, "share/square": 4 / 20, "share/pull": 6 / 20}
    )
    assert log.take() == {}


def test_micro_batches_add_up_and_a_constant_penalty_has_no_gradient() -> None:
    model, log = Weight(), PenaltyLog()
    log.add_gradient("none", torch.tensor(3.0), model)
    assert not log.has_gradients
    for _ in range(2):
        penalty = 0.5 * model.weight.square().sum()
        log.add_gradient("square", penalty, model)
        penalty.backward()
    log.start(model)
    assert log.take() == {"share/square": 1.0}  # the task itself has no gradient here


class Square(Method):
    """A penalty with a graph of its own, or the same one in closed form."""

    name = "square"
    title = "For tests"
    paper = "https://example.org"

    def penalty(self, step: Any) -> torch.Tensor:
        return 0.5 * torch.stack([p.square().sum() for p in step.model.parameters()]).sum()


class ClosedSquare(Method):
    name = "square"
    title = "For tests"
    paper = "https://example.org"

    def adjust_gradients(self, model: Any) -> torch.Tensor:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.grad.add_(parameter)
            return 0.5 * torch.stack([p.square().sum() for p in model.parameters()]).sum()


def test_a_penalty_weighs_the_same_with_a_graph_and_in_closed_form(tmp_path: Path) -> None:
    import json

    logs = []
    for method in (Square(), ClosedSquare()):
        directory = tmp_path / type(method).__name__
        fit([method], directory, max_steps=2, batch_size=8, micro_batch_size=2)
        logs.append([json.loads(line) for line in (directory / "train.jsonl").read_text().splitlines()])
    for one, other in zip(*logs, strict=True):
        assert one["penalties"]["square"] == pytest.approx(other["penalties"]["square"], rel=1e-4)
        assert one["shares"]["square"] == pytest.approx(other["shares"]["square"], rel=1e-3)
        assert 0 < one["shares"]["square"] < 1


def test_values_and_gradients_are_means_over_processes_that_all_take_part() -> None:
    model = Weight()
    asked: list[Tensor] = []

    def halve(tensor: Tensor) -> Tensor:
        """Averages with a second process that has nothing."""
        asked.append(tensor)
        return tensor / 2

    log = PenaltyLog(["square", "idle", "closed"], ["square", "idle"], average=halve)
    penalty = model.weight.square().sum()  # gradient 4, in this process alone
    log.add("square", penalty)
    log.add_gradient("square", penalty, model)
    model.weight.grad = torch.tensor([8.0])
    log.start(model)
    assert len(asked) == 4  # two methods, two weights, whoever has a gradient
    logs = log.take()
    assert logs == pytest.approx({"penalty/square": 4.0, "share/square": 2 / 8, "share/idle": 0.0})
    assert len(asked) == 5
    assert log.take() == {}

"""What must not change what is learned: the size of micro-batches, how the loss is computed, padding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from conftest import build_model, build_tokenizer
from forgetless.config import TrainingConfig
from forgetless.data.encoding import Encoded
from forgetless.methods.base import Method
from forgetless.methods.lora import LoRA
from training import context, fit, mixture


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_one_batch_of_eight_is_eight_batches_of_one(tmp_path: Path) -> None:
    whole = fit([], tmp_path / "whole", batch_size=8)
    split = fit([], tmp_path / "split", batch_size=8, micro_batch_size=1)
    assert largest_difference(whole, split) < 1e-4  # Adam turns rounding of small gradients into steps


def test_padding_changes_nothing(tmp_path: Path) -> None:
    model: Any = build_model()
    short, long = sorted(mixture([]), key=lambda sequence: len(sequence.input_ids))[:: len(mixture([])) - 1]
    alone = losses_of(model, [short], tmp_path)
    together = losses_of(model, [short, Encoded(long.input_ids, [-100] * len(long.labels))], tmp_path)
    assert abs(alone - together) < 1e-5


def test_the_lean_loss_is_that_of_transformers(tmp_path: Path) -> None:
    model: Any = build_model()
    sequences = mixture([])[:4]
    longest = max(len(s.input_ids) for s in sequences)
    ids = torch.tensor([s.input_ids + [1] * (longest - len(s.input_ids)) for s in sequences])
    labels = torch.tensor([s.labels + [-100] * (longest - len(s.labels)) for s in sequences])
    mask = torch.tensor([[1] * len(s.input_ids) + [0] * (longest - len(s.input_ids)) for s in sequences])
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert abs(losses_of(model, sequences, tmp_path) - float(expected)) < 1e-5


def losses_of(model: Any, sequences: list[Encoded], directory: Path) -> float:
    """Returns the loss of the first step over all sequences as one batch."""

    from forgetless.train.trainer import train_model

    config = TrainingConfig(batch_size=len(sequences), max_steps=1, logging_steps=1)
    train_model(
        model,
        build_tokenizer(),
        sequences,
        methods=[],
        config=config,
        learning_rate=1e-9,
        seed=0,
        directory=directory,
    )
    return float(json.loads((directory / "train.jsonl").read_text().splitlines()[0])["loss"])


class Doubling(Method):
    """A method with every training hook, each of which does what can be computed by hand."""

    name = "doubling"
    title = "For tests"
    paper = "https://example.org"

    def token_weights(self, step: Any) -> torch.Tensor:
        return torch.full_like(step.token_losses, 2.0).detach()

    def penalty(self, step: Any) -> torch.Tensor:
        return torch.stack([p.square().sum() for p in step.model.parameters()]).sum()

    def adjust_gradients(self, model: Any) -> None:
        for parameter in model.parameters():
            parameter.grad.neg_()

    def after_step(self, model: Any) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)


def test_every_hook_acts_once_per_step_whatever_the_micro_batches(tmp_path: Path) -> None:
    whole = fit([Doubling()], tmp_path / "whole", batch_size=8, max_steps=2)
    split = fit([Doubling()], tmp_path / "split", batch_size=8, max_steps=2, micro_batch_size=2)
    assert largest_difference(whole, split) < 1e-3
    start: dict[str, torch.Tensor] = build_model().state_dict()  # type: ignore[attr-defined]
    moved = min(float((whole[name] - start[name]).min()) for name in start)
    assert 2 - 0.1 < moved < 2 + 0.1  # after_step twice, each adding 1; the optimizer's own steps are small


def test_penalties_are_logged_by_name(tmp_path: Path) -> None:

    fit([Doubling()], tmp_path, max_steps=2)
    records = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert all(record["penalties"]["doubling"] > 0 for record in records)


def test_switching_the_adapter_off_gives_the_base_bit_for_bit(tmp_path: Path) -> None:
    from forgetless.train.trainer import train_model

    for variant in ("lora", "rslora", "dora"):
        method = LoRA(rank=4, variant=variant)
        adapted: Any = method.prepare_model(build_model(), context())  # type: ignore[arg-type]
        trained, _ = train_model(
            adapted,
            build_tokenizer(),
            mixture([]),
            methods=[method],
            config=TrainingConfig(max_steps=3, batch_size=4),
            learning_rate=1e-2,
            seed=0,
            directory=tmp_path / variant,
        )
        ids = torch.arange(20)[None]
        base: Any = build_model()
        with torch.no_grad():
            on = trained(input_ids=ids).logits
            with trained.disable_adapter():  # type: ignore[operator]
                off = trained(input_ids=ids).logits
            assert torch.equal(off, base(input_ids=ids).logits)
            assert not torch.equal(on, off)

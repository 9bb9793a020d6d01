"""KL to the base: known values, one kept batch per optimizer step, and what it keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model, build_tokenizer
from forgetless.data.encoding import encode_examples
from forgetless.errors import ConfigError
from forgetless.mechanisms.batches import pad_batch
from forgetless.methods.base import Context
from forgetless.methods.kl import KLToBase
from forgetless.methods.lora import LoRA
from forgetless.train.weighting import MicroBatch
from training import GENERAL, context, fit, mixture

MODES = pytest.mark.parametrize("mode", ["adapter", "cache"])


def step(model: Any, *, num_micro_batches: int = 1, is_first: bool = True, rows: slice = slice(0, 4)) -> MicroBatch:
    """A micro-batch of domain data, of an optimizer step over four sequences."""
    sequences = mixture([])
    return MicroBatch(
        model,
        pad_batch(sequences[rows], padding=1),
        sum(sequence.num_supervised for sequence in sequences[:4]),
        forward=model,
        is_first=is_first,
        num_micro_batches=num_micro_batches,
    )


def adapted(scale: float = 0.0) -> Any:
    model: Any = LoRA(rank=2).prepare_model(build_model(), context())  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if "lora_B" in name and scale:
            torch.nn.init.normal_(parameter, std=scale, generator=torch.Generator().manual_seed(0))
    return model


def prepared(model: Any, **options: Any) -> KLToBase:
    method = KLToBase(**options)
    assert method.prepare_model(model, replace(context(), sequences=mixture([]))) is model
    return method


def plain_divergence(tuned: Any, batch: dict[str, torch.Tensor], *, masked: bool = False) -> torch.Tensor:
    """KL(base || tuned) at the supervised positions, from whole forward passes of two models."""
    base: Any = build_model()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    wanted = batch["labels"][:, 1:] != -100
    with torch.no_grad():
        rows = [model(**inputs).logits[:, :-1][wanted] for model in (base, tuned)]
    if masked:
        targets = batch["labels"][:, 1:][wanted][:, None]
        rows = [row.scatter(-1, targets, -1e9) for row in rows]
    base_rows, tuned_rows = (row.log_softmax(-1) for row in rows)
    divergences: torch.Tensor = (base_rows.exp() * (base_rows - tuned_rows)).sum(-1)
    return divergences


@pytest.mark.parametrize("data", ["general", "domain"])
@MODES
def test_it_is_zero_with_no_gradient_at_the_start(data: str, mode: str) -> None:
    model = adapted()
    method = prepared(model, data=data, reference=mode)
    value = method.penalty(step(model))
    assert value is not None
    value.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    tolerance = 0 if mode == "adapter" else 1e-5  # kept values were computed in other batches
    assert abs(value.item()) <= tolerance
    assert gradients
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-6


@pytest.mark.parametrize("masked", [False, True])
@MODES
def test_on_domain_data_it_is_the_mean_over_the_tokens_of_the_optimizer_step(mode: str, masked: bool) -> None:
    model = adapted(scale=0.3)
    # All tokens but one apart: the bucket of the cache hides nothing.
    method = prepared(adapted(), data="domain", reference=mode, strength=0.5, mask_target=masked, top_k=257)
    expected = plain_divergence(model, pad_batch(mixture([])[:4], padding=1), masked=masked).mean()
    whole = method.penalty(step(model))
    assert whole is not None
    assert whole.item() == pytest.approx(0.5 * float(expected), rel=1e-4)
    halves = [
        method.penalty(step(model, num_micro_batches=2, rows=slice(first, first + last)))
        for first, last in ((0, 1), (1, 3))
    ]
    assert sum(half.item() for half in halves if half is not None) / 2 == pytest.approx(whole.item(), rel=1e-5)


def test_on_kept_data_it_is_the_mean_over_one_batch_per_optimizer_step() -> None:
    model = adapted(scale=0.3)
    method = prepared(model, data="general", batch_size=8)
    kept = pad_batch(encode_examples(GENERAL, build_tokenizer(), max_tokens=64), padding=1)
    expected = float(plain_divergence(model, kept).mean())
    values = [method.penalty(step(model, num_micro_batches=4, is_first=n in (0, 4))) for n in range(5)]
    numbers = [value.item() for value in values if value is not None]
    assert numbers == pytest.approx([4 * expected, 0, 0, 0, 4 * expected], rel=1e-4)
    assert int(method.state_dict()["num_drawn"]) == 2


def test_the_kept_top_is_a_lower_bound() -> None:
    model = adapted(scale=0.3)
    values = [
        method.penalty(step(model))
        for method in (
            prepared(adapted(), data="domain", reference="cache", top_k=8),
            prepared(adapted(), data="domain", reference="cache", top_k=64),
            prepared(adapted(), data="domain", reference="adapter"),
        )
    ]
    few, many, exact = (value.item() for value in values if value is not None)
    assert 0 < few < many < exact


def test_full_fine_tuning_asks_beforehand_and_the_base_needs_no_second_model(tmp_path: Path) -> None:
    held = fit([KLToBase(data="domain", strength=50.0, top_k=200)], tmp_path / "held", max_steps=8)
    free = fit([], tmp_path / "free", max_steps=8)
    divergences = []
    for weights in (held, free):
        model: Any = build_model()
        model.load_state_dict(weights)
        divergences.append(float(plain_divergence(model, pad_batch(mixture([])[:4], padding=1)).mean()))
    assert divergences[0] < 0.5 * divergences[1]


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    for data in ("general", "domain"):
        settings: dict[str, Any] = {"max_steps": 2}
        whole = fit([KLToBase(data=data, strength=5.0)], tmp_path / f"{data}-whole", batch_size=8, **settings)
        split = fit(
            [KLToBase(data=data, strength=5.0)],
            tmp_path / f"{data}-split",
            batch_size=8,
            micro_batch_size=2,
            **settings,
        )
        assert max(float((whole[name] - split[name]).abs().max()) for name in whole) < 1e-3
        logs = [
            [json.loads(line)["penalties"]["kl"] for line in (tmp_path / run / "train.jsonl").read_text().splitlines()]
            for run in (f"{data}-whole", f"{data}-split")
        ]
        assert logs[0] == pytest.approx(logs[1], rel=2e-3, abs=1e-6)


def test_a_kept_batch_is_in_memory_on_the_side_of_the_state() -> None:
    method = prepared(adapted(), data="general", batch_size=4)
    for _ in range(3):
        method.penalty(step(adapted()))
    fresh = prepared(adapted(), data="general", batch_size=4)
    fresh.load_state_dict(method.state_dict())
    assert method.cycle_ is not None
    assert fresh.cycle_ is not None
    assert torch.equal(fresh.cycle_.next()["input_ids"], method.cycle_.next()["input_ids"])
    domain = prepared(adapted(), data="domain")
    assert domain.state_dict() == {}
    domain.load_state_dict({})


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="needs data that stands for"):
        KLToBase().check(Context())
    KLToBase(strength=0).check(Context())
    KLToBase(data="domain").check(Context())
    with pytest.raises(ConfigError, match="put an adapter"):
        prepared(build_model(), reference="adapter")
    with pytest.raises(ConfigError, match="asks the base about the training rows beforehand"):
        KLToBase(data="domain").prepare_model(build_model(), context())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="start is for sequences"):
        KLToBase(anchor="start", data="domain").check(Context())

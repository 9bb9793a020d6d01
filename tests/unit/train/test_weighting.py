"""The stand-in for the model inside a trainer's loss, against what the model itself answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless.errors import ConfigError
from forgetless.train import weighting
from forgetless.train.weighting import AnsweredModel, MicroBatch, multiply_weights, token_metrics
from training import mixture


def batch() -> dict[str, Any]:
    rows = mixture([])[:3]
    longest = max(len(row.input_ids) for row in rows)
    return {
        "input_ids": torch.tensor([row.input_ids + [1] * (longest - len(row.input_ids)) for row in rows]),
        "attention_mask": torch.tensor(
            [[1] * len(row.input_ids) + [0] * (longest - len(row.input_ids)) for row in rows]
        ),
        "labels": torch.tensor([row.labels + [-100] * (longest - len(row.labels)) for row in rows]),
    }


def micro_batch(**changes: Any) -> MicroBatch:
    model: Any = build_model()
    options = {"num_items": None, "forward": model, **changes}
    return MicroBatch(model, options.pop("inputs", batch()), options.pop("num_items"), **options)


def test_logits_and_losses_are_the_models_own_whichever_is_asked_first() -> None:
    step, other = micro_batch(), micro_batch()
    model: Any = build_model()
    expected = model(**batch())
    assert torch.allclose(step.logits, expected.logits)
    wanted = batch()["labels"][:, 1:] != -100
    for one in (step, other):  # from all logits, and from those of supervised tokens alone
        assert torch.allclose(one.supervised_logits, expected.logits[:, :-1][wanted], atol=1e-6)
        assert (one.token_losses.sum() / wanted.sum()).item() == pytest.approx(expected.loss.item(), abs=1e-6)
        assert one.token_losses[~wanted].abs().sum().item() == 0


def test_a_mean_over_tokens_counts_those_of_all_micro_batches_and_processes() -> None:
    values = torch.tensor([1.0, 2.0, 3.0])
    assert micro_batch().mean_over_tokens(values) == 2.0
    step = micro_batch(num_items=12, num_micro_batches=4, num_processes=2)
    assert step.mean_over_tokens(values) == 6 / 12 * 4 * 2


def test_batches_without_labels_are_refused() -> None:
    inputs = {name: value for name, value in batch().items() if name != "labels"}
    with pytest.raises(ConfigError, match="no `labels`, only input_ids, attention_mask"):
        _ = micro_batch(inputs=inputs).token_losses


def test_the_stand_in_answers_as_the_model_does() -> None:
    step = micro_batch()
    model: Any = build_model()
    answered: Any = AnsweredModel(step, None)
    answer, expected = answered(**step.inputs), model(**batch())
    assert answer["loss"].item() == pytest.approx(expected.loss.item(), abs=1e-6)
    assert torch.allclose(answer.logits, expected.logits, atol=1e-6)
    assert answer.past_key_values is None
    assert answered(**step.inputs, num_items_in_batch=7).loss.item() == pytest.approx(
        model(**batch(), num_items_in_batch=7).loss.item(), abs=1e-5
    )
    unlabelled = {name: value for name, value in batch().items() if name != "labels"}
    assert torch.allclose(answered(**unlabelled).logits, expected.logits)
    other = {name: value[:1] for name, value in batch().items()}
    assert answered(**other).loss.item() == pytest.approx(model(**other).loss.item(), abs=1e-6)
    assert answered.config is step.model.config


def test_weights_that_have_no_part_in_a_loss_are_found() -> None:
    step = micro_batch()
    answered: Any = AnsweredModel(step, torch.full_like(step.token_losses, 2.0))
    plain: Any = AnsweredModel(step, None)
    loss = answered(**step.inputs).loss
    answered.refuse_unused(loss)
    assert loss.item() == pytest.approx(2 * plain(**step.inputs).loss.item(), rel=1e-6)
    loss.backward()  # the graph is still there
    unlabelled = {name: value for name, value in batch().items() if name != "labels"}
    with pytest.raises(ConfigError, match="doesn't use the model's loss"):
        answered.refuse_unused(answered(**unlabelled).logits.square().mean())


def test_metrics_of_tokens_are_those_of_trl() -> None:
    from trl.trainer.utils import add_fused_lm_head

    step = micro_batch()
    answered: Any = AnsweredModel(step, None)
    answer = answered(**step.inputs, fused_lm_head=True)
    model: Any = build_model()
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    expected = model(**batch(), fused_lm_head=True)
    assert torch.equal(answer.label_mask, expected.label_mask)
    assert torch.allclose(answer.log_probs, expected.log_probs, atol=1e-5)
    assert torch.allclose(answer.entropy, expected.entropy, atol=1e-5)
    assert torch.equal(answer.is_top1, expected.is_top1.bool())


def test_metrics_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    targets = logits.argmax(-1)
    whole = token_metrics(logits, targets)
    monkeypatch.setattr(weighting, "_ROWS", 3)
    assert all(torch.equal(one, other) for one, other in zip(whole, token_metrics(logits, targets), strict=True))
    assert whole[1].all()
    uniform = token_metrics(torch.zeros(1, 8), torch.tensor([0]))[0]
    assert float(uniform) == pytest.approx(float(torch.tensor(8.0).log()))


def test_weights_multiply() -> None:
    two, three = torch.tensor(2.0), torch.tensor(3.0)
    assert multiply_weights([None, two, None, three]) == 6
    assert multiply_weights([None]) is None

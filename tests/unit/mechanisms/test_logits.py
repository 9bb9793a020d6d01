"""Logits of the supervised tokens: those of the whole, whatever the model can leave out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import build_model, build_tokenizer
from forgetless.mechanisms.batches import pad_batch
from forgetless.mechanisms.logits import keeps_logits, supervised_logits, supervised_targets
from training import mixture


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return pad_batch(mixture([])[:3], padding=build_tokenizer().pad_token_id)  # type: ignore[attr-defined]


class Stubborn:
    """A model that computes all logits."""

    def __init__(self) -> None:
        self.inner: Any = build_model()

    def forward(self, input_ids: Any, attention_mask: Any, use_cache: bool) -> Any:
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

    __call__ = forward


def test_they_are_rows_of_the_whole(batch: dict[str, torch.Tensor]) -> None:
    model: Any = build_model()
    whole = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    wanted = batch["labels"][:, 1:] != -100
    expected = whole[:, :-1][wanted]
    torch.testing.assert_close(supervised_logits(model, batch), expected)
    stubborn = Stubborn()
    assert not keeps_logits(stubborn)
    torch.testing.assert_close(supervised_logits(stubborn, batch), expected)
    assert torch.equal(supervised_targets(batch["labels"]), batch["input_ids"][:, 1:][wanted])


def test_only_columns_that_some_row_needs_are_projected(batch: dict[str, torch.Tensor]) -> None:
    model: Any = build_model()
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    supervised_logits(model, batch)
    assert seen == [int((batch["labels"][:, 1:] != -100).any(0).sum())]
    assert seen[0] < batch["labels"].shape[1] - 1


def test_another_callable_may_stand_for_the_model(batch: dict[str, torch.Tensor]) -> None:
    model: Any = build_model()
    calls: list[Any] = []

    def wrapped(**arguments: Any) -> Any:
        calls.append(sorted(arguments))
        return model(**arguments)

    supervised_logits(model, batch, forward=wrapped)
    assert calls == [["attention_mask", "input_ids", "logits_to_keep", "use_cache"]]

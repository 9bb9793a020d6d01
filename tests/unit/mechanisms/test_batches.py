"""Batches that methods hold: padding, and an endless order that a checkpoint can go on with."""

from __future__ import annotations

import pytest
from torch import Tensor

from conftest import build_tokenizer
from forgetless.data.encoding import Encoded
from forgetless.errors import RunError
from forgetless.mechanisms.batches import BatchCycle, encode_batches, pad_batch
from training import DOMAIN, GENERAL


def test_batches_hold_the_examples_in_their_order_padded_on_the_right() -> None:
    batches = encode_batches([*GENERAL, *DOMAIN], build_tokenizer(), max_tokens=64, batch_size=5)
    assert [len(batch["input_ids"]) for batch in batches] == [5, 5, 5, 5, 4]
    for batch in batches:
        assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["labels"].shape
        assert bool((batch["labels"][batch["attention_mask"] == 0] == -100).all())


def test_a_tokenizer_without_padding_pads_with_what_the_mask_hides() -> None:
    batch = pad_batch([Encoded([5, 6], [5, 6]), Encoded([7], [7])], padding=None)
    assert batch["input_ids"].tolist() == [[5, 6], [7, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["labels"].tolist() == [[5, 6], [7, -100]]


def one_token_batches(num: int) -> list[dict[str, Tensor]]:
    return [pad_batch([Encoded([n, n], [-100, n])], padding=0) for n in range(num)]


def drawn(cycle: BatchCycle, num: int) -> list[int]:
    return [int(cycle.next()["input_ids"][0, 0]) for _ in range(num)]


def test_a_cycle_draws_each_batch_once_a_round_in_new_orders() -> None:
    cycle = BatchCycle(one_token_batches(20), seed=1)
    rounds = [drawn(cycle, 20) for _ in range(3)]
    assert all(sorted(one) == list(range(20)) for one in rounds)
    assert rounds[0] != rounds[1] != rounds[2]


def test_a_restored_cycle_goes_on_where_it_was() -> None:
    cycle = BatchCycle(one_token_batches(7), seed=3)
    drawn(cycle, 10)
    other = BatchCycle(one_token_batches(7), seed=3)
    other.load_state_dict(cycle.state_dict())
    assert drawn(cycle, 9) == drawn(other, 9)


@pytest.mark.parametrize(("num", "seed"), [(8, 3), (7, 4)])
def test_a_cycle_of_other_batches_or_orders_is_not_gone_on_with(num: int, seed: int) -> None:
    state = BatchCycle(one_token_batches(7), seed=3).state_dict()
    with pytest.raises(RunError, match="the same data, seed"):
        BatchCycle(one_token_batches(num), seed=seed).load_state_dict(state)
    with pytest.raises(RunError, match="or from none"):
        BatchCycle(one_token_batches(num), seed=seed).load_state_dict({})

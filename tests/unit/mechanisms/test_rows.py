"""Sequences within micro-batches: padded on either side, or packed."""

from __future__ import annotations

import torch

from forgetless.mechanisms.rows import Row, row_key, rows_of, sequence_key


def test_padding_is_left_out_on_either_side() -> None:
    ids = torch.zeros(3, 5, dtype=torch.long)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
    assert rows_of({"input_ids": ids, "attention_mask": mask}) == [Row(0, 0, 3), Row(1, 2, 5)]


def test_without_a_mask_a_row_is_a_sequence() -> None:
    assert rows_of({"input_ids": torch.zeros(2, 4)}) == [Row(0, 0, 4), Row(1, 0, 4)]


def test_packed_sequences_are_told_apart() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1]])
    packed = {"input_ids": torch.zeros(1, 5), "position_ids": positions}
    assert rows_of(packed) == [Row(0, 0, 3), Row(0, 3, 5)]


def test_positions_that_count_within_padding_start_nothing() -> None:
    inputs = {
        "input_ids": torch.zeros(1, 5),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1]]),
        "position_ids": torch.tensor([[0, 0, 0, 1, 2]]),
    }
    assert rows_of(inputs) == [Row(0, 2, 5)]


def test_a_key_is_that_of_the_content() -> None:
    ids, labels = [5, 6, 7], [-100, 6, 7]
    padded = torch.tensor([[1, 1, 5, 6, 7]]), torch.tensor([[-100, -100, -100, 6, 7]])
    assert row_key(Row(0, 2, 5), *padded) == sequence_key(ids, labels)
    assert sequence_key(ids, [5, 6, 7]) == sequence_key(ids, labels)  # the first label predicts nothing
    assert sequence_key(ids, [-100, -100, 7]) != sequence_key(ids, labels)
    assert sequence_key([5, 6, 8], labels) != sequence_key(ids, labels)

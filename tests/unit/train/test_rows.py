"""What methods read of a trainer's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from forgetless.data.encoding import Encoded
from forgetless.train.rows import rows_of
from trainers import completion_rows, encoded_rows, plain_trainer, sft_trainer
from training import mixture


def test_rows_are_what_was_encoded(tmp_path: Path) -> None:
    rows, expected = rows_of(plain_trainer(tmp_path)), mixture([])
    assert len(rows) == len(expected)
    assert list(rows) == [Encoded(one.input_ids, one.labels) for one in expected]
    assert rows[1:3] == [rows[1], rows[2]]
    assert rows[-1] == rows[len(rows) - 1]
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_padding_of_a_single_row_is_left_out(tmp_path: Path) -> None:
    from transformers import DataCollatorForSeq2Seq

    from conftest import build_tokenizer

    tokenizer: Any = build_tokenizer()
    padded = plain_trainer(
        tmp_path, options={"data_collator": DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=64)}
    )
    assert list(rows_of(padded)) == list(rows_of(plain_trainer(tmp_path)))


def test_labels_are_those_that_the_collator_makes(tmp_path: Path) -> None:
    row = rows_of(sft_trainer(tmp_path))[0]
    assert [token for token in row.labels if token != -100] == row.input_ids[-row.num_supervised :]
    unlabelled = Dataset.from_dict({"text": ["Water is wet.", "Fire is hot."]})
    whole = rows_of(sft_trainer(tmp_path, rows=unlabelled))[0]
    assert whole.labels == whole.input_ids


def test_the_sequences_of_packed_rows_are_told_apart(tmp_path: Path) -> None:
    packed = rows_of(sft_trainer(tmp_path, packing=True, max_length=256))
    loose = rows_of(sft_trainer(tmp_path))
    assert len(packed) == len(loose) == len(completion_rows())
    assert sorted(row.input_ids for row in packed) == sorted(row.input_ids for row in loose)
    assert sum(row.num_supervised for row in packed) == sum(row.num_supervised for row in loose)


def test_streams_and_collators_that_make_no_labels_give_no_rows(tmp_path: Path) -> None:
    def refusing(rows: Any) -> Any:
        if len(rows) < 4:
            raise ValueError("only whole batches")
        return {"input_ids": torch.zeros(4, 2)}

    assert rows_of(plain_trainer(tmp_path, options={"data_collator": refusing})) == ()
    assert rows_of(sft_trainer(tmp_path, rows=completion_rows().to_iterable_dataset())) == ()
    empty = encoded_rows().select([])
    assert rows_of(plain_trainer(tmp_path, options={"train_dataset": empty})) == ()
    assert rows_of(plain_trainer(tmp_path, options={"train_dataset": None})) == ()


def test_a_collator_that_draws_takes_nothing_from_the_training(tmp_path: Path) -> None:
    from transformers import DataCollatorForSeq2Seq

    from conftest import build_tokenizer

    tokenizer: Any = build_tokenizer()
    pad = DataCollatorForSeq2Seq(tokenizer)

    def drawing(rows: Any) -> Any:
        return pad(rows) | {"noise": torch.rand(1)}

    trainer = plain_trainer(tmp_path, options={"data_collator": drawing})
    before = torch.get_rng_state()
    assert len(rows_of(trainer)) == len(mixture([]))
    assert torch.equal(torch.get_rng_state(), before)

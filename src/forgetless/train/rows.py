"""The training data of a trainer as methods read it: ids and labels, row by row, as its own collator makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from transformers import Trainer

from forgetless.data.encoding import Encoded


class TrainerRows(Sequence[Encoded]):
    """A view on the rows of a trainer's data; a row is collated when it is read.

    Args:
        dataset: Rows that can be read by their number.
        collate: Makes a batch of a list of rows.
    """

    def __init__(self, dataset: Any, collate: Any) -> None:
        self._dataset, self._collate = dataset, collate

    def __len__(self) -> int:
        return len(self._dataset)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...

    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...

    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        batch = self._collate([self._dataset[index % len(self)]])
        ids, labels = batch["input_ids"][0], batch["labels"][0]
        if "attention_mask" in batch:  # a collator may pad a single row too
            kept = batch["attention_mask"][0].bool()
            ids, labels = ids[kept], labels[kept]
        return Encoded(ids.tolist(), labels.tolist())


def rows_of(trainer: Trainer) -> Sequence[Encoded]:
    """Returns the training data of a trainer, encoded.

    Args:
        trainer: The trainer, whose own collator is asked.

    Returns:
        One sequence for each row (a packed row holds several examples); none where the data is a stream, or where
        the collator doesn't make `input_ids` and `labels` of a single row.
    """
    dataset: Any = trainer.train_dataset
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or not len(dataset):
        return ()
    rows = TrainerRows(dataset, trainer._get_collator_with_removed_columns(trainer.data_collator))
    try:
        rows[0]
    except Exception:  # a collator of the user's own may need whole batches: then there is nothing to read by rows
        return ()
    return rows

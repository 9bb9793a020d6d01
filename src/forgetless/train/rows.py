"""The training data of a trainer as methods read it: ids and labels, row by row, as its own collator makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch
from transformers import Trainer

from forgetless.data.encoding import Encoded
from forgetless.mechanisms.rows import rows_of as sequences_of


class TrainerRows(Sequence[Encoded]):
    """A view on the sequences of a trainer's data; a row is collated when it is read.

    A packed row holds several sequences, which the collator tells apart by `position_ids`.

    Args:
        dataset: Rows that can be read by their number.
        collate: Makes a batch of a list of rows.
    """

    def __init__(self, dataset: Any, collate: Any) -> None:
        self._dataset, self._collate = dataset, collate
        self._places: list[tuple[int, int]] | None = None  # row of the data and sequence in it; None = one in each
        if "position_ids" in self._batch(0):
            self._places = [(row, n) for row in range(len(dataset)) for n in range(len(self._sequences(row)))]

    def _batch(self, row: int) -> Any:
        # A collator that draws (masks, say) takes nothing from what the training will draw.
        with torch.random.fork_rng(devices=[]):
            return self._collate([self._dataset[row]])

    def _sequences(self, row: int) -> list[Encoded]:
        batch = self._batch(row)
        return [
            Encoded(
                batch["input_ids"][place.index, place.start : place.stop].tolist(),
                batch["labels"][place.index, place.start : place.stop].tolist(),
            )
            for place in sequences_of(batch)  # a collator may pad a single row too
        ]

    def __len__(self) -> int:
        return len(self._dataset) if self._places is None else len(self._places)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...

    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...

    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        row, number = (index, 0) if self._places is None else self._places[index]
        return self._sequences(row)[number]


def rows_of(trainer: Trainer) -> Sequence[Encoded]:
    """Returns the training data of a trainer, encoded.

    Args:
        trainer: The trainer, whose own collator is asked.

    Returns:
        The sequences, those of a packed row one by one; none where the data is a stream, or where the collator doesn't
        make `input_ids` and `labels` of a single row.
    """
    dataset: Any = trainer.train_dataset
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or not len(dataset):
        return ()
    collate = trainer._get_collator_with_removed_columns(trainer.data_collator)
    try:
        rows = TrainerRows(dataset, collate)
        rows[0]
    except Exception:  # a collator of the user's own may need whole batches: then there is nothing to read by rows
        return ()
    return rows

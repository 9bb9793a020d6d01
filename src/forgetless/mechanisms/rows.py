"""The training sequences within a micro-batch, told apart from padding and from one another, and known by content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Row:
    """Where a sequence stands in a micro-batch.

    Attributes:
        index: Row of the micro-batch.
        start: First token of the sequence.
        stop: Token after its last.
    """

    index: int
    start: int
    stop: int


def rows_of(inputs: Mapping[str, Any]) -> list[Row]:
    """Finds the sequences of a micro-batch.

    Args:
        inputs: `input_ids` (batch, tokens); with an `attention_mask` of that shape, padding on either side is left out;
            with `position_ids`, each position 0 starts a sequence (packing, padding-free batches).

    Returns:
        The sequences, row by row, in order.
    """
    import torch

    batch, tokens = inputs["input_ids"].shape
    mask = inputs.get("attention_mask")
    is_there = torch.ones(batch, tokens, dtype=torch.bool) if mask is None or mask.ndim != 2 else mask.bool().cpu()
    positions = inputs.get("position_ids")
    if positions is not None and positions.ndim == 3:  # one for each axis of an image; text counts alike in all
        positions = positions[0]
    rows = []
    for index in range(batch):
        places = is_there[index].nonzero().flatten()
        if not len(places):
            continue
        first, stop = int(places[0]), int(places[-1]) + 1
        starts = [first]
        if positions is not None:
            resets = positions[min(index, len(positions) - 1), first + 1 : stop] == 0
            starts += (resets.nonzero().flatten() + first + 1).tolist()
        rows += [Row(index, start, end) for start, end in zip(starts, [*starts[1:], stop], strict=True)]
    return rows


def row_key(row: Row, input_ids: Tensor, labels: Tensor) -> str:
    """Returns the key of a sequence in a micro-batch, equal to the `sequence_key` of what was encoded.

    Args:
        row: Where it stands.
        input_ids: Of the micro-batch, on the CPU, (batch, tokens).
        labels: Of the micro-batch, on the CPU, (batch, tokens).

    Returns:
        The key, in hexadecimal.
    """
    ids, wanted = (one[row.index, row.start : row.stop].tolist() for one in (input_ids, labels))
    return sequence_key(ids, wanted)


def sequence_key(input_ids: Sequence[int], labels: Sequence[int]) -> str:
    """Returns a key of a sequence's content; the first label predicts nothing and doesn't count."""
    content = np.asarray([*input_ids, *labels[1:]], dtype="<i8").tobytes()
    return hashlib.sha256(content).hexdigest()

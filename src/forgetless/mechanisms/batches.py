"""Batches of examples that a method holds beside the training data, and an endless, resumable way through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from forgetless.data.encoding import IGNORED, Encoded, encode_examples

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from forgetless.data.examples import Example

T = TypeVar("T")


def encode_batches(
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    max_tokens: int,
    batch_size: int,
    device: torch.device | str | None = None,
) -> list[dict[str, Tensor]]:
    """Encodes examples and pads them into batches, in their order.

    Args:
        examples: Conversations and plain texts.
        tokenizer: The model's tokenizer.
        max_tokens: Longest sequence; what is longer loses its end.
        batch_size: Sequences of a batch; the last batch may hold fewer.
        device: Where the tensors are put; None = the CPU.

    Returns:
        Batches of `input_ids`, `attention_mask` and `labels`, each (batch, tokens), padded on the right.

    Raises:
        DataError: Of no example is anything learnable left at `max_tokens`.
    """
    sequences = encode_examples(examples, tokenizer, max_tokens=max_tokens)
    return [
        pad_batch(sequences[start : start + batch_size], padding=tokenizer.pad_token_id, device=device)
        for start in range(0, len(sequences), batch_size)
    ]


def pad_batch(
    sequences: Sequence[Encoded], *, padding: int | None, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """Pads sequences on the right to the longest of them.

    Args:
        sequences: At least one.
        padding: Token id to pad with; None = 0, which the attention mask hides all the same.
        device: Where the tensors are put; None = the CPU.

    Returns:
        `input_ids`, `attention_mask` and `labels`, each (batch, tokens).
    """
    import torch

    longest = max(len(sequence.input_ids) for sequence in sequences)
    rows: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for sequence in sequences:
        num = len(sequence.input_ids)
        rows["input_ids"].append(sequence.input_ids + [padding or 0] * (longest - num))
        rows["attention_mask"].append([1] * num + [0] * (longest - num))
        rows["labels"].append(sequence.labels + [IGNORED] * (longest - num))
    return {name: torch.tensor(values, device=device) for name, values in rows.items()}


class BatchCycle:
    """Goes through batches without end, in a new order each round; where it stands is one number.

    Args:
        batches: At least one, of any kind.
        seed: Seed of the orders.
    """

    def __init__(self, batches: Sequence[T], seed: int) -> None:
        self.batches, self.seed = batches, seed
        self.num_drawn = 0

    def next(self) -> Any:
        """Returns the next batch; all processes that share seed and count draw the same one."""
        rounds, place = divmod(self.num_drawn, len(self.batches))
        self.num_drawn += 1
        order = np.random.default_rng([self.seed, rounds]).permutation(len(self.batches))
        return self.batches[order[place]]

    def state(self) -> int:
        """Returns how many batches were drawn, which is all that a checkpoint has to keep."""
        return self.num_drawn

    def restore(self, state: int) -> None:
        """Goes on as after `state` draws."""
        self.num_drawn = int(state)

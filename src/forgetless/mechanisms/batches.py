"""Batches of examples that a method holds beside the training data, and an endless, resumable way through them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetless.data.encoding import IGNORED, Encoded, encode_examples
from forgetless.errors import RunError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from forgetless.data.examples import Example


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
        batches: At least one, as `pad_batch` makes them.
        seed: Seed of the orders.
    """

    def __init__(self, batches: Sequence[Mapping[str, Tensor]], seed: int) -> None:
        self.batches, self.seed = batches, seed
        self.num_drawn = 0

    def next(self) -> Mapping[str, Tensor]:
        """Returns the next batch; all processes that share seed and count draw the same one."""
        rounds, place = divmod(self.num_drawn, len(self.batches))
        self.num_drawn += 1
        order = np.random.default_rng([self.seed, rounds]).permutation(len(self.batches))
        return self.batches[int(order[place])]

    @cached_property
    def digest(self) -> Tensor:
        """SHA-256 of the batches and the seed, (32,) uint8: equal where the same is drawn."""
        import torch

        digest = hashlib.sha256(str(self.seed).encode())
        for batch in self.batches:
            for name in ("input_ids", "labels"):
                digest.update(f"\n{name} {tuple(batch[name].shape)}:".encode() + batch[name].cpu().numpy().tobytes())
        return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what a checkpoint has to keep: how many batches were drawn, and of which."""
        import torch

        return {"num_drawn": torch.tensor(self.num_drawn), "digest": self.digest}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on as after the draws of `state`.

        Args:
            state: What `state_dict` gave.

        Raises:
            RunError: Those were draws from other batches.
        """
        import torch

        if "digest" not in state or not torch.equal(state["digest"], self.digest):
            raise RunError(
                "the checkpoint's training drew from other examples of what is to be kept, or from none: give the same "
                "data, seed and options, or start anew"
            )
        self.num_drawn = int(state["num_drawn"])

"""The retention probe: a fixed set of general examples that a model in training is asked about again and again.

What the base says of each example is asked once and kept as its loss and the top of its distributions, 8 k + 4 bytes a
token; a second model is never in memory, nor a distribution over the whole vocabulary.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError

from forgetless.data.encoding import Encoded
from forgetless.errors import RunError
from forgetless.mechanisms.batches import pad_batch
from forgetless.mechanisms.divergence import Distributions, divergence, top_distributions
from forgetless.mechanisms.logits import supervised_logits, supervised_targets
from forgetless.mechanisms.modes import eval_mode
from forgetless.mechanisms.reference import as_base
from forgetless.mechanisms.rows import sequence_key
from forgetless.mechanisms.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

TOP_K = 64  # tokens of each of the base's distributions that are kept apart
_BATCH_TOKENS = 1024  # of a forward pass, padding included


@dataclass(frozen=True)
class Reading:
    """What a model made of the probe, one value per example, in nats per token.

    Attributes:
        kl: KL(base || model); at least 0.
        cross_entropy: Of the model.
        base_cross_entropy: Of the base.
    """

    kl: NDArray[np.float64]
    cross_entropy: NDArray[np.float64]
    base_cross_entropy: NDArray[np.float64]


@dataclass(frozen=True)
class _Answer:
    """What the base said of one example: its mean loss, and the tops of its distributions."""

    loss: float
    tops: Distributions


class Probe:
    """Examples in a fixed order, of which looks take the first few, and what the base says of them.

    Args:
        sequences: Encoded examples, each with something to predict.
        padding: Token id to pad with.
    """

    def __init__(self, sequences: Sequence[Encoded], *, padding: int | None) -> None:
        self.sequences, self.padding = list(sequences), padding
        self._base: list[_Answer] = []

    @property
    def num_asked(self) -> int:
        """Examples that the base was asked about: the first ones."""
        return len(self._base)

    def num_tokens(self, num: int) -> int:
        """Returns the tokens of the first `num` examples, padding left out."""
        return sum(len(sequence.input_ids) for sequence in self.sequences[:num])

    @property
    def key(self) -> str:
        """Fingerprint of the examples, in their order."""
        keys = [sequence_key(one.input_ids, one.labels) for one in self.sequences]
        return hashlib.sha256("\n".join(keys).encode()).hexdigest()

    def ask(self, model: nn.Module, num: int) -> None:
        """Asks the base about the first `num` examples, as far as it wasn't yet.

        Args:
            model: The base before training, or a model behind whose adapter it stands.
            num: Examples, from the first.
        """
        wanted = range(self.num_asked, min(num, len(self.sequences)))
        found: dict[int, _Answer] = {}
        with as_base(model):
            for index, logits, targets in self._answers(model, wanted):
                loss = torch.nn.functional.cross_entropy(logits.float(), targets)
                found[index] = _Answer(float(loss), _on_cpu(top_distributions(logits, targets, TOP_K)))
        self._base += [found[index] for index in wanted]

    def look(self, model: nn.Module, num: int) -> Reading:
        """Asks a model about the first `num` examples, without dropout, and leaves it in the mode that it was in.

        Args:
            model: The model that is trained.
            num: Examples, from the first; the base was asked about them.

        Returns:
            One value per example.
        """
        kl, loss = np.empty(num), np.empty(num)
        with eval_mode(model), torch.no_grad():
            for index, logits, targets in self._answers(model, range(num)):
                tops = _on_device(self._base[index].tops, logits.device)
                # What is below 0 is rounding.
                kl[index] = float(divergence(tops, logits).mean().clamp(min=0))
                loss[index] = float(torch.nn.functional.cross_entropy(logits.float(), targets))
        return Reading(kl, loss, np.array([self._base[index].loss for index in range(num)]))

    def _answers(self, model: Any, indices: Sequence[int]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yields each example's logits, (supervised tokens, vocabulary), and what follows."""
        device = next(model.parameters()).device
        for batch in _batches(indices, [len(one.input_ids) for one in self.sequences]):
            sequences = [self.sequences[index] for index in batch]
            inputs = pad_batch(sequences, padding=self.padding, device=device)
            counts = [sequence.num_supervised for sequence in sequences]
            logits = supervised_logits(model, inputs).split(counts)
            yield from zip(batch, logits, supervised_targets(inputs["labels"]).split(counts), strict=True)

    def save(self, path: Path) -> None:
        """Keeps what the base said, whole or not at all.

        Args:
            path: A safetensors file.

        Raises:
            RunError: It can't be written.
        """
        tops = [answer.tops for answer in self._base]
        tensors = {
            "losses": torch.tensor([answer.loss for answer in self._base], dtype=torch.float64),
            "counts": torch.tensor([len(one.log_probs) for one in tops]),
            "log_probs": torch.cat([one.log_probs for one in tops]),
            "ids": torch.cat([_there(one.ids) for one in tops]).int(),
            "tail": torch.cat([_there(one.tail) for one in tops]),
        }
        keep_tensors(path, tensors, {"probe": self.key})

    def load(self, path: Path) -> None:
        """Takes back what the base said before training began.

        Args:
            path: The file that `save` wrote.

        Raises:
            RunError: It isn't there, can't be read, or is of other examples.
        """
        advice = "start the training anew, or go on without the monitor"
        try:
            tensors, metadata = read_tensors(path)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"what the base says of the retention probe is not in {path} ({error}), and the base can't be asked "
                f"any more once its weights are trained: {advice}"
            ) from error
        if metadata.get("probe") != self.key:
            raise RunError(f"{path} keeps what the base says of other examples than these: {advice}")
        counts = tensors["counts"].tolist()
        parts = (tensors[name].split(counts) for name in ("log_probs", "ids", "tail"))
        tops = [Distributions(one, ids.long(), tail) for one, ids, tail in zip(*parts, strict=True)]
        self._base = [_Answer(loss, top) for loss, top in zip(tensors["losses"].tolist(), tops, strict=True)]


def keep_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors of the monitor; raises `RunError` where that can't be done."""
    try:
        write_tensors(path, tensors, metadata)
    except (OSError, SafetensorError) as error:  # a full disk shows as either
        raise RunError(f"the retention monitor can't write {path} ({error}): free some space there") from error


def _batches(indices: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Groups examples, shortest first, so that each group is a bounded number of tokens with its padding."""
    batch: list[int] = []
    for index in sorted(indices, key=lambda index: lengths[index]):
        if batch and (len(batch) + 1) * lengths[index] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _on_cpu(tops: Distributions) -> Distributions:
    return _on_device(tops, torch.device("cpu"))


def _on_device(tops: Distributions, device: torch.device) -> Distributions:
    return Distributions(tops.log_probs.to(device), _there(tops.ids).to(device), _there(tops.tail).to(device))


@contextmanager
def same_randomness() -> Iterator[None]:
    """Leaves every global generator of random numbers as it was found: Python's, numpy's, torch's on each device."""
    python, arrays = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)

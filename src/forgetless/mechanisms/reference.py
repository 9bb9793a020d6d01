"""What the base says of the training tokens, without a second model in memory.

Where the base stands behind an adapter, the adapter is switched off for a forward pass. Elsewhere (full fine-tuning,
adapters whose start writes into the base) the base is asked once, before it is trained, and what it says is kept:
the loss of each supervised token, 4 bytes, and where distributions are wanted their top k and the rest as one bucket,
8 k + 4 bytes more per supervised token. A distribution over the whole vocabulary is never kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from forgetless.data.encoding import Encoded
from forgetless.errors import ConfigError, DataError, RunError
from forgetless.mechanisms.adapters import is_base_behind_adapter
from forgetless.mechanisms.batches import pad_batch
from forgetless.mechanisms.divergence import Distributions, top_distributions, whole_distributions
from forgetless.mechanisms.logits import is_supervised, supervised_logits, supervised_targets
from forgetless.mechanisms.modes import eval_mode
from forgetless.mechanisms.rows import row_key, rows_of, sequence_key
from forgetless.mechanisms.tensors import write_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

_FORMAT = "1"  # of the files; older ones are asked for anew
_SHARD = 64  # sequences of a file: what an interruption can cost
_BATCH_TOKENS = 2048  # of a forward pass over the base, padding included
_CHUNK = 512  # positions whose distributions are in memory at once

Record = Mapping[str, Any]  # of one sequence or one file: losses, ids, log_probs, tail; one row per supervised token


@contextmanager
def as_base(model: Any) -> Iterator[None]:
    """Makes a model compute what its base would, without graph or dropout, and leaves it as it was.

    An adapter is switched off where the base stands behind it. A model without one is taken as it is, which is the
    base before training only.

    Args:
        model: A transformers model or a `PeftModel`.

    Yields:
        Nothing; the model is changed in place.
    """
    import torch

    # Switching an adapter on again makes all of it trainable, the parts too that a method has frozen.
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with eval_mode(model), torch.no_grad():
            if is_base_behind_adapter(model):
                with model.disable_adapter():
                    yield
            else:
                yield
    finally:
        for parameter, is_trained in trained:
            parameter.requires_grad_(is_trained)


class Reference:
    """The base's view of training sequences: asked beforehand and kept, or asked with the adapter off.

    Args:
        top_k: Tokens of each distribution that are kept apart; 0 = only token losses are kept.
        directory: Where files are kept and found again; None = in memory only.
    """

    def __init__(self, *, top_k: int = 0, directory: Path | None = None) -> None:
        self.top_k = top_k
        self.directory = None if directory is None else directory / "reference"
        self._places: dict[str, tuple[_Shard, int, int]] = {}

    def ask(self, model: nn.Module, sequences: Sequence[Encoded], *, padding: int | None) -> None:
        """Asks the base about sequences, file by file; files that are there already aren't asked for again.

        Args:
            model: The base, before training, adapted or not.
            sequences: Encoded sequences; equal ones are asked about once.
            padding: Token id to pad with.

        Raises:
            DataError: Nothing is learned of any of them.
            RunError: The directory can't be written.
        """
        from forgetless.weights import fingerprint_weights

        # Of a sequence that nothing is learned of (a prompt that was cut off, say) there is nothing to ask.
        known = {sequence_key(one.input_ids, one.labels): one for one in sequences if one.num_supervised}
        if sequences and not known:
            raise DataError(
                "nothing is learned of any training sequence: are the answers cut off? raise the longest sequence "
                "(max_length, training.max_tokens)"
            )
        keys = sorted(known, key=lambda key: len(known[key].input_ids))  # alike lengths need little padding
        with as_base(model):
            model_key = "" if self.directory is None else fingerprint_weights(model)
            for start in range(0, len(keys), _SHARD):
                part = keys[start : start + _SHARD]
                shard = self._shard(model, model_key, [known[key] for key in part], part, padding)
                counts = [known[key].num_supervised for key in part]
                ends = [sum(counts[: number + 1]) for number in range(len(counts))]
                for key, end, count in zip(part, ends, counts, strict=True):
                    self._places[key] = (shard, end - count, end)

    def _shard(
        self, model: nn.Module, model_key: str, sequences: list[Encoded], keys: list[str], padding: int | None
    ) -> _Shard:
        if self.directory is None:
            return _Shard(tensors=_ask_base(model, sequences, top_k=self.top_k, padding=padding))
        content = "\n".join([_FORMAT, model_key, str(self.top_k), *keys])
        path = self.directory / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.safetensors"
        if not path.is_file():
            _write(path, _ask_base(model, sequences, top_k=self.top_k, padding=padding))
        return _Shard(path=path)

    def mean_losses(self, sequences: Sequence[Encoded]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the base's mean token loss of each sequence in nats, and the number of its supervised tokens.

        Args:
            sequences: Sequences that were asked about; those without supervised tokens don't count.

        Returns:
            Losses and counts, of equal length.
        """
        parts = [part for part in self._losses(sequences) if len(part)]
        return np.array([float(part.mean()) for part in parts]), np.array([float(len(part)) for part in parts])

    def share_above(self, loss: float, sequences: Sequence[Encoded]) -> float:
        """Returns the share of supervised tokens on which the base loses more than so many nats, in [0, 1]."""
        import torch

        losses = torch.cat(self._losses(sequences))
        return float((losses > loss).double().mean())

    def _losses(self, sequences: Sequence[Encoded]) -> list[Tensor]:
        places = [self._places[sequence_key(one.input_ids, one.labels)] for one in sequences if one.num_supervised]
        return [shard.rows("losses", start, stop) for shard, start, stop in places]

    def token_losses(self, model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        """Returns what the base loses on each token of a micro-batch.

        Args:
            model: The model that is trained; asked with its adapter off where a sequence is unknown.
            inputs: The micro-batch, each (batch, tokens).

        Returns:
            Cross-entropies in nats, (batch, tokens - 1); 0 where nothing is learned.

        Raises:
            ConfigError: A sequence is unknown, and the base can't be asked any more.
        """
        import torch

        labels: Tensor = inputs["labels"]
        found = self._find(inputs)
        if found == []:
            return torch.zeros(labels[:, 1:].shape, device=labels.device)
        if found is not None:
            values = torch.cat([shard.rows("losses", start, stop) for shard, start, stop in found])
        else:
            refuse_unknown(model)
            with as_base(model):
                logits = supervised_logits(model, inputs).float()
                values = torch.nn.functional.cross_entropy(logits, supervised_targets(labels), reduction="none")
        losses = torch.zeros(labels[:, 1:].shape, device=labels.device)
        losses[is_supervised(labels)] = values.to(labels.device)
        return losses

    def distributions(self, model: nn.Module, inputs: Mapping[str, Any]) -> Distributions:
        """Returns what the base expects at each supervised token of a batch, in the order of `supervised_logits`.

        Args:
            model: The model that is trained; asked with its adapter off where a sequence is unknown.
            inputs: The batch, each (batch, tokens).

        Returns:
            The kept tops where all sequences are known, else distributions over the whole vocabulary.

        Raises:
            ConfigError: A sequence is unknown, and the base can't be asked any more.
        """
        import torch

        found = self._find(inputs) if self.top_k else None
        if found is None:
            refuse_unknown(model)
        if not found:  # nothing to learn is nothing to know: distributions of no rows, whoever is asked
            with as_base(model):
                return whole_distributions(supervised_logits(model, inputs))
        device = inputs["labels"].device
        parts = [
            torch.cat([shard.rows(name, start, stop) for shard, start, stop in found]).to(device)
            for name in ("log_probs", "ids", "tail")
        ]
        return Distributions(parts[0], parts[1].long(), parts[2])

    def _find(self, inputs: Mapping[str, Any]) -> list[tuple[_Shard, int, int]] | None:
        """Returns where the sequences of a batch are kept, None when one of them isn't."""
        if not self._places:
            return None
        input_ids, labels = inputs["input_ids"].cpu(), inputs["labels"].cpu()
        places = []
        for row in rows_of(inputs):
            if row.start and labels[row.index, row.start] != -100:
                return None  # the token before it, of another sequence or of padding, is learned from too
            if not (labels[row.index, row.start + 1 : row.stop] != -100).any():
                continue
            place = self._places.get(row_key(row, input_ids, labels))
            if place is None:
                return None
            places.append(place)
        return places


def refuse_unknown(model: nn.Module) -> None:
    """Raises `ConfigError` where the base can't be asked about a sequence that it wasn't asked about beforehand."""
    if not is_base_behind_adapter(model):
        raise ConfigError(
            "a training sequence is not one that the base was asked about before training: switch packing off, give "
            "the trainer rows with input_ids and labels (-100 for the first token, where a row is padded on the left), "
            "or train an adapter, behind which the base can still be asked"
        )


class _Shard:
    """What the base said of some sequences, end to end: in memory, or in a file that is read where it is needed."""

    def __init__(self, *, tensors: Record | None = None, path: Path | None = None) -> None:
        self._tensors, self._path = tensors, path
        self._file: Any = None

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        if self._tensors is not None:
            held: Tensor = self._tensors[name][start:stop]
            return held
        if self._file is None:
            self._file = safe_open(str(self._path), framework="pt")
        read: Tensor = self._file.get_slice(name)[start:stop]
        return read


def _ask_base(model: nn.Module, sequences: Sequence[Encoded], *, top_k: int, padding: int | None) -> Record:
    """Asks a model, which computes as the base does, about sequences in order of length."""
    import torch

    device = next(model.parameters()).device
    parts: list[Record] = []
    for batch in _batches(sequences):
        inputs = pad_batch(batch, padding=padding, device=device)
        targets = supervised_targets(inputs["labels"])
        logits = supervised_logits(model, inputs)
        for start in range(0, len(targets), _CHUNK):
            parts.append(_record(logits[start : start + _CHUNK], targets[start : start + _CHUNK], top_k))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _batches(sequences: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    """Groups sequences, shortest first, so that each group is a bounded number of tokens with its padding."""
    batch: list[Encoded] = []
    for sequence in sequences:
        if batch and (len(batch) + 1) * len(sequence.input_ids) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch


def _record(logits: Tensor, targets: Tensor, top_k: int) -> Record:
    import torch

    losses = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    record = {"losses": losses.cpu()}
    if top_k:
        top = top_distributions(logits, targets, top_k)
        assert top.ids is not None
        assert top.tail is not None
        record |= {"ids": top.ids.int().cpu(), "log_probs": top.log_probs.cpu(), "tail": top.tail.cpu()}
    return record


def _write(path: Path, tensors: Record) -> None:
    """Writes a file whole or not at all."""
    try:
        write_tensors(path, tensors)
    except (OSError, SafetensorError) as error:  # a full disk shows as either
        reason = getattr(error, "strerror", None) or error
        raise RunError(
            f"what the base says cannot be kept in {path.parent} ({reason}): free some space there"
        ) from error

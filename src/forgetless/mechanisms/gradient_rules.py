"""Gradients of single sequences with respect to a weight, from what a module took in and the gradient of its output.

A weight's gradient for sequence b is a sum over the uses of the weight in the forward pass; each use is kept in the
form in which it is cheapest (the two factors of an outer product, rows of a table) until all uses are in, because the
square of a sum is not the sum of the squares: an embedding that is tied to the output layer is used twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

Fold = Literal["square", "abs"]

# Elements of the gradients of single sequences that are formed at once where several fit: on a CPU what its cache
# holds, elsewhere what keeps the device busy.
CHUNK_ON_CPU = 2**18
CHUNK_ELSEWHERE = 2**26


class Use(Protocol):
    """One use of a weight in the forward pass of a batch."""

    def of(self, sequence: int) -> Tensor:
        """Returns the gradient of one sequence, shaped like the weight; the caller may change it."""

    def add_to(self, gradient: Tensor, sequence: int) -> None:
        """Adds the gradient of one sequence in place."""


@dataclass(frozen=True)
class Outer:
    """The gradient of sequence b is `left[b].T @ right[b]`.

    Attributes:
        left: (batch, tokens, rows of the weight).
        right: (batch, tokens, columns of the weight).
    """

    left: Tensor
    right: Tensor

    def of(self, sequence: int) -> Tensor:
        return (self.left[sequence].mT @ self.right[sequence]).float()

    def add_to(self, gradient: Tensor, sequence: int) -> None:
        gradient += self.of(sequence)


@dataclass(frozen=True)
class Rows:
    """The gradient of sequence b has `rows[b]`, added up, at `ids[b]`, and zeros elsewhere.

    Attributes:
        ids: (batch, tokens), which row of the weight each token took.
        rows: (batch, tokens, columns of the weight).
        num_rows: Rows of the weight.
    """

    ids: Tensor
    rows: Tensor
    num_rows: int

    def of(self, sequence: int) -> Tensor:
        gradient = self.rows.new_zeros(self.num_rows, self.rows.shape[-1], dtype=torch.float32)
        self.add_to(gradient, sequence)
        return gradient

    def add_to(self, gradient: Tensor, sequence: int) -> None:
        gradient.index_add_(0, self.ids[sequence], self.rows[sequence].to(gradient.dtype))


@dataclass(frozen=True)
class Whole:
    """The gradients of all sequences as they are, (batch, *shape of the weight): for weights that are small."""

    gradients: Tensor

    def of(self, sequence: int) -> Tensor:
        return self.gradients[sequence].float().clone()

    def add_to(self, gradient: Tensor, sequence: int) -> None:
        gradient += self.gradients[sequence]


def fold_uses(total: Tensor, uses: Sequence[Use], fold: Fold, num_sequences: int) -> None:
    """Adds the square, or the absolute value, of each sequence's gradient to a total.

    Args:
        total: Where it is added, float32, shaped like the weight.
        uses: All uses of the weight in the forward pass.
        fold: What is added up: squares (Fisher) or absolute values (MAS).
        num_sequences: Sequences in the batch.
    """
    if len(uses) == 1 and isinstance(uses[0], Rows):
        _fold_rows(total, uses[0], fold)
    elif len(uses) == 1 and isinstance(uses[0], Whole):
        gradients = uses[0].gradients.float()
        total += (gradients.square() if fold == "square" else gradients.abs()).sum(0)
    elif len(uses) == 1 and isinstance(uses[0], Outer):
        _fold_outer(total, uses[0], fold)
    else:
        for sequence in range(num_sequences):
            gradient = uses[0].of(sequence)
            for use in uses[1:]:
                use.add_to(gradient, sequence)
            add_folded(total, gradient, fold)


def _fold_outer(total: Tensor, use: Outer, fold: Fold) -> None:
    budget = CHUNK_ON_CPU if total.device.type == "cpu" else CHUNK_ELSEWHERE
    chunk = max(1, budget // total.numel())
    for left, right in zip(use.left.split(chunk), use.right.split(chunk), strict=True):
        if left.shape[0] == 1:
            add_folded(total, (left[0].mT @ right[0]).float(), fold)
        else:
            gradients = torch.bmm(left.mT, right).float()
            total += (gradients.square_() if fold == "square" else gradients.abs_()).sum(0)


def _fold_rows(total: Tensor, use: Rows, fold: Fold) -> None:
    for ids, rows in zip(use.ids, use.rows, strict=True):
        unique, places = ids.unique(return_inverse=True)
        gradient = total.new_zeros(len(unique), total.shape[1]).index_add_(0, places, rows.to(total.dtype))
        total.index_add_(0, unique, gradient.square_() if fold == "square" else gradient.abs_())


def add_folded(total: Tensor, gradient: Tensor, fold: Fold) -> None:
    """Adds the square, or the absolute value, of one sequence's gradient, float32, to a total."""
    if fold == "square":
        total.addcmul_(gradient, gradient)
    else:
        total += gradient.abs()


def is_covered(module: nn.Module, name: str) -> bool:
    """Whether the gradients of single sequences can be told for this weight of this kind of module.

    A subclass that computes something else in its own `forward` is not covered, whatever it is called; a module of
    which all weights are vectors is, as long as it treats the sequences of a batch alike.
    """
    weight = getattr(module, name)
    if isinstance(module, nn.Embedding):
        is_plain = module.max_norm is None and not module.scale_grad_by_freq
        return is_plain and (type(module).forward is nn.Embedding.forward or _embedding_scale(module) is not None)
    if isinstance(module, nn.Linear):
        return type(module).forward is nn.Linear.forward
    if _is_transposed_linear(module):
        return True
    return weight.dim() == 1 and not any(True for _ in module.children())


def _is_transposed_linear(module: nn.Module) -> bool:
    """Whether a module is the linear layer of GPT-2, whose weight is (in, out)."""
    from transformers.pytorch_utils import Conv1D

    return type(module) is Conv1D


def _embedding_scale(module: nn.Module) -> Tensor | float | None:
    """Returns the factor of an embedding that scales its output (Gemma 3); None where there is none."""
    scale = getattr(module, "embed_scale", None)
    return scale if isinstance(scale, Tensor | float | int) else None


def read_uses(module: nn.Module, names: Sequence[str], inputs: Tensor, gradient: Tensor) -> Mapping[str, Use]:
    """Returns how one call of a module used its weights.

    Args:
        module: A module that `is_covered`.
        names: Which of its weights are wanted.
        inputs: What it took in: (batch, tokens, ...) or, for an embedding, ids (batch, tokens).
        gradient: The gradient with respect to what it gave, (batch, tokens, ...).

    Returns:
        One use for each name.
    """
    if isinstance(module, nn.Embedding):
        return {"weight": _read_embedding(module, inputs, gradient)}
    if isinstance(module, nn.Linear) or _is_transposed_linear(module):
        taken, given = inputs.flatten(1, -2), gradient.flatten(1, -2)
        outer = Outer(given, taken) if isinstance(module, nn.Linear) else Outer(taken, given)
        return {name: outer if name == "weight" else Whole(given.sum(1)) for name in names}
    return {name: Whole(value) for name, value in _read_any(module, names, inputs, gradient).items()}


def _read_embedding(module: nn.Embedding, ids: Tensor, gradient: Tensor) -> Rows:
    scale = None if type(module).forward is nn.Embedding.forward else _embedding_scale(module)
    if scale is not None:
        gradient = gradient * scale
    if module.padding_idx is not None:  # torch learns nothing at this row
        gradient = gradient.masked_fill((ids == module.padding_idx)[..., None], 0)
    ids = ids.expand(gradient.shape[0], *ids.shape[1:])
    return Rows(ids.flatten(1), gradient.flatten(1, -2), module.num_embeddings)


def _read_any(module: nn.Module, names: Sequence[str], inputs: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """Runs the module once more, each sequence with a copy of the (small) weights of its own."""
    if type(module) is nn.LayerNorm:
        return _read_layer_norm(module, names, inputs, gradient)
    weights = {name: getattr(module, name).detach() for name in names}

    def pull_back(taken: Tensor, given: Tensor) -> dict[str, Tensor]:
        def call(values: dict[str, Tensor]) -> Tensor:
            output: Tensor = torch.func.functional_call(module, values, (taken[None],))
            return output[0]

        pull: Any = torch.func.vjp(call, weights)[1]
        gradients: dict[str, Tensor] = pull(given)[0]
        return gradients

    return torch.func.vmap(pull_back)(inputs, gradient)


def _read_layer_norm(module: nn.LayerNorm, names: Sequence[str], inputs: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    normed = nn.functional.layer_norm(inputs, module.normalized_shape, eps=module.eps)
    parts = {"weight": gradient * normed, "bias": gradient}
    between = tuple(range(1, inputs.dim() - len(module.normalized_shape)))
    return {name: parts[name].sum(between) for name in names}

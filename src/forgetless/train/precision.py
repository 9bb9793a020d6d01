"""Weights that are trained in place are trained in float32, whatever they are kept in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from forgetless.methods.base import Method


Kept = Mapping[str, torch.dtype]  # of parameters and buffers, by name
_SHORT = {torch.bfloat16, torch.float16}


def raise_precision(model: nn.Module, methods: Sequence[Method], *, dtype: str) -> Kept:
    """Turns the weights of a model that will be trained in place into float32, in place; adapters bring their own.

    An update of less than 1/256 of a weight rounds to nothing in bfloat16, and autocast, which computes in bfloat16 all
    the same, keeps no float32 copy.

    Args:
        model: The model as it was loaded, before methods prepare it.
        methods: The methods of the job.
        dtype: The number type that the user asked for; anything but "auto" is what weights are trained in.

    Returns:
        What was changed, and what it was in, for `lower_precision`.
    """
    has_adapter = any("the adapter" in method.claims for method in methods) or hasattr(model, "peft_config")
    if dtype != "auto" or has_adapter or getattr(model, "hf_quantizer", None) is not None:
        return {}
    kept = {name: tensor.dtype for name, tensor in _tensors(model) if tensor.dtype in _SHORT}
    for name, tensor in _tensors(model):
        if name in kept:
            tensor.data = tensor.data.float()
    return kept


def lower_precision(model: nn.Module, kept: Kept) -> None:
    """Turns what was raised back into what it was loaded in, in place, to be saved and served as the base is.

    Args:
        model: The model after it was trained.
        kept: What `raise_precision` gave: parts that a model keeps in float32 stay in it.
    """
    for name, tensor in _tensors(model):
        if name in kept:
            tensor.data = tensor.data.to(kept[name])


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields parameters, tied ones once, and buffers."""
    yield from model.named_parameters()
    yield from model.named_buffers()

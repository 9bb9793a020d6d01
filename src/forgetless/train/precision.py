"""Weights that are trained in place are trained in float32, whatever they are kept in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from forgetless.methods.base import Method


def raise_precision(model: nn.Module, methods: Sequence[Method], *, dtype: str) -> torch.dtype | None:
    """Turns the weights of a model that will be trained in place into float32, in place; adapters bring their own.

    An update of less than 1/256 of a weight rounds to nothing in bfloat16, and autocast, which computes in bfloat16 all
    the same, keeps no float32 copy.

    Args:
        model: The model as it was loaded, before methods prepare it.
        methods: The methods of the job.
        dtype: The number type that the user asked for; anything but "auto" is what weights are trained in.

    Returns:
        What the weights were in, for `lower_precision`; None where nothing was changed.
    """
    kept = next(model.parameters()).dtype
    if dtype != "auto" or kept not in {torch.bfloat16, torch.float16}:
        return None
    if any("the adapter" in method.claims for method in methods) or getattr(model, "hf_quantizer", None) is not None:
        return None
    model.float()
    return kept


def lower_precision(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """Turns a trained model back into what it was loaded in, to be saved and served as its base is; None = as it is."""
    return model if dtype is None else model.to(dtype)

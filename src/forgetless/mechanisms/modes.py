"""Evaluation mode for a while: no dropout, and every module back in the mode that it was in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model in eval mode; afterwards each of its modules is in its own mode again.

    Args:
        model: The model; a part of it may have been in eval mode already, and stays so.

    Yields:
        Nothing; the model is changed in place.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode

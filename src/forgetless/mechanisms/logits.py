"""Logits of chosen positions only: what nothing is learned at need not be projected onto the vocabulary."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from forgetless.data.encoding import IGNORED

if TYPE_CHECKING:
    from torch import Tensor


def is_supervised(labels: Tensor) -> Tensor:
    """Returns which positions predict a token that is learned: booleans, (batch, tokens - 1)."""
    return labels[:, 1:] != IGNORED


def supervised_logits(model: Any, inputs: Mapping[str, Any], *, forward: Callable[..., Any] | None = None) -> Tensor:
    """Computes the logits that predict the supervised tokens, and no others where the model can leave them out.

    Args:
        model: A transformers model or a `PeftModel`.
        inputs: `input_ids` and `labels`, each (batch, tokens), and what else the model takes.
        forward: What is called instead of the model: the same one, wrapped for several processes.

    Returns:
        Logits with their graph, (supervised tokens, vocabulary), row by row.
    """
    wanted = is_supervised(inputs["labels"])
    arguments = {name: value for name, value in inputs.items() if name != "labels"} | {"use_cache": False}
    call = forward or model
    if not keeps_logits(model):
        # Learned prompts stand before the tokens.
        logits: Tensor = call(**arguments).logits[:, -inputs["labels"].shape[1] :]
        return logits[:, :-1][wanted]
    # Positions that any row needs: every model that leaves logits out takes them in this form.
    columns = wanted.any(0).nonzero().flatten()
    logits = call(**arguments, logits_to_keep=columns).logits
    return logits[wanted[:, columns]]


def supervised_targets(labels: Tensor) -> Tensor:
    """Returns the supervised tokens in the order of `supervised_logits`."""
    return labels[:, 1:][is_supervised(labels)]


def keeps_logits(model: Any) -> bool:
    """Whether a model can be asked for the logits of some positions only."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False  # what is asked for would be counted from the learned prompt on
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters

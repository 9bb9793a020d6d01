"""How much each weight matters to what must be kept: estimated once for a job, and kept in its directory."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from forgetless.data.reservoir import fill_reservoir
from forgetless.data.sources import fingerprint_examples
from forgetless.errors import ConfigError, DataError
from forgetless.mechanisms.batches import encode_batches
from forgetless.mechanisms.fisher import Importance, estimate_fisher, estimate_sensitivity, load_fisher, save_fisher
from forgetless.mechanisms.kept import KeptOrEarlier, kept_examples
from forgetless.mechanisms.weight_change import base_name, measured_parameters
from forgetless.models import num_positions
from forgetless.weights import fingerprint_weights, hash_file

if TYPE_CHECKING:
    from torch import nn

    from forgetless.data.examples import Example
    from forgetless.methods.base import Context

Kind = Literal["sampled", "empirical", "mas"]
BATCH_SIZE = 8  # the estimate doesn't depend on it


def estimate_kept_importance(
    model: nn.Module,
    context: Context,
    *,
    name: str,
    kind: Kind,
    data: KeptOrEarlier,
    num_sequences: int,
    dtype: Literal["float32", "bfloat16"],
    num_draws: int = 1,
    previous: Path | None = None,
    decay: float = 1.0,
) -> Importance:
    """Estimates importances on the data to keep, added to those of an earlier phase; reuses what is there already.

    In a sequence each phase but the first takes them on the examples of the phase before it, at the weights that that
    one ended with, and adds what that phase had gathered.

    Args:
        model: The model at the weights that will be the anchor.
        context: The job; its directory keeps the result as `NAME.safetensors`.
        name: Of the method.
        kind: Fisher with `sampled` or `empirical` labels, or `mas`.
        data: Where the data to keep comes from.
        num_sequences: How many sequences at most.
        dtype: In which precision the result is kept.
        num_draws: Labels that are drawn for each sequence, where they are `sampled`.
        previous: What an earlier phase has left: its `NAME.safetensors`. In a sequence that is found.
        decay: What the earlier phase's importances are multiplied by.

    Returns:
        Importances by parameter name, named as in the model without wrappers.

    Raises:
        ConfigError: The job has no tokenizer or no data to keep, or the earlier phase's file is of other weights.
        DataError: The earlier phase's file can't be read.
    """
    wanted = measured_parameters(model)
    whole = dict(model.named_parameters())
    if any(not whole[key].is_floating_point() for key in wanted):
        raise ConfigError(
            f"method {name!r} needs gradients of the weights below the adapter, which quantised ones don't have: use "
            "l2_sp, or lora on full weights"
        )
    examples = _examples(context, data, num_sequences)
    if previous is None and context.earlier is not None:
        previous = context.earlier.file(f"{name}.safetensors")
    longest = min(context.max_tokens, num_positions(model))
    earlier = None if previous is None else load_fisher(previous)
    facts: list[Any] = [
        *(kind, dtype, context.seed, longest, wanted, BATCH_SIZE, num_draws),
        *(fingerprint_weights(model), fingerprint_examples(examples)),
        None if previous is None else [hash_file(previous), decay],
    ]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    path = None if context.directory is None else context.directory / f"{name}.safetensors"
    if path is not None and (known := _known(path, key)) is not None:
        return known
    device = next(model.parameters()).device
    batches = encode_batches(examples, context.tokenizer, max_tokens=longest, batch_size=BATCH_SIZE, device=device)
    options: dict[str, Any] = {} if kind == "mas" else {"labels": kind, "seed": context.seed}
    estimate = estimate_sensitivity if kind == "mas" else estimate_fisher
    found = estimate(model, batches * num_draws, **options)  # a sequence that comes again gets labels of its own
    found = Importance(
        {base_name(key): value for key, value in found.items()},
        num_sequences=found.num_sequences // num_draws,
        kind=found.kind,
    )
    if earlier is not None:
        _add_earlier(found, earlier, decay)
    for key_ in found:
        found[key_] = found[key_].to(getattr(torch, dtype))
    if path is not None:
        save_fisher(found, path, key=key)
    return found


def _examples(context: Context, data: KeptOrEarlier, num: int) -> list[Example]:
    if context.earlier is None or not context.earlier.phases:
        return kept_examples(context, data, num)
    latest = {"": context.earlier.latest}
    return fill_reservoir(latest, size=num, seed=context.seed, is_balanced=True)


def _known(path: Path, key: str) -> Importance | None:
    """Returns what the job's directory has of this very estimate."""
    try:
        known = load_fisher(path)
    except DataError:
        return None
    return known if known.facts.get("key") == key else None


def _add_earlier(found: Importance, earlier: Importance, decay: float) -> None:
    if earlier.kind != found.kind:
        raise ConfigError(f"the earlier phase left importances of kind {earlier.kind!r}, not {found.kind!r}")
    values = {base_name(name): value for name, value in earlier.items()}  # an estimate of one's own may have wrappers
    for name, value in found.items():
        if name not in values or values[name].shape != value.shape:
            raise ConfigError(f"the earlier phase left no importance of {name!r}: it tuned other weights than this one")
        value += decay * values[name].to(value)

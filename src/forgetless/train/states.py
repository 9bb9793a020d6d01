"""What a protected training keeps beside the trainer's own checkpoint: the state of methods, and where it began."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from forgetless.errors import RunError
from forgetless.mechanisms.shards import whole
from forgetless.methods.base import Method

NUM_SAMPLED = 4096  # elements of each weight
_START = "start"  # stands beside the names of methods


def digest_start(model: nn.Module) -> Tensor:
    """Returns a SHA-256 over a sample of every weight, which differs between models that were trained differently.

    Adapters are left out, which a script draws anew each time it's run; but for the factor of a LoRA update that starts
    at zero, and says whether the adapter was trained before.

    Args:
        model: The model where methods take their anchors, references and subspaces from it.

    Returns:
        32 bytes, (32,) uint8, on the CPU.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if _is_drawn(name, model) or hasattr(parameter, "__tensor_flatten__"):
            continue  # the latter: several tensors in one (torchao's), which are frozen
        values = parameter.detach().flatten()
        sample = values[:: max(1, values.numel() // NUM_SAMPLED)].cpu().contiguous()
        digest.update(f"{tuple(parameter.shape)}:{parameter.dtype}:".encode() + sample.view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _is_drawn(name: str, model: Any) -> bool:
    """Whether a parameter belongs to an adapter, and may be drawn at random when that is made."""
    if not (configs := getattr(model, "peft_config", None)):
        return False
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    parts = name.split(".")
    if not any(part.startswith((*PEFT_TYPE_TO_PREFIX_MAPPING.values(), "prompt_encoder")) for part in parts):
        return False
    zero = next((place for place, part in enumerate(parts) if part in {"lora_B", "lora_embedding_A"}), None)
    if zero is None:
        return True
    config = configs[parts[zero + 1]]
    starts_at_zero = getattr(config, "init_lora_weights", None) not in {False, "orthogonal"}
    return not (config.peft_type == "LORA" and starts_at_zero)


def save_states(directory: Path, methods: Sequence[Method], start: Tensor | None, *, is_writer: bool) -> None:
    """Writes the states of methods into a checkpoint's directory, which is made where there is something to write.

    Args:
        directory: The checkpoint.
        methods: All methods, in the same order in every process: each gathers its part of what is sharded.
        start: Digest of the weights that the training began at; None = methods took nothing of them.
        is_writer: Whether this process writes.
    """
    states = {method.name: method.state_dict() for method in methods}
    if start is not None:
        states[_START] = {"digest": start}
    for name, state in states.items():
        tensors = {key: whole(tensor).contiguous() for key, tensor in state.items()}
        if tensors and is_writer:
            directory.mkdir(parents=True, exist_ok=True)
            save_file(tensors, _file(directory, name))


def load_states(directory: Path, methods: Sequence[Method], start: Tensor | None) -> None:
    """Gives methods back what a checkpoint keeps of them.

    Args:
        directory: The checkpoint.
        methods: All methods.
        start: Digest of the weights that this training began at; None = methods took nothing of them.

    Raises:
        RunError: The checkpoint's training began at other weights, or without one of the methods.
    """
    path = _file(directory, _START)
    if start is not None and path.is_file() and not torch.equal(load_file(path)["digest"], start):
        raise RunError(
            f"{directory} belongs to a training that began at other weights than the trainer's model had when it was "
            "protected, which methods hold it to: make the trainer with the model that the training began with (not "
            "with the checkpoint, which train() loads; where new embeddings are drawn, after the same set_seed)"
        )
    for method in methods:
        path = _file(directory, method.name)
        if path.is_file():
            method.load_state_dict(load_file(path))
        elif method.state_dict():
            raise RunError(
                f"{directory} keeps no state of method {method.name!r}, which was idle or not in use when it was "
                "saved: start anew, or leave the method out"
            )


def _file(directory: Path, name: str) -> Path:
    return directory / f"forgetless_{name}.safetensors"

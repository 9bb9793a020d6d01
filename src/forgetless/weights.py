"""Fingerprints of weights: two models with one fingerprint compute the same, whatever they are wrapped in.

An adapter that is switched off leaves no trace: the model then has the fingerprint of its base. Quantised weights are
read as they are stored, with their scales.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

_BENEATH = frozenset({"base_layer", "original_module"})  # what PEFT calls the module that it wraps


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_weights(model: nn.Module) -> str:
    """Computes a SHA-256 over names, types, shapes and bytes of all weights, and over how adapters are applied.

    One altered weight gives another fingerprint. A model whose adapters are all switched off has that of its base.
    Tensors are hashed in threads; each is on the CPU only while it is read.

    Args:
        model: A transformers model, quantised or not, or a `PeftModel`.

    Returns:
        The fingerprint, in hexadecimal.

    Raises:
        ModelError: The weights are not in memory.
    """
    wrappers = {name: module for name, module in model.named_modules() if _is_wrapper(module)}
    if wrappers and all(m.disable_adapters and not m.merged_adapters for m in wrappers.values()):
        named = ((_base_name(name, wrappers), value) for name, value in model.state_dict().items())
        state = {name: value for name, value in named if name is not None}
        base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        head = [type(base).__name__]
    else:
        state = model.state_dict()
        applied = (
            (name, m.disable_adapters, m.active_adapters, m.merged_adapters, getattr(m, "scaling", None))
            for name, m in wrappers.items()
        )
        head = [type(model).__name__, *map(str, applied)]
    # PEFT switches a learned prompt off by replacing the method.
    head += ["forward" if "forward" in vars(model) else ""]
    digest = hashlib.sha256("\n".join(head).encode())
    for name, part in _digests(state):
        digest.update(f"\n{name}:".encode() + part)
    return digest.hexdigest()


def _is_wrapper(module: nn.Module) -> bool:
    """Whether a module is one of PEFT's around one of the base's; transformers models have methods of these names."""
    return isinstance(getattr(module, "disable_adapters", None), bool)


def _base_name(name: str, wrappers: Mapping[str, nn.Module]) -> str | None:
    """Returns what a weight is called in the base; None where it belongs to an adapter."""
    kept: list[str] = []
    path = ""
    for part in name.split("."):
        if path not in wrappers:
            kept.append(part)
        elif part not in _BENEATH:
            return None
        path = f"{path}.{part}" if path else part
    return ".".join(kept).removeprefix("base_model.model.")


def _digests(state: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yields each weight's name and hash, by name; weights that are one and the same are hashed once."""
    first: dict[object, str] = {}
    shared: dict[str, str] = {}
    for name, value in sorted(state.items()):
        place = _place(value)
        if place is not None and first.setdefault(place, name) != name:
            shared[name] = first[place]
    own = [name for name in sorted(state) if name not in shared]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        hashed = dict(zip(own, threads.map(lambda name: _digest(state[name]), own), strict=True))
    for name in sorted(state):
        yield name, hashed[shared.get(name, name)]


def _place(value: Any) -> object | None:
    """Returns where a plain tensor lies and how it is read there; None for anything else."""
    import torch

    is_plain = type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout == torch.strided
    if not is_plain or value.is_meta or value.is_quantized or value.is_complex() or not value.numel():
        return None
    return (value.device, value.data_ptr(), value.dtype, value.shape, value.stride(), value.is_neg())


def _digest(value: Any) -> bytes:
    """Returns the SHA-256 of a value of a state dict: a tensor, or what quantised modules keep beside them."""
    import torch

    if isinstance(value, torch.Tensor):
        return _digest_tensor(value)
    if isinstance(value, list | tuple):
        return hashlib.sha256(b"list" + b"".join(_digest(item) for item in value)).digest()
    if isinstance(value, Mapping):
        return _digest([[str(key), item] for key, item in value.items()])
    if value is None or isinstance(value, str | int | float | torch.dtype | torch.device | torch.qscheme):
        return hashlib.sha256(f"{type(value).__name__}:{value}".encode()).digest()
    try:
        return hashlib.sha256(pickle.dumps(value)).digest()
    except Exception:  # what can't be read is never the same twice
        return os.urandom(32)


def _digest_tensor(tensor: torch.Tensor) -> bytes:
    import torch

    head = f"{type(tensor).__name__}:{tensor.dtype}:{tuple(tensor.shape)}" if _is_composed(tensor) else ""
    head = head or f"{tensor.dtype}:{tuple(tensor.shape)}"
    tensor = tensor.detach()
    if tensor.is_meta:
        raise ModelError("the weights are not in memory (device meta): load the model whole, or score without a cache")
    if _is_composed(tensor):  # torchao's, whose bytes are those of several tensors
        names, context = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
        return _digest([head, [[name, getattr(tensor, name)] for name in names], repr(context)])
    if tensor.is_quantized:
        per_channel = tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams)
        scales = (
            [tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points(), tensor.q_per_channel_axis()]
            if per_channel
            else [tensor.q_scale(), tensor.q_zero_point()]
        )
        return _digest([head, tensor.int_repr(), *scales])
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    digest = hashlib.sha256(head.encode())
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.digest()


def _is_composed(tensor: torch.Tensor) -> bool:
    import torch

    return type(tensor) not in (torch.Tensor, torch.nn.Parameter) and hasattr(tensor, "__tensor_flatten__")

"""Tensors in safetensors files, with texts in the head that say what they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from forgetless.files import whole_file


def read_tensors(path: Path, *, device: Any = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a whole safetensors file.

    Args:
        path: The file.
        device: Where the tensors are put.

    Returns:
        Tensors by name, and the texts in its head.

    Raises:
        OSError: It can't be read.
        SafetensorError: It is damaged, or no safetensors file.
    """
    with safe_open(str(path), framework="pt", device=str(device)) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no mapping)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file, whole or not at all.

    Args:
        path: The file to write or to replace; directories that lack above it are made.
        tensors: Tensors by name, on any device.
        metadata: Texts that stand in its head.

    Raises:
        OSError: It can't be written.
        SafetensorError: Likewise: a full disk shows as either.
    """
    with whole_file(path, is_shared=True) as part:  # each process of a job may write its own
        save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, part, dict(metadata or {}))

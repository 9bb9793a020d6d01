"""Weights on disk, read one tensor at a time: the memory that it takes is that of the largest tensor."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from forgetless.errors import ModelError


class Checkpoint:
    """The safetensors files of a model directory, sharded or not.

    Args:
        directory: The directory that holds them.

    Raises:
        ModelError: There are none, or one is damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._places: dict[str, Path] = {}
        for path in sorted(directory.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    self._places |= dict.fromkeys(file.keys(), path)
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path} is cut off or damaged ({error}): copy it again") from None
        if not self._places:
            raise ModelError(f"there is no *.safetensors in {directory}")

    def holds(self, names: Iterable[str]) -> bool:
        """Whether it has a weight of each of these names."""
        return all(name in self._places for name in names)

    @property
    def shards(self) -> dict[Path, list[str]]:
        """The names that each file holds."""
        return {path: [name for name, at in self._places.items() if at == path] for path in self._places.values()}

    def read(self, name: str) -> torch.Tensor:
        """Reads a weight.

        Args:
            name: Its name in the model.

        Returns:
            The tensor, on the CPU, in the type in which it is stored.

        Raises:
            ModelError: There is no such weight.
        """
        if name not in self._places:
            raise ModelError(f"{self.directory} has no weight {name}: is it the base that was tuned?")
        with safe_open(self._places[name], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor

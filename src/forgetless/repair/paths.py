"""Models on the line from base to tuned: one copy in memory is moved to the point that is asked for.

An adapter whose change is linear in its B is moved by scaling B alone; the base isn't needed. Anything else is moved in
its whole weights, which are read from both checkpoints tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from forgetless.curve import Point
from forgetless.errors import ModelError
from forgetless.mechanisms.layers import Layers, find_layers

ReadTensor = Callable[[str], torch.Tensor]


class Path(Protocol):
    """A model that can be moved between base and tuned."""

    model: nn.Module

    def move(self, point: Point) -> None:
        """Moves the model to a point; points are taken from the tuned model, not from where it is."""


class AdapterPath:
    """A LoRA adapter scaled in place: at share s of a layer it adds s times what it was trained to add.

    Args:
        model: A `peft.PeftModel` for which `is_scalable` holds, at the tuned end.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._layers = find_layers(model)
        # A small copy: B has rank columns where the weight that it changes has thousands.
        self._trained = {name: tensor.detach().clone() for name, tensor in _scaled_parts(model).items()}

    @torch.no_grad()
    def move(self, point: Point) -> None:
        """Moves the adapter to a point; see `Path.move`."""
        for name, tensor in _scaled_parts(self.model).items():
            tensor.copy_(self._trained[name] * point.share(self._layers.depth(name), self._layers.num))


def is_scalable(model: nn.Module) -> bool:
    """Whether scaling the adapter's B leads straight to the base: LoRA without magnitudes, biases or whole modules."""
    if not hasattr(model, "peft_config"):
        return False
    parts = _scaled_parts(model)
    adapters = tuple(name for name, _ in model.named_parameters() if _is_adapter(name))
    linear = {name for name in adapters if "lora_A" in name or "lora_embedding_A" in name} | set(parts)
    return bool(parts) and linear == set(adapters)


def _is_adapter(name: str) -> bool:
    return any(part in name for part in ("lora_", "modules_to_save", "trainable_tokens", "ia3_", "vera_", "oft_"))


def _scaled_parts(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if ("lora_B." in name and name.endswith(".weight")) or "lora_embedding_B." in name
    }


class WeightPath:
    """Whole weights, interpolated in place: base + share * (tuned - base), tensor by tensor, in float32.

    Args:
        model: The tuned model; its parameters are written to.
        read_base: Returns a weight of the base by its name in `model`.
        read_tuned: Returns a weight of the tuned model likewise.
    """

    def __init__(self, model: nn.Module, read_base: ReadTensor, read_tuned: ReadTensor) -> None:
        self.model = model
        self._layers: Layers = find_layers(model)
        self._read_base, self._read_tuned = read_base, read_tuned

    @torch.no_grad()
    def move(self, point: Point) -> None:
        """Moves the weights to a point; see `Path.move`."""
        for name, parameter in self.model.named_parameters():  # tied weights come once
            tuned = self._read_tuned(name)
            if point.is_tuned:
                parameter.copy_(tuned)
                continue
            base = self._read_base(name)
            if base.shape != tuned.shape:
                raise ModelError(
                    f"{name} is {list(base.shape)} in the base and {list(tuned.shape)} in the tuned model: "
                    "is it the base that was tuned?"
                )
            share = point.share(self._layers.depth(name), self._layers.num)
            parameter.copy_(torch.lerp(base.float(), tuned.float(), share))


def state_reader(state: Mapping[str, Any]) -> ReadTensor:
    """Returns a reader of weights that are in memory."""

    def read(name: str) -> torch.Tensor:
        if name not in state:
            raise ModelError(f"the base has no weight {name}: is it the base that was tuned?")
        tensor: torch.Tensor = state[name]
        return tensor

    return read

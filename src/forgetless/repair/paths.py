"""Models on the line from base to tuned: one copy in memory is moved to the point that is asked for.

An adapter whose change is linear in its B is moved by scaling B alone; the base isn't needed. Anything else is moved in
its whole weights, which are read from both checkpoints tensor by tensor. Points of another kind than `line` lie on a
line of their own: a treatment alters the change first, and the share scales what it left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from forgetless.curve import Point
from forgetless.errors import ModelError
from forgetless.mechanisms.adapters import is_base_behind_adapter
from forgetless.mechanisms.layers import Layers, find_layers

ReadTensor = Callable[[str], torch.Tensor]
Treatment = Callable[[str, torch.Tensor], torch.Tensor]
"""From a part's name and its change, outputs in rows, to the treated change; `matrices` gives the names."""


class Matrix(NamedTuple):
    """A weight matrix of a layer before and after tuning, in float32, with one row per output."""

    name: str
    base: torch.Tensor
    tuned: torch.Tensor


class Path(Protocol):
    """A model that can be moved between base and tuned."""

    model: nn.Module

    def move(self, point: Point) -> None:
        """Moves the model to a point; points are taken from the tuned model, not from where it is."""


class RepairPath(Path, Protocol):
    """A path on which the change can be treated before it is scaled: `treatments` holds what, by kind of point."""

    treatments: dict[str, Treatment]

    def matrices(self) -> Iterator[Matrix]:
        """Yields the matrices of the layers that tuning changed, under the names that treatments are given."""

    def moved(self, point: Point) -> float:
        """Returns 1 - |tuned - point| / |tuned - base| over all weights: 1 at the tuned model, 0 at the base."""


class AdapterPath:
    """A LoRA adapter scaled in place: at share s of a layer it adds s times what it was trained to add.

    A treatment is given B, and so can only act on outputs; the rank stays.

    Args:
        model: A `peft.PeftModel` for which `is_scalable` holds, at the tuned end.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.treatments: dict[str, Treatment] = {}
        self._layers = find_layers(model)
        # A small copy: B has rank columns where the weight that it changes has thousands.
        self._trained = {name: tensor.detach().clone() for name, tensor in _scaled_parts(model).items()}

    @torch.no_grad()
    def move(self, point: Point) -> None:
        """Moves the adapter to a point; see `Path.move`."""
        for name, tensor in _scaled_parts(self.model).items():
            tensor.copy_(self._part(name, point))

    def _part(self, name: str, point: Point) -> torch.Tensor:
        trained = self._trained[name]
        if point.kind != "line":
            trained = self.treatments[point.kind](name, trained.float()).to(trained.dtype)
        return trained * point.share(self._layers.depth(name), self._layers.num)

    @torch.no_grad()
    def matrices(self) -> Iterator[Matrix]:
        """Yields the matrices that the adapter changes; see `RepairPath.matrices`."""
        for name, layer, adapter in self._linear():
            base = layer.get_base_layer().weight.detach()
            base = base.T if getattr(layer, "fan_in_fan_out", False) else base
            change = self._trained[name].float() @ layer.lora_A[adapter].weight.float()
            yield Matrix(name, base.float(), base.float() + layer.scaling[adapter] * change)

    @torch.no_grad()
    def moved(self, point: Point) -> float:
        """Returns how far a point lies from the base; see `RepairPath.moved`. Embeddings are left out."""
        whole = missing = 0.0
        for name, layer, adapter in self._linear():
            a, trained = layer.lora_A[adapter].weight.float(), self._trained[name].float()
            left = trained - self._part(name, point).float()
            whole += float((layer.scaling[adapter] * (trained @ a)).square().sum())
            missing += float((layer.scaling[adapter] * (left @ a)).square().sum())
        return 1 - math.sqrt(missing / whole) if whole else 0.0

    def _linear(self) -> Iterator[tuple[str, Any, str]]:
        """Yields the name of each B, its layer, and its adapter's name."""
        for name in self._trained:
            if "lora_B." in name:
                place, _, rest = name.partition(".lora_B.")
                yield name, self.model.get_submodule(place), rest.removesuffix(".weight")


def is_scalable(model: nn.Module) -> bool:
    """Whether scaling the adapter's B leads straight to the base.

    That is LoRA without magnitudes, biases or whole modules, and with a start that left the base's weights alone.
    """
    if not hasattr(model, "peft_config") or not is_base_behind_adapter(model):
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
        self.treatments: dict[str, Treatment] = {}
        self._layers: Layers = find_layers(model)
        self._read_base, self._read_tuned = read_base, read_tuned

    @torch.no_grad()
    def move(self, point: Point) -> None:
        """Moves the weights to a point; see `Path.move`."""
        for name, parameter in self.model.named_parameters():  # tied weights come once
            parameter.copy_(self.weight(name, point))

    @torch.no_grad()
    def weight(self, name: str, point: Point) -> torch.Tensor:
        """Returns a weight at a point.

        Args:
            name: Its name in the model.
            point: The point.

        Returns:
            The weight in float32; the tuned one as it is stored at the tuned end.

        Raises:
            ModelError: The base has it in another shape.
        """
        tuned = self._read_tuned(name)
        if point.is_tuned:
            return tuned
        base = self._read_base(name)
        _refuse_other_shape(name, base, tuned)
        base, tuned = base.to(tuned.device).float(), tuned.float()
        if point.kind != "line" and tuned.ndim == 2:
            change = self._oriented(name, tuned - base)
            tuned = base + self._oriented(name, self.treatments[point.kind](name, change))
        return torch.lerp(base, tuned, point.share(self._layers.depth(name), self._layers.num))

    def check(self) -> None:
        """Raises `ModelError` unless the base has every weight, in the tuned model's shape."""
        for name, parameter in self.model.named_parameters():
            _refuse_other_shape(name, self._read_base(name), parameter)

    @torch.no_grad()
    def matrices(self) -> Iterator[Matrix]:
        """Yields the matrices of the layers that differ from the base; see `RepairPath.matrices`."""
        for name, parameter in self.model.named_parameters():
            if parameter.ndim == 2 and 1 <= self._layers.depth(name) <= self._layers.num:
                base, tuned = self._read_base(name).to(parameter.device).float(), self._read_tuned(name).float()
                if not torch.equal(base, tuned := tuned.to(parameter.device)):
                    yield Matrix(name, self._oriented(name, base), self._oriented(name, tuned))

    @torch.no_grad()
    def moved(self, point: Point) -> float:
        """Returns how far a point lies from the base; see `RepairPath.moved`."""
        whole = missing = 0.0
        for name, _ in self.model.named_parameters():
            base, tuned = self.weight(name, Point.scale(0.0)), self._read_tuned(name).float()
            whole += float((tuned.to(base.device) - base).square().sum())
            missing += float((tuned - self.weight(name, point).to(tuned.device)).square().sum())
        return 1 - math.sqrt(missing / whole) if whole else 0.0

    def _oriented(self, name: str, matrix: torch.Tensor) -> torch.Tensor:
        """Turns a weight so that each output has a row, and back: GPT-2's `Conv1D` holds them in columns."""
        module = self.model.get_submodule(name.rpartition(".")[0])
        return matrix.T if type(module).__name__ == "Conv1D" else matrix


def _refuse_other_shape(name: str, base: torch.Tensor, tuned: torch.Tensor) -> None:
    if base.shape != tuned.shape:
        raise ModelError(
            f"{name} is {list(base.shape)} in the base and {list(tuned.shape)} in the tuned model: "
            "is it the base that was tuned?"
        )


def state_reader(state: Mapping[str, Any]) -> ReadTensor:
    """Returns a reader of weights that are in memory."""

    def read(name: str) -> torch.Tensor:
        if name not in state:
            raise ModelError(f"the base has no weight {name}: is it the base that was tuned?")
        tensor: torch.Tensor = state[name]
        return tensor

    return read

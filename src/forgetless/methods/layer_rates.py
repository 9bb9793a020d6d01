"""Layer-wise learning rates: the lower a layer, the less it moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from forgetless.mechanisms.layers import find_layers
from forgetless.methods.base import Method, method_options

if TYPE_CHECKING:
    import torch
    from torch import nn


@method_options
class LayerRates(Method):
    """Trains layer l of L at the rate lr * gamma ** (L - l) (Howard & Ruder 2018, discriminative fine-tuning).

    The top layer, the final norm and the head take the full rate; the embeddings, l = 0, the lowest. Works on adapters
    too. Weight decay scales with the rate, as AdamW multiplies the two.

    Departs from the paper: gamma is 1 / 2.6 there, for a network of three layers; 0.9 gives the embeddings of 30
    layers 4 % of the rate.
    """

    name: ClassVar[str] = "layer_rates"
    title: ClassVar[str] = "Layer-wise learning-rate decay (discriminative fine-tuning)"
    family: ClassVar[str] = "partial updates"
    paper: ClassVar[str] = "https://arxiv.org/abs/1801.06146"
    cost: ClassVar[str] = "none"

    gamma: float = Field(
        default=0.9, gt=0, le=1, description="Rate of each layer / rate of the layer above it, in (0, 1]."
    )

    def prepare_optimizer(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        """Splits each parameter group by layer; its other settings (weight decay) stay as they are."""
        if self.gamma == 1:
            return
        layers = find_layers(model)
        depths = {id(parameter): min(layers.depth(name), layers.num) for name, parameter in model.named_parameters()}
        groups: list[dict[str, Any]] = []
        for group in optimizer.param_groups:
            members: dict[int, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                members.setdefault(depths.get(id(parameter), layers.num), []).append(parameter)
            for depth, parameters in members.items():
                factor = self.gamma ** (layers.num - depth)
                rates = {key: group[key] * factor for key in group.keys() & {"lr", "initial_lr"}}
                groups.append(group | rates | {"params": parameters})
        # Trainers log the rate of the first group: that is the one that the config names.
        optimizer.param_groups[:] = sorted(groups, key=lambda group: -group["lr"])

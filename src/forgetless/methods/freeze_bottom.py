"""Freezing the embeddings and the bottom layers: what the first steps of a new task disturb most stays as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from forgetless.errors import ConfigError
from forgetless.mechanisms.layers import Layers, find_layers
from forgetless.methods.base import Context, Method, method_options, trainable_parameters

if TYPE_CHECKING:
    import torch
    from torch import nn


@method_options
class FreezeBottom(Method):
    """Trains the upper layers only (Zheng et al. 2025): of an adapter, its part in the upper layers.

    Where the output layer shares the input embedding's weights (tied embeddings: most models below 2B), freezing the
    embedding freezes the output layer too.

    Departs from the paper: the number of layers is a share of the model's unless it is given, and nothing is stopped
    early; the paper chooses both for each task.
    """

    name: ClassVar[str] = "freeze_bottom"
    title: ClassVar[str] = "Freezing the embeddings and the bottom layers"
    family: ClassVar[str] = "partial updates"
    paper: ClassVar[str] = "https://arxiv.org/abs/2501.13453"
    cost: ClassVar[str] = "negative: no gradients, optimizer state or backward pass for what is frozen"

    fraction: float = Field(default=0.25, ge=0, le=1, description="Share of the layers to freeze, from the bottom up.")
    num_layers: int | None = Field(
        default=None, ge=0, description="Number of layers to freeze instead of a share of them."
    )
    embeddings: bool = Field(
        default=True, description="Freeze the input embeddings too; with tied embeddings that is the output layer."
    )

    def num_frozen(self, layers: Layers) -> int:
        """Returns how many layers of a model are frozen.

        Args:
            layers: The model's layers.

        Returns:
            From 0 to the number of layers; a share is rounded, and above 0 freezes one at least.

        Raises:
            ConfigError: The model has fewer layers than are to be frozen.
        """
        if self.num_layers is None:
            return max(1, round(self.fraction * layers.num)) if self.fraction else 0
        if self.num_layers > layers.num:
            raise ConfigError(
                f"method 'freeze_bottom': num_layers {self.num_layers} is more than the model's {layers.num} layers"
            )
        return self.num_layers

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Freezes what lies at the bottom.

        Args:
            model: The model; under an adapter, the adapter's part at the bottom is frozen.
            context: The job; not used.

        Returns:
            The same model.

        Raises:
            ConfigError: Nothing would be left to train.
        """
        layers = find_layers(model)
        self.frozen_ = self._frozen(layers, trainable_parameters(model))
        for name, parameter in trainable_parameters(model).items():
            if name in self.frozen_:
                parameter.requires_grad_(False)
        if not trainable_parameters(model):
            raise ConfigError(
                f"method 'freeze_bottom' freezes all that is trained of {layers.num} layers: freeze fewer"
            )
        return model

    def prepare_optimizer(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        """Refuses a model to which a later method has added something trainable at the bottom.

        Args:
            optimizer: The optimizer; not used.
            model: The model as all methods have prepared it.

        Raises:
            ConfigError: A method behind this one, such as an adapter, trains what this one was to freeze.
        """
        if strays := self._frozen(find_layers(model), trainable_parameters(model)):
            raise ConfigError(
                f"{len(strays)} parameters at the bottom are trained ({min(strays)}, ...): name 'freeze_bottom' after "
                "the method that adds them (lora, ...)"
            )

    def _frozen(self, layers: Layers, parameters: dict[str, torch.nn.Parameter]) -> set[str]:
        """Returns the names of those parameters that lie in what is to be frozen."""
        lowest, highest = (0 if self.embeddings else 1), self.num_frozen(layers)
        return {name for name in parameters if lowest <= layers.depth(name) <= highest}

"""Half fine-tuning: in each round one half of every layer's modules is trained, the other stays as it was."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from forgetless.mechanisms.layers import Layers, find_layers
from forgetless.methods.base import Context, Method, method_options, trainable_parameters

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@method_options
class Half(Method):
    """Trains a random half of each layer (Hui et al. 2025): two of query, key, value and output, one or two of the
    three matrices of the feed-forward block, one of two norms. Embeddings, final norm and head are always trained.

    What isn't trained has no gradient, so that AdamW moves it neither by momentum nor by weight decay: it keeps its
    values bit for bit.

    Departs from the paper: of three modules, two are trained in half of the layers and one in the others, so that it
    is one half of each kind in all; a round may be shorter than a training (the paper: one round per training).
    """

    name: ClassVar[str] = "half"
    title: ClassVar[str] = "HFT: Half Fine-Tuning"
    family: ClassVar[str] = "partial updates"
    paper: ClassVar[str] = "https://arxiv.org/abs/2404.18466"
    cost: ClassVar[str] = "negative: no gradients and optimizer steps for the half that rests"
    refuses: ClassVar[frozenset[str]] = frozenset({"the adapter"})

    fraction: float = Field(
        default=0.5, gt=0, le=1, description="Share of each layer's modules that a round trains, in (0, 1]."
    )
    steps_per_round: int | None = Field(
        default=None, ge=1, description="Optimizer steps after which another half is drawn; none = never."
    )

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Remembers the seed of the rounds; what is trained is known once all methods have prepared the model."""
        self.seed_ = context.seed
        self.num_steps_ = 0
        self.model_: Callable[[], nn.Module | None] = lambda: None
        return model

    def prepare_optimizer(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        """Groups the modules and draws the first round."""
        self.groups_ = group_modules(find_layers(model), model)
        self.model_ = weakref.ref(model)  # not to keep it in memory when the training is over
        self._choose(model)

    def adjust_gradients(self, model: nn.Module) -> None:
        """Drops the gradients of the half that rests."""
        for name, parameter in model.named_parameters():
            if name in self.resting_:
                parameter.grad = None

    def after_step(self, model: nn.Module) -> None:
        """Counts the optimizer step; at the end of a round another half is drawn."""
        self.num_steps_ += 1
        if self.steps_per_round is not None and self.num_steps_ % self.steps_per_round == 0:
            self._choose(model)

    def finish(self, model: nn.Module) -> nn.Module:
        """Returns the model, trainable as it was before."""
        self._set_trained(model, frozenset())
        return model

    def state_dict(self) -> dict[str, Tensor]:
        import torch

        return {"num_steps": torch.tensor(self.num_steps_)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.num_steps_ = int(state["num_steps"])
        if (model := self.model_()) is not None:  # a checkpoint may be read before the optimizer is made, or after
            self._choose(model)

    def _choose(self, model: nn.Module) -> None:
        number = 0 if self.steps_per_round is None else self.num_steps_ // self.steps_per_round
        trained = draw_round(self.groups_, fraction=self.fraction, rng=np.random.default_rng([self.seed_, number]))
        everything = {name for modules in self.groups_.values() for names in modules for name in names}
        self.resting_ = frozenset(everything - trained)
        self._set_trained(model, self.resting_)

    def _set_trained(self, model: nn.Module, resting: frozenset[str]) -> None:
        """Spares the backward pass what rests; DDP and FSDP fix what has gradients when they wrap the model."""
        import torch

        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return
        everything = {name for modules in self.groups_.values() for names in modules for name in names}
        for name, parameter in model.named_parameters():
            if name in everything:
                parameter.requires_grad_(name not in resting)


def group_modules(layers: Layers, model: nn.Module) -> dict[tuple[int, str], list[tuple[str, ...]]]:
    """Groups the modules of each layer that hold trainable parameters by the block that they stand in.

    Args:
        layers: The model's layers.
        model: The model.

    Returns:
        For each layer (from 0) and kind (such as `self_attn` or `norms`), its modules; each is the names of its own
        parameters, a bias with its weight.
    """
    trainable = trainable_parameters(model)
    groups: dict[tuple[int, str], list[tuple[str, ...]]] = {}
    for path, module in model.named_modules():
        if not path.startswith(f"{layers.path}."):
            continue
        own = {f"{path}.{name}": parameter for name, parameter in module.named_parameters(recurse=False)}
        names = tuple(name for name in own if name in trainable)
        if not names:
            continue
        number, _, place = path[len(layers.path) + 1 :].partition(".")
        block = place.rpartition(".")[0]
        # A norm is a module of vectors only; it would take the place of a matrix in the draw.
        kind = f"{block} norms".strip() if all(own[name].ndim < 2 for name in names) else block
        groups.setdefault((int(number), kind), []).append(names)
    return groups


def draw_round(
    groups: Mapping[tuple[int, str], Sequence[tuple[str, ...]]], *, fraction: float, rng: np.random.Generator
) -> set[str]:
    """Draws the modules that a round trains.

    Args:
        groups: Modules by layer and kind.
        fraction: Share of each group to draw, in (0, 1]; where it isn't whole, some layers get one module more, so
            that the share holds over all layers.
        rng: Source of randomness.

    Returns:
        Names of the parameters that are trained.
    """
    trained: set[str] = set()
    for kind in dict.fromkeys(kind for _, kind in groups):
        members = [modules for (_, name), modules in groups.items() if name == kind]
        quotas = [int(fraction * len(modules)) for modules in members]
        missing = round(fraction * sum(len(modules) for modules in members)) - sum(quotas)
        for index in rng.permutation(len(members))[: max(0, missing)]:
            quotas[index] += 1
        for modules, quota in zip(members, quotas, strict=True):
            chosen: Any = rng.permutation(len(modules))[:quota]
            trained.update(name for index in chosen for name in modules[index])
    return trained

"""WiSE-FT: training ends at a point between where it started and where it arrived."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from forgetless.errors import ConfigError
from forgetless.methods.base import Context, Method, method_options, trainable_parameters

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from forgetless.mechanisms.weight_change import LowRank


@method_options
class WiSEFT(Method):
    """Saves theta_0 + share * (theta - theta_0) of weights that went from theta_0 to theta (Wortsman et al. 2022).

    Nothing changes while the model is trained. For LoRA the change is that of the weights, s B A, which scaling B
    alone scales: no copy is needed. It helps where forgetting falls faster than learning on the way back.

    Departs from the paper: it interpolates to a zero-shot classifier that was never trained and looks at the whole
    curve; here the share is one option, and `forgetless run --budget` looks for the largest that stays in a budget.
    """

    name: ClassVar[str] = "wise_ft"
    title: ClassVar[str] = "WiSE-FT: interpolation with the starting point"
    family: ClassVar[str] = "partial updates"
    paper: ClassVar[str] = "https://arxiv.org/abs/2109.01903"
    cost: ClassVar[str] = "none while training; whole weights: a copy of the start in the host's memory, LoRA: none"
    claims: ClassVar[frozenset[str]] = frozenset({"the final weights"})
    ends_training: ClassVar[bool] = True

    share: float = Field(
        default=0.5, ge=0, le=1, description="Share of the change that is kept; 1 = plain fine-tuning, 0 = the base."
    )

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Keeps the trained weights as they are, on the CPU; of a LoRA adapter nothing has to be kept.

        Args:
            model: The model where training starts.
            context: The job; not used.

        Returns:
            The same model.

        Raises:
            ConfigError: An adapter isn't W + scale * B A, or has been trained before.
        """
        self.starts_: dict[str, Tensor] = {}
        if self.share == 1:
            return model
        from forgetless.mechanisms.weight_change import low_rank_updates

        _refuse_trained(model, low_rank_updates(model))
        self.starts_ = {
            name: parameter.detach().to("cpu", copy=True) for name, parameter in _interpolated(model).items()
        }
        return model

    def prepare_optimizer(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        """Raises `ConfigError` where a parameter is trained of which the start wasn't seen."""
        for name in () if self.share == 1 else _interpolated(model):
            if name not in self.starts_:
                raise ConfigError(
                    f"parameter {name!r} is trained, and method 'wise_ft' hasn't seen where it started: name it after "
                    "the methods that add or unfreeze parameters"
                )

    def finish(self, model: nn.Module) -> nn.Module:
        """Moves the weights back, in place.

        Args:
            model: The trained model, in shards or whole.

        Returns:
            The same model.
        """
        if self.share == 1:
            return model
        import torch

        from forgetless.mechanisms.shards import lerp_from
        from forgetless.mechanisms.weight_change import base_name, low_rank_updates

        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for update in low_rank_updates(model):
                parameters[update.b].mul_(self.share)
            for name, parameter in parameters.items():
                if (start := self.starts_.get(base_name(name))) is not None:
                    lerp_from(parameter, start, self.share)
        return model

    @contextmanager
    def as_finished(self, model: nn.Module) -> Iterator[None]:
        """Moves the weights back for a look at what would be saved, and then to where they were, bit for bit."""
        import torch

        from forgetless.mechanisms.weight_change import base_name

        # With half fine-tuning, what rests in this round has moved in earlier ones and is moved back as well.
        moved = trainable_parameters(model) | {
            name: parameter for name, parameter in model.named_parameters() if base_name(name) in self.starts_
        }
        kept = [(parameter, parameter.detach().clone()) for parameter in moved.values()]
        self.finish(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, trained in kept:
                    parameter.copy_(trained)


def _interpolated(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns what is trained beside LoRA's A and B, under its name in the model without wrappers."""
    from forgetless.mechanisms.weight_change import base_name, low_rank_updates

    factors = {name for update in low_rank_updates(model) for name in (update.a, update.b)}
    return {base_name(name): p for name, p in trainable_parameters(model).items() if name not in factors}


def _refuse_trained(model: nn.Module, updates: list[LowRank]) -> None:
    """Refuses adapters that change the model already: what training adds to B A has no B of its own."""
    parameters = dict(model.named_parameters())
    for update in updates:
        a, b = parameters[update.a].detach().float(), parameters[update.b].detach().float()
        # |B A| as a trace of rank x rank matrices; CorDA's start is zero up to rounding, with neither A nor B zero.
        size = ((b.T @ b) * (a @ a.T)).sum().clamp(min=0).sqrt()
        if size > 1e-3 * a.norm() * b.norm():
            raise ConfigError(
                "method 'wise_ft' can't tell what this training adds to an adapter that was trained before: merge the "
                "adapter first (merge_and_unload; in a sequence, set sequence.carry to merge)"
            )

"""Momentum-filtered updates: in each step only the entries with the largest momentum move."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from forgetless.errors import ConfigError
from forgetless.methods.base import Method, method_options

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@method_options
class MoFO(Method):
    """Moves, of each tensor, only the share of entries with the largest |momentum| of Adam (Chen et al. 2025, alg. 1).

    The optimizer runs as always; what wasn't selected is then set back to what it was, bit for bit. The momentum that
    selects is the new one, as in the paper. Weight decay acts on what is selected only.

    Departs from the paper's code: it decays all weights in every step, selects more than the share where momenta tie,
    and moves norms and biases as a whole; here exactly max(1, round(fraction * n)) entries of every tensor move.
    """

    name: ClassVar[str] = "mofo"
    title: ClassVar[str] = "MoFO: Momentum-Filtered Optimizer"
    family: ClassVar[str] = "partial updates"
    paper: ClassVar[str] = "https://arxiv.org/abs/2407.20999"
    cost: ClassVar[str] = "a copy of what is trained, and a selection in each tensor, per optimizer step"

    fraction: float = Field(
        default=0.15, gt=0, le=1, description="Share of each tensor's entries that a step moves, in (0, 1]."
    )

    def prepare_optimizer(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        """Keeps the optimizer, whose momentum selects.

        Args:
            optimizer: Adam or one of its kind.
            model: The model; not used.

        Raises:
            ConfigError: The optimizer has no momentum of Adam's kind.
        """
        if "betas" not in optimizer.defaults:
            raise _no_momentum(optimizer)
        self.optimizer_ = optimizer
        self.before_: list[tuple[nn.Parameter, Tensor]] = []

    def adjust_gradients(self, model: nn.Module) -> None:
        """Copies what the optimizer is about to move."""
        if self.fraction < 1:
            self.before_ = [(p, p.detach().clone()) for p in model.parameters() if p.grad is not None]

    def after_step(self, model: nn.Module) -> None:
        """Sets back what wasn't selected.

        Args:
            model: The model; the parameters are those that were copied.

        Raises:
            ConfigError: The optimizer keeps no momentum under the name `exp_avg`.
        """
        import torch

        from forgetless.mechanisms.shards import own_part

        for parameter, before in self.before_:
            state = self.optimizer_.state[parameter]
            if not state:  # the step was skipped (an overflow in float16) before there was any
                continue
            if "exp_avg" not in state:
                raise _no_momentum(self.optimizer_)
            weights, old, momentum = (own_part(tensor) for tensor in (parameter.data, before, state["exp_avg"]))
            torch.where(select_largest(momentum, self.fraction), weights, old, out=weights)
        self.before_ = []


def select_largest(momentum: Tensor, fraction: float) -> Tensor:
    """Selects the entries that are largest by absolute value.

    The bits of positive floats sort as they do: a histogram of their upper halves finds the bucket in which the
    selection ends, and only that bucket is sorted. On a CPU that takes a quarter to a half of the time of `topk`.

    Args:
        momentum: Any shape; empty on a process that has no part of a sharded tensor.
        fraction: Share of the entries to select, in (0, 1].

    Returns:
        A mask of the same shape with max(1, round(fraction * n)) entries, none of no entries; which of equal ones is
        open.
    """
    import torch

    if not momentum.numel():
        return momentum.bool()
    num = max(1, round(fraction * momentum.numel()))
    bits = momentum.abs().float().flatten().view(torch.int32)
    buckets = bits >> 16
    # Entry b: how many lie in bucket b or in one above it; one more bucket, so that the highest has a neighbour.
    reached = torch.bincount(buckets, minlength=(1 << 15) + 1).flip(0).cumsum(0).flip(0)
    edge = int((reached >= num).nonzero()[-1])
    is_selected = buckets > edge
    candidates = (buckets == edge).nonzero().flatten()
    missing = num - int(reached[edge + 1])
    is_selected[candidates[bits[candidates].topk(missing, sorted=False).indices]] = True
    return is_selected.view_as(momentum)


def _no_momentum(optimizer: torch.optim.Optimizer) -> ConfigError:
    return ConfigError(
        f"method 'mofo' selects by Adam's momentum, and {type(optimizer).__name__} keeps none: train with AdamW"
    )

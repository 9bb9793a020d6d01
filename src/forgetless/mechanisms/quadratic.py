"""Quadratic penalties in closed form: (strength / 2) sum_i w_i (theta_i - anchor_i)^2, value and gradient, no graph.

For trained weights theta is the weight. For LoRA it is the weight that is computed with, W + s B A, so that the sum
runs over the change dW = s (B A - B0 A0), and with M = w o dW

    d/dB = strength s M A^T,    d/dA = strength s B^T M

(o = elementwise, B0 and A0 = the adapter at the anchor). Without importances M = dW, and dW is never formed:
||B A||^2 = tr((B^T B)(A A^T)). A penalty on A and B themselves would hold the product, which is what the model computes
with, only by accident: (2 B)(A / 2) is the same model.

Everything is elementwise in the weights, so that a shard of a weight needs the same shard of its importance and anchor,
nothing else; only values, and gradients of A (whose rows meet all rows of W), are added up over shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from forgetless.errors import ConfigError
from forgetless.mechanisms.shards import mesh_of, own_part, part_like, summed_over_parts, whole
from forgetless.mechanisms.weight_change import LowRank, base_name, low_rank_updates

# Elements that a foreach operation runs over at once: bounds its temporaries, which are twice this many numbers. On a
# CPU they stay in the cache.
GROUP_ON_CPU = 2**18
GROUP_ELSEWHERE = 2**26


class Term(Protocol):
    """A part of the penalty."""

    def add_gradient(self, strength: float) -> Tensor:
        """Adds the part's gradient to those of its parameters and returns its value, both times the strength."""


class QuadraticPenalty:
    """(strength / 2) sum_i w_i (theta_i - anchor_i)^2 on the trained weights of a model.

    Made where the model stands at its anchor, before it is sharded or trained. It finds its parameters by name at the
    first step, as they are then: on another device, in shards, or below an adapter that was added later.

    Args:
        model: The model at the anchor.
        importance: w by parameter name (as `estimate_fisher` gives it, for this model or for its base without
            wrappers); None = 1 everywhere.
        strength: The factor, >= 0.
    """

    def __init__(self, model: nn.Module, importance: Mapping[str, Tensor] | None = None, *, strength: float) -> None:
        self.strength = strength
        self._importance = None if importance is None else {base_name(k): v for k, v in importance.items()}
        updates = low_rank_updates(model)
        _refuse_sums(updates)
        factors = {name for update in updates for name in (update.a, update.b)}
        self._anchor = {
            name if name in factors else base_name(name): parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self._terms: list[Term] | None = None

    def add_gradient(self, model: nn.Module) -> Tensor:
        """Adds the gradient of the penalty to the gradients that are there, and returns the value.

        Args:
            model: The model, with accumulated, averaged, unscaled and unclipped gradients. A parameter without a
                gradient is left out: no optimizer moves it.

        Returns:
            The penalty, a scalar on the model's device; for shards the value of the whole.

        Raises:
            ConfigError: A trained parameter has no anchor or no importance, or is in flat shards.
        """
        if self._terms is None:
            self._terms = self._bind(model)
        values = [term.add_gradient(self.strength) for term in self._terms]
        return torch.stack([value.to(values[0].device) for value in values]).sum()

    def _bind(self, model: nn.Module) -> list[Term]:
        """Pairs the parameters with their anchors and importances, sharded as they are, and drops the rest."""
        parameters = dict(model.named_parameters())
        updates = low_rank_updates(model)
        _refuse_sums(updates)
        factors = {name for update in updates for name in (update.a, update.b)}
        # What is frozen now may be trained later (half fine-tuning); below an adapter it never is.
        plain = [
            (n, p)
            for n, p in parameters.items()
            if n not in factors and (p.requires_grad or (not updates and base_name(n) in self._anchor))
        ]
        terms: list[Term] = [
            Plain(
                parameters=[p for _, p in plain],
                anchors=[self._look_up(self._anchor, n, p, "anchor") for n, p in plain],
                weights=self._weights(plain),
            )
        ]
        terms += [self._bind_update(update, parameters) for update in updates]
        self._anchor, self._importance = {}, None
        return terms

    def _weights(self, plain: Sequence[tuple[str, nn.Parameter]]) -> list[Tensor] | None:
        if self._importance is None:
            return None
        return [self._look_up(self._importance, n, p, "importance") for n, p in plain]

    def _bind_update(self, update: LowRank, parameters: Mapping[str, nn.Parameter]) -> Term:
        a, b = parameters[update.a], parameters[update.b]
        # An adapter that was added after the anchor was taken starts at B A = 0.
        start = (self._anchor.get(update.a), self._anchor.get(update.b))
        a0, b0 = (None, None) if start[1] is None or not start[1].any() else start
        weight = None
        if self._importance is not None:
            weight = self._find(self._importance, update.name, "importance")
            weight = weight.T if update.is_transposed else weight
            if weight.shape != (b.shape[0], a.shape[1]):
                raise _mismatch(update.name, weight, (b.shape[0], a.shape[1]))
            weight = part_like(weight, b)
        return Product(
            a=a,
            b=b,
            scale=update.scale,
            weight=weight,
            a0=None if a0 is None else a0.to(a.device),
            b0=None if b0 is None else part_like(b0, b),
        )

    def _look_up(self, values: Mapping[str, Tensor], name: str, parameter: nn.Parameter, what: str) -> Tensor:
        value = self._find(values, base_name(name), what)
        if value.shape != parameter.shape:
            raise _mismatch(name, value, tuple(parameter.shape))
        return part_like(value, parameter)

    @staticmethod
    def _find(values: Mapping[str, Tensor], name: str, what: str) -> Tensor:
        name = base_name(name)
        if name not in values:
            raise ConfigError(
                f"parameter {name!r} is trained but has no {what}: freeze it, or put the methods that add or unfreeze "
                "parameters first"
            )
        return values[name]


def _refuse_sums(updates: Sequence[LowRank]) -> None:
    """Raises `ConfigError` where several adapters change one weight: the penalty is of the sum of their changes."""
    names = [update.name for update in updates]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"{names.count(name)} adapters of {base_name(name)!r} are trained at once, and the penalty is of what "
                "they change together: train one (set_adapter), or leave out the methods that measure its change"
            )


def _mismatch(name: str, value: Tensor, shape: tuple[int, ...]) -> ConfigError:
    return ConfigError(
        f"parameter {name!r} is {list(shape)} while its anchor or importance is {list(value.shape)}: estimate it for "
        "this model; flat shards (FSDP version 1) can't be told apart, set fsdp_version 2"
    )


@dataclass
class Plain:
    """The part of trained weights: gradient strength w o (theta - anchor).

    Attributes:
        parameters: The weights, in shards or whole.
        anchors: What they are held to: this process's shards.
        weights: Their importances, as the anchors; None = 1.
    """

    parameters: list[nn.Parameter]
    anchors: list[Tensor]
    weights: list[Tensor] | None

    def add_gradient(self, strength: float) -> Tensor:
        kinds: dict[Any, list[int]] = {}
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                key = (parameter.device, *mesh_of(parameter))
                kinds.setdefault(key, []).append(index)
        total = torch.zeros((), device=self.parameters[0].device if self.parameters else None)
        for indices in kinds.values():
            value = sum((self._add(group, strength) for group in self._groups(indices)), torch.zeros(()))
            first = self.parameters[indices[0]]
            total = total + summed_over_parts(value.to(first.device), first).to(total.device)
        return total

    def _groups(self, indices: Sequence[int]) -> Iterator[list[tuple[Tensor, Tensor, Tensor, Tensor | None]]]:
        """Yields (weight, gradient, anchor, importance) in groups of bounded size; large ones are cut."""
        is_cpu = self.parameters[indices[0]].device.type == "cpu"
        limit = GROUP_ON_CPU if is_cpu else GROUP_ELSEWHERE
        group: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []
        size = 0
        for index in indices:
            parameter = self.parameters[index]
            parts = [own_part(parameter), own_part(parameter.grad), self.anchors[index]]
            if self.weights is not None:
                parts.append(self.weights[index])
            # All of them or none: pieces have to be of the same elements.
            most = limit if all(part.is_contiguous() for part in parts) else parts[0].numel()
            for pieces in zip(*(_cut(part, most) for part in parts), strict=True):
                if size and size + pieces[0].numel() > limit:
                    yield group
                    group, size = [], 0
                group.append((pieces[0], pieces[1], pieces[2], pieces[3] if len(pieces) > 3 else None))
                size += pieces[0].numel()
        yield group

    @staticmethod
    def _add(group: Sequence[tuple[Tensor, Tensor, Tensor, Tensor | None]], strength: float) -> Tensor:
        moved = torch._foreach_sub([g[0] for g in group], [g[2] for g in group])
        weights = [g[3] for g in group if g[3] is not None]
        slopes = torch._foreach_mul(moved, weights) if weights else moved
        torch._foreach_add_([g[1] for g in group], slopes, alpha=strength)
        torch._foreach_mul_(moved, slopes)
        # Nothing in it is negative: the sum of the absolute values is the sum.
        precision = torch.promote_types(moved[0].dtype, torch.float32)
        return torch.stack(torch._foreach_norm(moved, 1, dtype=precision)).sum() * (strength / 2)


def _cut(tensor: Tensor, limit: int) -> Sequence[Tensor]:
    """Returns a tensor in pieces of at most `limit` elements that share its memory."""
    if tensor.numel() <= limit:
        return [tensor]
    pieces: tuple[Tensor, ...] = tensor.view(-1).split(limit)
    return pieces


@dataclass
class Product:
    """The part of one LoRA update: gradients of A and B through dW = scale (B A - B0 A0).

    Attributes:
        a: A, (rank, in).
        b: B, (out, rank).
        scale: What B A is multiplied by.
        weight: Importance of W's elements, (out, in), in the rows that this process has of B; None = 1.
        a0: A at the anchor; None where B0 A0 = 0.
        b0: B at the anchor, in the rows that this process has of B.
    """

    a: nn.Parameter
    b: nn.Parameter
    scale: float
    weight: Tensor | None
    a0: Tensor | None
    b0: Tensor | None

    def add_gradient(self, strength: float) -> Tensor:
        a, b = whole(self.a.detach()), own_part(self.b)
        left, right = b, a
        if self.a0 is not None and self.b0 is not None:
            left, right = torch.cat([b, -self.b0], 1), torch.cat([a, self.a0], 0)
        if self.weight is None:
            value, slope_b, slope_a = self._plain(a, b, left, right)
        else:
            value, slope_b, slope_a = self._weighted(a, b, left, right, self.weight)
        if self.b.grad is not None:
            own_part(self.b.grad).add_(slope_b, alpha=strength * self.scale)
        slope_a = summed_over_parts(slope_a, self.b)
        if self.a.grad is not None:
            own_part(self.a.grad).add_(part_like(slope_a, self.a), alpha=strength * self.scale)
        return summed_over_parts(value.float(), self.b) * (strength / 2)

    def _weighted(
        self, a: Tensor, b: Tensor, left: Tensor, right: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        change = (left @ right).mul_(self.scale)
        slope = change * weight
        value = torch.dot(change.flatten(), slope.flatten().to(change.dtype))
        slope = slope.to(a.dtype)
        return value, slope @ a.T, b.T @ slope

    def _plain(self, a: Tensor, b: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inner, outer = left.T @ left, right @ right.T
        value = (inner * outer).sum() * self.scale**2
        return value, left @ (right @ a.T) * self.scale, (b.T @ left) @ right * self.scale

"""What each penalty of a step was worth: its value, and its share of the gradient."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


class PenaltyLog:
    """Collects values at every step, and norms of gradients at the steps that are logged.

    The share of a penalty is the norm of its gradient over the sum of the norms of the task's and all penalties'
    gradients, in [0, 1], before clipping.

    Args:
        names: Methods whose values are to be averaged over processes, which all give the same ones.
        graphs: Those of them whose gradients are to be averaged too.
        average: Takes the mean of a tensor over processes; None where there is one.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        graphs: Sequence[str] = (),
        *,
        average: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._names, self._graphs, self._average = names, graphs, average
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self._norms: dict[str, float] = {}
        self._task_norm = 0.0
        self._gradients: dict[str, dict[str, Tensor]] = {}
        self._before: dict[str, Tensor] = {}

    @property
    def has_gradients(self) -> bool:
        """Whether gradients of penalties wait to be measured against the whole."""
        return bool(self._gradients)

    def add(self, name: str, value: Tensor | float) -> None:
        """Notes the value of a penalty, in nats; kept on its device, so that nothing waits for it."""
        self._values[name].append(torch.as_tensor(value).detach())

    def add_gradient(self, name: str, value: Tensor, model: nn.Module) -> None:
        """Adds the gradient of a penalty of one micro-batch to what the step has of it; the graph is kept.

        Args:
            name: Name of the method.
            value: The penalty's part of the optimizer step, with its graph.
            model: The model that is trained.
        """
        if not value.requires_grad:
            return
        trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(value, list(trained.values()), retain_graph=True, allow_unused=True)
        sums = self._gradients.setdefault(name, {})
        for key, gradient in zip(trained, found, strict=True):
            if gradient is not None:
                sums[key] = sums[key] + gradient if key in sums else gradient

    def start(self, model: nn.Module, *, is_changed: bool = True) -> None:
        """Takes the accumulated gradients of the optimizer step: those of the task and of the penalties so far.

        Args:
            model: The model that is trained.
            is_changed: Whether methods will change them, so that they must be remembered.
        """
        gradients = _gradients(model)
        if self._average is not None:
            for name in self._graphs:
                self._gradients[name] = self._gathered(name, model, self._average)
        rest = dict(gradients)
        for parts in self._gradients.values():
            rest = {key: gradient - parts[key] if key in parts else gradient for key, gradient in rest.items()}
        self._task_norm = _norm(rest)
        self._norms = {name: _norm(parts) for name, parts in self._gradients.items()}
        self._gradients.clear()
        self._before = {key: gradient.clone() for key, gradient in gradients.items()} if is_changed else {}

    def _gathered(self, name: str, model: nn.Module, average: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Averages the gradients of a penalty over processes, as those of the model are already."""
        mine = self._gradients.get(name, {})
        trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
        # Whichever process has one, every process takes part.
        return {key: average(mine.get(key, torch.zeros_like(p))) for key, p in trained.items()}

    def note_change(self, name: str, model: nn.Module, *, is_penalty: bool) -> None:
        """Measures what a method has just added to the gradients in closed form.

        Args:
            name: Name of the method.
            model: The model that is trained.
            is_penalty: Whether what was added is the gradient of a penalty; else it is only remembered.
        """
        after = _gradients(model)
        if is_penalty:
            change = {
                key: gradient - self._before[key] if key in self._before else gradient
                for key, gradient in after.items()
            }
            self._norms[name] = _norm(change)
        self._before = {key: gradient.clone() for key, gradient in after.items()}

    def finish(self) -> None:
        """Lets go of the gradients of the step."""
        self._before = {}

    def take(self) -> dict[str, float]:
        """Returns `penalty/NAME` and `share/NAME` since the last call, and starts anew.

        Returns:
            The mean value in nats, and the share of the gradient in [0, 1] where it was measured.
        """
        logs = {f"penalty/{name}": value for name, value in self._means().items()}
        total = self._task_norm + math.fsum(self._norms.values())
        if total > 0:
            logs |= {f"share/{name}": norm / total for name, norm in self._norms.items()}
        self._values.clear()
        self._norms = {}
        return logs

    def _means(self) -> dict[str, float]:
        """Returns the mean value of each penalty, over micro-batches and processes."""
        names = list(dict.fromkeys([*self._names, *self._values]))
        device = next((values[0].device for values in self._values.values() if values), None)
        sums = torch.zeros(len(names), 2, device=device)
        for row, name in zip(sums, names, strict=True):
            for value in self._values.get(name, ()):
                row += torch.stack([value.float(), torch.ones_like(value, dtype=torch.float)])
        if self._average is not None and names:
            sums = self._average(sums)
        return {name: total / num for name, (total, num) in zip(names, sums.tolist(), strict=True) if num}


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _norm(gradients: dict[str, Tensor]) -> float:
    if not gradients:
        return 0.0
    norms = torch._foreach_norm([gradient.float() for gradient in gradients.values()])
    return float(torch.stack([torch.as_tensor(norm) for norm in norms]).norm())

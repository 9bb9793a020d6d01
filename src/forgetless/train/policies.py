"""What is done about a look at a training: warn, stop, roll back, adapt."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from forgetless.errors import RunError
from forgetless.files import whole_file
from forgetless.mechanisms.tensors import read_tensors
from forgetless.train.looks import OVER, WITHIN, Look
from forgetless.train.probe import keep_tensors

if TYPE_CHECKING:
    from forgetless.methods.base import Method

FULL_RATE_BELOW = 0.5  # of the budget: from there on the rate falls, in proportion to what is left of the budget
LOWEST_RATE = 1 / 32  # of the rate that was asked for
LARGEST_STRENGTH = 16.0  # times the strength that was asked for; beyond it the rate falls instead
KEPT_WEIGHTS = "within_budget.safetensors"


@dataclass
class Moment:
    """A training between two steps, as far as a policy may act on it.

    Attributes:
        step: Optimizer steps done.
        model: The model, unwrapped.
        optimizer: Its optimizer.
        scheduler: The scheduler of its learning rate.
        control: The trainer's flags.
        directory: Where the monitor keeps files.
        checkpoint: Directory of a checkpoint of this step.
        is_main: Whether this process writes files.
        say: Tells the user something.
        did: Notes what was done at this step.
    """

    step: int
    model: Any
    optimizer: Any
    scheduler: Any
    control: Any
    directory: Path
    checkpoint: Path
    is_main: bool
    say: Callable[[str], None]
    did: Callable[[str], None]


class Warn:
    """Says so, once for each time that the budget is crossed."""

    name = "warn"
    ends_training = False

    def __init__(self, *, describe: Callable[[Look], str], budget: float, methods: Sequence[Method] = ()) -> None:
        self.describe, self.budget = describe, budget
        self.methods = methods
        self.is_over = False

    def start(self, moment: Moment) -> None:
        """Prepares for the first step, or for the one after a checkpoint."""

    def act(self, look: Look, estimate: float, moment: Moment) -> Look:
        """Does what is to be done about a look.

        Args:
            look: The look.
            estimate: Its value of the measure that has the budget.
            moment: The training.

        Returns:
            The look, with what was changed because of it.
        """
        if look.status == OVER and not self.is_over:
            self.is_over = True
            self.cross(look, moment)
        elif look.status == WITHIN:
            self.is_over = False
        return look

    def cross(self, look: Look, moment: Moment) -> None:
        """Does what is to be done when the budget is crossed."""
        moment.did("warned")
        moment.say(f"{self.describe(look)}; training goes on (policy warn)")

    def save(self, moment: Moment) -> None:
        """Adds to a checkpoint what can't stand in its state."""

    def finish(self, moment: Moment) -> None:
        """Does what is to be done at the end of the training."""

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps."""
        return {"is_over": self.is_over}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what a checkpoint kept."""
        for name in self.state():
            setattr(self, name, state[name])
        if self.ends_training:
            self.is_over = False  # whoever goes on with a training that was ended has it ended again


class Stop(Warn):
    """Ends the training, and leaves the weights as they are."""

    name = "stop"
    ends_training = True

    def cross(self, look: Look, moment: Moment) -> None:
        moment.control.should_training_stop = True
        moment.did("stopped")
        moment.say(f"{self.describe(look)}: training is stopped, its weights stay as they are (policy stop)")


class Rollback(Warn):
    """Ends the training, and goes back to the weights of the last look within the budget."""

    name = "rollback"
    ends_training = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.kept_step: int | None = None

    def start(self, moment: Moment) -> None:
        """Keeps the weights before the first step, which are within any budget."""
        if moment.step == 0:
            self._keep(moment)
        elif self.kept_step is not None:
            copy = moment.checkpoint / KEPT_WEIGHTS
            if moment.is_main and copy.is_file():
                moment.directory.mkdir(parents=True, exist_ok=True)
                _link(copy, moment.directory / KEPT_WEIGHTS)

    def act(self, look: Look, estimate: float, moment: Moment) -> Look:
        if look.status == WITHIN:
            self._keep(moment)
        return super().act(look, estimate, moment)

    def cross(self, look: Look, moment: Moment) -> None:
        moment.control.should_training_stop = True
        moment.did("stopped")
        moment.say(f"{self.describe(look)}: training is stopped, to go back to weights within the budget")

    def _keep(self, moment: Moment) -> None:
        self.kept_step = moment.step
        if moment.is_main:
            # Copies: sharded parameters may be views of one storage, which safetensors refuses.
            tensors = {name: p.detach().to("cpu", copy=True) for name, p in _trained(moment.model)}
            keep_tensors(moment.directory / KEPT_WEIGHTS, tensors, {"step": str(moment.step)})

    def save(self, moment: Moment) -> None:
        """Puts the kept weights beside a checkpoint, so that a resumed training can go back to the same ones."""
        if moment.is_main and self.kept_step is not None and moment.checkpoint.is_dir():
            _link(moment.directory / KEPT_WEIGHTS, moment.checkpoint / KEPT_WEIGHTS)

    def finish(self, moment: Moment) -> None:
        """Restores the kept weights, bit for bit, where the training ended beyond the budget."""
        if not self.is_over:
            return
        if self.kept_step is None:
            moment.say("no weights within the budget were kept: the monitor came to this training too late")
            return
        tensors = _read(moment.directory / KEPT_WEIGHTS, self.kept_step) if moment.is_main else {}
        for name, parameter in _trained(moment.model):
            with torch.no_grad():
                if moment.is_main:
                    parameter.copy_(tensors[name])
                if torch.distributed.is_available() and torch.distributed.is_initialized():
                    torch.distributed.broadcast(parameter.data, src=0)
        moment.did(f"went back to step {self.kept_step}")
        moment.say(f"the weights are those of step {self.kept_step}, the last look within the budget (policy rollback)")

    def state(self) -> dict[str, Any]:
        return {**super().state(), "kept_step": self.kept_step}


class Adapt(Warn):
    """Raises the strength of what holds the model, or lowers the learning rate, to stay on the budget line.

    Proportional control: up to half of the budget everything is as asked for; from there on the pressure is one over
    what is left of the budget, in halves of it. It is bounded, and falls again where there is room again. A method that
    can be held more firmly takes the pressure first, the learning rate what is beyond.
    """

    name = "adapt"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pressure = 1.0
        self._told: set[bool] = set()  # that it adapts, and that it is at its bound
        # A strength of 0 can't be raised.
        self._held = [one for one in self.methods if one.adjustable and getattr(one, one.adjustable)]
        self._strengths = [getattr(method, method.adjustable) for method in self._held]

    @property
    def strongest(self) -> float:
        """The largest pressure."""
        return (LARGEST_STRENGTH if self._held else 1.0) / LOWEST_RATE

    def _factors(self) -> tuple[float, float]:
        """Returns what learning rate and strength are multiplied with."""
        strength = min(self.pressure, LARGEST_STRENGTH) if self._held else 1.0
        return strength / self.pressure, strength

    def start(self, moment: Moment) -> None:
        """Takes up the strength that a checkpoint was left at; the rate stands in the scheduler's own state."""
        self._set_strength()

    def _set_strength(self) -> None:
        for method, strength in zip(self._held, self._strengths, strict=True):
            setattr(method, method.adjustable, strength * self._factors()[1])

    def act(self, look: Look, estimate: float, moment: Moment) -> Look:
        self.is_over = look.status == OVER
        if estimate > self.budget and self.pressure >= self.strongest:
            moment.control.should_training_stop = True
            moment.did("stopped: learning no longer fits in the budget")
            moment.say(
                f"{self.describe(look)}, with the learning rate at its lowest: learning no longer fits in the budget, "
                "training is stopped (policy adapt)"
            )
        else:
            self._press(estimate, look, moment)
        rate, strength = self._factors()
        return replace(look, rate_factor=rate, strength_factor=strength)

    def _press(self, estimate: float, look: Look, moment: Moment) -> None:
        before, rate = self.pressure, self._factors()[0]
        left = max(0.0, 1 - estimate / self.budget) / (1 - FULL_RATE_BELOW)
        self.pressure = min(max(1.0, 1 / left if left else self.strongest), self.strongest)
        new_rate, strength = self._factors()
        if self.pressure == before:
            return
        scale_rates(moment.optimizer, moment.scheduler, new_rate / rate)
        self._set_strength()
        moment.did(f"learning rate x {new_rate:.3g}" + (f", strength x {strength:.3g}" if self._held else ""))
        if (is_bound := self.pressure == self.strongest) not in self._told:
            self._told.add(is_bound)
            names = " and ".join(method.name for method in self._held)
            held = f"the strength of {names} is {strength:.3g} times what was asked for, " if self._held else ""
            moment.say(
                f"{self.describe(look)}: {held}the learning rate is {new_rate:.3g} times what was asked for "
                "(policy adapt)"
            )

    def finish(self, moment: Moment) -> None:
        """Gives methods their own strength back."""
        for method, strength in zip(self._held, self._strengths, strict=True):
            setattr(method, method.adjustable, strength)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "pressure": self.pressure}


POLICIES: dict[str, type[Warn]] = {policy.name: policy for policy in (Warn, Stop, Rollback, Adapt)}


def scale_rates(optimizer: Any, scheduler: Any, ratio: float) -> None:
    """Multiplies the learning rates from the next step on.

    A scheduler computes each rate from its base rates, or from the rate before: both are scaled. The base rates are
    part of the scheduler's state, so that checkpoints keep them.

    Args:
        optimizer: The optimizer, or accelerate's wrapper.
        scheduler: Its scheduler, or accelerate's wrapper; None = the rate is constant.
        ratio: Above 0.
    """
    inner = getattr(scheduler, "scheduler", scheduler)
    for name in ("base_lrs", "_last_lr"):
        if getattr(inner, name, None) is not None:
            setattr(inner, name, [rate * ratio for rate in getattr(inner, name)])
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * ratio


def _trained(model: Any) -> list[tuple[str, Any]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _link(source: Path, target: Path) -> None:
    """Gives a file a second name, or copies it where the disk knows no links."""
    try:
        with whole_file(target) as part:
            part.unlink(missing_ok=True)
            try:
                os.link(source, part)
            except OSError:
                shutil.copyfile(source, part)
    except OSError as error:
        raise RunError(f"the retention monitor can't write {target} ({error.strerror}): free some space") from error


def _read(path: Path, step: int) -> dict[str, Any]:
    try:
        tensors, metadata = read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"the weights within the budget can't be read from {path} ({error})") from error
    if metadata.get("step") != str(step):
        raise RunError(
            f"{path} holds the weights of step {metadata.get('step')}, not of step {step}: start the training anew"
        )
    return tensors

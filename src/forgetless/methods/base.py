"""What a method is: contributions to data, model, loss, gradients and weights, through hooks that default to nothing.

A method never sees the trainer. Whoever trains folds the hooks in the order of the config:

    prepare_data -> prepare_model -> prepare_optimizer
                 -> per micro-batch: token_weights, penalty
                 -> per optimizer step: adjust_gradients, (clipping, optimizer), after_step -> finish

The constructor only stores its options; what is learned later lives in attributes that end in `_`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as validated_dataclass

from forgetless.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from forgetless.data.encoding import Encoded
    from forgetless.data.examples import Example
    from forgetless.mechanisms.earlier import Earlier
    from forgetless.mechanisms.writer import Writer

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, field_specifiers=(Field,))
def method_options(method: type[T]) -> type[T]:
    """Makes a class a dataclass whose fields are checked as they are stored; an unknown one is refused."""
    return cast(
        "type[T]", validated_dataclass(kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))(method)
    )


@dataclass(frozen=True)
class Context:
    """What a method may know of the job besides the mixture and the model.

    Attributes:
        seed: Seed of the run; a method that draws makes its own generator from it.
        general: The user's general examples, empty when there are none.
        tokenizer: The model's tokenizer, None where only data is prepared.
        max_tokens: Longest training sequence, in tokens.
        directory: Where a method may keep files (a Fisher estimate, generated replay), None = nowhere.
        domain: The training examples as the user gave them.
        model: The base, where it is loaded while data is prepared; None elsewhere.
        sequences: What will be trained on, encoded, where the model is prepared; empty while data is prepared.
        writer: The base as a writer of examples; None where nothing is loaded that could write.
        can_write: Whether there will be a writer once the base is loaded.
        held_out: Texts that no example may overlap with: the evaluation's samples, held-out examples.
        notes: Where a method says what the user should know of what it prepared, one sentence each.
        earlier: What the earlier phases of a sequence left; None where the job is no phase.
    """

    seed: int = 0
    general: Sequence[Example] = ()
    tokenizer: Any = None
    max_tokens: int = 512
    directory: Path | None = None
    domain: Sequence[Example] = ()
    model: nn.Module | None = None
    sequences: Sequence[Encoded] = ()
    writer: Writer | None = None
    can_write: bool = False
    held_out: Sequence[str] = ()
    notes: list[str] = dataclasses.field(default_factory=list)
    earlier: Earlier | None = None


class Step(Protocol):
    """One micro-batch, as `token_weights` and `penalty` see it.

    `logits` are computed once, on first use, and shared by all methods; `supervised_logits` are the part of them that
    the loss needs, and much cheaper where prompts are long.
    """

    model: nn.Module
    inputs: Mapping[str, Tensor]  # input_ids, attention_mask, labels: (batch, tokens)
    num_items: Tensor | int | None  # supervised tokens of the whole optimizer step, over all micro-batches
    is_first: bool  # of the micro-batches of the optimizer step
    num_micro_batches: int  # of the whole optimizer step; the trainer takes the mean of a penalty over them

    @property
    def labels(self) -> Tensor: ...  # (batch, tokens), -100 where nothing is learned

    @property
    def logits(self) -> Tensor: ...  # (batch, tokens, vocabulary)

    @property
    def supervised_logits(self) -> Tensor: ...  # (supervised tokens, vocabulary), row by row

    @property
    def token_losses(self) -> Tensor: ...  # (batch, tokens - 1), nats, 0 where nothing is learned

    def mean_over_tokens(self, values: Tensor) -> Tensor:
        """Returns the part of a mean over the supervised tokens of the optimizer step that a penalty has to return."""


# Where tables group methods: name and what the family changes.
FAMILIES = {
    "adapters": "what is trained beside a frozen base",
    "data": "what is trained on",
    "loss": "what an error costs",
    "anchors": "how far weights may move",
    "partial updates": "which weights move, and where to",
}


@method_options
class Method:
    """Base of all methods: every hook does nothing.

    Class attributes:
        name: Name in configs and tables.
        title: Full name, for people.
        family: One of `FAMILIES`, under which tables group it.
        paper: Link to the paper or reference.
        needs: What the user must bring ("general data"), empty = nothing but the domain data.
        cost: What it costs in time and memory, in a phrase.
        claims: What only one method of a run may hold ("the adapter").
        requires: Claims that another method, or the model as it is given, must hold.
        refuses: Claims that no other method may hold beside this one.
        learning_rate: Peak rate where the config names none; None = that of the kind of tuning.
        needs_whole_weights: Whether a process must hold whole weights, as it does under DDP and not under FSDP.
        ends_training: Whether `finish` leaves a model that is not to be trained on by the same trainer.
        can_continue: Whether its adapter can be trained on in the next phase of a sequence.
        adjustable: Option that holds the model more firmly when it is raised, even during training; empty = none.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    family: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    claims: ClassVar[frozenset[str]] = frozenset()
    requires: ClassVar[frozenset[str]] = frozenset()
    refuses: ClassVar[frozenset[str]] = frozenset()
    learning_rate: ClassVar[float | None] = None
    needs_whole_weights: ClassVar[bool] = False
    ends_training: ClassVar[bool] = False
    can_continue: ClassVar[bool] = False
    adjustable: ClassVar[str] = ""

    def check(self, context: Context) -> None:
        """Raises `ConfigError` when the job lacks what the method needs; called before anything is loaded."""

    def load_options(self) -> dict[str, Any]:
        """Returns further arguments of `load_model` for the model that is trained, and judged when it is."""
        return {}

    def prepare_data(self, mixture: Sequence[Example], context: Context) -> Sequence[Example]:
        """Returns the mixture to train on."""
        return mixture

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Returns the model to train: adapters, freezing, subspaces, Fisher estimation."""
        return model

    def prepare_optimizer(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        """Sees the optimizer once, before its scheduler is made: parameter groups, references to its state."""

    def token_weights(self, step: Step) -> Tensor | None:
        """Returns weights of the token losses, shape (batch, tokens - 1), detached; None = 1 everywhere."""
        return None

    def penalty(self, step: Step) -> Tensor | None:
        """Returns a scalar that is added to the loss of the optimizer step, in nats; None = nothing."""
        return None

    def adjust_gradients(self, model: nn.Module) -> Tensor | float | None:
        """Changes gradients in place: called once per optimizer step, accumulated and unscaled, before clipping.

        Args:
            model: The model that is trained, unwrapped.

        Returns:
            The value in nats of the penalty whose gradient was added in closed form; None where it was none.
        """
        return None

    def after_step(self, model: nn.Module) -> None:
        """Changes weights in place, after the optimizer step."""

    def finish(self, model: nn.Module) -> nn.Module:
        """Returns the model to save: averaging, scaling, merging."""
        return model

    def as_finished(self, model: nn.Module) -> AbstractContextManager[None]:
        """Makes a model that is in training compute for a while what `finish` would leave now, for a look at it."""
        return nullcontext()

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what must survive a checkpoint; the names are the method's own."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what `state_dict` gave."""

    def options(self) -> dict[str, Any]:
        """Returns the options as they would stand in a config."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @cached_property
    def overridden(self) -> frozenset[str]:
        """Names of the hooks that this method implements, so that callers can skip the others at no cost."""
        return frozenset(name for name in HOOKS if getattr(type(self), name) is not getattr(Method, name))


HOOKS = (
    "prepare_data",
    "prepare_model",
    "prepare_optimizer",
    "token_weights",
    "penalty",
    "adjust_gradients",
    "after_step",
    "finish",
)


def build_method(load: Callable[[str], type[Method]], spec: str | Mapping[str, Any]) -> Method:
    """Builds a method from its line in a config: a bare name, or one name with its options.

    Args:
        load: Looks a method class up by name (`METHODS.load`).
        spec: `"lora"` or `{"lora": {"rank": 8}}`.

    Returns:
        The method, with defaults for the options that are left out.

    Raises:
        ConfigError: The line isn't of that form, the name is unknown, or an option is unknown or out of bounds.
    """
    options: Any = {}
    if isinstance(spec, str):
        name = spec
    elif len(spec) == 1:
        name, options = next(iter(spec.items()))
        options = {} if options is None else options
    else:
        raise ConfigError(f"a method is a name, or one name with its options, not {dict(spec)!r}")
    if not isinstance(options, Mapping):
        raise ConfigError(f"options of method {name!r} must be a mapping such as {{rank: 8}}, not {options!r}")
    method = load(name)
    known = {field.name for field in dataclasses.fields(method)}
    for key in options:
        if key not in known:
            raise ConfigError(f"method {name!r} has no option {key!r}{did_you_mean(str(key), known)}")
    try:
        return method(**options)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"method {name!r}, option {place!r}: {first['msg']}, not {first['input']!r}") from None


def refuse_conflicts(methods: Iterable[Method], *, held: Iterable[str] = ()) -> None:
    """Refuses methods that can't be used together.

    Args:
        methods: The methods of a run, in order.
        held: Claims that the model holds already ("the adapter" of a PEFT model).

    Raises:
        ConfigError: Two methods claim the same thing, one stands twice, or one needs or refuses what another holds.
    """
    methods = list(methods)
    holders = dict.fromkeys(held, "the model")
    for method in methods:
        for claim in sorted({*method.claims, f"the name {method.name!r}"}):
            if claim in holders:
                raise ConfigError(
                    f"{_named(holders[claim])} and method {method.name!r} both claim {claim}: keep one of them"
                )
            holders[claim] = method.name
    for method in methods:
        for claim in sorted(method.refuses & holders.keys()):
            raise ConfigError(
                f"method {method.name!r} can't be used with {claim} of {_named(holders[claim])}: keep one of them"
            )
        if missing := method.requires - holders.keys():
            raise ConfigError(f"method {method.name!r} needs {min(missing)}: add a method that brings it, such as lora")


def _named(holder: str) -> str:
    return holder if holder == "the model" else f"method {holder!r}"


def trainable_parameters(model: nn.Module) -> dict[str, torch.nn.Parameter]:
    """Returns the parameters that are trained, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

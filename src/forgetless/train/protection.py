"""Attaches methods to a `transformers.Trainer` from outside; TRL's `SFTTrainer` is one.

The trainer keeps its class, its loop and its checkpoints: it is moved to a subclass of its own class in which the loss,
the gradients and the checkpoints pass through the hooks of the methods. Without methods it computes what it computed.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import ProcessorMixin, Trainer, TrainerCallback
from transformers.trainer_utils import has_length

from forgetless.data.sources import GeneralData, as_examples
from forgetless.errors import ConfigError, ForgetlessError, RunError
from forgetless.mechanisms.shards import whole
from forgetless.methods.base import HOOKS, Context, Method, refuse_conflicts
from forgetless.models import num_positions
from forgetless.train.guards import (
    refuse_data_methods,
    refuse_engine,
    refuse_other_models,
    refuse_other_types,
    refuse_replaced,
    refuse_stale_optimizer,
    refuse_wrapped_model,
    users_of,
)
from forgetless.train.penalties import PenaltyLog
from forgetless.train.rows import rows_of
from forgetless.train.states import digest_start, load_states, save_states
from forgetless.train.weighting import AnsweredModel, MicroBatch, multiply_weights

_HOLDER = "holder_"  # attribute of a method: the trainer that it has prepared the model of last


class _Protected(Trainer):
    """The hooks' side of a protected trainer; only ever mixed into the class of a trainer that exists already."""

    methods: Sequence[Method]
    users: Mapping[str, Sequence[Method]]  # the methods that implement a hook, by its name
    penalties: PenaltyLog
    optimizer_is_prepared: bool
    is_first_of_step: bool  # of the micro-batch that comes next
    loss_was_asked: bool  # in the training step that is under way
    weights_are_used: bool  # seen once, in the loss
    start_digest: Tensor | None  # digest of the weights that methods were given; None where they took nothing of them
    finished_by: str | None

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if is_new or not self.optimizer_is_prepared:  # a second training goes on with the optimizer of the first
            self.optimizer_is_prepared = True
            num_groups = len(optimizer.param_groups)
            for method in self.users["prepare_optimizer"]:
                method.prepare_optimizer(optimizer, self.model)  # type: ignore[arg-type]
                if self.lr_scheduler is not None and len(optimizer.param_groups) != num_groups:
                    raise ConfigError(
                        f"the trainer's scheduler was made for parameter groups that method {method.name!r} changes: "
                        "pass optimizer_cls_and_kwargs= instead of optimizers=, so that both are made when training "
                        "starts"
                    )
        return optimizer

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        weighers, punishers = self.users["token_weights"], self.users["penalty"]
        self.loss_was_asked = True
        if not (weighers or punishers) or not model.training:
            return self._own_loss(model, inputs, return_outputs, num_items_in_batch)
        step = MicroBatch(
            self.accelerator.unwrap_model(model),
            dict(inputs),
            num_items_in_batch,
            forward=model,
            is_first=self.is_first_of_step,
            num_micro_batches=self.current_gradient_accumulation_steps,
            num_processes=self.accelerator.num_processes if self.args.average_tokens_across_devices else 1,
        )
        weights = multiply_weights([method.token_weights(step) for method in weighers])
        penalty = self._penalty(step, punishers)
        result: Any
        if weights is None and not (step.is_projected and self._has_known_loss):
            result = self._own_loss(model, inputs, return_outputs, num_items_in_batch)
        else:
            answered = AnsweredModel(step, weights)
            result = self._own_loss(answered, inputs, return_outputs, num_items_in_batch)
            if weights is not None and not self.weights_are_used and not self._is_compiled:
                answered.refuse_unused(result[0] if return_outputs else result)
                self.weights_are_used = True
        return (result[0] + penalty, result[1]) if return_outputs else result + penalty

    def _own_loss(self, model: Any, inputs: Any, return_outputs: bool, num_items: Any) -> Any:
        """Asks the trainer's own class, by the names that the trainer itself uses: a user's may have no others."""
        options = {"return_outputs": True} if return_outputs else {}
        return super().compute_loss(model, inputs, num_items_in_batch=num_items, **options)

    @property
    def _has_known_loss(self) -> bool:
        """Whether the loss is one of transformers, TRL or ours, which ask the model once, about the batch alone.

        One of the user's own may ask it about more, and is given the model itself where no token is weighed.
        """
        return super().compute_loss.__module__.partition(".")[0] in {"transformers", "trl", "forgetless"}

    def _penalty(self, step: MicroBatch, methods: Sequence[Method]) -> Tensor | float:
        """Sums the penalties, each divided over the micro-batches of the optimizer step."""
        total: Tensor | float = 0.0
        for method in methods:
            value = method.penalty(step)
            if value is not None:
                value = whole(value)
                num = self.current_gradient_accumulation_steps
                self.penalties.add(method.name, value)
                if self._is_measured:
                    self.penalties.add_gradient(method.name, value / num, step.model)
                total = total + value
        return total / self.current_gradient_accumulation_steps if self._is_scaled(step) else total

    def _is_scaled(self, step: MicroBatch) -> bool:
        """Whether the trainer takes the loss as one that is divided over the micro-batches already."""
        if (known := getattr(self, "loss_is_scaled_for_ga", None)) is not None:
            return bool(known)
        return (self.model_accepts_loss_kwargs and step.num_items is not None) or self.compute_loss_func is not None

    @property
    def _is_reentrant(self) -> bool:
        """Whether activations are recomputed in the way that only knows whole backward passes."""
        # The name in transformers 5, and in 4.
        names = ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs")
        asked = [(getattr(self.args, name, None) or {}).get("use_reentrant") for name in names]
        if self.args.gradient_checkpointing and any(asked):
            return True
        model: Any = self.model
        found = (m._gradient_checkpointing_func for m in model.modules() if getattr(m, "gradient_checkpointing", False))
        return any(getattr(function, "keywords", {}).get("use_reentrant") for function in found)

    @property
    def _is_measured(self) -> bool:
        """Whether the optimizer step that is under way will be logged, so that its gradients are worth measuring."""
        # Gradients of a part of the loss are out of reach under the last three.
        return self._is_logged and not (self.is_fsdp_enabled or self._is_reentrant or self._is_compiled)

    @property
    def _is_compiled(self) -> bool:
        """Whether the model is compiled: its graph is used up by the first backward pass."""
        model: Any = self.model_wrapped
        if self.args.torch_compile or hasattr(model, "_orig_mod"):
            return True
        return any(getattr(module, "_compiled_call_impl", None) is not None for module in model.modules())

    @property
    def _is_logged(self) -> bool:
        step, args = self.state.global_step, self.args
        if step == 0 and args.logging_first_step:
            return True
        if args.logging_strategy == "epoch":
            loader: Any = self.callback_handler.train_dataloader
            if not has_length(loader):
                return False  # where a stream ends isn't known before
            num = len(loader)
            return (step + 1) % math.ceil(num / args.gradient_accumulation_steps) == 0
        return args.logging_strategy == "steps" and (step + 1) % max(1, int(self.state.logging_steps)) == 0

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self.is_first_of_step = True  # a training that was broken off may have left it otherwise
        return super()._inner_training_loop(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        self.loss_was_asked = False
        loss: Tensor = super().training_step(*args, **kwargs)
        if not self.loss_was_asked and (passed := [*self.users["token_weights"], *self.users["penalty"]]):
            raise ConfigError(
                f"the trainer's own training_step doesn't call compute_loss, where method {passed[0].name!r} acts: "
                "let it, or drop the method"
            )
        self.is_first_of_step = self.accelerator.sync_gradients
        has_penalties = self._is_measured and self.users["penalty"]  # alike in all processes
        if self.accelerator.sync_gradients and (self.users["adjust_gradients"] or has_penalties):
            self._adjust_gradients(self.users["adjust_gradients"])
        return loss

    def _adjust_gradients(self, methods: Sequence[Method]) -> None:
        """Lets methods change the accumulated gradients before they are clipped, in their true scale."""
        scaler = getattr(self.accelerator, "scaler", None)
        scale = scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0
        model: Any = self.model
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if methods and not gradients:
            raise ConfigError(
                f"there are no gradients after the backward pass, which method {methods[0].name!r} changes: an "
                "optimizer that steps within it has used them up; take one that steps after it"
            )
        if scale != 1.0:
            torch._foreach_div_(gradients, scale)
        log, is_measured = self.penalties, self._is_measured
        if is_measured:
            log.start(model, is_changed=bool(methods))
        # Adapters last: what they hold back of the gradients, the penalties of others would fill again.
        for method in sorted(methods, key=lambda method: "the adapter" in method.claims):
            value = method.adjust_gradients(model)
            if value is not None:
                log.add(method.name, whole(value))
            if is_measured:
                log.note_change(method.name, model, is_penalty=value is not None)
        if is_measured:
            log.finish()
        if scale != 1.0:
            torch._foreach_mul_([p.grad for p in model.parameters() if p.grad is not None], scale)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:  # not the figures of an evaluation
            logs |= self.penalties.take()
        super().log(logs, *args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # Before the trainer's own files: a checkpoint that is cut off then lacks what tells that it is whole.
        directory = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        save_states(directory, self.methods, self.start_digest, is_writer=self.args.should_save)
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            load_states(Path(checkpoint), self.methods, self.start_digest)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        for method in self.methods:
            if vars(method)[_HOLDER]() is not self:
                raise RunError(f"method {method.name!r} was given to another trainer since: make one for each trainer")
        if self.finished_by is not None:
            raise RunError(
                f"method {self.finished_by!r} has made the final model out of the one that was trained: "
                "make a new trainer to train it further"
            )
        result = super().train(*args, **kwargs)
        model: Any = self.model
        for method in self.users["finish"]:
            finished = method.finish(model)
            if method.ends_training or finished is not model:
                self.finished_by = method.name
            model = finished
        if model is not self.model:
            self.model = self.model_wrapped = self.callback_handler.model = model
        return result


class _Hooks(TrainerCallback):
    """The hook that only a callback can reach: after the optimizer step."""

    def __init__(self, trainer: Trainer, methods: Sequence[Method]) -> None:
        # The adapter last, as for gradients: what it promises of its weights (OSF) is to hold of what stays.
        self._trainer = trainer
        self._methods = sorted(methods, key=lambda method: "the adapter" in method.claims)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._methods and not self._trainer.accelerator.optimizer_step_was_skipped:
            for method in self._methods:
                method.after_step(self._trainer.model)  # type: ignore[arg-type]


def protect(
    trainer: Trainer, methods: Sequence[Method], *, general: GeneralData = (), context: Context | None = None
) -> Trainer:
    """Attaches methods to a trainer that exists already; call it before `trainer.train()`.

    Args:
        trainer: Any `transformers.Trainer`; TRL's `SFTTrainer` is one. It is changed in place.
        methods: In the order in which their hooks are folded.
        general: Data that stands for what is to be kept, for the methods that need some: examples, rows in any form
            that training data may have, or the path of a file.
        context: What the methods may know; by default what the trainer itself knows: seed, tokenizer, encoded data.

    Returns:
        The same trainer.

    Raises:
        ConfigError: Methods conflict with one another or with the trainer or its model, one of them changes the data
            (the trainer has encoded it already), or the trainer is protected already.
    """
    refuse_other_types(trainer, methods)
    if isinstance(trainer, _Protected):
        raise ConfigError("this trainer is protected already: pass all methods in one call")
    refuse_data_methods(methods)
    refuse_wrapped_model(trainer, methods)
    refuse_engine(trainer, methods)
    refuse_replaced(trainer, methods)
    refuse_other_models(trainer, methods)
    model: Any = trainer.model
    held = {"the adapter"} if getattr(model, "peft_config", None) else set()
    refuse_conflicts(methods, held=held)
    if not methods:
        return attach(trainer, methods)
    context = context or _context(trainer, general)
    for method in methods:
        method.check(context)
    start = digest_start(model) if users_of(methods, {"prepare_model"}) else None
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for method in methods:
        try:
            model = method.prepare_model(model, context)
        except ForgetlessError as error:
            given: Any = trainer.model
            left = [parameter for parameter in given.parameters() if parameter.requires_grad]
            if list(map(id, left)) == list(map(id, trained)):
                raise
            raise type(error)(f"{error} (the model was changed meanwhile: load it anew to go on)") from error
    refuse_stale_optimizer(trainer, model, before=trained)
    if model is not trainer.model:
        _replace_model(trainer, model)
    return attach(trainer, methods, held=held, start_digest=start)


def _context(trainer: Trainer, general: GeneralData) -> Context:
    """Returns what a trainer knows of its job."""
    tokenizer: Any = trainer.processing_class
    model: Any = trainer.model
    return Context(
        seed=trainer.args.seed,
        general=as_examples(general, origin="general"),
        tokenizer=tokenizer.tokenizer if isinstance(tokenizer, ProcessorMixin) else tokenizer,
        max_tokens=min(getattr(trainer.args, "max_length", None) or 512, num_positions(model)),
        sequences=rows_of(trainer),
    )


def _replace_model(trainer: Trainer, model: Any) -> None:
    """Gives a trainer another model than it was made with, wherever it keeps one."""
    if trainer.place_model_on_device:
        model = model.to(trainer.args.device)
    trainer.model = trainer.model_wrapped = trainer.callback_handler.model = model
    if trainer.args.gradient_checkpointing and hasattr(model, "enable_input_require_grads"):
        model.enable_input_require_grads()  # nothing below an adapter is trained: reentrant checkpoints would cut there


def attach(
    trainer: Trainer, methods: Sequence[Method], *, held: Iterable[str] = (), start_digest: Tensor | None = None
) -> Trainer:
    """Attaches the hooks of training to a trainer whose data and model the methods have prepared.

    Args:
        trainer: The trainer; it is changed in place.
        methods: In the order in which their hooks are folded.
        held: Claims that the model held before the methods came ("the adapter" of a PEFT model).
        start_digest: Of the weights that methods were given, where a checkpoint of other ones is to be refused.

    Returns:
        The same trainer.

    Raises:
        ConfigError: Methods conflict, or need gradients that the trainer's engine keeps to itself.
    """
    refuse_conflicts(methods, held=held)
    refuse_engine(trainer, methods)
    refuse_replaced(trainer, methods)
    kind = type(trainer)
    protected: Any = trainer
    protected.__class__ = type(f"Protected{kind.__name__}", (_Protected, kind), {})
    protected.methods = tuple(methods)
    protected.users = {hook: [method for method in methods if hook in method.overridden] for hook in HOOKS}
    protected.penalties = _penalty_log(trainer, protected.users)
    protected.optimizer_is_prepared = False
    protected.is_first_of_step = True
    protected.loss_was_asked = False
    protected.weights_are_used = False
    protected.finished_by = None
    protected.start_digest = start_digest
    for method in methods:
        vars(method)[_HOLDER] = weakref.ref(trainer)
    hooks = _Hooks(trainer, protected.users["after_step"])
    trainer.add_callback(hooks)
    # Before the user's own, which may look at the weights that the step has left (an average of them, say).
    trainer.callback_handler.callbacks.remove(hooks)
    trainer.callback_handler.callbacks.insert(0, hooks)
    return trainer


def _penalty_log(trainer: Trainer, users: Mapping[str, Sequence[Method]]) -> PenaltyLog:
    """Makes the log of penalties, which averages over processes where there are several."""
    if trainer.accelerator.num_processes == 1:
        return PenaltyLog()
    graphs = [method.name for method in users["penalty"]]
    names = [*graphs, *(method.name for method in users["adjust_gradients"])]
    accelerator = trainer.accelerator
    # Where no method has a value there is none that says on which device processes talk.
    return PenaltyLog(names, graphs, average=lambda value: accelerator.reduce(value.to(accelerator.device), "mean"))

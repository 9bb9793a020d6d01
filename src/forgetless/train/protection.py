"""Attaches methods to a `transformers.Trainer` from outside; TRL's `SFTTrainer` is one.

The trainer keeps its class, its loop and its checkpoints: it is moved to a subclass of its own class in which the loss,
the gradients and the checkpoints pass through the hooks of the methods. Without methods it computes what it computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from forgetless.data.encoding import Encoded
from forgetless.data.sources import GeneralData, as_examples
from forgetless.errors import ConfigError, RunError
from forgetless.methods.base import Context, Method, refuse_conflicts
from forgetless.train.penalties import PenaltyLog


class MicroBatch:
    """One micro-batch as methods see it; logits are computed once, on first use.

    Args:
        model: The model that is trained, unwrapped.
        inputs: `input_ids`, `attention_mask`, `labels`, each (batch, tokens).
        num_items: Supervised tokens of the whole optimizer step; None = of this micro-batch.
        global_step: Optimizer steps that are done.
        forward: Computes the logits of the model, (batch, tokens, vocabulary), with their graph.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        num_items: Tensor | int | None,
        *,
        global_step: int,
        forward: Callable[[], Tensor],
    ) -> None:
        self.model, self.inputs, self.num_items, self.global_step = model, inputs, num_items, global_step
        self._forward = forward

    @property
    def labels(self) -> Tensor:
        return self.inputs["labels"]

    @cached_property
    def logits(self) -> Tensor:
        """Logits of the model that is trained, (batch, tokens, vocabulary), with their graph."""
        return self._forward()

    @cached_property
    def token_losses(self) -> Tensor:
        """Cross-entropy of each next token in nats, (batch, tokens - 1); 0 where nothing is learned."""
        logits, labels = self.logits[:, :-1], self.labels[:, 1:]
        losses = nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
        return losses.view_as(labels)  # ignore_index -100 gives 0


class _Protected(Trainer):
    """The hooks' side of a protected trainer; only ever mixed into the class of a trainer that exists already."""

    methods: Sequence[Method]
    penalties: PenaltyLog
    optimizer_is_prepared: bool

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        optimizer = super().create_optimizer(*args, **kwargs)
        if not self.optimizer_is_prepared:  # once: a training that resumes makes it once more
            self.optimizer_is_prepared = True
            for method in self.methods:
                method.prepare_optimizer(optimizer, self.model)  # type: ignore[arg-type]
        return optimizer

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        weighers = [method for method in self.methods if "token_weights" in method.overridden]
        punishers = [method for method in self.methods if "penalty" in method.overridden]
        if not model.training or not (weighers or punishers):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        step = MicroBatch(
            self.accelerator.unwrap_model(model),
            dict(inputs),
            num_items_in_batch,
            global_step=self.state.global_step,
            forward=lambda: model(**{k: v for k, v in inputs.items() if k != "labels"}, use_cache=False).logits,
        )
        weights = _product([method.token_weights(step) for method in weighers])
        loss: Any
        if weights is None:
            loss = super().compute_loss(model, inputs, False, num_items_in_batch)
        else:
            loss = reduce_token_losses(self, step.token_losses * weights, step.labels, step.num_items)
        loss = loss + self._penalty(step, punishers)
        return (loss, {"loss": loss, "logits": step.logits}) if return_outputs else loss

    def _penalty(self, step: MicroBatch, methods: Sequence[Method]) -> Tensor | float:
        """Sums the penalties, each divided over the micro-batches of the optimizer step."""
        total: Tensor | float = 0.0
        for method in methods:
            value = method.penalty(step)
            if value is not None:
                num = self.current_gradient_accumulation_steps
                self.penalties.add(method.name, value)
                if self._is_logged:
                    self.penalties.add_gradient(method.name, value / num, step.model)
                total = total + value
        # Without a token count the trainer itself divides the loss by the number of micro-batches.
        return total / self.current_gradient_accumulation_steps if step.num_items is not None else total

    @property
    def _is_logged(self) -> bool:
        """Whether the optimizer step that is under way will be logged, so that its gradients are worth measuring."""
        step, every = self.state.global_step, max(1, int(self.state.logging_steps))
        return (step + 1) % every == 0 or (step == 0 and self.args.logging_first_step)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:
            changers = [method for method in self.methods if "adjust_gradients" in method.overridden]
            if changers or self.penalties.has_gradients:
                self._adjust_gradients(changers)
        return loss

    def _adjust_gradients(self, methods: Sequence[Method]) -> None:
        """Lets methods change the accumulated gradients before they are clipped, in their true scale."""
        scaler = getattr(self.accelerator, "scaler", None)
        scale = scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0
        model: Any = self.model
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if scale != 1.0:
            torch._foreach_div_(gradients, scale)
        log = self.penalties
        if self._is_logged:
            log.start(model)
        for method in methods:
            value = method.adjust_gradients(model)
            if value is not None:
                log.add(method.name, value)
            if self._is_logged:
                log.note_change(method.name, model, is_penalty=value is not None)
        if self._is_logged:
            log.finish()
        if scale != 1.0:
            torch._foreach_mul_([p.grad for p in model.parameters() if p.grad is not None], scale)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        logs |= self.penalties.take()
        super().log(logs, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        for method in self.methods:
            path = Path(resume_from_checkpoint) / _state_file(method)
            if path.is_file():
                method.load_state_dict(load_file(path))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        result = super().train(*args, **kwargs)
        model: Any = self.model
        for method in self.methods:
            model = method.finish(model)
        self.model = model
        return result


def reduce_token_losses(trainer: Trainer, losses: Tensor, labels: Tensor, num_items: Tensor | int | None) -> Tensor:
    """Reduces token losses to the loss of a micro-batch as the trainer would.

    Args:
        trainer: Whose settings count.
        losses: Cross-entropy of each next token in nats, any shape.
        labels: Labels of the micro-batch, (batch, tokens).
        num_items: Supervised tokens of the whole optimizer step; None = of this micro-batch.

    Returns:
        A scalar, in nats per supervised token.
    """
    if num_items is None:
        return losses.sum() / (labels[:, 1:] != -100).sum().clamp(min=1)
    loss = losses.sum() / torch.as_tensor(num_items, device=losses.device).clamp(min=1)
    # The trainer counts the tokens of all processes, and their gradients are averaged.
    return loss * trainer.accelerator.num_processes if trainer.args.average_tokens_across_devices else loss


def _product(weights: Sequence[Tensor | None]) -> Tensor | None:
    """Multiplies the token weights of all methods."""
    given = [weight for weight in weights if weight is not None]
    if not given:
        return None
    total = given[0]
    for weight in given[1:]:
        total = total * weight
    return total


def _state_file(method: Method) -> str:
    return f"forgetless_{method.name}.safetensors"


class _Hooks(TrainerCallback):
    """The hooks that a callback can reach: after the optimizer step, and when a checkpoint is written."""

    def __init__(self, methods: Sequence[Method]) -> None:
        self.steppers = [method for method in methods if "after_step" in method.overridden]
        self.methods = methods

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for method in self.steppers:
            method.after_step(kwargs["model"])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        for method in self.methods:
            if tensors := method.state_dict():
                directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                save_file(
                    {name: tensor.contiguous() for name, tensor in tensors.items()}, directory / _state_file(method)
                )


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
        ConfigError: Methods conflict, one of them changes the data (the trainer has encoded it already), or the
            trainer is protected already.
    """
    if isinstance(trainer, _Protected):
        raise ConfigError("this trainer is protected already: pass all methods in one call")
    for method in methods:
        if "prepare_data" in method.overridden:
            raise ConfigError(
                f"method {method.name!r} changes the data, which this trainer has encoded already: "
                "mix it before you make the trainer, with forgetless.replay_mixture"
            )
    model: Any = trainer.model
    held = {"the adapter"} if getattr(model, "peft_config", None) else set()
    refuse_conflicts(methods, held=held)
    context = context or _context(trainer, general)
    for method in methods:
        method.check(context)
    for method in methods:
        model = method.prepare_model(model, context)
    if model is not trainer.model:
        trainer.model = trainer.model_wrapped = model.to(trainer.args.device)
    return attach(trainer, methods, held=held)


def _context(trainer: Trainer, general: GeneralData) -> Context:
    """Returns what a trainer knows of its job."""
    return Context(
        seed=trainer.args.seed,
        general=as_examples(general, origin="general"),
        tokenizer=trainer.processing_class,
        max_tokens=getattr(trainer.args, "max_length", None) or 512,
        sequences=_encoded(trainer.train_dataset),
    )


def _encoded(dataset: Any) -> list[Encoded]:
    """Returns the rows of a trainer's data that carry both ids and labels; none where its collator makes the labels."""
    columns = getattr(dataset, "column_names", None) or ()
    if not {"input_ids", "labels"} <= set(columns):
        return []
    return [Encoded(list(row["input_ids"]), list(row["labels"])) for row in dataset]


def attach(trainer: Trainer, methods: Sequence[Method], *, held: Iterable[str] = ()) -> Trainer:
    """Attaches the hooks of training to a trainer whose data and model the methods have prepared.

    Args:
        trainer: The trainer; it is changed in place.
        methods: In the order in which their hooks are folded.
        held: Claims that the model held before the methods came ("the adapter" of a PEFT model).

    Returns:
        The same trainer.

    Raises:
        ConfigError: Methods conflict, or need gradients that the trainer's engine keeps to itself.
    """
    refuse_conflicts(methods, held=held)
    if trainer.is_deepspeed_enabled and any("adjust_gradients" in method.overridden for method in methods):
        raise ConfigError("DeepSpeed keeps gradients to itself: methods that change gradients need FSDP or DDP")
    kind = type(trainer)
    trainer.__class__ = type(f"Protected{kind.__name__}", (_Protected, kind), {})
    trainer.methods = tuple(methods)  # type: ignore[attr-defined]
    trainer.penalties = PenaltyLog()  # type: ignore[attr-defined]
    trainer.optimizer_is_prepared = False  # type: ignore[attr-defined]
    trainer.add_callback(_Hooks(methods))
    return trainer


def refuse_divergence(loss: float, step: int) -> None:
    """Raises `RunError` when the loss is no longer a number."""
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise RunError(f"the training loss is {loss} at step {step}: lower training.learning_rate")

"""The training stage: TRL's `SFTTrainer` on an encoded mixture, with methods attached from outside."""

from __future__ import annotations

import inspect
import json
import math
import resource
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import TrainerCallback, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from forgetless.data.encoding import IGNORED, Encoded
from forgetless.errors import ConfigError, RunError
from forgetless.quiet import quiet_transformers
from forgetless.train.protection import attach
from forgetless.train.weighting import AnsweredModel

if TYPE_CHECKING:
    from forgetless.config import TrainingConfig
    from forgetless.methods.base import Method

Progress = Callable[[float, float], None]


@dataclass(frozen=True)
class TrainingSummary:
    """What training did.

    Attributes:
        num_steps: Optimizer steps.
        num_tokens: Tokens that went through the model, padding left out.
        final_loss: Mean loss over the last logged steps, in nats per supervised token.
        tokens_per_second: Over the whole training.
        peak_memory_mib: Highest memory: of the process on the CPU, of the device elsewhere.
    """

    num_steps: int
    num_tokens: int
    final_loss: float | None
    tokens_per_second: float
    peak_memory_mib: int


@quiet_transformers()
def train_model(
    model: nn.Module,
    tokenizer: Any,
    sequences: Sequence[Encoded],
    *,
    methods: Sequence[Method],
    config: TrainingConfig,
    learning_rate: float,
    seed: int,
    directory: Path,
    progress: Progress | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[nn.Module, TrainingSummary]:
    """Trains a model that the methods have prepared, and writes `train.jsonl` and checkpoints as it goes.

    A directory that holds a checkpoint is gone on with from there.

    Args:
        model: The model, in the state that `prepare_model` left it in.
        tokenizer: Its tokenizer.
        sequences: The encoded mixture.
        methods: Whose hooks take part.
        config: The training section of the config.
        learning_rate: Peak learning rate.
        seed: Of data order and dropout.
        directory: The run directory.
        progress: Called with (steps done, steps in all).
        callbacks: Further callbacks of the trainer.

    Returns:
        The trained model and what it took.

    Raises:
        ConfigError: The weights that are trained are float16.
        RunError: The loss diverged, memory ran out, or a file can't be written.
    """
    _refuse_half_precision(model)
    set_seed(seed)
    checkpoints = directory / "checkpoints"
    watcher = _Watcher(directory / "train.jsonl", sequences, config, progress)
    arguments = training_arguments(
        config, checkpoints, learning_rate=learning_rate, seed=seed, device=next(model.parameters()).device
    )
    dataset = Dataset.from_dict(
        {"input_ids": [s.input_ids for s in sequences], "labels": [s.labels for s in sequences]}
    )
    kinds = {parameter: parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
    trainer: Any = AnswerTrainer(
        model=model,  # type: ignore[arg-type]
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[watcher, *callbacks],
    )
    for parameter, kind in kinds.items():  # TRL rounds the adapter of a quantised model to bfloat16
        parameter.data = parameter.data.to(kind)
    attach(trainer, methods)
    _drop_printers(trainer)
    resume = last_checkpoint(checkpoints)
    watcher.rewind(resume)
    started = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    except torch.OutOfMemoryError as error:
        raise RunError(
            "the device ran out of memory: lower training.micro_batch_size or training.max_tokens, train an adapter "
            "(lora), or set training.dtype to bfloat16"
        ) from error
    except (OSError, SafetensorError) as error:  # a full disk shows as either
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"training stopped: {reason}; what was saved is in {directory}") from error
    seconds = time.perf_counter() - started
    trained: nn.Module = trainer.accelerator.unwrap_model(trainer.model).eval()
    num_tokens = watcher.num_tokens
    return trained, TrainingSummary(
        num_steps=trainer.state.global_step,
        num_tokens=num_tokens,
        final_loss=watcher.final_loss,
        tokens_per_second=num_tokens / max(seconds, 1e-9),
        peak_memory_mib=peak_memory_mib(arguments.device),
    )


def _refuse_half_precision(model: nn.Module) -> None:
    """Refuses what a gradient scaler refuses later on, and says what training bfloat16 weights in place does.

    An update of less than 1/256 of a weight rounds to nothing in bfloat16, and autocast keeps no float32 copy.
    """
    types = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
    if torch.float16 in types:
        raise ConfigError(
            "weights in float16 can't be trained: set training.dtype to bfloat16 or float32, or train an adapter (lora)"
        )
    if torch.bfloat16 in types:
        warnings.warn(
            "the weights are trained in bfloat16, which rounds small updates away (at a rate of 2e-5 most of them): "
            "set training.dtype to float32 where memory allows, or train an adapter, which is kept in float32",
            stacklevel=3,
        )


def training_arguments(
    config: TrainingConfig, output: Path, *, learning_rate: float, seed: int, device: torch.device
) -> SFTConfig:
    """Translates the training section of a config for TRL."""
    micro = config.micro_batch_size or config.batch_size
    is_half = device.type == "cuda" and config.dtype in {"auto", "bfloat16"} and torch.cuda.is_bf16_supported()
    return SFTConfig(
        output_dir=str(output),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=learning_rate,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=max(1, config.batch_size // micro),
        warmup_steps=config.warmup_ratio,  # a share of all steps when below 1
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(config.scheduler, config.scheduler),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused" if device.type == "cuda" else "adamw_torch",
        bf16=is_half,
        fp16=config.dtype == "float16",
        gradient_checkpointing=config.gradient_checkpointing,
        save_strategy="steps" if config.save_steps else "epoch",
        save_steps=config.save_steps or 500,
        save_total_limit=1,
        logging_strategy="steps",
        logging_steps=config.logging_steps,
        logging_first_step=True,
        disable_tqdm=True,
        report_to="none",
        seed=seed,
        data_seed=seed,
        max_length=config.max_tokens,
        packing=False,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        # The encoded mixture carries its own labels; nothing else is to be made of it.
        dataset_kwargs={"skip_prepare_dataset": True},
    )


class AnswerTrainer(SFTTrainer):
    """TRL's trainer; on the CPU it projects onto the vocabulary only from where the first answer starts.

    TRL's fused head bounds memory on accelerators; on a CPU, where the projection dominates small models, it costs a
    third more time than leaving out the positions that nothing is learned at. The loss is the same.
    """

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs["labels"]
        if isinstance(model, AnsweredModel) and not return_outputs:
            return _reduce_token_losses(self, model.losses, labels, num_items_in_batch)
        if return_outputs or labels.device.type != "cpu" or not _keeps_logits(self.model):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        is_learned = (labels != IGNORED).any(0)
        is_learned[0] = False  # nothing comes before the first token to predict it from
        first = int(is_learned.int().argmax()) - 1 if is_learned.any() else labels.shape[1] - 2
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        logits = model(**rest, use_cache=False, logits_to_keep=labels.shape[1] - first).logits[:, :-1]
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels[:, first + 1 :].flatten(), reduction="none"
        )
        return _reduce_token_losses(self, losses, labels, num_items_in_batch)


def _reduce_token_losses(trainer: SFTTrainer, losses: Tensor, labels: Tensor, num_items: Tensor | int | None) -> Tensor:
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


def _keeps_logits(model: Any) -> bool:
    """Whether a model can be asked for the last logits only, and needs nothing beside them (a router's loss, say)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    has_router = getattr(base.config, "output_router_logits", None) is not None
    return "logits_to_keep" in inspect.signature(base.forward).parameters and not has_router


def _drop_printers(trainer: Any) -> None:
    """Removes the callbacks that print logs to the terminal; `train.jsonl` and the progress bar have them."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)


def last_checkpoint(directory: Path) -> Path | None:
    """Returns the newest whole checkpoint; one that was cut off while it was written is left out."""
    found = [
        path
        for path in directory.glob("checkpoint-*")
        if (path / "trainer_state.json").is_file() and path.name.rpartition("-")[2].isdigit()
    ]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def remove_checkpoints(directory: Path) -> None:
    """Removes the checkpoints of a training that is finished and saved."""
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)


def peak_memory_mib(device: torch.device) -> int:
    """Returns the highest memory so far in MiB: of the device on CUDA, of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class _Watcher(TrainerCallback):
    """Writes `train.jsonl`, reports progress and stops a training that has diverged."""

    def __init__(
        self, path: Path, sequences: Sequence[Encoded], config: TrainingConfig, progress: Progress | None
    ) -> None:
        self.path = path
        self.progress = progress
        self.final_loss: float | None = None
        self.num_tokens = 0
        self._tokens_per_step = config.batch_size * sum(len(s.input_ids) for s in sequences) / len(sequences)
        self._mark = (0, time.perf_counter())

    def rewind(self, checkpoint: Path | None) -> None:
        """Keeps of an earlier `train.jsonl` what came before the checkpoint that is gone on from."""
        step = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() and step else []
        kept = [line for line in lines if _step_of(line) <= step]
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._mark = (step, time.perf_counter())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.num_tokens += round(self._tokens_per_step)
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        _refuse_divergence(float(logs["loss"]), state.global_step)
        step, mark = self._mark
        now = time.perf_counter()
        rate = (state.global_step - step) * self._tokens_per_step / max(now - mark, 1e-9)
        self._mark = (state.global_step, now)
        self.final_loss = float(logs["loss"])
        record = {
            "step": state.global_step,
            "epoch": round(float(state.epoch or 0), 4),
            "loss": self.final_loss,
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": _finite(logs.get("grad_norm")),
            "tokens_per_second": round(rate, 1),
            "penalties": {k.partition("/")[2]: v for k, v in logs.items() if k.startswith("penalty/")},
            "shares": {k.partition("/")[2]: v for k, v in logs.items() if k.startswith("share/")},
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _step_of(line: str) -> float:
    """Returns the step of a line of `train.jsonl`; infinity for one that a stop cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(float(value)) else None


def _refuse_divergence(loss: float, step: int) -> None:
    """Raises `RunError` when the loss is no longer a number."""
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise RunError(f"the training loss is {loss} at step {step}: lower training.learning_rate")

"""Trainers as they stand in scripts of the user's own, on the tiny model, and methods whose effect is known by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset

from conftest import QUESTIONS, build_model, build_tokenizer
from forgetless.methods.base import Method
from training import mixture

GENERATION_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def settings(directory: Path, **changes: Any) -> dict[str, Any]:
    return {
        "output_dir": str(directory),
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "report_to": "none",
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "lr_scheduler_type": "constant",
    } | changes


def encoded_rows() -> Dataset:
    return Dataset.from_list([{"input_ids": s.input_ids, "labels": s.labels} for s in mixture([])])


def plain_trainer(directory: Path, *, model: Any = None, options: Any = None, **changes: Any) -> Any:
    """A `transformers.Trainer` with a collator that pads labels."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer: Any = build_tokenizer()
    given = {"train_dataset": encoded_rows(), "data_collator": DataCollatorForSeq2Seq(tokenizer)}
    return Trainer(
        model=build_model() if model is None else model,  # type: ignore[arg-type]
        args=TrainingArguments(**settings(directory, **changes)),
        processing_class=tokenizer,
        **{**given, **(options or {})},
    )


def completion_rows() -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": row["question"]}],
                "completion": [{"role": "assistant", "content": row["answer"]}],
            }
            for row in QUESTIONS
        ]
    )


def conversation_rows() -> Dataset:
    return Dataset.from_list(
        [
            {
                "messages": [
                    {"role": "user", "content": row["question"]},
                    {"role": "assistant", "content": row["answer"]},
                ]
            }
            for row in QUESTIONS
        ]
    )


def sft_trainer(
    directory: Path,
    *,
    model: Any = None,
    rows: Any = None,
    template: str | None = None,
    options: Any = None,
    **changes: Any,
) -> Any:
    """TRL's `SFTTrainer` on prompts and completions."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    tokenizer: Any = build_tokenizer()
    if template is not None:
        tokenizer.chat_template = template
    defaults = {"bf16": False, "activation_checkpointing": False, "max_length": 64}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return SFTTrainer(
            model=build_model() if model is None else model,  # type: ignore[arg-type]
            args=SFTConfig(**settings(directory, **{**defaults, **changes})),
            train_dataset=completion_rows() if rows is None else rows,
            processing_class=tokenizer,
            **(options or {}),
        )


def trained(trainer: Any, **options: Any) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trainer.train(**options)
    return weights_of(trainer)


def weights_of(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}


def logged(trainer: Any, key: str) -> list[float]:
    return [record[key] for record in trainer.state.log_history if key in record]


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


class Weighing(Method):
    """Weighs tokens by their ids: 0, 1 or 2."""

    name: ClassVar[str] = "weighing"
    title: ClassVar[str] = "For tests"
    paper: ClassVar[str] = "https://example.org"

    def token_weights(self, step: Any) -> torch.Tensor:
        weights: torch.Tensor = (step.labels[:, 1:].clamp(min=0) % 3).float()
        return weights


class Pull(Method):
    """Half the squared norm of what is trained, through autograd."""

    name: ClassVar[str] = "pull"
    title: ClassVar[str] = "For tests"
    paper: ClassVar[str] = "https://example.org"

    def penalty(self, step: Any) -> torch.Tensor:
        trained = [p for p in step.model.parameters() if p.requires_grad]
        return 0.5 * torch.stack([p.square().sum() for p in trained]).sum()


class ClosedPull(Method):
    """The same, its gradient added in closed form."""

    name: ClassVar[str] = "closed_pull"
    title: ClassVar[str] = "For tests"
    paper: ClassVar[str] = "https://example.org"

    def adjust_gradients(self, model: Any) -> torch.Tensor:
        trained = [p for p in model.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.grad.add_(parameter.detach())
        return 0.5 * torch.stack([p.detach().square().sum() for p in trained]).sum()


class Shrink(Method):
    """Halves what is trained after each step, and counts the steps in its state."""

    name: ClassVar[str] = "shrink"
    title: ClassVar[str] = "For tests"
    paper: ClassVar[str] = "https://example.org"
    steps_ = 0

    def after_step(self, model: Any) -> None:
        self.steps_ += 1
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.mul_(0.5 if self.steps_ % 2 else 2.0)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"steps": torch.tensor(self.steps_)}

    def load_state_dict(self, state: Any) -> None:
        self.steps_ = int(state["steps"])


class Watching(Method):
    """A penalty on the logits of the model that is trained: it asks for them, as KL does."""

    name: ClassVar[str] = "watching"
    title: ClassVar[str] = "For tests"
    paper: ClassVar[str] = "https://example.org"

    def penalty(self, step: Any) -> torch.Tensor:
        energy: torch.Tensor = step.mean_over_tokens(step.supervised_logits.float().logsumexp(-1).square())
        return 0.1 * energy


def every_hook() -> list[Method]:
    return [Weighing(), Pull(), Watching(), ClosedPull(), Shrink()]

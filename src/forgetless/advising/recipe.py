"""One record for a training recipe, whatever file it was read from; each field knows where it stands there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Place = tuple[str | int, ...]


class Tuning(StrEnum):
    """What is trained."""

    FULL = "full"
    PARTIAL = "partial"
    LORA = "lora"
    QLORA = "qlora"
    OTHER = "other"

    @property
    def is_low_rank(self) -> bool:
        return self in {Tuning.LORA, Tuning.QLORA}

    @property
    def moves_weights(self) -> bool:
        """Whether the base's own weights are trained."""
        return self in {Tuning.FULL, Tuning.PARTIAL}


class Stage(StrEnum):
    """What kind of training it is; most rules are about supervised examples."""

    SUPERVISED = "supervised"
    PRETRAINING = "pretraining"
    PREFERENCE = "preference"


@dataclass(frozen=True)
class Setting(Generic[T]):
    """A value of the recipe and where it stands.

    Attributes:
        value: In the recipe's own terms.
        place: Path of the key in its file, where it stands or would stand.
        is_set: Whether the file says it; False = the tool's default.
        raw: What the file says, where that is written otherwise.
        file: The file; None = the one that was asked about.
    """

    value: T
    place: Place
    is_set: bool = True
    raw: Any = None
    file: Path | None = None

    @property
    def key(self) -> str:
        """The path as people write it: `training.learning_rate`, `datasets[0].type`."""
        return write_place(self.place)


def write_place(place: Place) -> str:
    """Returns the path of a key as people write it."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


@dataclass(frozen=True)
class Source:
    """A set of training examples that the recipe names.

    Attributes:
        name: As the file has it: a path, a hub id, or an entry of a registry of data sets.
        path: The file or directory on this machine; None = it isn't here.
        place: Path of the key that names it.
    """

    name: str
    path: Path | None
    place: Place


@dataclass(frozen=True)
class Recipe:
    """What a config, of whatever tool, says of a fine-tuning; None = it doesn't say, and the tool has no default.

    Attributes:
        dialect: Whose format it is.
        stage: Kind of training.
        model: The base: alias, directory or hub id.
        tuning: What is trained.
        learning_rate: Peak rate.
        epochs: Passes over the data.
        max_steps: Optimizer steps that end the training whatever `epochs` says.
        batch_size: Sequences per optimizer step, on one device.
        num_per_unit: Sequences that one unit of `batch_size`'s key stands for.
        warmup: Steps, or a share of them, in which the rate rises.
        scheduler: How the rate falls.
        optimizer: Its name.
        weight_decay: AdamW's.
        max_grad_norm: Norm that gradients are clipped to; 0 = not at all.
        precision: `float16`, `bfloat16`, `float32` or `auto`.
        max_tokens: Longest sequence.
        loss_on_prompt: Whether prompts carry loss.
        loss_needs_data: Whether `loss_on_prompt` holds for conversations only, and prompt and completion are masked.
        end_of_turn: Whether the end of each answer carries loss: `turn`, `last` (of a conversation), or `none`.
        end_tokens: Tokens that the recipe says end a turn.
        template: Name of the chat template.
        template_file: A template that replaces the tokenizer's.
        embeddings: Embedding or output modules that are trained beside the adapter.
        adds_tokens: Whether tokens are added to the vocabulary.
        rank: Of the adapter.
        alpha: Of the adapter.
        is_rank_stabilised: Whether the scale is alpha / sqrt(rank).
        bias: Which biases are trained.
        init: How the adapter starts.
        packing: Whether sequences are packed.
        packing_resets: Whether packed sequences are kept apart: positions and attention start anew.
        sources: What is trained on.
        general: Whether data to keep takes part.
        held_out: Whether anything is held out.
        suite: What base and tuned are asked.
        tasks_dir: Directory with the user's own tasks.
        limit: Most samples of each task.
        margin: Largest drop that is tolerated.
        gate_alpha: Error rate of the verdict.
        num_examples_limit: Most training examples that are used.
        notes: What could not be read from the file, one sentence each.
    """

    dialect: str
    stage: Stage = Stage.SUPERVISED
    model: Setting[str] | None = None
    tuning: Setting[Tuning] | None = None
    learning_rate: Setting[float] | None = None
    epochs: Setting[float] | None = None
    max_steps: Setting[int] | None = None
    batch_size: Setting[int] | None = None
    num_per_unit: int = 1
    warmup: Setting[float] | None = None
    scheduler: Setting[str] | None = None
    optimizer: Setting[str] | None = None
    weight_decay: Setting[float] | None = None
    max_grad_norm: Setting[float] | None = None
    precision: Setting[str] | None = None
    max_tokens: Setting[int] | None = None
    loss_on_prompt: Setting[bool] | None = None
    loss_needs_data: bool = False
    end_of_turn: Setting[str] | None = None
    end_tokens: Setting[tuple[str, ...]] | None = None
    template: Setting[str] | None = None
    template_file: Setting[str] | None = None
    embeddings: Setting[tuple[str, ...]] | None = None
    adds_tokens: bool = False
    rank: Setting[int] | None = None
    alpha: Setting[float] | None = None
    is_rank_stabilised: Setting[bool] | None = None
    bias: Setting[str] | None = None
    init: Setting[str] | None = None
    packing: Setting[bool] | None = None
    packing_resets: Setting[bool] | None = None
    sources: tuple[Source, ...] = ()
    general: Setting[bool] | None = None
    held_out: Setting[bool] | None = None
    suite: Setting[str] | None = None
    tasks_dir: Path | None = None
    limit: Setting[int] | None = None
    margin: Setting[float] | None = None
    gate_alpha: float = 0.05
    num_examples_limit: int | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def scale(self) -> float | None:
        """What the adapter's product is multiplied by: alpha / rank, or alpha / sqrt(rank)."""
        if self.rank is None or self.alpha is None:
            return None
        is_stabilised = self.is_rank_stabilised is not None and self.is_rank_stabilised.value
        return self.alpha.value / (math.sqrt(self.rank.value) if is_stabilised else self.rank.value)

    def num_steps(self, num_examples: int | None) -> float | None:
        """Returns how many optimizer steps the recipe takes, None where that can't be known."""
        if self.max_steps is not None:
            return float(self.max_steps.value)
        if num_examples is None or self.epochs is None or self.batch_size is None:
            return None
        return self.epochs.value * num_examples / self.batch_size.value

    def num_passes(self, num_examples: int | None) -> float | None:
        """Returns how often each example is seen, None where that can't be known."""
        if self.max_steps is None:
            return None if self.epochs is None else self.epochs.value
        if num_examples is None or self.batch_size is None:
            return None
        return self.max_steps.value * self.batch_size.value / num_examples

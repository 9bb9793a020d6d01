"""A network of one shared layer and two heads in the shape of a language model, and the two tasks that it learns.

A row of inputs is a token, and after it comes its class: so the methods, their Fisher estimates and their batches
are the product's own, not copies.

    row of task A --> shared layer, ReLU --> head A --> class
    row of task B --> shared layer, ReLU --> head B --> class
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.data.examples import Example, Message

NUM_CLASSES = 2
TASKS = ("A", "B")


@dataclass(frozen=True)
class Settings:
    """Settings of the lesson: ours, as plain as they come; the lesson's own are not recorded.

    Attributes:
        num_inputs: Numbers in a row.
        width: Units of the shared layer.
        num_rows: Training rows of each task.
        num_held_out: Rows of each task that are only measured on.
        num_steps: Optimizer steps of each task; each takes all rows.
        learning_rate: Of Adam.
    """

    num_inputs: int = 10
    width: int = 32
    num_rows: int = 200
    num_held_out: int = 500
    num_steps: int = 50
    learning_rate: float = 1e-2


@dataclass(frozen=True)
class Logits:
    """What a language model gives: `logits`, (batch, tokens, vocabulary)."""

    logits: Tensor


class Network(nn.Module):
    """A shared layer below two heads, with the rows of both tasks as its tokens.

    Tokens 0 and 1 are the classes; the others are rows, those of task A first.

    Args:
        inputs: Rows of both tasks, (2, rows, inputs).
        width: Units of the shared layer.
    """

    def __init__(self, inputs: Tensor, *, width: int) -> None:
        super().__init__()
        num_inputs = inputs.shape[-1]
        self.num_rows = inputs.shape[1]
        table = torch.cat([torch.zeros(NUM_CLASSES, num_inputs), inputs.flatten(0, 1)])
        self.inputs: Tensor
        self.register_buffer("inputs", table, persistent=False)
        self.layers = nn.ModuleList([nn.Linear(num_inputs, width)])  # a list, as language models hold their layers
        self.head_a = nn.Linear(width, NUM_CLASSES)
        self.head_b = nn.Linear(width, NUM_CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Logits:
        """Returns the logits of the class after each token, (batch, tokens, 2)."""
        hidden = self.layers[0](self.inputs[input_ids]).relu()
        is_a = (input_ids < NUM_CLASSES + self.num_rows)[..., None]
        return Logits(torch.where(is_a, self.head_a(hidden), self.head_b(hidden)))


class RowTokenizer:
    """Reads "17" as token 17: what the methods need of a tokenizer, and no more."""

    chat_template = None
    eos_token = None
    eos_token_id = None
    pad_token_id = None

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Returns the token of each word."""
        return {"input_ids": [int(word) for word in text.split()]}


def draw_tasks(settings: Settings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws two tasks of one kind: which side of a random plane through the origin does a row lie on?

    Args:
        settings: How many rows of what length.
        generator: Source of the draws.

    Returns:
        Rows, (2, rows, inputs), standard normal; classes, (2, rows). The first `num_rows` of each task are trained on.
    """
    num = settings.num_rows + settings.num_held_out
    planes = torch.randn(len(TASKS), settings.num_inputs, generator=generator)
    rows = torch.randn(len(TASKS), num, settings.num_inputs, generator=generator)
    return rows, (torch.einsum("tri,ti->tr", rows, planes) > 0).long()


def task_examples(task: int, classes: Tensor, settings: Settings) -> list[Example]:
    """Returns the training rows of a task as examples: a row is asked for, its class is answered.

    Args:
        task: 0 = A, 1 = B.
        classes: Classes of both tasks' rows, (2, rows).
        settings: How many rows are trained on.

    Returns:
        One example for each row, task A's with the origin "general": it is what must be kept.
    """
    first = NUM_CLASSES + task * classes.shape[1]
    return [
        Example(
            messages=(Message("user", str(first + row)), Message("assistant", str(int(classes[task, row])))),
            origin="domain" if task else "general",
        )
        for row in range(settings.num_rows)
    ]

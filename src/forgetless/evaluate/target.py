"""The target task, made of the user's held-out examples: how well was learned what was to be learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forgetless.data.encoding import as_dicts
from forgetless.data.examples import Example
from forgetless.records import Role
from forgetless.tasks.base import Task, TaskSpec

TARGET_LOSS = "target_loss"
TARGET_ANSWERS = "target_answers"
LONGEST_ANSWER = 128


def target_tasks(examples: Sequence[Example], *, phase: str | None = None) -> list[Task]:
    """Makes the tasks that measure learning on held-out examples.

    `target_loss` is cross-entropy on the reference answers, in nats per answer token; `target_answers` grades free
    answers by their word overlap (F1) with the reference. Plain texts have a loss only.

    Args:
        examples: The held-out examples.
        phase: Name of the phase whose target they are: the tasks are then called `PHASE.loss` and `PHASE.answers`.

    Returns:
        The loss, and the answers where there are questions.
    """
    loss, answers = (TARGET_LOSS, TARGET_ANSWERS) if phase is None else target_names(phase)
    spec = TaskSpec(
        task=loss,
        version=1,
        description="Held-out examples: cross-entropy of the reference answers.",
        role=Role.TARGET,
        kind="perplexity",
        data="test",
    )
    tasks = [Task(spec, tuple(_sample(example, loss, number) for number, example in enumerate(examples, 1)))]
    asked = [example for example in examples if example.text is None]
    if asked:
        longest = max(len(example.answer_text.split()) for example in asked)
        spec = TaskSpec(
            task=answers,
            version=1,
            description="Held-out examples, answered freely: word overlap (F1) with the reference.",
            role=Role.TARGET,
            kind="generate",
            data="test",
            # About 1.4 tokens a word, and room for a somewhat longer answer.
            max_tokens=min(LONGEST_ANSWER, 16 + 2 * longest),
            scorer="token_f1",
        )
        tasks.append(Task(spec, tuple(_sample(example, answers, i) for i, example in enumerate(asked, 1))))
    return tasks


def target_names(phase: str) -> tuple[str, str]:
    """Returns what the tasks of a phase's target are called: its loss and its answers."""
    return f"{phase}.loss", f"{phase}.answers"


def _sample(example: Example, task: str, number: int) -> dict[str, Any]:
    sample: dict[str, Any] = {"id": f"{task}-{number:04d}"}
    if example.text is not None:
        return sample | {"text": example.text}
    sample |= {"messages": as_dicts(example.messages), "answer": example.answer_text}
    # Earlier answers that are context in training are context here.
    return sample | ({"supervised_from": example.supervised_from} if example.supervised_from else {})

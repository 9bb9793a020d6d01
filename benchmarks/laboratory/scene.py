"""What a seed brings: a base model, its narrow task, what stands for the old, and the questions that judge."""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.laboratory.base_models import NUM_HELD_OUT, accuracy, pretrain
from benchmarks.laboratory.skills import (
    ASSISTANT,
    END,
    IDS,
    SKILLS,
    USER,
    VOCABULARY,
    Item,
    World,
    held_out,
    target_items,
    taught,
)

NUM_BASES = 3
NUM_GENERAL = 300  # examples that stand for a user's general data
NUM_SAMPLED = 512  # sequences that a base samples for its own replay
LONGEST_WRITTEN = 24  # tokens
NUM_CHOOSING = 40  # questions per skill by which settings are chosen; a search looks at them often


@dataclass(frozen=True)
class Scene:
    """What a seed brings.

    Attributes:
        seed: The seed.
        base: The base model; it is copied before it is trained.
        train: Items of the narrow task to train on.
        test: Items that test it.
        questions: Held-out questions of each skill that judge a run.
        validation: Others, by which settings are chosen.
        general: Items like those that the base was taught, none of them held out.
        written: Items that the base wrote by itself, none of them held out.
        known: The base's accuracy on `questions`, by skill.
        known_validation: The same on `validation`.
    """

    seed: int
    base: Any
    train: Sequence[Item]
    test: Sequence[Item]
    questions: dict[str, list[Item]]
    validation: dict[str, list[Item]]
    general: Sequence[Item]
    written: Sequence[Item]
    known: dict[str, float]
    known_validation: dict[str, float]

    def forgetting(self, model: Any, *, is_validation: bool = False) -> dict[str, float]:
        """Returns how far the accuracy of each skill has fallen, in [-1, 1]."""
        questions, known = (self.validation, self.known_validation) if is_validation else (self.questions, self.known)
        return {skill: known[skill] - accuracy(model, items) for skill, items in questions.items()}


@functools.lru_cache(maxsize=16)
def set_scene(seed: int, directory: Path) -> Scene:
    """Returns what belongs to a seed; the base model is pretrained where the directory doesn't hold it."""
    number = seed % NUM_BASES
    world = World(number)
    judged = {skill: held_out(world, skill, NUM_HELD_OUT) for skill in SKILLS}
    avoid = prompts_of(judged)
    stream = taught(world, random.Random(f"general {seed}"), shares=[1.0] * len(SKILLS), avoid=avoid)
    train, test = target_items(world, seed)
    base = pretrain(number, directory, log=lambda line: print(f"base {number}: {line}", flush=True))
    questions = {skill: items[::2] for skill, items in judged.items()}
    validation = {skill: items[1::2][:NUM_CHOOSING] for skill, items in judged.items()}
    return Scene(
        seed=seed,
        base=base,
        train=train,
        test=test,
        questions=questions,
        validation=validation,
        general=list(itertools.islice(stream, NUM_GENERAL)),
        written=_kept_written(number, base, directory, avoid),
        known={skill: accuracy(base, items) for skill, items in questions.items()},
        known_validation={skill: accuracy(base, items) for skill, items in validation.items()},
    )


def prompts_of(questions: dict[str, list[Item]]) -> set[str]:
    """Returns the prompts of questions."""
    return {item.prompt for items in questions.values() for item in items}


def _kept_written(number: int, base: Any, directory: Path, avoid: set[str]) -> list[Item]:
    """Returns what a base wrote by itself, from a file beside it where there is one."""
    path = directory / f"{Path(base.name_or_path).name}.written.jsonl"
    if not path.is_file():
        lines = [json.dumps([item.prompt, item.answer]) for item in write_items(base, NUM_SAMPLED, number, avoid=avoid)]
        partial = path.with_suffix(f".{id(base)}")
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.replace(path)
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Item("written", prompt, answer) for prompt, answer in rows]


@torch.no_grad()
def write_items(model: Any, num: int, seed: int, *, avoid: set[str]) -> list[Item]:
    """Lets a model write prompts from the bare chat template, and answer them.

    Args:
        model: The base model.
        num: Sequences to sample; unfinished ones and repeats are left out.
        seed: Seed of the sampling.
        avoid: Prompts that are left out: those that are held out.

    Returns:
        What was written, each prompt once, answered greedily.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        start = torch.full((num, 1), IDS[USER])
        texts = _continue(model, start, do_sample=True, temperature=1.0, top_k=0)
    prompts = dict.fromkeys(prompt for row in texts if (prompt := _prompt_of(row)) and prompt not in avoid)
    by_length: dict[int, list[str]] = {}
    for prompt in prompts:
        by_length.setdefault(len(prompt.split()), []).append(prompt)
    found = []
    for group in by_length.values():  # of one length, so that nothing has to be padded
        starts = [[IDS[word] for word in f"{USER} {prompt} {ASSISTANT}".split()] for prompt in group]
        answers = _continue(model, torch.tensor(starts), do_sample=False)
        for prompt, answer in zip(group, answers, strict=True):
            if IDS[END] in answer[1:]:
                words = [VOCABULARY[number] for number in answer[: answer.index(IDS[END])]]
                found.append(Item("written", prompt, " ".join(words)))
    return found


def _continue(model: Any, start: torch.Tensor, **options: Any) -> list[list[int]]:
    """Returns the ids that a model generates after each row."""
    mask = torch.ones_like(start)
    ids = model.generate(start, attention_mask=mask, max_new_tokens=LONGEST_WRITTEN, **options)
    return [list(map(int, row)) for row in ids[:, start.shape[1] :]]


def _prompt_of(ids: Sequence[int]) -> str | None:
    """Returns the words before the assistant's turn; None where a sampled sequence has no such form."""
    words = [VOCABULARY[number] for number in ids]
    if ASSISTANT not in words[1:]:
        return None
    prompt = words[: words.index(ASSISTANT)]
    return None if any(word.startswith("<") for word in prompt) else " ".join(prompt)

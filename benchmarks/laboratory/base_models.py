"""Small Llama models that know the five skills: pretrained here in minutes, one per world, kept by their content."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from benchmarks.laboratory.skills import END, IDS, SKILLS, VOCABULARY, Item, World, encode_item, held_out, taught
from torch import Tensor, nn

SIZES: dict[str, Any] = {"hidden_size": 112, "intermediate_size": 320, "num_hidden_layers": 3, "num_attention_heads": 4}
NUM_STEPS, BATCH, RATE, QUESTIONS_FROM = 1500, 128, 3e-3, 0.65
SHARES = (0.36, 0.18, 0.14, 0.1, 0.22)  # in the order of SKILLS: what is harder comes more often
NUM_HELD_OUT = 200  # questions per skill


def build_model(seed: int) -> Any:
    """Returns an untrained Llama of about half a million weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        max_position_embeddings=64,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=IDS["<user>"],
        eos_token_id=IDS[END],
        **SIZES,
    )
    return LlamaForCausalLM(config)


def to_batch(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Returns ids and labels, (items, tokens) each, padded on the right; answers and their ends are labelled."""
    encoded = [encode_item(item) for item in items]
    longest = max(len(ids) for ids, _ in encoded)
    ids = torch.zeros(len(items), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (tokens, start) in enumerate(encoded):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
    return ids, labels


@torch.no_grad()
def accuracy(model: nn.Module, items: Sequence[Item]) -> float:
    """Returns the share of items whose whole answer, end included, is what greedy decoding would give.

    All tokens of an answer being the most likely ones after the right ones before them is the same as greedy decoding
    giving this answer, at the price of one forward pass.
    """
    return sum(are_right(model, items)) / len(items)


@torch.no_grad()
def are_right(model: nn.Module, items: Sequence[Item]) -> list[bool]:
    """Returns for each item whether its whole answer is what greedy decoding would give."""
    was_training = model.training
    model.eval()
    ids, labels = to_batch(items)
    best = model(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, :-1].argmax(-1)
    is_missed = (best != labels[:, 1:]) & (labels[:, 1:] != -100)
    model.train(was_training)
    found: list[bool] = (~is_missed.any(1)).tolist()
    return found


def examine(model: nn.Module, world: World) -> dict[str, float]:
    """Returns the accuracy of each skill on its held-out questions, in [0, 1]."""
    return {skill: accuracy(model, held_out(world, skill, NUM_HELD_OUT)) for skill in SKILLS}


def pretrain(seed: int, directory: Path, *, log: Any = print) -> Any:
    """Returns the base model of a world; trains it where the directory doesn't hold it yet.

    Args:
        seed: Of the world, the weights and the data.
        directory: Where base models are kept.
        log: Called with a line now and then.

    Returns:
        The model, in eval mode.
    """
    from transformers import LlamaForCausalLM

    path = directory / f"base-{seed}-{_fingerprint(seed)}"
    if (path / "model.safetensors").exists():
        return LlamaForCausalLM.from_pretrained(path).eval()
    world, model = World(seed), build_model(seed)
    avoid = {item.prompt for skill in SKILLS for item in held_out(world, skill, NUM_HELD_OUT)}
    stream = taught(world, random.Random(f"pretraining {seed}"), shares=SHARES, avoid=avoid)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate)
    started = time.perf_counter()
    for step in range(NUM_STEPS):
        ids, labels = to_batch([next(stream) for _ in range(BATCH)])
        # Towards the end the questions of some items are learned too, so that the model can write its own.
        whole = BATCH // 4 if step > QUESTIONS_FROM * NUM_STEPS else 0
        labels[:whole] = ids[:whole].masked_fill(ids[:whole] == 0, -100)
        loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step % 200 == 199 or step + 1 == NUM_STEPS:
            skills = " ".join(f"{name} {value:.2f}" for name, value in examine(model, world).items())
            log(f"step {step + 1}: loss {loss.item():.3f}, {skills}, {time.perf_counter() - started:.0f} s")
    model.save_pretrained(path)
    return model.eval()


def _rate(step: int) -> float:
    warm = min(1.0, (step + 1) / 100)
    return warm * (0.02 + 0.98 * (1 + math.cos(math.pi * step / NUM_STEPS)) / 2)


def _fingerprint(seed: int) -> str:
    """Names what a base model depends on: sizes, settings and what it is taught, not how that is written down."""
    items = itertools.islice(taught(World(seed), random.Random(f"pretraining {seed}"), shares=SHARES, avoid=set()), 500)
    known = [SIZES, NUM_STEPS, BATCH, RATE, QUESTIONS_FROM, VOCABULARY, NUM_HELD_OUT, *map(astuple, items)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:10]


if __name__ == "__main__":
    import sys

    torch.set_num_threads(1)
    pretrain(int(sys.argv[1]), Path(sys.argv[2]), log=lambda line: print(line, flush=True))

"""What EWC costs on the embedded model: the Fisher estimate, and the penalty at each optimizer step.

    OMP_NUM_THREADS=2 python benchmarks/methods/fisher.py [--repeats 7] [--out benchmarks/methods/fisher.json]

What is compared runs in turn within each repeat, so that a busy machine slows all of it alike. Ratios are taken within
a repeat, of the clock's seconds and of the processor's (which other processes hardly touch; with one thread), and their
median and range are written. `second` is the ordinary pass once more: its ratio to the first is the noise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from forgetless.mechanisms.fisher import estimate_fisher
from forgetless.mechanisms.quadratic import QuadraticPenalty
from forgetless.mechanisms.weight_change import base_name, low_rank_updates
from forgetless.models import load_model
from forgetless.quiet import quiet_transformers

VOCABULARY = 40_000

PARTS = ("estimate", "full", "lora")


def make_batch(num_sequences: int, num_tokens: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Returns random tokens, all of them supervised."""
    ids = torch.randint(5, VOCABULARY, (num_sequences, num_tokens), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def in_turn(tasks: Mapping[str, Callable[[], object]], repeats: int) -> list[dict[str, tuple[float, float]]]:
    """Times each task once per repeat, after one round that doesn't count: by the clock, and of the processor."""
    rounds = []
    for _ in range(repeats + 1):
        seconds = {}
        for name, task in tasks.items():
            started = time.perf_counter(), time.process_time()
            task()
            seconds[name] = time.perf_counter() - started[0], time.process_time() - started[1]
        rounds.append(seconds)
    return rounds[1:]


def summary(rounds: Sequence[Mapping[str, tuple[float, float]]], reference: str) -> dict[str, Any]:
    """Returns median seconds, and the ratios to the reference within each repeat."""
    table: dict[str, Any] = {}
    for name in rounds[0]:
        table[name] = {"seconds": round(statistics.median(seconds[name][0] for seconds in rounds), 4)}
        for place, kind in enumerate(("ratio", "processor_ratio")):
            ratios = sorted(seconds[name][place] / seconds[reference][place] for seconds in rounds)
            table[name][kind] = round(statistics.median(ratios), 4)
            table[name][f"{kind}_range"] = [round(ratios[0], 4), round(ratios[-1], 4)]
    return table


def measure_estimate(model: Any, repeats: int, *, num_sequences: int, num_tokens: int) -> dict[str, Any]:
    """Times the batched estimate beside an ordinary pass and the plain loop."""
    batch = make_batch(num_sequences, num_tokens)

    def ordinary() -> None:
        model.zero_grad(set_to_none=True)
        model(**batch, use_cache=False).loss.backward()

    def loop() -> None:
        for row in range(num_sequences):
            model.zero_grad(set_to_none=True)
            logits = model(input_ids=batch["input_ids"][row : row + 1], use_cache=False).logits[0, :-1]
            drawn = torch.distributions.Categorical(logits=logits.detach()).sample()
            nn.functional.cross_entropy(logits, drawn, reduction="sum").backward()
            for name, parameter in model.named_parameters():
                total[name].addcmul_(parameter.grad, parameter.grad)

    def batched() -> None:
        model.zero_grad(set_to_none=True)
        estimate_fisher(model, [batch])

    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    rounds = in_turn({"ordinary": ordinary, "estimate_fisher": batched, "loop": loop, "second": ordinary}, repeats)
    return {"sequences": num_sequences, "tokens": num_tokens, **summary(rounds, "ordinary")}


def measure_penalty(model: Any, repeats: int, *, is_weighted: bool) -> dict[str, Any]:
    """Times the penalty of one step of 2 048 tokens beside the step without it, and beside autograd."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-9)
    batch = make_batch(16, 128)
    weights = None
    if is_weighted:
        weights = {base_name(n): torch.rand(p.shape) for n, p in model.named_parameters() if "lora_" not in n}
    penalty = QuadraticPenalty(model, weights, strength=1.0)
    anchors = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    def step() -> None:
        optimizer.zero_grad()
        model(**batch, use_cache=False).loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    def by_autograd() -> None:
        autograd_penalty(model, anchors, weights).backward()

    # The step leaves gradients behind, to which the others add theirs.
    tasks = {"step": step, "penalty": lambda: penalty.add_gradient(model), "autograd": by_autograd, "second": step}
    return summary(in_turn(tasks, repeats), "step")


def autograd_penalty(
    model: Any, anchors: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor] | None
) -> torch.Tensor:
    """The same penalty as a graph."""
    updates = low_rank_updates(model)
    if not updates:
        return torch.stack(
            [
                ((1 if weights is None else weights[name]) * (p - anchors[name]).square()).sum() / 2
                for name, p in model.named_parameters()
            ]
        ).sum()
    terms = []
    for update in updates:
        change = update.scale * model.get_parameter(update.b) @ model.get_parameter(update.a)
        weight = 1 if weights is None else weights[base_name(update.name)]
        terms.append((weight * change.square()).sum() / 2)
    return torch.stack(terms).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512], help="of the sequences of the estimate")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model: Any = load_model("smollm2-135m-instruct", device="cpu", dtype="float32").model
    results: dict[str, Any] = {"torch": torch.__version__, "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    results["load_average_before"] = [round(value, 1) for value in os.getloadavg()]
    if "estimate" in arguments.parts:
        results["estimate"] = [
            measure_estimate(model, arguments.repeats, num_sequences=8, num_tokens=num) for num in arguments.tokens
        ]
    results["penalty"] = {}
    for part, measured in (("full", model), ("lora", None)):
        if part not in arguments.parts:
            continue
        model.zero_grad(set_to_none=True)
        if measured is None:
            with quiet_transformers():
                from peft import LoraConfig, get_peft_model

                measured = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
        for kind in ("EWC", "L2-SP"):
            found = measure_penalty(measured, arguments.repeats, is_weighted=kind == "EWC")
            results["penalty"][f"{part}, {kind}"] = found
    results["load_average_after"] = [round(value, 1) for value in os.getloadavg()]
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

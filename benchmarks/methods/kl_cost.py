"""What a KL penalty costs on the embedded model, and how tight the kept top of the base's distributions is.

    nice python benchmarks/methods/kl_cost.py          # two minutes of one core; writes kl_cost.json
    nice python benchmarks/methods/kl_cost.py --repeats 1 --out /tmp/kl_cost.json    # a quick look

- cost: seconds of the processor for the forward and backward passes of one training step with LoRA (rank 16) on a
  batch of the medicine example, plain and with each variant of `kl`; the variants take turns within a repeat, and every
  ratio is to the plain step of the same repeat. Two kept examples to four of the domain, the share of the default
  settings (4 to 8). The optimizer step, which is the same for all, is left out.
- tightness: divergence from the base after a short training, by the kept top k and its bucket over that by the whole
  vocabulary, on the training data and on general examples.

One thread, timed by the processor: what else the machine does hardly counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset

from forgetless.config import TrainingConfig
from forgetless.data.encoding import Encoded, encode_examples
from forgetless.data.sources import read_examples
from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.mechanisms.batches import pad_batch
from forgetless.mechanisms.divergence import divergence, top_distributions, whole_distributions
from forgetless.mechanisms.logits import supervised_logits, supervised_targets
from forgetless.mechanisms.reference import as_base
from forgetless.methods.base import Context, Method
from forgetless.methods.kl import KLToBase
from forgetless.methods.lora import LoRA
from forgetless.models import load_model
from forgetless.quiet import quiet_transformers
from forgetless.train.protection import attach
from forgetless.train.trainer import AnswerTrainer, training_arguments

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
BATCH_SIZE = 4
KEPT_BATCH_SIZE = 2
TRAINED_STEPS = 6
TOPS = (1, 4, 16, 64, 256)
VARIANTS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "kept, adapter off": {"data": "general", "reference": "adapter"},
    "kept, cache": {"data": "general", "reference": "cache"},
    "domain, adapter off": {"data": "domain", "reference": "adapter"},
    "domain, cache": {"data": "domain", "reference": "cache"},
}


@quiet_transformers()
def trainer_with(methods: list[Method], model: Any, tokenizer: Any, rows: list[Encoded], directory: Path) -> Any:
    settings = TrainingConfig(batch_size=BATCH_SIZE)
    arguments = training_arguments(settings, directory, learning_rate=1e-4, seed=0, device=torch.device("cpu"))
    dataset = Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])
    trainer: Any = AnswerTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer)
    attach(trainer, methods)
    trainer.current_gradient_accumulation_steps = 1
    trainer.state.logging_steps = 10**9  # shares of the gradient are measured at logged steps only
    trainer.args.logging_first_step = False
    return trainer


def seconds_of_step(trainer: Any, batch: dict[str, torch.Tensor], at: int) -> float:
    model = trainer.model.train()
    model.zero_grad(set_to_none=True)
    trainer.state.global_step = at
    num_items = (batch["labels"][:, 1:] != -100).sum()
    started = time.process_time()
    trainer.compute_loss(model, dict(batch), num_items_in_batch=num_items).backward()
    return time.process_time() - started


def measure_cost(
    model: Any, tokenizer: Any, rows: list[Encoded], context: Context, repeats: int
) -> dict[str, dict[str, Any]]:
    trainers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, options in VARIANTS.items():
            methods: list[Method] = (
                [] if options is None else [KLToBase(batch_size=KEPT_BATCH_SIZE, num_examples=32, **options)]
            )
            for method in methods:
                method.prepare_model(model, context)
            trainers[name] = trainer_with(methods, model, tokenizer, rows, Path(directory))
        groups = [rows[at : at + BATCH_SIZE] for at in range(0, len(rows), BATCH_SIZE)]
        seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for repeat in range(repeats + 1):
            batch = pad_batch(groups[repeat % len(groups)], padding=tokenizer.pad_token_id)
            for name, trainer in trainers.items():
                spent = seconds_of_step(trainer, batch, repeat)
                if repeat:  # the first round warms up
                    seconds[name].append(spent)
                print(f"round {repeat}: {name} {spent:.2f} s", file=sys.stderr, flush=True)
    return {
        name: {
            "seconds": [round(value, 3) for value in values],
            "ratio": round(statistics.median(a / b for a, b in zip(values, seconds["plain"], strict=True)), 3),
            "ratios": [round(a / b, 3) for a, b in zip(values, seconds["plain"], strict=True)],
        }
        for name, values in seconds.items()
    }


def train_briefly(model: Any, tokenizer: Any, rows: list[Encoded]) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    model.train()
    for step in range(TRAINED_STEPS):
        batch = pad_batch(rows[step * BATCH_SIZE :][:BATCH_SIZE], padding=tokenizer.pad_token_id)
        logits, targets = supervised_logits(model, batch), supervised_targets(batch["labels"])
        torch.nn.functional.cross_entropy(logits, targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def measure_tightness(model: Any, tokenizer: Any, rows: list[Encoded]) -> dict[str, float]:
    totals = dict.fromkeys(("whole", *map(str, TOPS)), 0.0)
    num = 0
    for start in range(0, len(rows), BATCH_SIZE):
        batch = pad_batch(rows[start : start + BATCH_SIZE], padding=tokenizer.pad_token_id)
        targets = supervised_targets(batch["labels"])
        with torch.no_grad():
            tuned = supervised_logits(model, batch)
        with as_base(model):
            base = supervised_logits(model, batch)
        with torch.no_grad():
            totals["whole"] += float(divergence(whole_distributions(base), tuned).sum())
            for k in TOPS:
                totals[str(k)] += float(divergence(top_distributions(base, targets, k), tuned).sum())
        num += len(targets)
    return {"nats_per_token": round(totals["whole"] / num, 4), "num_tokens": num} | {
        f"top_{k}": round(totals[str(k)] / totals["whole"], 4) for k in TOPS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "kl_cost.json")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_model(EMBEDDED_ALIAS, device="cpu")
    general = read_examples(EXAMPLES / "general" / "train.jsonl", origin="general")
    domain = read_examples(EXAMPLES / "drug_qa" / "train.jsonl")
    rows = encode_examples(domain, loaded.tokenizer, max_tokens=256)[
        : max(TRAINED_STEPS, wanted.repeats + 1) * BATCH_SIZE
    ]
    kept = encode_examples(general, loaded.tokenizer, max_tokens=256)[:32]
    context = Context(general=general[:32], tokenizer=loaded.tokenizer, max_tokens=256)
    model = LoRA().prepare_model(loaded.model, context)
    timed = (wanted.repeats + 1) * BATCH_SIZE
    cost = measure_cost(model, loaded.tokenizer, rows[:timed], replace(context, sequences=rows[:timed]), wanted.repeats)
    train_briefly(model, loaded.tokenizer, rows)
    result: dict[str, Any] = {
        "schema": 1,
        "model": EMBEDDED_ALIAS,
        "machine": {"processor": platform.machine(), "threads": 1, "torch": metadata.version("torch")},
        "batch": {
            "domain_sequences": BATCH_SIZE,
            "kept_sequences": KEPT_BATCH_SIZE,
            "mean_domain_tokens": round(statistics.mean(len(row.input_ids) for row in rows[:timed]), 1),
            "mean_kept_tokens": round(statistics.mean(len(row.input_ids) for row in kept), 1),
        },
        "cost": cost,
        "tightness": {
            "domain": measure_tightness(model, loaded.tokenizer, rows),
            "general": measure_tightness(model, loaded.tokenizer, kept),
        },
    }
    wanted.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["cost"] | {"tightness": result["tightness"]}, indent=2))


if __name__ == "__main__":
    main()

"""What an empty `protect(trainer, [])` costs: training with and without it, in turn.

    OMP_NUM_THREADS=1 python benchmarks/methods/protect_overhead.py [--repeats 7] [--out protect_overhead.json]

Within each repeat a plain trainer, a protected one and once more a plain one train on the same rows, in an order that
turns from repeat to repeat. Ratios are taken within a repeat, of the clock's seconds and of the processor's (which
other processes hardly touch); the ratio of the second plain training to the first is the noise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from forgetless import protect
from forgetless.models import load_model
from forgetless.quiet import quiet_transformers

HERE = Path(__file__).parent
KINDS = ("plain", "protected", "second")


def make_rows(vocabulary: int, num_rows: int, num_tokens: int) -> Dataset:
    """Returns random tokens, all of them supervised."""
    ids = torch.randint(5, vocabulary, (num_rows, num_tokens), generator=torch.Generator().manual_seed(0)).tolist()
    return Dataset.from_list([{"input_ids": row, "labels": row, "attention_mask": [1] * num_tokens} for row in ids])


def make_trainer(kind: str, model: Any, tokenizer: Any, rows: Dataset, *, steps: int, directory: str) -> Any:
    """Returns a trainer that leaves the weights where they are: learning rate 0."""
    settings: dict[str, Any] = {
        "output_dir": directory,
        "max_steps": steps,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.0,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 5,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    if kind == "Trainer":
        return Trainer(model=model, args=TrainingArguments(**settings), train_dataset=rows)
    config = SFTConfig(**settings, bf16=False, activation_checkpointing=False, max_length=None)
    return SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)


def seconds_of(trainer: Any) -> tuple[float, float]:
    """Trains, and returns the seconds that it took: by the clock, and of the processor."""
    for callback in [type(one) for one in trainer.callback_handler.callbacks if "Print" in type(one).__name__]:
        trainer.remove_callback(callback)
    started = time.perf_counter(), time.process_time()
    trainer.train()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def measure(kind: str, model: Any, tokenizer: Any, rows: Dataset, *, steps: int, repeats: int) -> dict[str, Any]:
    """Trains in turn with and without an empty protection."""
    found: list[dict[str, tuple[float, float]]] = []
    with tempfile.TemporaryDirectory() as directory:
        for repeat in range(repeats + 1):
            seconds = {}
            for place in range(len(KINDS)):
                name = KINDS[(place + repeat) % len(KINDS)]
                trainer = make_trainer(kind, model, tokenizer, rows, steps=steps, directory=directory)
                if name == "protected":
                    protect(trainer, [])
                seconds[name] = seconds_of(trainer)
            found.append(seconds)
    table: dict[str, Any] = {"steps": steps, "repeats": repeats}
    for name in KINDS:
        table[name] = {"seconds": round(statistics.median(one[name][0] for one in found[1:]), 3)}
    for name in KINDS[1:]:
        for place, ratio in enumerate(("ratio", "processor_ratio")):
            ratios = sorted(one[name][place] / one["plain"][place] for one in found[1:])  # the first round warms up
            table[name][ratio] = {
                "median": round(statistics.median(ratios), 4),
                "range": [round(ratios[0], 4), round(ratios[-1], 4)],
            }
    return table


def tiny_model() -> Any:
    """Returns a Llama so small that what surrounds it is most of a step."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config)


@quiet_transformers()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=HERE / "protect_overhead.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    loaded = load_model("smollm2-135m-instruct")
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "processors": os.cpu_count()}
    for kind in ("Trainer", "SFTTrainer"):
        results[f"tiny, {kind}"] = measure(
            kind, tiny_model(), loaded.tokenizer, make_rows(258, 400, 32), steps=40, repeats=arguments.repeats
        )
        results[f"embedded, {kind}"] = measure(
            kind, loaded.model, loaded.tokenizer, make_rows(40_000, 16, 32), steps=2, repeats=arguments.repeats
        )
        print(json.dumps(results, indent=1))
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

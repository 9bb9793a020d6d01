"""What the retention monitor costs: 20 steps of batch 4 x 256 tokens of the embedded model, a look every 10.

    OMP_NUM_THREADS=1 python benchmarks/methods/monitor_cost.py [--steps 20] [--out monitor_cost.json]

The share is the monitor's own count: the time of asking the base and of all looks over the time of the training.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from forgetless import LoRA, RetentionMonitor, protect
from forgetless.models import load_model
from forgetless.quiet import quiet_transformers

HERE = Path(__file__).parent
GENERAL = HERE.parents[1] / "examples" / "general" / "train.jsonl"


def make_rows(num_rows: int, num_tokens: int) -> Dataset:
    """Returns random tokens, all of them supervised."""
    ids = torch.randint(5, 40_000, (num_rows, num_tokens), generator=torch.Generator().manual_seed(0)).tolist()
    return Dataset.from_list([{"input_ids": row, "labels": row, "attention_mask": [1] * num_tokens} for row in ids])


def measure(*, steps: int, every: int, adapter: bool, max_share: float) -> dict[str, Any]:
    """Trains once with a monitor that warns."""
    loaded = load_model("smollm2-135m-instruct")
    model: Any = loaded.model
    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            directory,
            max_steps=steps,
            per_device_train_batch_size=4,
            learning_rate=1e-4,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=5,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(model, arguments, train_dataset=make_rows(4 * steps, 256), processing_class=loaded.tokenizer)
        trainer.remove_callback(PrinterCallback)
        if adapter:
            protect(trainer, [LoRA(rank=16)])
        monitor = RetentionMonitor(GENERAL, every=every, max_share=max_share, tell=lambda _: None)
        trainer.add_callback(monitor)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return {
        "steps": steps,
        "every": every,
        "max_share": max_share,
        "seconds": round(seconds, 2),
        "seconds_per_step": round(monitor.pace.trained_seconds / steps, 3),
        "monitor_seconds": round(monitor.pace.spent_seconds, 3),
        "share": round(monitor.pace.share, 4),
        "looks": [{"step": one.step, "examples": one.num_examples, "seconds": one.seconds} for one in monitor.looks],
        "notes": monitor.notes,
    }


@quiet_transformers()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=HERE / "monitor_cost.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "processors": os.cpu_count()}
    for name, adapter, share in (("LoRA", True, 0.05), ("LoRA, no limit", True, 1.0), ("full", False, 0.05)):
        results[name] = measure(steps=arguments.steps, every=10, adapter=adapter, max_share=share)
        print(json.dumps({name: results[name]}, indent=1), flush=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

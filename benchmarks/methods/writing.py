"""What the embedded model can write for its own training: general examples, and targets in its own words.

    python benchmarks/methods/writing.py [--examples 60] [--targets 48]      # about half an hour of one core

Writes writing.json: how many texts pass the filters, why the others don't, tokens, and processor seconds of one thread
(other work on the machine hardly counts). Nothing is taken from the cache, so that the time is that of writing.

Targets are of `domain_medquad` (CC BY 4.0) in $FORGETLESS_BENCH_DATA (default ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from forgetless.data.sources import read_examples
from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.evaluate.writer import ModelWriter
from forgetless.mechanisms.facts import Check
from forgetless.mechanisms.self_replay import ReplaySettings, Yield, write_replay
from forgetless.mechanisms.writer import KeptTexts
from forgetless.methods.base import Context
from forgetless.methods.rewrite import Rewrite
from forgetless.models import LoadedModel, load_model
from forgetless.quiet import quiet_transformers
from forgetless.tasks.base import load_suite
from forgetless.writing import held_out_texts

DATA = Path(os.environ.get("FORGETLESS_BENCH_DATA", "../shared/data"))
CHECKS: tuple[Check, ...] = ("strict", "loose", "paper")
SETTINGS = {"as asked by itself": ReplaySettings(), "half opened by us": ReplaySettings(opened_share=0.5)}


def measure_replay(loaded: LoadedModel, num: int, settings: ReplaySettings) -> dict[str, Any]:
    """Lets the model write general examples until so many are kept."""
    summary, started = Yield(), time.process_time()
    held_out = held_out_texts(load_suite("core"), [])
    examples = write_replay(
        ModelWriter(loaded), num, seed=0, evaluation_texts=held_out, settings=settings, summary=summary
    )
    seconds = time.process_time() - started
    return {
        "num_kept": summary.num_kept,
        "num_written": summary.num_written,
        "refused": dict(summary.refused.most_common()),
        "num_tokens": summary.num_tokens,
        "processor_seconds": round(seconds, 1),
        "first_words": [" ".join(example.prompt_text.split()[:8]) for example in examples[:12]],
    }


def measure_rewriting(loaded: LoadedModel, num: int) -> dict[str, Any]:
    """Lets the model rewrite targets of the medical domain, once, and puts the texts to each check."""
    examples = read_examples(DATA / "domain_medquad" / "train.jsonl", limit=num, seed=0)
    found: dict[str, Any] = {"num_targets": num, "checks": {}}
    with tempfile.TemporaryDirectory() as place:
        context = replace(Context(seed=0), writer=KeptTexts(ModelWriter(loaded), Path(place)))
        for facts in CHECKS:
            method, started = Rewrite(facts=facts), time.process_time()
            method.prepare_data(examples, context)
            found.setdefault("processor_seconds", round(time.process_time() - started, 1))  # the others find it written
            found["num_asked"] = method.num_asked_
            found["checks"][facts] = {"num_rewritten": method.num_rewritten_, "refused": dict(method.refused_)}
    return found


def main() -> None:
    """Parses the command line and writes what was found, part by part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=60)
    parser.add_argument("--targets", type=int, default=48)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with quiet_transformers():
        loaded = load_model(EMBEDDED_ALIAS)
    found: dict[str, Any] = {"schema": 1, "model": EMBEDDED_ALIAS, "torch": torch.__version__}
    found["rewriting"] = measure_rewriting(loaded, arguments.targets)
    print(found["rewriting"], flush=True)
    found["replay"] = {}
    for name, settings in SETTINGS.items():
        found["replay"][name] = measure_replay(loaded, arguments.examples, settings)
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(name, found["replay"][name], flush=True)


if __name__ == "__main__":
    main()

"""How long two recipes of `embedded.py` train, side by side: in turns in one process, in processor seconds of a thread.

    python -m benchmarks.methods.embedded_time [--recipes plain_lora,lora_56_half] [--repeats 2]   # embedded_time.json

Every training starts from the base and is the whole of what `embedded.py` runs, without looks at the probe and without
questions afterwards. Repeats go back and forth (A B, B A, ...), so that a load that changes slowly falls on both. Both
recipes have to train for a number of steps that is known before (`UNSTOPPED`).
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from importlib import metadata
from pathlib import Path

import torch
from benchmarks.methods.embedded import UNSTOPPED, Matcher, split, tune

from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.evaluate.writer import ModelWriter
from forgetless.mechanisms.writer import KeptTexts
from forgetless.models import load_model

HERE = Path(__file__).parent


def train_seconds(recipe: str, domain: str, seed: int) -> tuple[float, float]:
    """Trains once; returns processor seconds and seconds by the clock, loading the model left out."""
    train, probe, _ = split(domain, seed)
    loaded = load_model(EMBEDDED_ALIAS)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        writer = KeptTexts(ModelWriter(loaded), place)
        started = time.process_time(), time.perf_counter()
        tune(recipe, loaded, train, Matcher(loaded, probe, None), seed=seed, writer=writer, place=place)
        return time.process_time() - started[0], time.perf_counter() - started[1]


def main() -> None:
    """Parses the command line, trains in turns and writes the result after every pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default="plain_lora,lora_56_half")
    parser.add_argument("--domain", default="sql")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "embedded_time.json")
    wanted = parser.parse_args()
    plain, other = wanted.recipes.split(",")
    torch.set_num_threads(1)
    rounds: list[dict[str, list[float]]] = []
    for repeat in range(wanted.repeats):
        order = (plain, other) if repeat % 2 == 0 else (other, plain)
        rounds.append(
            {recipe: [round(s, 1) for s in train_seconds(recipe, wanted.domain, wanted.seed)] for recipe in order}
        )
        ratios = [one[other][0] / one[plain][0] for one in rounds]
        result = {
            "schema": 1,
            "model": EMBEDDED_ALIAS,
            "machine": {"processor": platform.machine(), "threads": 1, "torch": metadata.version("torch")},
            "domain": wanted.domain,
            "seed": wanted.seed,
            "steps": {recipe: UNSTOPPED[recipe] for recipe in (plain, other)},
            "seconds": "processor, clock",
            "rounds": rounds,
            "ratio": {
                "mean": round(sum(ratios) / len(ratios), 3),
                "range": [round(min(ratios), 3), round(max(ratios), 3)],
            },
        }
        wanted.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(result["ratio"] | {"last": rounds[-1]}), flush=True)


if __name__ == "__main__":
    main()

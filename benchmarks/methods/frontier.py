"""The frontier of `lora_56_half`: learning against forgetting where another share of the change is kept.

    python -m benchmarks.methods.frontier --work DIR [--shares 0.75] [--domains medical] [--seeds 1,2]   # frontier.json

DIR is what `embedded.py run` has worked in: its adapters, which hold half of the change, are taken as they are and
scaled, so that no share is trained for. Forgetting is measured as there, on free samples of `core` without `reading`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.keeping import keep_runs
from benchmarks.methods.embedded import DOMAINS, HALF, mean_loss, split
from peft import PeftModel

from forgetless.compare.comparison import compare
from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.evaluate.runner import evaluate
from forgetless.mechanisms.weight_change import low_rank_updates
from forgetless.models import LoadedModel, load_model
from forgetless.records import read_scores
from forgetless.tasks.base import load_suite

HERE = Path(__file__).parent
RECIPE = "lora_56_half"
TRAINED = HALF["wise_ft"]["share"]  # of the change, in the adapters that are saved


def at_share(adapter: Path, share: float) -> LoadedModel:
    """Returns the tuned model with another share of its change."""
    loaded = load_model(EMBEDDED_ALIAS)
    # Trainable, since what is frozen counts as a part of the base.
    model: Any = PeftModel.from_pretrained(loaded.model, str(adapter), is_trainable=True).eval()
    parameters, updates = dict(model.named_parameters()), low_rank_updates(model)
    if not updates:
        raise RuntimeError(f"{adapter} has no change that could be scaled")
    with torch.no_grad():
        for update in updates:
            parameters[update.b].mul_(share / TRAINED)
    return replace(loaded, model=model)


def measure(work: Path, domain: str, seed: int, share: float) -> dict[str, Any]:
    """Asks the model at one share; at the share that `embedded.py` took, reads what it was told."""
    free = [task for task in load_suite("core") if task.spec.kind == "generate" and task.name != "reading"]
    names = {task.name for task in free}
    place = work / f"{RECIPE}-{domain}-{seed}"
    record = json.loads(place.with_suffix(".json").read_text())
    plain = json.loads((work / f"plain_lora-{domain}-{seed}.json").read_text())
    if share == TRAINED:
        scores, loss = read_scores(place.with_suffix(".scores.jsonl")), record["test_loss"]
    else:
        loaded = at_share(work / "models" / place.name, share)
        scores, loss = evaluate(loaded, free), mean_loss(loaded, split(domain, seed)[2])
    base = read_scores(work / "base.scores.jsonl")
    row = compare(*([s for s in side if s.task in names] for side in (base, scores))).pooled
    start = record["base_test_loss"]
    return {
        "recipe": RECIPE,
        "domain": domain,
        "seed": seed,
        "share": share,
        "steps": record["steps"],
        "learning": (start - loss) / (start - plain["test_loss"]),
        "forgetting": {"n": row.num_samples, "delta": row.delta, "ci": [row.ci_low, row.ci_high]},
    }


def main() -> None:
    """Parses the command line and measures one point after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shares", default="0.5,0.75")
    parser.add_argument("--domains", default=",".join(DOMAINS))
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--out", type=Path, default=HERE / "frontier.json")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    for seed in map(int, wanted.seeds.split(",")):
        for domain in wanted.domains.split(","):
            for share in map(float, wanted.shares.split(",")):
                run = measure(wanted.work, domain, seed, share)
                keep_runs(wanted.out, [run], key=("recipe", "domain", "seed", "share"))
                print(json.dumps(run), flush=True)


if __name__ == "__main__":
    main()

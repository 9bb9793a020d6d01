"""The frontier of a recipe built on LoRA: learning against forgetting where another share of its change is kept.

    python -m benchmarks.methods.frontier --work DIR [--recipes lora_56_half] [--shares 0.75,equal] [--domains medical]
                                                     [--seeds 1,2]   # writes frontier.json beside this script

DIR is what `embedded.py run` has worked in: its adapters are taken as they are and scaled, so that no share is trained
for. The share `equal` is the smallest at which the loss on the probe has fallen as far as plain LoRA's, the rule by
which the other recipes stop. Forgetting is measured as there, on free samples of `core` without `reading`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.keeping import keep_runs
from benchmarks.methods.embedded import DOMAINS, RECIPES, base_losses, mean_loss, split
from peft import PeftModel

from forgetless.compare.comparison import compare
from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.evaluate.runner import evaluate
from forgetless.mechanisms.weight_change import low_rank_updates
from forgetless.models import LoadedModel, load_model
from forgetless.records import read_scores
from forgetless.tasks.base import load_suite

HERE = Path(__file__).parent
EQUAL = "equal"
FINEST = 16  # shares that are told apart where one is looked for


def trained_share(recipe: str) -> float:
    """Returns the share of its change that a recipe's adapters hold."""
    methods, _ = RECIPES[recipe]
    shares = [spec["wise_ft"]["share"] for spec in methods if isinstance(spec, dict) and "wise_ft" in spec]
    return float(shares[0]) if shares else 1.0


class Scaled:
    """A tuned model whose change can be scaled again and again, from the share that its adapter holds."""

    def __init__(self, adapter: Path, trained: float) -> None:
        loaded = load_model(EMBEDDED_ALIAS)
        # Trainable, since what is frozen counts as a part of the base.
        model: Any = PeftModel.from_pretrained(loaded.model, str(adapter), is_trainable=True).eval()
        parameters = dict(model.named_parameters())
        found = [parameters[update.b] for update in low_rank_updates(model)]
        self.kept = [(parameter, parameter.detach() / trained) for parameter in found]
        if not self.kept:
            raise RuntimeError(f"{adapter} has no change that could be scaled")
        self.loaded = replace(loaded, model=model)

    def at(self, share: float) -> LoadedModel:
        """Returns the model with a share of its change, until it is asked for another one."""
        with torch.no_grad():
            for parameter, whole in self.kept:
                parameter.copy_(share * whole)
        return self.loaded


def smallest_share(loss_at: Callable[[float], float], goal: float) -> float:
    """Returns the smallest share, in sixteenths, whose loss is down to the goal; 1 where no other is."""
    low, high = 0, FINEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if loss_at(middle / FINEST) <= goal else (middle, high)
    return high / FINEST


def measure(work: Path, recipe: str, domain: str, seed: int, wanted: str) -> dict[str, Any]:
    """Asks the model at one share; at the share that `embedded.py` took, reads what it was told."""
    free = [task for task in load_suite("core") if task.spec.kind == "generate" and task.name != "reading"]
    names = {task.name for task in free}
    place = work / f"{recipe}-{domain}-{seed}"
    record = json.loads(place.with_suffix(".json").read_text())
    plain = json.loads((work / f"plain_lora-{domain}-{seed}.json").read_text())
    _, probe, test = split(domain, seed)
    trained = trained_share(recipe)
    scaled = Scaled(work / "models" / place.name, trained)

    @functools.cache
    def probe_loss(share: float) -> float:
        return float(record["probe_loss"]) if share == trained else mean_loss(scaled.at(share), probe)

    share = smallest_share(probe_loss, plain["probe_loss"]) if wanted == EQUAL else float(wanted)
    if share == trained:
        scores, loss = read_scores(place.with_suffix(".scores.jsonl")), record["test_loss"]
    else:
        loaded = scaled.at(share)
        scores, loss = evaluate(loaded, free), mean_loss(loaded, test)
    base = read_scores(work / "base.scores.jsonl")
    row = compare(*([s for s in side if s.task in names] for side in (base, scores))).pooled
    start, probe_start = record["base_test_loss"], base_losses(work, domain, seed)["probe"]
    return {
        "recipe": recipe,
        "domain": domain,
        "seed": seed,
        "wanted": wanted,
        "share": share,
        "steps": record["steps"],
        "learning": (start - loss) / (start - plain["test_loss"]),
        "learning_on_probe": (probe_start - probe_loss(share)) / (probe_start - plain["probe_loss"]),
        "forgetting": {"n": row.num_samples, "delta": row.delta, "ci": [row.ci_low, row.ci_high]},
    }


def main() -> None:
    """Parses the command line and measures one point after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipes", default="lora_56_half")
    parser.add_argument("--shares", default=f"0.5,0.75,{EQUAL}")
    parser.add_argument("--domains", default=",".join(DOMAINS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=HERE / "frontier.json")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    lists = (wanted.seeds, wanted.domains, wanted.recipes, wanted.shares)
    for seed, domain, recipe, share in itertools.product(*(text.split(",") for text in lists)):
        run = measure(wanted.work, recipe, domain, int(seed), share)
        keep_runs(wanted.out, [run], key=("recipe", "domain", "seed", "wanted"))
        print(json.dumps(run), flush=True)


if __name__ == "__main__":
    main()

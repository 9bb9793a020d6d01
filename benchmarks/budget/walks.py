"""Budget asked against forgetting confirmed: adapters that forgot, walked back under several budgets.

    python -m benchmarks.budget.walks run --work DIR [--adapters NAME,NAME] [--budgets 0.01,0.02,0.05] [--seeds 0]
    python -m benchmarks.budget.walks summarise --work DIR        # writes walks.json beside this script

The adapters are those that benchmarks/methods/embedded.py trained (DIR/models/RECIPE-DOMAIN-SEED), most of them with
recipes that forget. What `run --budget` does after training is done here with each: its selection half of `core`
chooses, its confirmation half judges; held-out loss is measured on the domain's test examples. A seed is a split in
halves. Scores are cached by content, so that budgets share what they look at. `reading` is left out unless
--leave-out says otherwise: short answers win up to 31 points there (docs/embedded.md), which would pay for losses.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from benchmarks.keeping import keep_runs
from benchmarks.methods.embedded import DOMAINS, split

from forgetless.compare.comparison import compare
from forgetless.embedded import cache_directory
from forgetless.evaluate.runner import EvaluationOptions, evaluate
from forgetless.evaluate.target import TARGET_LOSS, target_tasks
from forgetless.models import load_model
from forgetless.progress import Silent
from forgetless.records import SampleScore, read_scores
from forgetless.tasks.base import Task, load_suite
from forgetless.tasks.halves import split_in_halves
from forgetless.walking import confirm, open_path, walk

HERE = Path(__file__).parent


def base_scores(work: Path, tasks: Sequence[Task]) -> list[SampleScore]:
    """Returns the base's scores: of core as the other benchmark has them, of the held-out examples from the cache."""
    held_out = [task for task in tasks if task.name == TARGET_LOSS]
    options = EvaluationOptions(cache=cache_directory() / "scores")
    return read_scores(work / "base.scores.jsonl") + evaluate(load_model("embedded"), held_out, options=options)


def only(scores: Sequence[SampleScore], tasks: Sequence[Task]) -> list[SampleScore]:
    """Returns the scores of the samples that some tasks hold."""
    wanted = {(task.name, str(sample["id"])) for task in tasks for sample in task.samples}
    return [score for score in scores if (score.task, score.sample_id) in wanted]


def run_one(work: Path, adapter: str, budget: float, seed: int, left_out: Sequence[str]) -> dict[str, Any]:
    """Walks one adapter back under one budget, and returns what was found."""
    domain = next(name for name in DOMAINS if f"-{name}-" in adapter)
    tasks = [*(task for task in load_suite("core") if task.name not in left_out), target_tasks(split(domain, 0)[2])[0]]
    base = only(base_scores(work, tasks), tasks)
    selection, confirmation = split_in_halves(tasks, seed=seed)
    options = EvaluationOptions(cache=cache_directory() / "scores")
    loaded = load_model(str(work / "models" / adapter))
    path, moved = open_path(loaded, "embedded", load=load_model)
    started, processor = time.perf_counter(), time.process_time()
    curve = walk(path, moved, selection, only(base, selection), budget=budget, options=options, reporter=Silent())
    path.move(curve.chosen)
    scores = evaluate(moved, confirmation, options=options)
    comparison = compare(only(base, confirmation), scores, margin=budget)
    curve = confirm(curve, comparison)
    return {
        "adapter": adapter,
        "budget": budget,
        "seed": seed,
        "left_out": list(left_out),
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "sentence": curve.sentence,
        "chosen": curve.chosen.label,
        "learning_kept": curve.learning_kept,
        "curve": asdict(curve),
    }


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "summarise"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--adapters", default="")
    parser.add_argument("--budgets", default="0.01,0.02,0.05")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--leave-out", default="reading", help="tasks of core, separated by commas")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    out = arguments.work / "walks"
    out.mkdir(exist_ok=True)
    if arguments.action == "summarise":
        runs = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
        keep_runs(HERE / "walks.json", runs, key=("adapter", "budget", "seed", "left_out"))
        return
    left_out = [name for name in arguments.leave_out.split(",") if name]
    names = (
        arguments.adapters.split(",")
        if arguments.adapters
        else sorted(path.name for path in (arguments.work / "models").iterdir())
    )
    for adapter in names:
        for budget in map(float, arguments.budgets.split(",")):
            for seed in map(int, arguments.seeds.split(",")):
                path = out / f"{adapter}-{budget}-{seed}.json"
                if not path.exists():
                    record = run_one(arguments.work, adapter, budget, seed, left_out)
                    path.write_text(json.dumps(record))
                    print(adapter, budget, record["seconds"], record["sentence"], flush=True)


if __name__ == "__main__":
    main()

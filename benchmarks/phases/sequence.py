"""Four domains one after another on the embedded model: what each way of carrying on learns and keeps.

    python -m benchmarks.phases.sequence run --work DIR [--recipes A,B] [--seeds 0,1,2] [--phases medical,sql] [--quick]
    python -m benchmarks.phases.sequence summarise --work DIR      # writes sequence.json beside this script

`run` goes on where it was stopped, within a sequence too, and removes the weights of a sequence that is finished. Joint
training sees the examples of all phases at once, as many steps as the sequence has together: what a sequence can hope
for. Its targets are judged against the base only, and its learning has no phase of its own.

Data: `domain_medquad`, `domain_wikisql`, `domain_banking77` and `domain_nl2bash` in $FORGETLESS_BENCH_DATA (default
../shared/data). Times are seconds of the wall, machine shared or not: for orientation.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.keeping import keep_runs

import forgetless
from forgetless.compare.comparison import compare
from forgetless.config import parse_config
from forgetless.data.sources import write_examples
from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.evaluate.target import target_names
from forgetless.phase_records import read_phases
from forgetless.phases.plan import Sequel, plan_phases
from forgetless.records import SampleScore, read_scores
from forgetless.terminal import TerminalReporter

HERE = Path(__file__).parent
DATA = Path(os.environ.get("FORGETLESS_BENCH_DATA", "../shared/data"))
DOMAINS = {
    "medical": "domain_medquad/{}.jsonl",
    "sql": "domain_wikisql/{}.jsonl",
    "intents": "domain_banking77/{}_10intents.jsonl",
    "shell": "domain_nl2bash/{}.jsonl",
}
NUM_TRAIN, NUM_TEST, STEPS, BATCH, RATE, LIMIT, MAX_TOKENS = 64, 12, 12, 4, 1e-3, 6, 256
QUICK = {"NUM_TRAIN": 8, "NUM_TEST": 4, "STEPS": 2, "LIMIT": 2}
LORA: dict[str, Any] = {"lora": {"rank": 16}}

# By name: methods, and the keys of `sequence`.
RECIPES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "plain": ([LORA], {}),
    "replay_earlier": ([LORA, {"replay": {"share": 0.25, "source": "earlier", "balance": True}}], {}),
    "online_ewc": ([LORA, {"ewc": {"data": "earlier", "num_sequences": 48, "strength": 100.0}}], {}),
    "time_average": ([LORA], {"average": "time"}),
    "joint": ([LORA], {}),
}


def sequence_config(recipe: str, phases: Sequence[str], seed: int, sizes: dict[str, int]) -> dict[str, Any]:
    """Returns the config of a sequence; that of joint training is made of it."""
    methods, sequence = RECIPES[recipe]
    return {
        "methods": methods,
        "training": {
            "max_steps": sizes["STEPS"],
            "batch_size": BATCH,
            "micro_batch_size": BATCH,
            "learning_rate": RATE,
            "max_tokens": MAX_TOKENS,
        },
        "evaluation": {"suite": "core", "limit": sizes["LIMIT"]},
        "sequence": sequence | {"keep": "last"},
        "seed": seed,
        "phases": [
            {
                "name": name,
                "data": {
                    "train": str(DATA / DOMAINS[name].format("train")),
                    "test": str(DATA / DOMAINS[name].format("dev")),
                    "max_examples": sizes["NUM_TRAIN"],
                    "max_test_examples": sizes["NUM_TEST"],
                },
            }
            for name in phases
        ],
    }


def run_sequence(recipe: str, phases: Sequence[str], seed: int, sizes: dict[str, int], place: Path) -> dict[str, Any]:
    """Runs a sequence and returns its row."""
    config = parse_config(sequence_config(recipe, phases, seed, sizes))
    forgetless.run(config, out=place, reporter=TerminalReporter())
    record = read_phases(place / "phases.json")
    row: dict[str, Any] = {"verdict": record.verdict.value}
    for measure in record.measures:
        row[measure.name] = {
            "base": [cell.value for cell in measure.base],
            "matrix": [[cell.value for cell in cells] for cells in measure.matrix],
            "acc": measure.average.value,
            "learning": measure.learning.value,
            "bwt": measure.backward_transfer.value,
            "fwt": measure.forward_transfer.value,
            "forgetting": measure.forgetting.value,
        }
    row["general"] = [phase.general.pooled.delta for phase in record.phases]
    return row


def run_joint(phases: Sequence[str], seed: int, sizes: dict[str, int], place: Path) -> dict[str, Any]:
    """Trains on the examples of all phases at once, as long as the sequence, and asks what the sequence is asked."""
    raw = sequence_config("joint", phases, seed, sizes)
    sequel = plan_phases(parse_config(raw))
    train = place.with_name(f"{place.name}.train.jsonl")
    write_examples(train, [example for job in sequel.jobs for example in job.domain])
    del raw["phases"], raw["sequence"]
    # One test example, because a run needs some: the targets are asked below, those of all phases alike.
    test = str(DATA / DOMAINS[phases[0]].format("dev"))
    raw["data"] = {"train": str(train), "test": test, "max_test_examples": 1}
    raw["training"]["max_steps"] = sizes["STEPS"] * len(phases)
    result = forgetless.run(raw, out=place, reporter=TerminalReporter())
    scores = {
        side: ask_targets(sequel, model, place / f"{side}.targets.scores.jsonl")
        for side, model in (("base", EMBEDDED_ALIAS), ("tuned", str(place / "model")))
    }
    row: dict[str, Any] = {"verdict": result.comparison.verdict.value}
    for name, index in (("answers", 1), ("loss", 0)):
        base, tuned = ([mean(scores[side], target_names(phase)[index]) for phase in phases] for side in scores)
        row[name] = {"base": base, "matrix": [tuned], "acc": sum(tuned) / len(tuned)}
        sign = 1 if name == "answers" else -1
        row[name]["learning"] = (
            sign * sum(after - before for before, after in zip(base, tuned, strict=True)) / len(base)
        )
    general = compare(read_scores(place / "base.scores.jsonl"), read_scores(place / "tuned.scores.jsonl"))
    row["general"] = [general.pooled.delta]
    return row


def ask_targets(sequel: Sequel, model: str, path: Path) -> list[SampleScore]:
    """Asks a model the targets of all phases; what was asked before is read."""
    from forgetless.evaluate.runner import evaluate
    from forgetless.models import load_model
    from forgetless.rundir import keep_scores

    if not path.is_file():
        keep_scores(path, evaluate(load_model(model), sequel.jobs[0].targets))
    return read_scores(path)


def mean(scores: Iterable[SampleScore], task: str) -> float:
    """Returns the mean score of a task, weighted as the reports have it."""
    chosen = [score for score in scores if score.task == task]
    return sum(score.score * score.weight for score in chosen) / sum(score.weight for score in chosen)


def run(arguments: argparse.Namespace) -> None:
    sizes = {"NUM_TRAIN": NUM_TRAIN, "NUM_TEST": NUM_TEST, "STEPS": STEPS, "LIMIT": LIMIT}
    sizes |= QUICK if arguments.quick else {}
    phases = arguments.phases.split(",")
    for seed in map(int, arguments.seeds.split(",")):
        for recipe in arguments.recipes.split(","):
            name = f"{recipe}-{'-'.join(phases)}-{seed}{'-quick' if arguments.quick else ''}"
            place, done = arguments.work / name, arguments.work / f"{name}.json"
            if done.is_file():
                continue
            arguments.work.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            row = (
                run_joint(phases, seed, sizes, place)
                if recipe == "joint"
                else run_sequence(recipe, phases, seed, sizes, place)
            )
            row |= {"recipe": recipe, "phases": phases, "seed": seed, "sizes": sizes, "rate": RATE, "batch": BATCH}
            row["seconds_of_last_start"] = round(time.monotonic() - started)
            part = done.with_suffix(".part")
            part.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
            part.replace(done)
            for weights in [place / "model", *place.glob("phases/*/model"), *place.glob("phases/*/start")]:
                shutil.rmtree(weights, ignore_errors=True)
            print(f"{name}: {row['seconds_of_last_start']} s, {row['verdict']}", flush=True)


def summarise(arguments: argparse.Namespace) -> None:
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(arguments.work.glob("*.json"))]
    out = arguments.out or HERE / "sequence.json"
    keep_runs(out, rows, key=("recipe", "phases", "seed", "sizes"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "summarise"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--phases", default=",".join(DOMAINS))
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, to see that it works")
    arguments = parser.parse_args()
    run(arguments) if arguments.action == "run" else summarise(arguments)


if __name__ == "__main__":
    main()

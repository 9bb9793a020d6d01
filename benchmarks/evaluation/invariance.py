"""Whether the scores of the whole suite `core` depend on how they are computed: sample by sample, the embedded model.

    python benchmarks/evaluation/invariance.py    # about a quarter of an hour on two cores; writes invariance.json

Each way scores all samples anew: other sizes of rows and batches, the samples in reverse, and the plain path without
packing, slots or shared beginnings (every choice in a sequence of its own, prompts padded on the left).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.evaluate.local import LocalModel
from forgetless.evaluate.runner import ask
from forgetless.models import LoadedModel, load_model
from forgetless.records import SampleScore, Unit
from forgetless.tasks.base import Task, load_suite

HERE = Path(__file__).parent


def plain(loaded: LoadedModel) -> LocalModel:
    """Returns the model with everything switched off that could go wrong."""
    model = LocalModel(loaded, batch_size=16)
    model._tried = True  # as if packing had been tried and found wanting
    return model


def score(model: LocalModel, tasks: list[Task]) -> dict[tuple[str, str], SampleScore]:
    """Returns the scores by task and sample."""
    return {(score.task, score.sample_id): score for score in ask(model, tasks)}


def compare(first: dict[tuple[str, str], SampleScore], second: dict[tuple[str, str], SampleScore]) -> dict[str, Any]:
    """Returns how many samples differ, in grade and in answer, and by how much cross-entropies do."""
    graded = [key for key, value in first.items() if value.unit is Unit.GRADE]
    losses = [key for key, value in first.items() if value.unit is not Unit.GRADE]
    differing = [
        key for key in graded if (first[key].score, first[key].answer) != (second[key].score, second[key].answer)
    ]
    return {
        "graded": len(graded),
        "other_grades": sum(first[key].score != second[key].score for key in graded),
        "other_answers": len(differing),
        "largest_loss_difference": max(abs(first[key].score - second[key].score) for key in losses),
        "differing": [
            {"sample": key[1], "first": first[key].answer, "second": second[key].answer} for key in differing
        ],
    }


def main() -> None:
    """Parses the command line, scores in every way, writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="core")
    parser.add_argument("--out", type=Path, default=HERE / "invariance.json")
    arguments = parser.parse_args()
    loaded, tasks = load_model(EMBEDDED_ALIAS), load_suite(arguments.suite)
    backwards = [replace(task, samples=task.samples[::-1]) for task in tasks[::-1]]
    ways = {
        "rows of 256 tokens, 64 slots": (LocalModel(loaded), tasks),
        "rows of 100 tokens, 7 slots, samples in reverse": (
            LocalModel(loaded, row_tokens=100, batch_size=7),
            backwards,
        ),
        "plain: no packing, no slots": (plain(loaded), tasks),
    }
    scores: dict[str, dict[tuple[str, str], SampleScore]] = {}
    times: dict[str, int] = {}
    for name, (model, asked) in ways.items():
        started = time.perf_counter()
        scores[name] = score(model, asked)
        times[name] = round(time.perf_counter() - started)
        print(f"{name}: {times[name]} s", flush=True)
        first, *others = scores
        if not others:
            continue
        result = {  # written after each way: what is known so far is known if the next one is stopped
            "schema": 1,
            "command": " ".join(["python benchmarks/evaluation/invariance.py", *sys.argv[1:]]),
            "model": EMBEDDED_ALIAS,
            "suite": arguments.suite,
            "samples": len(scores[first]),
            "seconds": times,
            "against": first,
            "ways": {other: compare(scores[first], scores[other]) for other in others},
        }
        arguments.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(arguments.out, flush=True)


if __name__ == "__main__":
    main()

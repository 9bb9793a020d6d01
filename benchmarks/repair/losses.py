"""A quick look at the line from base to tuned by losses alone: seconds a point, where answering a suite takes minutes.

    python benchmarks/repair/losses.py ADAPTER --base-scores FILE --data FILE [--every 12] [--num-examples 14]

Forgetting is stood for by the rise of the cross-entropy of the *base's own answers* to the free tasks of core (every
12th sample; answers under 300 characters), learning by the fall of the loss on held-out examples (answers under 900
characters). Neither is what `repair` judges by: this shows the shape of the frontier, not a verdict.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from forgetless.curve import Point
from forgetless.data.examples import Example, Message
from forgetless.data.sources import read_examples
from forgetless.evaluate.runner import evaluate
from forgetless.evaluate.target import target_tasks
from forgetless.models import LoadedModel, load_model
from forgetless.records import read_scores
from forgetless.repair.paths import AdapterPath
from forgetless.tasks.base import load_suite

POINTS = (
    *(Point.scale(0.0), Point.scale(1.0), Point(0.0, 1.0), Point.scale(0.5), Point.scale(0.75)),
    *(Point(0.5, 1.0), Point.scale(0.625), Point(0.0, 0.75), Point.scale(0.25)),
)


def answers_of_the_base(scores: Path, every: int) -> list[Example]:
    """Returns what the base was asked in the free tasks of core, with its answers."""
    known = {(score.task, score.sample_id): score.answer for score in read_scores(scores) if score.answer.strip()}
    return [
        Example(messages=(Message("user", sample["question"]), Message("assistant", answer)))
        for task in load_suite("core")
        if task.spec.kind == "generate"
        for sample in task.samples[::every]
        if "question" in sample and len(answer := known.get((task.name, str(sample["id"])), "")) in range(1, 300)
    ]


def mean_loss(loaded: LoadedModel, examples: Sequence[Example]) -> float:
    """Returns the mean cross-entropy of the reference answers, in nats per token."""
    scores = evaluate(loaded, target_tasks(examples)[:1])
    return sum(score.score for score in scores) / len(scores)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter")
    parser.add_argument("--base-scores", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=int, default=12)
    parser.add_argument("--num-examples", type=int, default=14)
    arguments = parser.parse_args()
    general = answers_of_the_base(arguments.base_scores, arguments.every)
    held_out = [e for e in read_examples(arguments.data, limit=60, seed=0) if len(e.answer_text) < 900]
    held_out = held_out[: arguments.num_examples]
    loaded = load_model(arguments.adapter)
    path = AdapterPath(loaded.model)
    start: tuple[float, float] | None = None
    for point in POINTS:
        path.move(point)
        found = mean_loss(loaded, general), mean_loss(loaded, held_out)
        start = start or found
        record = {"point": point.label, "rise": round(found[0] - start[0], 4), "learned": round(start[1] - found[1], 4)}
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()

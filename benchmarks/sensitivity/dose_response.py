"""How much damage each task of `core` needs before it sees any: the embedded model, damaged in rising steps.

    python benchmarks/sensitivity/dose_response.py score --work DIR    # hours; stops and goes on where it was
    python benchmarks/sensitivity/dose_response.py summarise --work DIR

Three ways: Gaussian noise on every weight matrix; all weights tuned on SQL questions (AdamW, 1e-4, batch 4); all
weights tuned on 64 medical answers by the risky recipe (AdamW, 5e-5, batch 1). The doses are relative sizes of the
noise, and optimizer steps. Data: `domain_wikisql` and `domain_medquad` in $FORGETLESS_BENCH_DATA (default
../shared/data).

`score` leaves one score file per dose in DIR; `summarise` compares each with the base's and writes dose_response.json
beside this script.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
from torch import nn

from forgetless.compare.comparison import compare
from forgetless.compare.power import mcnemar_power
from forgetless.data.encoding import IGNORED, encode_examples
from forgetless.data.sources import read_examples
from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.evaluate.runner import EvaluationOptions, evaluate
from forgetless.models import LoadedModel, load_model
from forgetless.records import Row, SampleScore, Unit, read_scores, write_scores

HERE = Path(__file__).parent
DATA = Path(os.environ.get("FORGETLESS_BENCH_DATA", "../shared/data"))
NOISE = (0.02, 0.03, 0.045, 0.065, 0.09, 0.12)
STEPS = {"sql": (5, 10, 20, 40, 80, 160), "medical": (10, 20, 40, 80, 160, 320)}
RECIPES: dict[str, dict[str, Any]] = {
    "sql": {"file": "domain_wikisql/train.jsonl", "examples": 640, "rate": 1e-4, "batch": 4},
    "medical": {"file": "domain_medquad/train.jsonl", "examples": 64, "rate": 5e-5, "batch": 1},
}


def add_noise(model: nn.Module, size: float, *, seed: int = 0) -> None:
    """Adds Gaussian noise to every weight matrix, `size` times the matrix's own standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.add_(noise.to(parameter.device) * parameter.data.std() * size)


def tune(loaded: LoadedModel, way: str, *, stop_at: Callable[[int], None]) -> None:
    """Tunes all weights, and calls `stop_at` with the number of steps at each dose."""
    recipe = RECIPES[way]
    examples = list(read_examples(DATA / recipe["file"]))[: recipe["examples"]]
    sequences = encode_examples(examples, loaded.tokenizer, max_tokens=512)
    optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=recipe["rate"], weight_decay=0.0, fused=True)
    order = _endless_order(len(sequences))
    for step in range(1, max(STEPS[way]) + 1):
        loaded.model.train()
        batch = [sequences[next(order)] for _ in range(recipe["batch"])]
        longest = max(len(sequence.input_ids) for sequence in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        labels = torch.full_like(ids, IGNORED)
        for row, sequence in enumerate(batch):
            ids[row, : len(sequence.input_ids)] = torch.tensor(sequence.input_ids)
            labels[row, : len(sequence.labels)] = torch.tensor(sequence.labels)
        loss = loaded.model(input_ids=ids, labels=labels).loss
        loss.backward()
        nn.utils.clip_grad_norm_(loaded.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"{way} step {step}: loss {float(loss):.3f}", flush=True)
        if step in STEPS[way]:
            loaded.model.eval()
            stop_at(step)


def _endless_order(size: int) -> Iterator[int]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield from torch.randperm(size, generator=generator).tolist()


def score(work: Path) -> None:
    """Scores the base and every damaged model that has no score file yet."""

    def keep(loaded: LoadedModel, name: str) -> None:
        path = work / f"{name}.scores.jsonl"
        if path.exists():
            return
        options = EvaluationOptions(cache=work / "cache")
        write_scores(path, evaluate(loaded, "core", options=options))
        print(f"{name} scored", flush=True)

    keep(load_model(EMBEDDED_ALIAS), "base")
    for size in NOISE:
        if not (work / f"noise-{size}.scores.jsonl").exists():
            loaded = load_model(EMBEDDED_ALIAS)
            add_noise(loaded.model, size)
            keep(loaded, f"noise-{size}")
    for way, steps in STEPS.items():
        if not all((work / f"{way}-{step}.scores.jsonl").exists() for step in steps):
            loaded = load_model(EMBEDDED_ALIAS)
            tune(loaded, way, stop_at=lambda step, loaded=loaded, way=way: keep(loaded, f"{way}-{step}"))  # type: ignore[misc]


def summarise(work: Path) -> dict[str, Any]:
    """Compares every damaged model with the base."""
    base = read_scores(work / "base.scores.jsonl")
    doses: dict[str, tuple[float, ...]] = {"noise": NOISE, **STEPS}
    rows = [
        {"way": way, "dose": dose, **_effects(base, read_scores(work / f"{way}-{dose}.scores.jsonl"))}
        for way, levels in doses.items()
        for dose in levels
        if (work / f"{way}-{dose}.scores.jsonl").exists()
    ]
    return {"schema": 1, "model": EMBEDDED_ALIAS, "alpha": 0.05, "damaged": rows}


def _effects(base: list[SampleScore], tuned: list[SampleScore]) -> dict[str, Any]:
    comparison = compare(base, tuned)
    found = {}
    for row in [comparison.pooled, *comparison.tasks]:
        entry: dict[str, Any] = {
            "num_samples": row.num_samples,
            "base": row.base,
            "tuned": row.tuned,
            "delta": row.delta,
            "lost": row.lost,
            "gained": row.gained,
            "p_value": row.p_value,
            "status": row.status.value,
        }
        entry["power"] = _power(row)
        found[row.task] = entry
    return {"verdict": comparison.verdict.value, "tasks": found}


def _power(row: Row) -> float:
    """Returns the power of a row's own test, at its size and level 0.05, if what was seen were the truth."""
    if row.unit is Unit.GRADE:
        rates = {"lost_rate": row.lost / row.num_samples, "gained_rate": row.gained / row.num_samples}
        return mcnemar_power(row.num_samples, **rates, level=0.05)
    assert row.delta is not None
    assert row.ci_low is not None
    assert row.ci_high is not None
    error = (row.ci_high - row.ci_low) / 2 / NormalDist().inv_cdf(0.975)
    return NormalDist().cdf(row.delta / error - NormalDist().inv_cdf(0.95))


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["score", "summarise"])
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.action == "score":
        arguments.work.mkdir(parents=True, exist_ok=True)
        score(arguments.work)
    else:
        text = json.dumps(summarise(arguments.work), indent=1)
        (HERE / "dose_response.json").write_text(text + "\n", encoding="utf-8")
        print(HERE / "dose_response.json")


if __name__ == "__main__":
    main()

"""Measures what docs/lesson.md says: both demonstrations, and the faults of the lesson's Fisher estimate.

python benchmarks/lesson/measure.py        # writes results.json; a minute of processor time

The lesson's `EWCRegularizer` squares gradients of batch means and never calls zero_grad between batches. Here its
estimate stands beside the exact Fisher of the same network: the sum over both classes is taken, nothing is drawn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from forgetless.data.encoding import encode_examples
from forgetless.lessons import figures
from forgetless.lessons.network import NUM_CLASSES, Network, RowTokenizer, Settings, task_examples
from forgetless.lessons.single_weight import run_single_weight
from forgetless.lessons.two_heads import Stage, Variant, learn_first, learn_second, run_two_heads, summarise
from forgetless.mechanisms.batches import pad_batch
from forgetless.mechanisms.fisher import estimate_fisher
from forgetless.mechanisms.quadratic import QuadraticPenalty
from forgetless.methods.base import Context, Method, method_options
from forgetless.methods.ewc import EWC

RESULTS = Path(__file__).parent / "results.json"
NUM_SEEDS = 20
BATCH_SIZES = (1, 8, 32, 100)
STRENGTH = 10.0
NUM_DRAWS = 25
KEPT = ("layers.0.weight", "layers.0.bias", "head_a.weight", "head_a.bias")


def row_batches(stage: Stage, size: int) -> list[dict[str, Tensor]]:
    """Returns task A's training rows in batches."""
    sequences = encode_examples(task_examples(0, stage.classes, stage.settings), RowTokenizer(), max_tokens=8)
    return [pad_batch(sequences[i : i + size], padding=None) for i in range(0, len(sequences), size)]


def exact_fisher(network: Network, batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Computes the Fisher's diagonal from its definition, one row and one class at a time."""
    wanted = {name: parameter for name, parameter in network.named_parameters() if name in KEPT}
    total = {name: torch.zeros_like(parameter) for name, parameter in wanted.items()}
    for batch in batches:
        scores = network(batch["input_ids"]).logits[0, 0].log_softmax(-1)
        for label in range(NUM_CLASSES):
            found = torch.autograd.grad(scores[label], list(wanted.values()), retain_graph=True)
            for name, gradient in zip(wanted, found, strict=True):
                total[name] += scores[label].exp().detach() * gradient.square()
    return {name: value / len(batches) for name, value in total.items()}


def lesson_fisher(network: Network, batches: Sequence[dict[str, Tensor]], *, zeroes: bool) -> dict[str, Tensor]:
    """Computes what the lesson calls Fisher: squared gradients of batch means, with or without zero_grad."""
    total = {name: torch.zeros_like(p) for name, p in network.named_parameters() if name in KEPT}
    network.zero_grad()
    for batch in batches:
        if zeroes:
            network.zero_grad()
        logits = network(batch["input_ids"]).logits[:, 0]
        nn.functional.cross_entropy(logits, batch["labels"][:, 1]).backward()
        for name, parameter in network.named_parameters():
            if name in KEPT and parameter.grad is not None:
                total[name] += parameter.grad.square()
    return {name: value / len(batches) for name, value in total.items()}


def mean_of_draws(network: Network, batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the mean of sampled estimates that differ in their draws only."""
    draws = [estimate_fisher(network, batches, parameters=KEPT, seed=seed) for seed in range(NUM_DRAWS)]
    return {name: torch.stack([draw[name] for draw in draws]).mean(0) for name in KEPT}


def flat(values: dict[str, Tensor]) -> np.ndarray:
    return np.concatenate([values[name].flatten().double().numpy() for name in KEPT])


def compare(estimate: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Returns rank correlation, cosine, and the ratio of the sums."""
    one, other = flat(estimate), flat(exact)
    cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    return {
        "spearman": float(spearmanr(one, other).statistic),
        "cosine": float(cosine),
        "scale": float(one.sum() / other.sum()),
    }


@method_options
class GivenEWC(Method):
    """EWC with the lesson's estimate in place of the Fisher."""

    name = "given_ewc"
    batch_size: int = 1
    stage: Any = None

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        fisher = lesson_fisher(self.stage.network(), row_batches(self.stage, self.batch_size), zeroes=False)
        fisher |= {name: torch.zeros_like(p) for name, p in model.named_parameters() if name not in fisher}
        self.penalty_ = QuadraticPenalty(model, fisher, strength=STRENGTH)
        return model

    def adjust_gradients(self, model: nn.Module) -> Tensor:
        return self.penalty_.add_gradient(model)


def measure_estimates(stages: Sequence[Stage]) -> dict[str, dict[str, float]]:
    """Compares every estimate with the exact Fisher; medians over the seeds."""
    found: dict[str, list[dict[str, float]]] = {}
    for stage in stages:
        network = stage.network()
        rows = row_batches(stage, 1)
        exact = exact_fisher(network, rows)
        estimates: dict[str, dict[str, Tensor]] = {
            "estimate_fisher, labels drawn once": estimate_fisher(network, row_batches(stage, 32), parameters=KEPT),
            f"the same, mean of {NUM_DRAWS} draws": mean_of_draws(network, row_batches(stage, 200)),
            "estimate_fisher, the data's labels": estimate_fisher(
                network, row_batches(stage, 32), labels="empirical", parameters=KEPT
            ),
        }
        for size in BATCH_SIZES[1:]:
            for zeroes in (True, False):
                name = f"batches of {size}, {'with' if zeroes else 'without'} zero_grad"
                estimates[name] = lesson_fisher(network, row_batches(stage, size), zeroes=zeroes)
        for name, estimate in estimates.items():
            found.setdefault(name, []).append(compare(estimate, exact))
    return {
        name: {key: median(row[key] for row in rows) for key in ("spearman", "cosine", "scale")}
        for name, rows in found.items()
    }


def lesson_variant(stage: Stage, size: int) -> Variant:
    """Returns EWC with the lesson's estimate, made in batches of a size."""
    return Variant("wrong", methods=lambda: [GivenEWC(batch_size=size, stage=stage)])


def measure_consequences(stages: Sequence[Stage]) -> dict[str, Any]:
    """Trains task B with EWC of one strength, and the lesson's estimate at several batch sizes."""
    right = Variant("estimate_fisher", methods=lambda: [EWC(strength=STRENGTH, num_sequences=200)])
    rows = {right.name: summarise([learn_second(stage, right)[right.name] for stage in stages])}
    for size in BATCH_SIZES:
        trials = []
        for stage in stages:
            wrong = lesson_variant(stage, size)
            trials.append(learn_second(stage, wrong)[wrong.name])
        rows[f"the lesson's, batches of {size}"] = summarise(trials)
    return rows


def main() -> None:
    """Measures everything and writes the results."""
    two_heads = figures(run_two_heads(NUM_SEEDS))
    del two_heads["trials"]
    stages = [learn_first(seed, Settings()) for seed in range(NUM_SEEDS)]
    results = {
        "two_heads": two_heads,
        "single_weight": figures(run_single_weight()),
        "fisher": {"num_seeds": NUM_SEEDS, "strength": STRENGTH, "estimates": measure_estimates(stages)},
        "consequences": measure_consequences(stages),
    }
    for paths in (results["single_weight"][key] for key in ("plain", "anchored", "at_lesson_rate")):
        for path in paths:
            path["weights"] = path["weights"][:4]
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

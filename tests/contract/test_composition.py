"""Methods compose: whatever doesn't conflict trains together, and hooks fold in the order of the config."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from forgetless.errors import ConfigError
from forgetless.job import plan
from forgetless.methods import METHODS
from forgetless.methods.base import HOOKS, Method, build_method, refuse_conflicts
from training import OPTIONS, fit

ADAPTER = "the adapter"
GROUP_SIZE = 9  # methods of one training, which cover 36 pairs


def build(names: Sequence[str]) -> list[Method]:
    """Builds methods, adapters first: what trains a part of the model must know all of it."""
    methods = [build_method(METHODS.load, {name: OPTIONS.get(name)}) for name in names]
    return sorted(methods, key=lambda method: ADAPTER not in method.claims)


def can_compose(names: Sequence[str]) -> bool:
    try:
        refuse_conflicts(build(names))
    except ConfigError:
        return False
    return True


def complete(names: Sequence[str]) -> list[str]:
    """Adds LoRA to methods that need an adapter and bring none."""
    methods = build(names)
    is_needed = any(ADAPTER in method.requires for method in methods)
    return [*names, "lora"] if is_needed and not any(ADAPTER in method.claims for method in methods) else list(names)


def compatible_pairs() -> list[tuple[str, str]]:
    return [pair for pair in combinations(METHODS, 2) if can_compose(complete(pair))]


def covering_groups() -> list[list[str]]:
    """Returns groups of methods that can be trained together, so that every compatible pair is in one of them."""
    missing = {frozenset(pair) for pair in compatible_pairs()}
    groups: list[list[str]] = []
    while missing:
        group = complete(next(pair for pair in compatible_pairs() if frozenset(pair) in missing))
        while len(group) < GROUP_SIZE:
            gains = {
                name: sum(frozenset({name, other}) in missing for other in group)
                for name in METHODS
                if name not in group and can_compose([*group, name])
            }
            best = max(gains, key=lambda name: gains[name], default=group[0])
            if not gains.get(best):
                break
            group.append(best)
        missing -= {frozenset(pair) for pair in combinations(group, 2)}
        groups.append(group)
    return groups


@pytest.mark.parametrize("names", covering_groups(), ids="-".join)
def test_what_does_not_conflict_trains_together(names: list[str], tmp_path: Path) -> None:
    trained = fit(build(names), tmp_path, max_steps=2)
    records = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    assert all(math.isfinite(record["loss"]) for record in records)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in trained.values())


def test_every_compatible_pair_is_in_a_group() -> None:
    covered = {frozenset(pair) for group in covering_groups() for pair in combinations(group, 2)}
    assert {frozenset(pair) for pair in compatible_pairs()} <= covered
    assert frozenset({"lora", "half"}) not in covered
    assert frozenset({"lora", "a_gem"}) in covered


@pytest.mark.parametrize(
    "pair", [pair for pair in combinations(METHODS, 2) if not can_compose(complete(pair))], ids="-".join
)
def test_conflicts_are_refused_before_a_model_loads(pair: tuple[str, str], questions: Path) -> None:
    data = {"train": questions, "general": questions}
    with pytest.raises(ConfigError, match=r"keep one of them|can't be used"):
        plan({"model": "nothing/loads-this", "data": data, "methods": list(pair)})


class Noted(Method):
    """Writes down which hook of whom was called."""

    calls: ClassVar[dict[str, list[str]]] = defaultdict(list)

    def note(self, hook: str) -> None:
        self.calls[hook].append(self.name)

    def prepare_data(self, mixture: Any, context: Any) -> Any:
        self.note("prepare_data")
        return mixture

    def prepare_model(self, model: Any, context: Any) -> Any:
        self.note("prepare_model")
        return model

    def prepare_optimizer(self, optimizer: Any, model: Any) -> None:
        self.note("prepare_optimizer")

    def token_weights(self, step: Any) -> None:
        self.note("token_weights")

    def penalty(self, step: Any) -> None:
        self.note("penalty")

    def adjust_gradients(self, model: Any) -> None:
        self.note("adjust_gradients")

    def after_step(self, model: Any) -> None:
        self.note("after_step")

    def finish(self, model: Any) -> Any:
        self.note("finish")
        return model


class First(Noted):
    name = "first"


class Second(Noted):
    name = "second"


@pytest.mark.parametrize("order", [(First, Second), (Second, First)])
def test_hooks_fold_in_the_order_of_the_config(order: tuple[type[Noted], ...], tmp_path: Path) -> None:
    Noted.calls.clear()
    fit([kind() for kind in order], tmp_path, max_steps=2)
    names = [kind.name for kind in order]
    assert Noted.calls.keys() == set(HOOKS)
    for hook, calls in Noted.calls.items():
        assert calls == names * (len(calls) // 2), hook

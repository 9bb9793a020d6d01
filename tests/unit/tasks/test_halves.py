"""The two halves of a suite hold everything once, keep passages whole, and don't depend on the order of samples."""

from __future__ import annotations

from typing import Any

import pytest

from forgetless.errors import ConfigError
from forgetless.tasks.base import Task, load_suite
from forgetless.tasks.halves import split_in_halves


def with_samples(samples: list[dict[str, Any]]) -> Task:
    return Task(load_suite("arithmetic")[0].spec, tuple(samples))


def ids(task: Task) -> list[str]:
    return [str(sample["id"]) for sample in task.samples]


def test_every_sample_of_core_is_in_one_half() -> None:
    tasks = load_suite("core")
    for task, first, second in zip(tasks, *split_in_halves(tasks), strict=True):
        assert sorted(ids(first) + ids(second)) == sorted(ids(task))
        clusters = [{s["cluster"] for s in half.samples if s.get("cluster") is not None} for half in (first, second)]
        assert not clusters[0] & clusters[1]
        assert abs(len(first.samples) - len(second.samples)) <= max(1, len(task.samples) // 5)
        assert first.journal_fingerprint == second.journal_fingerprint == task.journal_fingerprint


def test_a_half_depends_on_content_and_seed_alone() -> None:
    samples = [{"id": str(number), "question": f"{number}?", "answer": str(number)} for number in range(40)]
    halves = [split_in_halves([with_samples(order)])[0][0] for order in (samples, samples[::-1])]
    assert sorted(ids(halves[0])) == sorted(ids(halves[1]))
    renamed = [sample | {"id": f"x{sample['id']}"} for sample in samples]
    assert [name[1:] for name in ids(split_in_halves([with_samples(renamed)])[0][0])] == ids(halves[0])
    assert ids(split_in_halves([with_samples(samples)], seed=1)[0][0]) != ids(halves[0])


def test_passages_stay_whole() -> None:
    samples = [{"id": str(n), "question": f"{n}?", "answer": "a", "cluster": n // 4} for n in range(40)]
    (first,), (second,) = split_in_halves([with_samples(samples)])
    assert {s["cluster"] for s in first.samples}.isdisjoint(s["cluster"] for s in second.samples)
    assert len(first.samples) == len(second.samples) == 20


@pytest.mark.parametrize("samples", [[{"id": "1", "question": "?", "answer": "a"}]])
def test_a_single_sample_cannot_be_split(samples: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match="single sample"):
        split_in_halves([with_samples(samples)])

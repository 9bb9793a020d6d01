"""The reservoir over earlier phases: its size, its shares, and that it is what a carried memory would hold."""

from __future__ import annotations

from collections import Counter

import pytest

from forgetless.data.examples import Example
from forgetless.data.reservoir import fill_reservoir
from forgetless.errors import ConfigError


def phase(name: str, num: int) -> list[Example]:
    return [Example(text=f"{name} {number}", metadata={"row": number}) for number in range(num)]


PHASES = {"a": phase("a", 60), "b": phase("b", 30), "c": phase("c", 10)}


def counts(kept: list[Example]) -> Counter[str]:
    return Counter(example.metadata["phase"] for example in kept)


@pytest.mark.parametrize("is_balanced", [False, True])
def test_all_is_kept_where_there_is_room(is_balanced: bool) -> None:
    kept = fill_reservoir(PHASES, size=300, is_balanced=is_balanced)
    assert [example.text for example in kept] == [one.text for examples in PHASES.values() for one in examples]
    assert {example.origin for example in kept} == {"earlier"}
    assert kept[0].metadata == {"row": 0, "phase": "a"}


def test_every_example_is_kept_with_the_same_probability() -> None:
    seen: Counter[str | None] = Counter()
    for seed in range(400):
        kept = fill_reservoir(PHASES, size=20, seed=seed)
        assert len(kept) == len({example.text for example in kept}) == 20
        seen.update(example.text for example in kept)
    assert len(seen) == 100
    # 80 of 400 times each, standard deviation 8.
    assert all(45 <= seen[example.text] <= 120 for examples in PHASES.values() for example in examples)


def test_balance_gives_each_phase_the_same_places() -> None:
    assert counts(fill_reservoir(PHASES, size=20, is_balanced=True)) == {"a": 7, "b": 7, "c": 6}
    assert counts(fill_reservoir(PHASES, size=90, is_balanced=True)) == {"a": 30, "b": 30, "c": 10}


@pytest.mark.parametrize("is_balanced", [False, True])
def test_it_is_what_a_memory_would_hold_that_was_carried_along(is_balanced: bool) -> None:
    early = fill_reservoir({"a": PHASES["a"]}, size=12, seed=3, is_balanced=is_balanced)
    later = fill_reservoir({"a": PHASES["a"], "b": PHASES["b"]}, size=12, seed=3, is_balanced=is_balanced)
    assert {one.text for one in later if one.metadata["phase"] == "a"} < {one.text for one in early}
    again = fill_reservoir({"a": PHASES["a"], "b": PHASES["b"]}, size=12, seed=3, is_balanced=is_balanced)
    assert again == later
    assert later != fill_reservoir({"a": PHASES["a"], "b": PHASES["b"]}, size=12, seed=4, is_balanced=is_balanced)


def test_a_reservoir_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="reservoir 0 keeps nothing"):
        fill_reservoir(PHASES, size=0)


def test_nothing_earlier_is_nothing_kept() -> None:
    assert fill_reservoir({}, size=3, is_balanced=True) == fill_reservoir({}, size=3) == []

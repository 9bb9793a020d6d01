"""A memory of bounded size over the examples of earlier phases, as if they had come by one after another.

What is kept after k phases depends on those phases, the size and the seed alone, and is what a memory that had been
carried from phase to phase would hold.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from forgetless.data.examples import Example
from forgetless.errors import ConfigError

PHASE = "phase"
"""Metadata field that names the phase of a kept example."""


def fill_reservoir(
    phases: Mapping[str, Sequence[Example]], *, size: int, seed: int = 0, is_balanced: bool = False
) -> list[Example]:
    """Keeps at most `size` of the examples of earlier phases.

    Without balance it is reservoir sampling (Vitter 1985, algorithm R): each example that has come by is kept with the
    same probability, so that phases are kept in proportion to their examples. With balance each of the k phases has
    size / k places, the earlier ones those that are left over; a phase gives places up as others come, at random, and
    one that has fewer examples leaves its places empty.

    Args:
        phases: Training examples by name of the phase, in order.
        size: Most examples to keep, at least 1.
        seed: Seed of the draw.
        is_balanced: Give all phases the same number of places.

    Returns:
        The kept examples, phase by phase: of origin `earlier`, with the name of their phase in the metadata.

    Raises:
        ConfigError: The size is below 1.
    """
    if size < 1:
        raise ConfigError(f"reservoir {size} keeps nothing: at least 1")
    kept = _balanced(phases, size, seed) if is_balanced else _proportional(phases, size, seed)
    return [_labelled(phases[name][index], name) for name, indices in kept.items() for index in sorted(indices)]


def _proportional(phases: Mapping[str, Sequence[Example]], size: int, seed: int) -> dict[str, list[int]]:
    rng = np.random.default_rng(seed)
    places: list[tuple[str, int]] = []
    num_seen = 0
    for name, examples in phases.items():
        for index in range(len(examples)):
            num_seen += 1
            place = int(rng.integers(num_seen))  # drawn for each, so that the stream is the same for every size
            if len(places) < size:
                places.append((name, index))
            elif place < size:
                places[place] = (name, index)
    return {name: [index for owner, index in places if owner == name] for name in phases}


def _balanced(phases: Mapping[str, Sequence[Example]], size: int, seed: int) -> dict[str, list[int]]:
    kept = {}
    for number, (name, examples) in enumerate(phases.items()):
        quota = size // len(phases) + (number < size % len(phases))
        # An order of its own for each phase: a smaller quota keeps the beginning of what a larger one kept.
        order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(len(examples))
        kept[name] = [int(index) for index in order[:quota]]
    return kept


def _labelled(example: Example, phase: str) -> Example:
    return replace(example, origin="earlier", metadata={**example.metadata, PHASE: phase})

"""The share that is looked for on the probe, without a model."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.methods import frontier


class Straight:
    """A model whose loss falls as its share grows."""

    def at(self, share: float) -> float:
        return share


@pytest.mark.parametrize(
    ("goal", "share"),
    [(0.5, 0.5), (0.51, 0.5), (0.49, 0.5625), (1.0, 0.0625), (0.0, 1.0), (-1.0, 1.0)],
)
def test_the_smallest_share_is_found(goal: float, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontier, "mean_loss", lambda at, probe: 1 - at)
    scaled: Any = Straight()
    assert frontier.smallest_share(scaled, [], goal) == share

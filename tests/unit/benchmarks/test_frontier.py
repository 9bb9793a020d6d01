"""The share that is looked for on the probe, without a model."""

from __future__ import annotations

import pytest
from benchmarks.methods.frontier import smallest_share


@pytest.mark.parametrize(
    ("goal", "share"),
    [(0.5, 0.5), (0.51, 0.5), (0.49, 0.5625), (1.0, 0.0625), (0.0, 1.0), (-1.0, 1.0)],
)
def test_the_smallest_share_is_found(goal: float, share: float) -> None:
    assert smallest_share(lambda share: 1 - share, goal) == share

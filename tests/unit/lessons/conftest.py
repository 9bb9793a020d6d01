"""Two small results of the lessons, made once."""

from __future__ import annotations

import pytest

from forgetless.lessons.network import Settings
from forgetless.lessons.single_weight import SingleWeight, run_single_weight
from forgetless.lessons.two_heads import TwoHeads, run_two_heads

SMALL = Settings(num_inputs=4, width=8, num_rows=30, num_held_out=20, num_steps=12, learning_rate=0.02)


@pytest.fixture(scope="session")
def two_heads() -> TwoHeads:
    return run_two_heads(3, settings=SMALL, rates=[0.01])


@pytest.fixture(scope="session")
def single_weight() -> SingleWeight:
    return run_single_weight()

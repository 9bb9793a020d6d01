"""What can be asked for, and what is refused."""

from __future__ import annotations

import math

import pytest

from forgetless.errors import ConfigError
from forgetless.evaluate.requests import Decoding


@pytest.mark.parametrize("top_p", [0.0, -0.1, 1.01, math.nan])
def test_an_impossible_nucleus_is_refused(top_p: float) -> None:
    with pytest.raises(ConfigError, match=r"top_p .* is not in \(0, 1\]"):
        Decoding(0.5, top_p=top_p)


@pytest.mark.parametrize("temperature", [-1.0, math.inf, math.nan])
def test_an_impossible_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match=r"temperature .* is not a number from 0 on"):
        Decoding(temperature)

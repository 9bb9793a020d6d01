"""A model is back in the modes that its parts were in."""

from __future__ import annotations

import pytest
from torch import nn

from forgetless.mechanisms.modes import eval_mode


def test_every_part_is_back_in_its_own_mode_after_an_error_too() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[1].eval()

    def stop() -> None:
        with eval_mode(model):
            assert not any(module.training for module in model.modules())
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stop()
    assert [module.training for module in model.modules()] == [True, True, False]

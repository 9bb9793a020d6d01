"""The pilot on the tiny model: equal starts, figures that mean what they say, and nothing left behind."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from forgetless.advising import pilot
from forgetless.advising.advice import advise
from forgetless.advising.legs import Leg, recommend
from forgetless.advising.pilot import fly
from forgetless.errors import ConfigError, RunError


@pytest.fixture
def config(
    tiny_directory: Path, questions: Path, tasks_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("FORGETLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pilot, "MOST_GENERAL", 4)
    return {
        "model": str(tiny_directory),
        "data": {"train": str(questions), "test": str(questions)},
        "methods": ["lora"],
        "evaluation": {"suite": "letters", "tasks_dir": str(tasks_directory)},
        "training": {"batch_size": 4, "max_tokens": 128, "learning_rate": 1e-2},
    }


def test_higher_rates_learn_and_drift_more_and_equal_ones_alike(config: dict[str, Any], tmp_path: Path) -> None:
    legs = {leg.learning_rate: leg for leg in fly(config, steps=6, rates=[1e-2, 1e-4]).legs}
    assert legs[1e-2].learned > legs[1e-4].learned
    assert legs[1e-2].learned_low > 0
    assert legs[1e-2].divergence > legs[1e-4].divergence >= 0
    assert legs[1e-2].price is not None
    # Each starts from the base, whatever came before it.
    (alone,) = fly(config, steps=6, rates=[1e-4]).legs
    assert alone == legs[1e-4]
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not (tmp_path / "cache").exists()


def test_a_small_adapter_goes_back_to_its_start_without_another_load(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config |= {"methods": [{"lora": {"rank": 1}}]}
    loads: list[str] = []
    original = pilot._Flight._load

    def load(self: pilot._Flight) -> Any:
        loads.append(self.job.config.model)
        return original(self)

    monkeypatch.setattr(pilot._Flight, "_load", load)
    first, second = fly(config, steps=3, rates=[1e-2, 1e-2]).legs
    assert first == second
    assert first.learned != 0
    assert len(loads) == 1


def test_full_tuning_starts_from_the_base_each_time(config: dict[str, Any]) -> None:
    config |= {"methods": []}
    first, second = fly(config, steps=3, rates=[1e-3, 1e-3]).legs
    assert first == second
    assert first.learned != 0


def test_a_rate_of_almost_nothing_changes_almost_nothing(config: dict[str, Any]) -> None:
    flown = fly(config, steps=2, rates=[1e-12])
    (leg,) = flown.legs
    assert leg.learned == pytest.approx(0, abs=1e-4)
    assert leg.divergence == pytest.approx(0, abs=1e-4)
    assert leg.text_rise == pytest.approx(0, abs=1e-4)
    assert leg.answer_rise == pytest.approx(0, abs=1e-4)


def test_a_rate_that_diverges_is_a_result(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    original = pilot._Flight._train

    def train(self: pilot._Flight, rate: float, progress: Any) -> Any:
        if rate > 1:
            raise RunError("the loss diverged: lower the rate")
        return original(self, rate, progress)

    monkeypatch.setattr(pilot._Flight, "_train", train)
    flown = fly(config, steps=2, rates=[10.0, 1e-3])
    assert flown.legs[0].failure == "the loss diverged"
    assert flown.legs[0].price is None
    assert flown.legs[1].failure == ""
    record = json.loads(json.dumps(flown.to_dict(), allow_nan=False))
    assert record["legs"][0]["learned"] is None


def test_advise_flies_the_three_rates_of_the_config(config: dict[str, Any]) -> None:
    advice = advise(config, pilot=True, steps=2)
    assert advice.pilot is not None
    assert [leg.learning_rate for leg in advice.pilot.legs] == [1e-2, 1e-2 / 4, 1e-2 / 16]
    assert advice.to_dict()["pilot"]["steps"] == 2


@pytest.mark.parametrize(("options", "message"), [({"steps": 1}, "below 2"), ({"rates": [1e-3, 0.0]}, "not above 0")])
def test_what_cannot_be_flown(config: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fly(config, **options)


def test_a_model_with_nothing_to_train(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forgetless.models.count_parameters", lambda model: (1, 0))
    with pytest.raises(ConfigError, match="nothing of model"):
        fly(config, steps=2)


def leg(rate: float, learned: float, divergence: float, *, doubt: float = 0.0) -> Leg:
    return Leg(rate, learned, learned - doubt, learned + doubt, divergence, 0.0, 0.0)


def test_the_cheapest_of_the_rates_that_learn_is_recommended() -> None:
    high, middle, low = leg(1e-3, 1.0, 0.5), leg(2.5e-4, 0.6, 0.06), leg(6e-5, 0.2, 0.001)
    rate, reason = recommend([high, middle, low], 24)
    assert rate == 2.5e-4
    assert "0.001 learned more (1.000), at 0.500 for each" in reason
    rate, reason = recommend([high, low], 24)
    assert rate == 1e-3
    assert "6e-05 learned less than half as much" in reason
    rate, reason = recommend([high], 24)
    assert "no lower rate is cheaper" in reason
    rate, reason = recommend([leg(1e-3, 0.1, 0.5, doubt=0.2)], 24)
    assert rate is None
    assert "beyond doubt in 24 steps" in reason

"""What every registered method must do, whatever it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forgetless.errors import ConfigError
from forgetless.methods import METHODS
from forgetless.methods.base import FAMILIES, Method, build_method, refuse_conflicts
from training import OPTIONS, are_equal, fit

NAMES = list(METHODS)

# The options at which a method is plain fine-tuning, step for step. An adapter trains other parameters than plain
# fine-tuning does, so it has none; what holds for it instead is tested in tests/unit/methods.
NEUTRAL: dict[str, dict[str, Any]] = {
    "a_gem": {"strength": 0.0},
    "eaft": {"exponent": 0.0},
    "ewc": {"strength": 0.0},
    "flow": {"strength": 0.0},
    "freeze_bottom": {"fraction": 0.0, "embeddings": False},
    "half": {"fraction": 1.0},
    "kl": {"strength": 0.0},
    "l2_sp": {"strength": 0.0},
    "layer_rates": {"gamma": 1.0},
    "mas": {"strength": 0.0},
    "mofo": {"fraction": 1.0},
    "replay": {"share": 0.0},
    "rewrite": {"share": 0.0},
    "stm": {"threshold": None},
    "talr": {"strength": 0.0},
    "wise_ft": {"share": 1.0},
}
WITHOUT_NEUTRAL = {"corda", "lora", "null_space", "osf", "qlora"}

# What acts only on a gradient that conflicts, which those of four steps of the tiny model don't.
RARE = {"a_gem"}


def build(name: str) -> Method:
    return build_method(METHODS.load, {name: OPTIONS.get(name)})


def test_every_method_has_a_neutral_strength_or_is_an_adapter() -> None:
    assert NEUTRAL.keys() | WITHOUT_NEUTRAL == set(NAMES)
    assert all("the adapter" in build(name).claims for name in WITHOUT_NEUTRAL)


@pytest.mark.parametrize("name", NAMES)
def test_names_a_paper_and_has_a_card(name: str) -> None:
    method = METHODS.load(name)
    assert method.name == name
    assert method.paper.startswith("https://")
    assert method.title
    assert method.cost
    assert method.family in FAMILIES
    card = Path(__file__).parents[2] / "docs" / "methods" / f"{name}.md"
    text = card.read_text(encoding="utf-8")
    assert method.paper in text
    for heading in ("## Use", "## Cost", "## Pitfalls", "## Departures from the paper", "## Evidence"):
        assert heading in text, heading


@pytest.mark.parametrize("name", NAMES)
def test_options_survive_a_round_trip_through_a_config(name: str) -> None:
    options = json.loads(json.dumps(build(name).options()))
    assert build_method(METHODS.load, {name: options}).options() == build(name).options()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_described_and_an_unknown_one_is_refused(name: str) -> None:
    fields: dict[str, Any] = METHODS.load(name).__pydantic_fields__  # type: ignore[attr-defined]
    assert all(field.description for field in fields.values())
    with pytest.raises(ConfigError, match="no option 'strenght'"):
        build_method(METHODS.load, {name: {"strenght": 1}})


@pytest.mark.parametrize("name", NAMES)
def test_the_same_method_twice_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="both claim"):
        refuse_conflicts([build(name), build(name)])


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_neutral_strength_is_plain_fine_tuning_step_for_step(name: str, tmp_path: Path) -> None:
    neutral = build_method(METHODS.load, {name: NEUTRAL[name]})
    assert are_equal(fit([neutral], tmp_path / "neutral"), fit([], tmp_path / "plain"))
    if name not in RARE:
        assert not are_equal(fit([build(name)], tmp_path / "default"), fit([], tmp_path / "again"))
    losses = [(tmp_path / run / "train.jsonl").read_text() for run in ("neutral", "plain")]
    assert _losses(losses[0]) == _losses(losses[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_is_the_same_run(name: str, tmp_path: Path) -> None:
    assert are_equal(fit([build(name)], tmp_path / "one"), fit([build(name)], tmp_path / "other"))


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_training_is_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    whole = fit([build(name)], tmp_path / "whole", save_steps=2)
    _stop_at_the_first_checkpoint(name, tmp_path / "stopped")
    resumed = fit([build(name)], tmp_path / "stopped", save_steps=2)
    assert are_equal(whole, resumed)
    assert _losses((tmp_path / "stopped" / "train.jsonl").read_text()) == _losses(
        (tmp_path / "whole" / "train.jsonl").read_text()
    )


def _stop_at_the_first_checkpoint(name: str, directory: Path) -> None:
    """Leaves a training of four steps as if it had been killed after its checkpoint at step two."""
    import transformers

    class Stop(transformers.TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    stopper = Stop()
    original = transformers.Trainer.add_callback

    def add_callback(self: Any, callback: Any) -> None:
        original(self, callback)
        if type(callback).__name__ == "_Hooks":  # the last one that is added: the methods' state is saved before it
            original(self, stopper)

    transformers.Trainer.add_callback = add_callback  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            fit([build(name)], directory, save_steps=2)
    finally:
        transformers.Trainer.add_callback = original  # type: ignore[method-assign]


def _losses(text: str) -> list[tuple[int, float]]:
    return [(record["step"], record["loss"]) for record in map(json.loads, text.splitlines())]

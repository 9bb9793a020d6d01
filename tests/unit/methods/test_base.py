"""How a line of a config becomes a method."""

from __future__ import annotations

from typing import Any

import pytest

from forgetless.errors import ConfigError
from forgetless.methods import METHODS
from forgetless.methods.base import HOOKS, Method, build_method, refuse_conflicts
from forgetless.methods.lora import LoRA
from forgetless.methods.replay import Replay


def test_a_bare_name_takes_its_defaults() -> None:
    assert build_method(METHODS.load, "lora") == LoRA()


def test_options_are_stored() -> None:
    method = build_method(METHODS.load, {"lora": {"rank": 4, "variant": "dora"}})
    assert method == LoRA(rank=4, variant="dora")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lorra", "did you mean 'lora'"),
        ({"lora": {"rnak": 4}}, "no option 'rnak'; did you mean 'rank'"),
        ({"lora": {"rank": 0}}, "option 'rank'.*greater than or equal to 1, not 0"),
        ({"replay": {"share": 1.0}}, "option 'share'.*less than 1"),
        ({"l2_sp": {"strength": float("inf")}}, "option 'strength'.*finite number"),
        ({"ewc": {"strength": float("nan")}}, "option 'strength'.*finite number"),
        ({"lora": 16}, "must be a mapping"),
        ({"lora": {}, "replay": {}}, "a name, or one name with its options"),
    ],
)
def test_what_cannot_be_used_is_explained(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_method(METHODS.load, spec)


def test_two_methods_that_claim_the_same_are_refused() -> None:
    class Other(LoRA):
        name = "other"

    with pytest.raises(ConfigError, match="method 'lora' and method 'other' both claim the adapter"):
        refuse_conflicts([LoRA(), Other()])


def test_hooks_that_do_nothing_are_known() -> None:
    assert LoRA().overridden == {"prepare_model"}
    assert Replay().overridden == {"prepare_data"}
    assert Method().overridden == set()
    assert all(hasattr(Method, hook) for hook in HOOKS)


def test_what_a_method_needs_or_refuses_of_the_others_is_checked() -> None:
    class Needy(Replay):
        name = "needy"
        requires = frozenset({"the adapter"})

    class Loner(Replay):
        name = "loner"
        refuses = frozenset({"the adapter"})

    refuse_conflicts([LoRA(), Needy()])
    refuse_conflicts([Needy()], held={"the adapter"})
    with pytest.raises(ConfigError, match="method 'needy' needs the adapter: add a method that brings it"):
        refuse_conflicts([Needy()])
    with pytest.raises(ConfigError, match="method 'loner' can't be used with the adapter of method 'lora'"):
        refuse_conflicts([Loner(), LoRA()])
    with pytest.raises(ConfigError, match="'loner' can't be used with the adapter of the model"):
        refuse_conflicts([Loner()], held={"the adapter"})
    with pytest.raises(ConfigError, match="the model and method 'lora' both claim the adapter"):
        refuse_conflicts([LoRA()], held={"the adapter"})

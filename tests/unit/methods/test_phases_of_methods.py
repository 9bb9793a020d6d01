"""What methods do in the phases of a sequence, beyond what replay and EWC do there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conftest import build_model, build_tokenizer
from forgetless.data.encoding import encode_examples
from forgetless.data.examples import Example
from forgetless.errors import ConfigError
from forgetless.mechanisms.adapters import lora_layers
from forgetless.mechanisms.earlier import Earlier
from forgetless.mechanisms.kept import kept_examples
from forgetless.methods import METHODS
from forgetless.methods.base import Context, build_method
from forgetless.methods.kl import KLToBase
from forgetless.methods.lora import LoRA
from forgetless.methods.null_space import NullSpace
from forgetless.methods.osf import OSF
from forgetless.models import LoadedModel
from training import DOMAIN, are_equal, context, mixture

OLD = {"one": [Example(text=f"Old one {number}.") for number in range(5)], "two": [Example(text="Old two.")]}


def in_phase(**facts: Any) -> Context:
    return replace(context(), earlier=Earlier(**{"phases": OLD, **facts}), sequences=mixture([]))


def trained_adapter(directory: Path, **options: Any) -> Any:
    """Returns an adapter with weights of its own, and saves it."""
    adapted: Any = LoRA(rank=4, **options).prepare_model(build_model(), context())  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in lora_layers(adapted).values():
            layer.lora_B["default"].weight.fill_(0.02)
    adapted.save_pretrained(str(directory))
    return adapted


def test_an_adapter_goes_on_where_the_phase_before_left_it(tmp_path: Path) -> None:
    before = trained_adapter(tmp_path / "model")
    adapted: Any = LoRA(rank=4).prepare_model(build_model(), in_phase(adapter=tmp_path / "model"))  # type: ignore[arg-type]
    assert are_equal(before.state_dict(), adapted.state_dict())
    assert sum(p.requires_grad for p in adapted.parameters()) == sum(p.requires_grad for p in before.parameters())


@pytest.mark.parametrize("options", [{"rank": 8}, {"rank": 4, "alpha": 1.0}, {"rank": 4, "variant": "rslora"}])
def test_an_adapter_of_another_kind_cannot_go_on(options: dict[str, Any], tmp_path: Path) -> None:
    trained_adapter(tmp_path / "01-one" / "model")
    with pytest.raises(ConfigError, match="can't train the adapter of 01-one on: that one has another rank, scale"):
        LoRA(**options).prepare_model(build_model(), in_phase(adapter=tmp_path / "01-one" / "model"))  # type: ignore[arg-type]


def divergence(method: KLToBase, job: Context, model: Any) -> float:
    """Returns the method's first penalty on an adapter that changes nothing yet."""
    method.prepare_model(model, job)
    step: Any = SimpleNamespace(
        model=model, labels=torch.zeros(1, 2), is_first=True, num_micro_batches=1, num_items=None, inputs={}
    )
    value = method.penalty(step)
    return 0.0 if value is None else float(value.detach())


def test_the_base_of_a_divergence_is_the_model_before_all_phases() -> None:
    asked = []

    def load_base() -> LoadedModel:
        asked.append(1)
        return LoadedModel(build_model(seed=7), build_tokenizer(), "base", "base")  # type: ignore[arg-type]

    job = in_phase(load_base=load_base)
    start: Any = LoRA(rank=2).prepare_model(build_model(), context())  # type: ignore[arg-type]
    assert divergence(KLToBase(anchor="start"), job, start) == pytest.approx(0.0, abs=1e-6)
    assert asked == []
    assert divergence(KLToBase(), job, start) > 1e-3
    assert asked == [1]


def test_a_divergence_can_be_held_on_earlier_phases() -> None:
    first: Any = build_model()
    assert divergence(KLToBase(data="earlier"), replace(context(), earlier=Earlier()), first) == 0.0
    later: Any = LoRA(rank=2).prepare_model(build_model(), context())  # type: ignore[arg-type]
    method = KLToBase(data="earlier")
    method.prepare_model(later, in_phase())
    assert method.cycle_ is not None


def test_the_start_of_a_phase_is_not_there_behind_an_adapter_that_goes_on() -> None:
    with pytest.raises(ConfigError, match=r"set sequence\.carry merge, or anchor base"):
        KLToBase(anchor="start").check(in_phase(is_continued=True))


def test_the_projection_takes_earlier_examples_and_rests_in_a_first_phase() -> None:
    first = build_method(METHODS.load, {"a_gem": {"data": "earlier"}})
    first.prepare_model(build_model(), replace(context(), earlier=Earlier()))  # type: ignore[arg-type]
    assert first.adjust_gradients(build_model()) is None  # type: ignore[arg-type]
    later: Any = build_method(METHODS.load, {"a_gem": {"data": "earlier"}})
    later.prepare_model(build_model(), in_phase())
    assert not later.is_idle_


def test_frozen_directions_grow_with_the_phases() -> None:
    ranks = []
    for phases in ({}, OLD, {str(number): DOMAIN for number in range(40)}):
        adapted: Any = OSF().prepare_model(build_model(), in_phase(phases=phases))  # type: ignore[arg-type]
        layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
        ranks.append(layer.effective_rank["default"])
    assert ranks == [16, 22, 30]  # of 32: a half, 0.7, 0.95


def test_inputs_of_earlier_phases_join_what_the_null_space_protects() -> None:
    def passed(adapted: Any) -> float:
        name, layer = next(iter(lora_layers(adapted).items()))
        inputs: list[torch.Tensor] = []
        handle = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
        for sequence in encode_examples(OLD["one"], build_tokenizer(), max_tokens=64):
            adapted(input_ids=torch.tensor([sequence.input_ids]))
        handle.remove()
        rows = torch.cat([one.flatten(0, 1) for one in inputs])
        assert name
        return float((rows @ layer.lora_A["default"].weight.T).norm() / rows.norm())

    alone: Any = NullSpace(rank=4).prepare_model(build_model(), context())  # type: ignore[arg-type]
    grown: Any = NullSpace(rank=4).prepare_model(build_model(), in_phase())  # type: ignore[arg-type]
    assert passed(grown) < 0.7 * passed(alone)


def test_earlier_examples_are_drawn_in_equal_parts() -> None:
    job = in_phase()
    kept = kept_examples(job, "earlier", 4)
    assert [example.metadata["phase"] for example in kept] == ["one", "one", "two"]
    assert kept_examples(replace(job, earlier=Earlier()), "earlier", 4) == []
    assert kept_examples(job, "general", 4) != kept


def test_behind_the_adapter_of_a_later_phase_is_not_the_base() -> None:
    with pytest.raises(ConfigError, match="in a later phase"):
        KLToBase(reference="adapter").check(in_phase())
    KLToBase(reference="adapter").check(in_phase(is_continued=True))
    KLToBase(reference="adapter").check(in_phase(phases={}))
    KLToBase(reference="adapter", anchor="start").check(in_phase())

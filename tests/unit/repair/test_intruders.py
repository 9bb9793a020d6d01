"""A planted intruder is found and removed; what resembles the base's own directions is left alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from conftest import build_model
from forgetless.curve import Point
from forgetless.quiet import quiet_transformers
from forgetless.repair import intruders
from forgetless.repair.intruders import find_intruders, left_vectors, scale_intruders, top_vectors
from forgetless.repair.paths import AdapterPath, Matrix, WeightPath, state_reader

NAME = "model.layers.1.mlp.up_proj.weight"  # (64, 32): half of the outputs' space is not the base's


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spike(base: torch.Tensor, strength: float) -> torch.Tensor:
    """Returns a change of rank one whose direction of outputs is orthogonal to all of the base's."""
    left = torch.linalg.svd(base, full_matrices=True).U[:, -1]  # of no singular value
    right = torch.randn(base.shape[1], generator=generator(3))
    return strength * torch.outer(left, right / right.norm())


def spiked() -> tuple[WeightPath, Any, torch.Tensor]:
    base: Any = build_model()
    tuned = copy.deepcopy(base)
    weight = dict(tuned.named_parameters())[NAME]
    planted = spike(weight.detach(), 10.0)
    weight.data += planted
    readers = [state_reader(dict(copy.deepcopy(model).named_parameters())) for model in (base, tuned)]
    return WeightPath(tuned, *readers), base, planted


def test_a_planted_intruder_is_found_and_removed_exactly() -> None:
    path, base, planted = spiked()
    found = find_intruders(path.matrices())
    assert list(found) == [NAME]
    assert found[NAME].shape == (64, 1)
    direction = planted[:, 0] / planted[:, 0].norm()
    # The spike adds to what the base does, so the strongest direction leans a little towards it.
    assert float((found[NAME][:, 0] @ direction).abs()) > 0.99
    exact = {NAME: direction[:, None]}
    path.treatments = {"gone": scale_intruders(exact, 0.0), "half": scale_intruders(exact, 0.5)}
    for kind, left in (("gone", 0.0), ("half", 0.5)):
        path.move(Point(1.0, 1.0, kind))
        moved, before = (dict(model.named_parameters())[NAME] for model in (path.model, base))
        torch.testing.assert_close(moved, before + left * planted, atol=1e-5, rtol=0)
        assert path.moved(Point(1.0, 1.0, kind)) == pytest.approx(left, abs=1e-5)


def test_removing_what_was_found_leaves_almost_nothing_of_the_change() -> None:
    path, base, planted = spiked()
    path.treatments = {"gone": scale_intruders(find_intruders(path.matrices()), 0.0)}
    path.move(Point(1.0, 1.0, "gone"))
    rest = (dict(path.model.named_parameters())[NAME] - dict(base.named_parameters())[NAME]).detach()
    assert float(rest.norm() / planted.norm()) < 0.05


def test_directions_that_the_base_knows_are_left_alone() -> None:
    base = torch.randn(48, 32, generator=generator())
    u, s, v = torch.linalg.svd(base, full_matrices=False)
    stretched = u @ torch.diag(s * torch.linspace(3.0, 1.0, 32)) @ v  # other strengths, the same directions
    assert find_intruders([Matrix("w", base, stretched)]) == {}


def test_only_the_strongest_directions_count() -> None:
    base = torch.randn(64, 32, generator=generator())
    weak = Matrix("w", base, base + spike(base, 0.01))
    assert find_intruders([weak], top=5) == {}


def test_a_vector_is_an_intruder_below_the_threshold_only() -> None:
    base = torch.diag(torch.tensor([2.0, 1.0, 0.0]))[:, :2].contiguous()
    lean = torch.tensor([0.6, 0.0, 0.8])  # its |cos| with the nearest of the base's is about 0.6
    tuned = base + 1000 * torch.outer(lean, torch.tensor([1.0, 0.0]))
    assert find_intruders([Matrix("w", base, tuned)], top=1, threshold=0.59) == {}
    assert list(find_intruders([Matrix("w", base, tuned)], top=1, threshold=0.61)) == ["w"]


def test_large_matrices_give_the_same_strongest_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(120, 90, generator=generator()) @ torch.diag(torch.logspace(0, -3, 90))
    exact = left_vectors(matrix)[:, :5]
    monkeypatch.setattr(intruders, "_SMALL", 10)
    quick = top_vectors(matrix, 5, generator=generator(1))
    torch.testing.assert_close((exact.T @ quick).abs(), torch.eye(5), atol=1e-3, rtol=0)


def test_an_adapter_loses_its_intruder_and_keeps_its_rank() -> None:
    base: Any = build_model()
    with quiet_transformers():
        model = get_peft_model(base, LoraConfig(r=2, target_modules=["up_proj"], lora_alpha=4))
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight"
    layer: Any = model.get_submodule(name.partition(".lora_B.")[0])
    weight = layer.get_base_layer().weight.detach()
    unknown = torch.linalg.svd(weight, full_matrices=True).U[:, -1]
    with torch.no_grad():
        layer.lora_B["default"].weight[:, 0] = 40 * unknown
        layer.lora_B["default"].weight[:, 1] = 0.01 * weight[:, 0]
    path = AdapterPath(model)
    found = find_intruders(path.matrices())
    assert list(found) == [name]
    path.treatments["gone"] = scale_intruders({name: unknown[:, None]}, 0.0)
    path.move(Point(1.0, 1.0, "gone"))
    left = layer.lora_B["default"].weight
    assert left.shape == (64, 2)
    torch.testing.assert_close(left[:, 0], torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(left[:, 1], 0.01 * weight[:, 0], atol=1e-4, rtol=0)
    assert path.moved(Point(1.0, 1.0, "gone")) == pytest.approx(0.0, abs=1e-3)
    path.move(Point.scale(1.0))
    torch.testing.assert_close(layer.lora_B["default"].weight[:, 0], 40 * unknown)


def test_progress_counts_matrices() -> None:
    seen: list[float] = []
    base = torch.randn(8, 8, generator=generator())
    find_intruders([Matrix("a", base, base), Matrix("b", base, base)], progress=seen.append)
    assert seen == [1, 2]

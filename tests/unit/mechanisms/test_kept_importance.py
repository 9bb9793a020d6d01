"""Importances of a job: estimated once, kept in its directory, added to those of an earlier phase."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import forgetless.mechanisms.kept_importance as kept_importance
from conftest import build_model
from forgetless.errors import ConfigError, DataError
from forgetless.mechanisms.fisher import Importance, load_fisher, save_fisher
from forgetless.mechanisms.kept_importance import estimate_kept_importance
from language_models import wrap
from training import context

OPTIONS: dict[str, Any] = {
    "name": "ewc",
    "kind": "sampled",
    "data": "general",
    "num_sequences": 4,
    "dtype": "float32",
}


def estimate(model: Any = None, directory: Path | None = None, *, seed: int = 0, **options: Any) -> Any:
    job = replace(context(), directory=directory, seed=seed)
    model = model or build_model()
    return estimate_kept_importance(model, job, **{**OPTIONS, **options})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the estimates that were made."""
    made: list[str] = []
    for name in ("estimate_fisher", "estimate_sensitivity"):
        original = getattr(kept_importance, name)

        def counted(*args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
            made.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(kept_importance, name, counted)
    return made


def test_the_same_estimate_is_made_once(tmp_path: Path, calls: list[str]) -> None:
    first, again = (estimate(directory=tmp_path) for _ in range(2))
    assert calls == ["estimate_fisher"]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first.num_sequences == again.num_sequences == 4


@pytest.mark.parametrize(
    "change", [{"num_sequences": 5}, {"kind": "empirical"}, {"kind": "mas"}, {"dtype": "bfloat16"}, {"model": "other"}]
)
def test_another_estimate_is_not_taken_for_it(change: dict[str, Any], tmp_path: Path, calls: list[str]) -> None:
    estimate(directory=tmp_path)
    changed = dict(change)
    model: Any = build_model(seed=1 if changed.pop("model", None) else 0)
    found = estimate(model, tmp_path, **changed)
    assert len(calls) == 2
    assert all(value.dtype == getattr(torch, change.get("dtype", "float32")) for value in found.values())


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "ewc.safetensors").write_text("cut off")
    found = estimate(directory=tmp_path)
    assert torch.equal(load_fisher(tmp_path / "ewc.safetensors")["lm_head.weight"], found["lm_head.weight"])


def test_an_earlier_phase_is_added_with_its_decay(tmp_path: Path, calls: list[str]) -> None:
    alone = estimate(directory=tmp_path / "first")
    previous = tmp_path / "first" / "ewc.safetensors"
    both = estimate(directory=tmp_path / "second", previous=previous, decay=0.5)
    again = estimate(directory=tmp_path / "second", previous=previous, decay=0.5)
    assert len(calls) == 2
    for name, value in alone.items():
        assert torch.allclose(both[name], 1.5 * value)
        assert torch.equal(both[name], again[name])
    third = estimate(previous=tmp_path / "second" / "ewc.safetensors", decay=0.5)
    assert torch.allclose(third["lm_head.weight"], 1.75 * alone["lm_head.weight"])


def test_names_are_those_of_the_model_without_wrappers() -> None:
    assert set(estimate(wrap(build_model()))) == {f"model.layers.{n}.self_attn.q_proj.weight" for n in (0, 1)}


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no tokenizer"):
        estimate_kept_importance(build_model(), replace(context(), tokenizer=None), **OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="can't be read"):
        estimate(previous=tmp_path / "missing.safetensors")
    estimate(wrap(build_model()), tmp_path)
    with pytest.raises(ConfigError, match=r"no importance of 'model.embed_tokens.weight'"):
        estimate(previous=tmp_path / "ewc.safetensors")
    with pytest.raises(ConfigError, match="of kind 'fisher-sampled', not 'mas'"):
        estimate(previous=tmp_path / "ewc.safetensors", kind="mas")
    save_fisher({"a": torch.ones(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(ConfigError, match="of kind 'unknown'"):
        estimate(previous=tmp_path / "plain.safetensors")


def test_an_estimate_of_the_users_own_may_have_names_with_wrappers(tmp_path: Path) -> None:
    alone = estimate(wrap(build_model()))
    wrapped = {f"base_model.model.{name.replace('.weight', '.base_layer.weight')}": v for name, v in alone.items()}
    save_fisher(Importance(wrapped, num_sequences=alone.num_sequences, kind=alone.kind), tmp_path / "own.safetensors")
    both = estimate(wrap(build_model()), previous=tmp_path / "own.safetensors")
    for name, value in alone.items():
        assert torch.allclose(both[name], 2 * value)


def test_weights_below_an_adapter_that_are_quantised_are_refused() -> None:
    model = wrap(build_model())
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj.base_layer")
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ConfigError, match=r"method 'ewc' needs gradients.*quantised ones don't have: use l2_sp"):
        estimate(model)


def test_more_draws_are_less_noisy() -> None:
    one, many = estimate(), estimate(num_draws=40)
    assert many.num_sequences == one.num_sequences
    first, second = (estimate(seed=seed, num_draws=40)["lm_head.weight"] for seed in (1, 2))
    single, other = (estimate(seed=seed)["lm_head.weight"] for seed in (1, 2))
    assert (first - second).norm() < (single - other).norm() / 3  # 1 / sqrt(40) is 1 / 6

"""OSF: the change of the weights stays out of the frozen directions, and what was trained is what is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model, build_tokenizer
from forgetless.config import TrainingConfig
from forgetless.errors import ConfigError, RunError
from forgetless.mechanisms.adapters import is_base_behind_adapter
from forgetless.methods.base import Context, Method
from forgetless.methods.mofo import MoFO
from forgetless.methods.osf import OSF
from forgetless.train.trainer import train_model
from training import mixture

IDS = torch.arange(20)[None]


class Unprojected(OSF):
    """OSF as PEFT has it: gradients are projected, weights aren't."""

    def after_step(self, model: Any) -> None:
        """Leaves the weights where the optimizer put them."""

    def finish(self, model: Any) -> Any:
        return model


class Kept(OSF):
    """OSF that isn't merged, so that its factors can be looked at."""

    def finish(self, model: Any) -> Any:
        return model


def adapt(method: OSF, dtype: torch.dtype = torch.float32) -> Any:
    model: Any = build_model()
    return method.prepare_model(model.to(dtype), Context())


def train(model: Any, methods: list[Method], directory: Path) -> Any:
    config = TrainingConfig(batch_size=4, max_steps=6, logging_steps=1)
    return train_model(
        model,
        build_tokenizer(),
        mixture([]),
        methods=methods,
        config=config,
        learning_rate=5e-3,
        seed=0,
        directory=directory,
    )[0]


def leak(model: Any, frozen_share: float = 0.5) -> float:
    """Returns the share of the norm of the weights' change that touches frozen directions."""
    from peft.tuners.osf.layer import OSFLayer

    outside, whole = 0.0, 0.0
    layers: list[Any] = [module for module in model.modules() if isinstance(module, OSFLayer)]
    for layer in layers:
        weight = layer.get_base_layer().weight.double()
        change = layer.get_delta_weight("default").detach().double()
        left, _, right = torch.linalg.svd(weight, full_matrices=False)
        num = int(min(weight.shape) * frozen_share)
        left, right = left[:, :num], right[:num]
        kept = change - left @ (left.T @ change)
        kept = kept - (kept @ right.T) @ right
        outside += float((change - kept).square().sum())
        whole += float(change.square().sum())
    return float((outside / whole) ** 0.5)


def test_projected_gradients_leak_under_adam_and_projected_weights_do_not(tmp_path: Path) -> None:
    only_gradients, both = Unprojected(), Kept()
    assert leak(train(adapt(only_gradients), [only_gradients], tmp_path / "gradients")) > 0.1
    assert leak(train(adapt(both), [both], tmp_path / "weights")) < 1e-5


def test_a_filter_of_updates_beside_it_opens_no_frozen_direction(tmp_path: Path) -> None:
    osf, filtered = Kept(), MoFO(fraction=0.5)
    assert leak(train(adapt(osf), [osf, filtered], tmp_path)) < 1e-5


def test_half_precision_weights_leak_no_more(tmp_path: Path) -> None:
    method = Kept()
    adapted = adapt(method, torch.bfloat16)
    base: Any = build_model()
    with torch.no_grad():
        start = (adapted(input_ids=IDS).logits - base.to(torch.bfloat16)(input_ids=IDS).logits).abs().max()
    assert start == 0
    trained = train(adapted, [method], tmp_path)
    assert leak(trained) < 1e-5


def test_it_starts_as_the_base_and_the_base_stays_behind_it(tmp_path: Path) -> None:
    method = Kept()
    adapted, base = adapt(method), build_model()
    with torch.no_grad():
        wanted = base(input_ids=IDS).logits  # type: ignore[operator]
        assert torch.allclose(adapted(input_ids=IDS).logits, wanted, atol=1e-5)
    trained = train(adapted, [method], tmp_path)
    assert is_base_behind_adapter(trained)
    with torch.no_grad(), trained.disable_adapter():
        assert torch.equal(trained(input_ids=IDS).logits, wanted)


def test_what_is_finished_is_what_was_trained(tmp_path: Path) -> None:
    method = Kept()
    trained = train(adapt(method), [method], tmp_path)
    with torch.no_grad():
        wanted = trained(input_ids=IDS).logits
        finished: Any = OSF().finish(trained)
        assert not hasattr(finished, "peft_config")
        base: Any = build_model()
        assert torch.allclose(finished(input_ids=IDS).logits, wanted, atol=1e-5)
        assert not torch.allclose(base(input_ids=IDS).logits, wanted, atol=1e-2)


def test_unload_which_would_lose_the_training_is_refused() -> None:
    with pytest.raises(RunError, match="merge_and_unload"):
        adapt(OSF()).unload()


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_the_share_is_that_of_the_directions_that_stay(share: float) -> None:
    layer = adapt(OSF(frozen_share=share)).base_model.model.model.layers[0].mlp.up_proj
    assert layer.osf_svd_params["default"]["S_low"].numel() == round((1 - share) * 32)


def test_a_share_that_freezes_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method 'osf' cannot be put on this model"):
        adapt(OSF(frozen_share=0.01))


def test_quantised_weights_are_refused() -> None:
    model: Any = build_model()
    model.hf_quantizer = object()
    with pytest.raises(ConfigError, match="quantised"):
        OSF().prepare_model(model, Context())

"""Trainers that methods can't be attached to: each is refused in one sentence, with the way out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless import L2SP, LoRA, Replay, protect
from forgetless.errors import ConfigError
from forgetless.methods import METHODS
from forgetless.methods.base import Method
from forgetless.train.guards import _ACTS_IN
from forgetless.train.protection import _Protected
from trainers import ClosedPull, Pull, Shrink, Weighing, encoded_rows, plain_trainer, sft_trainer, trained, weights_of
from training import are_equal


def refusal(trainer: Any, methods: list[Any]) -> str:
    """Returns the message of a refusal, which leaves the trainer as it was."""
    kind, model, before = type(trainer), trainer.model, weights_of(trainer)
    with pytest.raises(ConfigError) as caught:
        protect(trainer, methods)
    assert type(trainer) is kind
    assert trainer.model is model
    assert are_equal(weights_of(trainer), before)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_methods_that_change_data_are_refused_with_the_way_out(tmp_path: Path) -> None:
    message = refusal(plain_trainer(tmp_path), [Replay()])
    assert "forgetless.replay_mixture" in message
    assert "forgetless.generate_replay" in message


@pytest.mark.parametrize(
    ("build", "changes", "cause"),
    [
        (plain_trainer, {"label_smoothing_factor": 0.1}, "label_smoothing_factor to 0"),
        (plain_trainer, {"options": {"compute_loss_func": lambda *_, **__: 0}}, "compute_loss_func"),
        (sft_trainer, {"loss_type": "dft"}, "loss_type='nll'"),
    ],
)
def test_tokens_of_another_loss_are_not_weighed(
    build: Any, changes: dict[str, Any], cause: str, tmp_path: Path
) -> None:
    assert cause in refusal(build(tmp_path, **changes), [Weighing()])
    protect(build(tmp_path, **changes), [Pull(), ClosedPull(), Shrink()])


def test_an_encoder_decoder_and_spread_sequences_are_not_weighed(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    trainer.model.config.is_encoder_decoder = True
    assert "encoder-decoder" in refusal(trainer, [Weighing()])
    trainer = plain_trainer(tmp_path)
    trainer.accelerator.state.parallelism_config = SimpleNamespace(cp_enabled=True, sp_enabled=False)
    assert "parallelism" in refusal(trainer, [Weighing()])


@pytest.mark.parametrize("method", [ClosedPull(), Shrink()])
def test_deepspeed_and_flattened_weights_are_refused(
    method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = plain_trainer(tmp_path)
    trainer.is_deepspeed_enabled = True
    assert "use FSDP 2 or DDP" in refusal(trainer, [method])
    trainer.is_deepspeed_enabled, trainer.is_fsdp_enabled = False, True
    monkeypatch.setattr(trainer.accelerator.state, "fsdp_plugin", SimpleNamespace(fsdp_version=1), raising=False)
    assert "set fsdp_version to 2" in refusal(trainer, [method])
    trainer.accelerator.state.fsdp_plugin.fsdp_version = 2
    protect(trainer, [method])


@pytest.mark.parametrize("name", ["a_gem", "osf", "corda"])
def test_methods_of_whole_weights_are_refused_under_sharding(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = plain_trainer(tmp_path)
    trainer.is_fsdp_enabled = True
    monkeypatch.setattr(trainer.accelerator.state, "fsdp_plugin", SimpleNamespace(fsdp_version=2), raising=False)
    assert "use DDP" in refusal(trainer, [METHODS.load(name)()])


def test_deepspeed_takes_penalties(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    trainer.is_deepspeed_enabled = True
    protect(trainer, [Pull(), Weighing()])


def test_a_wrapped_model_is_refused(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    trainer.model = torch.nn.parallel.DataParallel(trainer.model)
    assert "wrapped already (DataParallel)" in refusal(trainer, [Pull()])


def test_a_process_that_will_be_sent_its_weights_is_refused_where_methods_need_them(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    trainer.model.to("meta")
    with pytest.raises(ConfigError, match="set fsdp_cpu_ram_efficient_loading to false"):
        protect(trainer, [LoRA()])
    protect(trainer, [Pull()])


def test_a_model_that_accelerate_has_prepared_alone_is_still_itself(tmp_path: Path) -> None:
    from accelerate import Accelerator

    model: Any = Accelerator(cpu=True).prepare(build_model())
    assert are_equal(
        trained(protect(plain_trainer(tmp_path, model=model), [Pull()])),
        trained(protect(plain_trainer(tmp_path), [Pull()])),
    )


def test_a_trainer_that_has_trained_in_a_wrapper_is_refused_where_the_model_would_change(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    trainer.model_wrapped = torch.nn.Identity()
    assert "has trained already" in refusal(trainer, [LoRA()])


def test_a_model_that_is_made_when_training_starts_is_refused(tmp_path: Path) -> None:
    from transformers import Trainer

    from trainers import settings as options

    model: Any = build_model()

    def build() -> Any:
        from transformers import TrainingArguments

        arguments = TrainingArguments(**options(tmp_path))
        return Trainer(args=arguments, model_init=lambda: model, train_dataset=encoded_rows())

    assert "model_init makes a new model" in refusal(build(), [LoRA()])
    protect(build(), [Pull()])


class Gate(Method):
    """Trains one weight more."""

    name = "gate"
    title = "For tests"
    paper = "https://example.org"

    def prepare_model(self, model: Any, context: Any) -> Any:
        model.gate = torch.nn.Parameter(torch.zeros(1))
        return model


def test_an_optimizer_over_other_weights_is_refused(tmp_path: Path) -> None:
    model: Any = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    trainer = plain_trainer(tmp_path, model=model, options={"optimizers": (optimizer, None)})
    assert "pass optimizer_cls_and_kwargs=" in refusal(trainer, [LoRA(rank=2)])
    trained(protect(trainer, [Pull()]))
    with pytest.raises(ConfigError, match="optimizer lacks 1 parameters"):
        protect(plain_trainer(tmp_path, model=model, options={"optimizers": (optimizer, None)}), [Gate()])
    options = {"optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 1e-2})}
    trained(protect(plain_trainer(tmp_path, options=options), [LoRA(rank=2)]))


def test_an_optimizer_that_leaves_weights_out_on_purpose_is_taken(tmp_path: Path) -> None:
    model: Any = build_model()
    optimizer = torch.optim.SGD(model.lm_head.parameters(), lr=1e-2)
    trainer = plain_trainer(tmp_path, model=model, options={"optimizers": (optimizer, None)})
    trained(protect(trainer, [L2SP()]))


def test_optimizers_that_step_within_the_backward_pass_are_refused(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    for name in ("galore_adamw_layerwise", "lomo", "adalomo"):
        trainer.args.optim = name
        assert "steps within the backward pass" in refusal(trainer, [L2SP()])
        protect(plain_trainer(tmp_path), [Pull()])


def test_gradients_that_are_used_up_are_missed_at_the_first_step(tmp_path: Path) -> None:
    trainer = protect(plain_trainer(tmp_path), [L2SP()])
    model: Any = trainer.model
    for parameter in model.parameters():  # the tutorial's "optimizer step in backward"
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    with pytest.raises(ConfigError, match="no gradients after the backward pass, which method 'l2_sp' changes"):
        trainer.train()


@pytest.mark.parametrize("name", ["training_step", "compute_loss", "log"])
def test_a_function_that_was_set_on_the_trainer_itself_is_refused_where_methods_act(name: str, tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    setattr(trainer, name, getattr(trainer, name))
    assert f"{name} was set on the trainer object itself" in refusal(trainer, [LoRA(rank=2), Pull()])
    protect(trainer, [LoRA(rank=2)])


def test_every_function_of_a_protected_trainer_is_known_to_be_one_that_can_be_hidden() -> None:
    own = {name for name, value in vars(_Protected).items() if callable(value)}
    called_by_us = {"_own_loss", "_penalty", "_is_scaled", "_adjust_gradients"}
    assert own - called_by_us == set(_ACTS_IN)

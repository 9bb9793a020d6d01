"""WiSE-FT: where it ends, for whole weights and for every adapter whose change is a product."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless.curve import Point
from forgetless.errors import ConfigError, RunError
from forgetless.methods import METHODS
from forgetless.methods.base import Method, build_method, refuse_conflicts
from forgetless.methods.lora import LoRA
from forgetless.methods.osf import OSF
from forgetless.methods.wise_ft import WiSEFT
from forgetless.repair.paths import AdapterPath
from forgetless.train.protection import protect
from trainers import plain_trainer, trained
from training import GENERAL, context, fit

IDS = torch.arange(20)[None]
START: dict[str, torch.Tensor] = build_model().state_dict()  # type: ignore[attr-defined]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(IDS).logits
    return found


def distance(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    return max(float((weights[name] - expected[name]).abs().max()) for name in expected)


def test_whole_weights_end_between_start_and_end(tmp_path: Path) -> None:
    end = fit([], tmp_path / "plain")
    for share in (0.0, 0.25, 0.5):
        found = fit([WiSEFT(share=share)], tmp_path / str(share))
        assert distance(found, {name: torch.lerp(START[name], end[name], share) for name in START}) < 1e-6


def test_the_steps_themselves_are_those_of_plain_fine_tuning(tmp_path: Path) -> None:
    fit([WiSEFT()], tmp_path / "wise")
    fit([], tmp_path / "plain")
    losses = [(tmp_path / name / "train.jsonl").read_text().split('"loss": ')[1:] for name in ("wise", "plain")]
    assert [text.split(",")[0] for text in losses[0]] == [text.split(",")[0] for text in losses[1]]


@pytest.mark.parametrize(
    "names",
    [
        ["lora", "wise_ft"],
        ["wise_ft", "lora"],
        ["lora", "l2_sp", "wise_ft"],
        ["corda", "wise_ft"],
        ["null_space", "wise_ft"],
        ["freeze_bottom", "wise_ft"],
        ["wise_ft", "freeze_bottom"],
        ["half", "wise_ft"],
    ],
    ids="-".join,
)
def test_at_share_zero_the_model_is_the_base_whatever_trained_it(names: list[str], tmp_path: Path) -> None:
    methods = [WiSEFT(share=0.0) if name == "wise_ft" else build_method(METHODS.load, name) for name in names]
    trainer = protect(plain_trainer(tmp_path), methods, general=GENERAL)
    trained(trainer)
    assert torch.allclose(logits(trainer.model), logits(build_model()), atol=1e-5)


def test_an_adapter_ends_where_the_walk_of_a_budget_would_take_it(tmp_path: Path) -> None:
    models = []
    for methods in ([LoRA(rank=4)], [LoRA(rank=4), WiSEFT(share=0.3)]):
        trainer: Any = protect(plain_trainer(tmp_path / str(len(methods))), methods)
        trained(trainer)
        models.append(trainer.model)
    AdapterPath(models[0]).move(Point.scale(0.3))
    walked, found = models[0].state_dict(), models[1].state_dict()
    assert all(torch.equal(walked[name], found[name]) for name in walked)


@pytest.mark.parametrize(
    "methods", [["wise_ft"], ["lora", "wise_ft"], ["osf"], [{"half": {"steps_per_round": 1}}, "wise_ft"]], ids=str
)
def test_a_look_during_the_training_sees_what_would_be_saved(methods: list[Any], tmp_path: Path) -> None:
    from transformers import TrainerCallback

    built = [build_method(METHODS.load, name) for name in methods]

    class Look(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            trained_to = {name: p.detach().clone() for name, p in model.named_parameters()}
            with ExitStack() as stack:
                for method in built:
                    stack.enter_context(method.as_finished(model))
                self.seen = logits(model)
            assert all(torch.equal(trained_to[name], p) for name, p in model.named_parameters())

    look = Look()
    trainer: Any = protect(plain_trainer(tmp_path, options={"callbacks": [look]}), built)
    trained(trainer)
    assert torch.allclose(look.seen, logits(trainer.model), atol=1e-5)


def test_no_copy_is_kept_for_an_adapter() -> None:
    method = WiSEFT()
    adapted = LoRA(rank=2).prepare_model(build_model(), context())  # type: ignore[arg-type]
    method.prepare_model(adapted, context())
    assert method.starts_ == {}
    method = WiSEFT(share=1.0)
    method.prepare_model(build_model(), context())  # type: ignore[arg-type]
    assert method.starts_ == {}


def test_half_precision_is_interpolated_in_float32() -> None:
    model: Any = build_model().to(torch.bfloat16)  # type: ignore[attr-defined]
    method = WiSEFT(share=0.3)
    method.prepare_model(model, context())
    start = {name: tensor.float() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    end = {name: tensor.float() for name, tensor in model.state_dict().items()}
    method.finish(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, torch.lerp(start[name], end[name], 0.3).to(torch.bfloat16))


def test_an_adapter_that_was_trained_before_is_refused() -> None:
    adapted: Any = LoRA(rank=2).prepare_model(build_model(), context())  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    with pytest.raises(ConfigError, match="merge the adapter first"):
        WiSEFT().prepare_model(adapted, context())


def test_what_is_no_product_is_refused_in_one_sentence() -> None:
    adapted: Any = LoRA(rank=2, variant="dora").prepare_model(build_model(), context())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"DoRA.* isn't W \+ scale \* B A"):
        WiSEFT().prepare_model(adapted, context())
    with pytest.raises(ConfigError, match="both claim the final weights"):
        refuse_conflicts([OSF(), WiSEFT()])


class Gate(Method):
    """Trains one weight more."""

    name = "gate"

    def prepare_model(self, model: Any, context: Any) -> Any:
        model.gate = torch.nn.Parameter(torch.zeros(1))
        return model


def test_a_weight_whose_start_was_not_seen_is_refused_before_the_first_step(tmp_path: Path) -> None:
    trainer = protect(plain_trainer(tmp_path), [WiSEFT(), Gate()])
    with pytest.raises(ConfigError, match="name it after the methods that add or unfreeze parameters"):
        trainer.train()


def test_the_trainer_trains_no_further(tmp_path: Path) -> None:
    trainer = protect(plain_trainer(tmp_path), [WiSEFT()])
    trainer.train()
    with pytest.raises(RunError, match="'wise_ft' has made the final model"):
        trainer.train()


def test_a_training_that_was_complete_when_it_was_killed_ends_at_the_same_point(tmp_path: Path) -> None:
    whole = fit([WiSEFT()], tmp_path, save_steps=2)
    again = fit([WiSEFT()], tmp_path, save_steps=2)  # from the last checkpoint, which holds the weights unscaled
    assert all(torch.equal(whole[name], again[name]) for name in whole)

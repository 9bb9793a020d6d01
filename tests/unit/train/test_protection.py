"""Methods attached to trainers of the user's own: what is folded where, and what survives a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, LoHaConfig, LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file

from conftest import build_model
from forgetless import L2SP, LoRA, protect
from forgetless.errors import ConfigError, RunError
from forgetless.methods.base import Method
from forgetless.quiet import quiet_transformers
from forgetless.train.states import digest_start
from trainers import (
    ClosedPull,
    Pull,
    Shrink,
    Watching,
    Weighing,
    every_hook,
    largest_difference,
    logged,
    plain_trainer,
    sft_trainer,
    trained,
    weights_of,
)
from training import are_equal, context

TRAINERS = pytest.mark.parametrize("build", [plain_trainer, sft_trainer])
NAME = "model.layers.0.self_attn.q_proj"


@TRAINERS
def test_without_methods_nothing_changes(build: Any, tmp_path: Path) -> None:
    protected, plain = build(tmp_path / "protected"), build(tmp_path / "plain")
    kind = type(protected)
    assert protect(protected, []) is protected
    assert isinstance(protected, kind)
    assert are_equal(trained(protected), trained(plain))
    timed = ("runtime", "per_second")
    histories = [
        [{key: value for key, value in record.items() if not key.endswith(timed)} for record in one.state.log_history]
        for one in (protected, plain)
    ]
    assert histories[0] == histories[1]


@TRAINERS
def test_an_adapter_can_be_attached_under_every_kind_of_checkpointing(build: Any, tmp_path: Path) -> None:
    base: Any = build_model().state_dict()  # type: ignore[attr-defined]
    found = []
    for kwargs in ({}, {"activation_checkpointing_kwargs": {"use_reentrant": True}}):
        trainer: Any = protect(build(tmp_path, activation_checkpointing=bool(kwargs), **kwargs), [LoRA(rank=2)])
        weights = trained(trainer)
        assert torch.equal(weights[f"base_model.model.{NAME}.base_layer.weight"], base[f"{NAME}.weight"])
        assert weights[f"base_model.model.{NAME}.lora_B.default.weight"].abs().sum() > 0
        found.append(weights)
    assert largest_difference(*found) < 1e-5


@TRAINERS
def test_a_resumed_training_with_every_hook_is_an_uninterrupted_one(build: Any, tmp_path: Path) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole: Any = protect(build(tmp_path, **options), [LoRA(rank=2), *every_hook()])
    weights = trained(whole)
    assert load_file(tmp_path / "checkpoint-2" / "forgetless_shrink.safetensors")["steps"] == 2
    methods = every_hook()
    resumed: Any = protect(build(tmp_path, **options), [LoRA(rank=2), *methods])
    assert are_equal(trained(resumed, resume_from_checkpoint=str(tmp_path / "checkpoint-2")), weights)
    assert next(method for method in methods if isinstance(method, Shrink)).steps_ == 4
    assert logged(resumed, "penalty/pull") == logged(whole, "penalty/pull")
    assert logged(resumed, "share/closed_pull") == logged(whole, "share/closed_pull")


def test_the_state_of_methods_is_written_before_a_checkpoint_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer: Any = protect(plain_trainer(tmp_path, save_strategy="steps", save_steps=2), [Shrink()])
    monkeypatch.setattr(type(trainer).__mro__[2], "_save_checkpoint", _killed)
    with pytest.raises(KeyboardInterrupt):
        trained(trainer)
    assert [path.name for path in (tmp_path / "checkpoint-2").iterdir()] == ["forgetless_shrink.safetensors"]


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_checkpoint_without_the_state_of_a_method_is_refused(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 3}
    trained(plain_trainer(tmp_path, **options))
    with pytest.raises(RunError, match="no state of method 'shrink'"):
        protect(plain_trainer(tmp_path, **options), [Shrink()]).train(resume_from_checkpoint=True)
    trained(protect(plain_trainer(tmp_path, **options), [Pull()]), resume_from_checkpoint=True)  # which keeps none


def test_an_optimizer_step_that_was_skipped_is_followed_by_no_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Shrink()
    trainer: Any = protect(plain_trainer(tmp_path), [method])
    monkeypatch.setattr(type(trainer.accelerator), "optimizer_step_was_skipped", True)
    trained(trainer)
    assert method.steps_ == 0


class Scaler:
    """Stands for the scaler of half precision: gradients arrive 1 024 times too large."""

    def get_scale(self) -> float:
        return 1024.0

    def is_enabled(self) -> bool:
        return True


def test_gradients_are_changed_in_their_true_scale(tmp_path: Path) -> None:
    trainer: Any = protect(plain_trainer(tmp_path), [ClosedPull()])
    trainer.accelerator.scaler = Scaler()
    before = {}
    for name, parameter in trainer.model.named_parameters():
        parameter.grad = torch.full_like(parameter, 1024.0)
        before[name] = parameter.detach().clone()
    trainer._adjust_gradients(trainer.users["adjust_gradients"])
    for name, parameter in trainer.model.named_parameters():
        assert torch.allclose(parameter.grad, 1024 * (1 + before[name]))


def test_penalties_are_logged_with_training_and_not_with_evaluation(tmp_path: Path) -> None:
    options: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "logging_steps": 2, "max_steps": 4}
    rows = sft_trainer(tmp_path).train_dataset
    trainer: Any = protect(sft_trainer(tmp_path, options={"eval_dataset": rows}, **options), [Pull(), ClosedPull()])
    trained(trainer)
    trainings = [record for record in trainer.state.log_history if "loss" in record]
    evaluations = [record for record in trainer.state.log_history if "eval_loss" in record]
    assert [record["step"] for record in trainings] == [2, 4]
    assert len(evaluations) == 4
    for name in ("pull", "closed_pull"):
        assert all(f"penalty/{name}" in record and f"share/{name}" in record for record in trainings)
    assert not any("/" in key for record in evaluations for key in record)
    # The penalties are tens of nats here; the loss of an evaluation is the task's alone.
    assert max(record["eval_loss"] for record in evaluations) < 6 < min(record["loss"] for record in trainings)
    plain = sft_trainer(tmp_path, options={"eval_dataset": rows}, model=trainer.model)
    assert plain.evaluate()["eval_loss"] == pytest.approx(evaluations[-1]["eval_loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"logging_strategy": "epoch", "max_steps": 8}, [4, 8]),
        ({"logging_strategy": "no"}, []),
        ({"logging_steps": 2, "logging_first_step": True}, [1, 2]),
        ({"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}, []),
    ],
)
def test_shares_are_measured_where_they_are_logged(options: dict[str, Any], steps: list[int], tmp_path: Path) -> None:
    trainer: Any = protect(plain_trainer(tmp_path, **options), [Pull()])
    trained(trainer)
    assert [record["step"] for record in trainer.state.log_history if "share/pull" in record] == steps


def test_trackers_see_what_is_logged(tmp_path: Path) -> None:
    from transformers import TrainerCallback

    seen: list[dict[str, float]] = []

    class Tracker(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            seen.append(dict(logs))

    trained(protect(plain_trainer(tmp_path, options={"callbacks": [Tracker()]}), [Pull()]))
    assert seen[0]["penalty/pull"] > 0
    assert 0 < seen[0]["share/pull"] < 1


def test_training_twice_goes_on_from_the_first(tmp_path: Path) -> None:
    protected = protect(plain_trainer(tmp_path), [])
    plain = plain_trainer(tmp_path)
    for _ in range(2):
        assert are_equal(trained(protected), trained(plain))
    counting = CountingOptimizers()
    method = Shrink()
    twice: Any = protect(plain_trainer(tmp_path), [method, counting])
    trained(twice)
    trained(twice)
    assert method.steps_ == 4
    assert counting.optimizers_ == (torch.optim.AdamW,)


class CountingOptimizers(Method):
    """Notes the optimizers that it is shown."""

    name = "counting"
    title = "For tests"
    paper = "https://example.org"

    optimizers_: tuple[type, ...] = ()

    def prepare_optimizer(self, optimizer: torch.optim.Optimizer, model: Any) -> None:
        self.optimizers_ += (type(optimizer),)


def test_the_users_own_optimizer_is_shown_once(tmp_path: Path) -> None:
    model: Any = build_model()
    method = CountingOptimizers()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    trainer = plain_trainer(tmp_path, model=model, options={"optimizers": (optimizer, None)})
    trained(protect(trainer, [method]))
    assert method.optimizers_ == (torch.optim.SGD,)


class Merge(Method):
    """Ends with another model than was trained."""

    name = "merge"
    title = "For tests"
    paper = "https://example.org"

    def finish(self, model: Any) -> Any:
        return model.merge_and_unload()


class Double(Method):
    """Ends with the same model, its weights doubled."""

    name = "double"
    title = "For tests"
    paper = "https://example.org"

    def finish(self, model: Any) -> Any:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        return model


def test_what_methods_finish_is_what_is_saved(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    trainer: Any = protect(plain_trainer(tmp_path / "run"), [LoRA(rank=2), Merge()])
    weights = trained(trainer)
    trainer.save_model(str(tmp_path / "saved"))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert are_equal(dict(saved.state_dict()), weights)
    assert trainer.evaluate(eval_dataset=trainer.train_dataset)["eval_loss"] > 0
    with pytest.raises(RunError, match="'merge' has made the final model"):
        trainer.train()
    doubled: Any = protect(plain_trainer(tmp_path / "run"), [Double()])
    once = trained(doubled)
    assert not are_equal(trained(doubled), once)


def test_the_best_model_is_loaded_before_methods_finish_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    rows = plain_trainer(tmp_path).train_dataset
    trainer: Any = protect(
        plain_trainer(tmp_path, load_best_model_at_end=True, options={"eval_dataset": rows}, **options),
        [Pull(), Watching(), Double()],
    )
    weights = trained(trainer)
    best = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    assert all(torch.equal(weights[name], 2 * tensor) for name, tensor in best.items())
    assert json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())["global_step"] == 2


def test_a_trainer_is_protected_once(tmp_path: Path) -> None:
    trainer = protect(plain_trainer(tmp_path), [])
    with pytest.raises(ConfigError, match="protected already"):
        protect(trainer, [])


def test_methods_get_what_they_lack_from_the_call(tmp_path: Path) -> None:
    from forgetless.methods.kl import KLToBase

    with pytest.raises(ConfigError, match=r"general=\.\.\."):
        protect(plain_trainer(tmp_path), [KLToBase()])
    trainer: Any = protect(plain_trainer(tmp_path), [KLToBase()], general=[{"text": "Water is wet."}])
    trained(trainer)
    assert logged(trainer, "penalty/kl")[-1] > 0


def test_conflicts_are_refused_before_the_model_is_touched(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    before = weights_of(trainer)
    with pytest.raises(ConfigError, match="both claim"):
        protect(trainer, [LoRA(), LoRA()])
    assert are_equal(weights_of(trainer), before)
    adapted = plain_trainer(tmp_path, model=LoRA(rank=2).prepare_model(build_model(), context()))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the model and method 'lora' both claim the adapter"):
        protect(adapted, [LoRA()])


class Silent(Method):
    """Has a penalty that says nothing."""

    name = "silent"
    title = "For tests"
    paper = "https://example.org"

    def penalty(self, step: Any) -> None:
        return None


def test_a_penalty_that_says_nothing_changes_nothing(tmp_path: Path) -> None:
    trainer: Any = protect(plain_trainer(tmp_path), [Silent()])
    assert are_equal(trained(trainer), trained(plain_trainer(tmp_path)))
    assert not any("/" in key for record in trainer.state.log_history for key in record)


@pytest.mark.parametrize("is_scaled", [True, False])
def test_a_trainer_that_says_how_its_loss_is_scaled_is_believed(is_scaled: bool, tmp_path: Path) -> None:
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    trainer: Any = protect(plain_trainer(tmp_path, **split), [Pull()])
    trainer.loss_is_scaled_for_ga = is_scaled
    trained(trainer)
    plain: Any = plain_trainer(tmp_path, **split)
    plain.loss_is_scaled_for_ga = is_scaled
    trained(plain)
    task = logged(plain, "loss")[0]
    assert logged(trainer, "loss")[0] == pytest.approx(task + logged(trainer, "penalty/pull")[0], rel=1e-5)


@pytest.mark.parametrize("methods", [lambda: [L2SP()], lambda: [LoRA(rank=2), L2SP()]])
def test_a_training_that_began_at_other_weights_is_not_gone_on_with(methods: Any, tmp_path: Path) -> None:
    """The model of the checkpoint, say, which a script loads by mistake: penalties would hold to that one."""
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    weights = trained(protect(plain_trainer(tmp_path, **options), methods()))
    last: Any = {"resume_from_checkpoint": str(tmp_path / "checkpoint-2")}
    assert are_equal(trained(protect(plain_trainer(tmp_path, **options), methods()), **last), weights)
    other: Any = build_model()
    with torch.no_grad():
        other.lm_head.weight[0, 0] += 1e-3
    with pytest.raises(RunError, match="began at other weights"):
        protect(plain_trainer(tmp_path, model=other, **options), methods()).train(**last)


ADAPTERS: dict[str, Any] = {
    "lora": lambda: LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"]),
    "orthogonal": lambda: LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="orthogonal"),
    "adalora": lambda: AdaLoraConfig(init_r=2, total_step=4, target_modules=["q_proj"]),
    "loha": lambda: LoHaConfig(r=2, target_modules=["q_proj"]),
    "prompt": lambda: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_that_is_drawn_anew_is_no_other_start(kind: str) -> None:
    digests: list[torch.Tensor] = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        base: Any = build_model()
        with quiet_transformers():
            adapted: Any = get_peft_model(base, ADAPTERS[kind]())
        digests.append(digest_start(adapted))
    assert torch.equal(*digests)
    with torch.no_grad():
        adapted.get_parameter(next(name for name, _ in adapted.named_parameters() if "up_proj" in name)).mul_(1.01)
    assert not torch.equal(digests[1], digest_start(adapted))


@pytest.mark.parametrize("factor", ["lora_B", "lora_embedding_A"])
def test_an_adapter_that_was_trained_is_another_start(factor: str) -> None:
    base: Any = build_model()
    with quiet_transformers():
        adapted: Any = get_peft_model(base, ADAPTERS["lora"]())
    before = digest_start(adapted)
    with torch.no_grad():
        next(parameter for name, parameter in adapted.named_parameters() if factor in name).normal_()
    assert not torch.equal(before, digest_start(adapted))


class Broken(Method):
    """Fails where it prepares the model."""

    name = "broken"
    title = "For tests"
    paper = "https://example.org"

    def prepare_model(self, model: Any, context: Any) -> Any:
        raise RunError("the disk is full")


def test_a_failure_behind_an_adapter_says_that_the_model_was_changed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^the disk is full$"):
        protect(plain_trainer(tmp_path), [Broken()])
    with pytest.raises(RunError, match=r"the disk is full \(the model was changed meanwhile: load it anew"):
        protect(plain_trainer(tmp_path), [LoRA(rank=2), Broken()])


def test_a_compiled_model_trains_alike_and_measures_no_shares(tmp_path: Path) -> None:
    given: Any = build_model()
    given.compile(backend="aot_eager")
    compiled: Any = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
    trainers = [
        protect(plain_trainer(tmp_path, **options), [Pull(), Weighing()])
        for options in ({"max_steps": 2}, compiled, {"model": given})
    ]
    plain, *others = (trained(trainer) for trainer in trainers)
    for trainer, other in zip(trainers[1:], others, strict=True):
        names = [name.replace("_orig_mod.", "") for name in other]
        assert max(float((plain[a] - b).abs().max()) for a, b in zip(names, other.values(), strict=True)) < 1e-4
        assert len(logged(trainer, "penalty/pull")) == 2
        assert not any("share/pull" in record for record in trainer.state.log_history)

"""The retention monitor in trainers of users' scripts: each policy, resumption, and what it leaves alone."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback

from conftest import build_model, build_tokenizer
from forgetless import KLToBase, LoRA, RetentionMonitor, protect
from forgetless.errors import ConfigError, RunError
from forgetless.train.policies import LOWEST_RATE, scale_rates
from trainers import logged, plain_trainer, sft_trainer, trained, weights_of
from training import are_equal

GENERAL = [{"text": f"Fact {number}: water is wet."} for number in range(12)]
TRAINERS = pytest.mark.parametrize("build", [plain_trainer, sft_trainer])


def monitor(policy: Any = "warn", **options: Any) -> RetentionMonitor:
    """A monitor without a limit of time, which no two machines would agree on."""
    told = {"general": GENERAL, "every": 2, "num_examples": 8, "max_share": 1.0, "tell": lambda _: None}
    return RetentionMonitor(**{**told, "policy": policy, **options})


def watched(trainer: Any, watcher: RetentionMonitor, **options: Any) -> dict[str, torch.Tensor]:
    trainer.add_callback(watcher)
    return trained(trainer, **options)


def with_dropout() -> Any:
    model: Any = build_model()
    model.config.attention_dropout = 0.2
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.2
    return model


@TRAINERS
@pytest.mark.parametrize("adapter", [False, True])
def test_a_monitor_that_warns_changes_no_bit(build: Any, adapter: bool, tmp_path: Path) -> None:
    methods = [LoRA(rank=2, dropout=0.2)] if adapter else []
    plain = trained(protect(build(tmp_path / "plain", model=with_dropout(), max_steps=4), methods))
    trainer = protect(build(tmp_path / "watched", model=with_dropout(), max_steps=4), methods)
    watcher = monitor(budget=10.0)
    assert are_equal(watched(trainer, watcher), plain)
    assert [look.step for look in watcher.looks] == [2, 4]
    assert watcher.looks[-1].kl > 0
    assert watcher.looks[-1].status == "within"
    assert watcher.notes == []
    assert logged(trainer, "retention/kl") == [look.kl for look in watcher.looks]
    assert logged(trainer, "retention/cross_entropy") == [look.cross_entropy for look in watcher.looks]
    assert len(logged(trainer, "loss")) == 4


def test_the_probe_measures_what_transformers_measures(tmp_path: Path) -> None:
    model: Any = build_model()
    base: Any = build_model()
    watcher = monitor(budget=10.0, every=4)
    watched(plain_trainer(tmp_path, model=model, max_steps=4), watcher)
    assert watcher._probe is not None
    losses, divergences = [], []
    for sequence in watcher._probe.sequences:
        ids, labels = torch.tensor([sequence.input_ids]), torch.tensor([sequence.labels])
        with torch.no_grad():
            out, old = model.eval()(input_ids=ids, labels=labels), base(input_ids=ids)
        losses.append(float(out.loss))
        wanted = labels[0, 1:] != -100
        new_log, old_log = (one.logits[0, :-1][wanted].log_softmax(-1) for one in (out, old))
        top, targets = old_log.topk(64).indices, labels[0, 1:][wanted]
        is_absent = (top != targets[:, None]).all(-1)
        top[is_absent, -1] = targets[is_absent]
        parts = [
            torch.cat([one.gather(-1, top), 1 - one.gather(-1, top).sum(-1, keepdim=True)], -1)
            for one in (new_log.exp(), old_log.exp())
        ]
        divergences.append(float((parts[1] * (parts[1] / parts[0]).log()).sum(-1).mean()))
    look = watcher.looks[0]
    assert look.cross_entropy == pytest.approx(np.mean(losses), rel=1e-5)
    assert look.kl == pytest.approx(np.mean(divergences), rel=1e-3)


def test_warn_speaks_once_for_each_crossing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watcher = monitor(budget=1e-3, tell=None)
    with caplog.at_level(logging.WARNING, "forgetless"):
        watched(plain_trainer(tmp_path, max_steps=8), watcher)
    assert [look.status for look in watcher.looks].count("over") > 1
    assert len(watcher.notes) == 1
    assert watcher.notes[0] in caplog.text
    assert "the budget is 0.001; training goes on (policy warn)" in watcher.notes[0]
    assert watcher.summary()["actions"] == [{"step": watcher.looks[0].step, "action": "warned"}]


@TRAINERS
def test_stop_stops_and_keeps_what_is_there(build: Any, tmp_path: Path) -> None:
    trainer: Any = build(tmp_path, max_steps=20)
    watcher = monitor("stop", budget=0.01)
    weights = watched(trainer, watcher)
    step = trainer.state.global_step
    assert 2 < step < 20
    assert [look.status for look in watcher.looks][-1] == "over"
    assert watcher.looks[-1].low > 0.01
    assert watcher.actions == [{"step": step, "action": "stopped"}]
    assert f"step {step}:" in watcher.notes[0]
    same_length = build(tmp_path / "plain", max_steps=step)
    assert are_equal(trained(same_length), weights)


@TRAINERS
@pytest.mark.parametrize("adapter", [False, True])
def test_rollback_restores_the_last_weights_within_the_budget(build: Any, adapter: bool, tmp_path: Path) -> None:
    methods = [LoRA(rank=2)] if adapter else []
    options = {"max_steps": 20, "learning_rate": 5e-2 if adapter else 1e-2}
    trainer: Any = protect(build(tmp_path, **options), methods)
    watcher = monitor("rollback", budget=0.002 if adapter else 0.01, num_examples=12)
    weights = watched(trainer, watcher)
    kept = [look.step for look in watcher.looks if look.status == "within"][-1]
    assert 0 < kept < trainer.state.global_step < 20
    saved = load_file(tmp_path / "retention" / "within_budget.safetensors")
    assert saved
    assert all(torch.equal(weights[name], tensor) for name, tensor in saved.items())
    again = protect(build(tmp_path / "again", **{**options, "max_steps": kept}), methods)
    assert are_equal(trained(again), weights)
    assert watcher.actions[-1]["action"] == f"went back to step {kept}"


def test_a_training_that_was_stopped_is_stopped_again_unless_the_budget_is_larger(tmp_path: Path) -> None:
    options = {"max_steps": 10, "save_strategy": "steps", "save_steps": 1}
    trainer: Any = plain_trainer(tmp_path, **options)
    watched(trainer, monitor("stop", budget=0.01))
    step = trainer.state.global_step
    for budget, last in ((0.01, step + 1), (10.0, 10)):
        again: Any = plain_trainer(tmp_path, **options)
        watched(again, monitor("stop", budget=budget), resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert again.state.global_step == last


def test_rollback_goes_back_to_the_start_where_nothing_else_was_within(tmp_path: Path) -> None:
    trainer: Any = plain_trainer(tmp_path, max_steps=4)
    start = weights_of(trainer)
    assert are_equal(watched(trainer, monitor("rollback", budget=1e-6)), start)


def test_adapt_lowers_the_rate_and_stays_nearer_to_the_budget(tmp_path: Path) -> None:
    free = monitor(budget=0.02)
    watched(plain_trainer(tmp_path / "free", max_steps=20), free)
    trainer: Any = plain_trainer(tmp_path / "held", max_steps=20)
    held = monitor("adapt", budget=0.02)
    watched(trainer, held)
    assert held.looks[-1].rate_factor < 1
    assert 0.01 < held.looks[-1].kl < 0.5 * free.looks[-1].kl
    rates = {record["step"]: record["learning_rate"] for record in trainer.state.log_history if "loss" in record}
    for look in held.looks[:-1]:  # a look's factor holds from the next step on
        assert rates[look.step + 1] == pytest.approx(1e-2 * look.rate_factor)


def test_adapt_says_when_learning_no_longer_fits(tmp_path: Path) -> None:
    trainer: Any = plain_trainer(tmp_path, max_steps=40)
    watcher = monitor("adapt", budget=1e-5)
    watched(trainer, watcher)
    assert trainer.state.global_step == 4
    assert watcher.looks[0].rate_factor == LOWEST_RATE
    assert "learning no longer fits in the budget" in watcher.notes[-1]


def test_adapt_raises_the_strength_of_kl_first_and_gives_it_back(tmp_path: Path) -> None:
    kl = KLToBase(strength=0.5, num_examples=8)
    trainer: Any = protect(plain_trainer(tmp_path, max_steps=12), [kl], general=GENERAL)
    watcher = monitor("adapt", budget=0.02, methods=[kl])
    watched(trainer, watcher)
    raised = [look for look in watcher.looks if look.strength_factor > 1]
    assert raised
    assert all(look.rate_factor == 1.0 for look in raised if look.strength_factor < 16)
    assert kl.strength == 0.5


@pytest.mark.parametrize("policy", ["warn", "rollback", "adapt"])
@pytest.mark.parametrize("adapter", [False, True])
def test_a_resumed_training_is_an_uninterrupted_one(policy: str, adapter: bool, tmp_path: Path) -> None:
    methods = [LoRA(rank=2)] if adapter else []
    budget = {"rollback": 0.05, "adapt": 0.01 if adapter else 0.1}.get(policy, 0.01)
    options = {"max_steps": 12, "save_strategy": "steps", "save_steps": 6, "learning_rate": 3e-2 if adapter else 1e-2}
    whole = monitor(policy, budget=budget)
    weights = watched(protect(plain_trainer(tmp_path, **options), methods), whole)
    resumed = monitor(policy, budget=budget)
    again = protect(plain_trainer(tmp_path, **options), methods)
    assert are_equal(watched(again, resumed, resume_from_checkpoint=str(tmp_path / "checkpoint-6")), weights)
    timeless = [[{**vars(look), "seconds": 0} for look in one.looks] for one in (whole, resumed)]
    assert timeless[0] == timeless[1]
    assert whole.actions == resumed.actions


def test_a_training_that_the_monitor_joins_late_is_refused_where_the_base_is_gone(tmp_path: Path) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trained(plain_trainer(tmp_path, **options))
    with pytest.raises(RunError, match="can't be asked any more once its weights are trained"):
        watched(plain_trainer(tmp_path, **options), monitor(), resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    methods = [LoRA(rank=2)]
    trained(protect(plain_trainer(tmp_path / "adapter", **options), methods))
    late = monitor("rollback", budget=1e-7)
    trainer = protect(plain_trainer(tmp_path / "adapter", **options), methods)
    watched(trainer, late, resume_from_checkpoint=str(tmp_path / "adapter" / "checkpoint-2"))
    assert [look.step for look in late.looks] == [3]
    assert "came to this training too late" in late.notes[-1]


class Tracker(TrainerCallback):
    """Stands for what a trainer reports to, which comes before the user's own callbacks."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append(dict(logs))


def test_trackers_and_files_get_the_curves(tmp_path: Path) -> None:
    tracker, log = Tracker(), tmp_path / "train.jsonl"
    trainer: Any = plain_trainer(tmp_path, max_steps=4)
    trainer.add_callback(tracker)
    watcher = monitor(log=log, budget=10.0)
    watched(trainer, watcher)
    assert [one["retention/kl"] for one in tracker.logs if "retention/kl" in one] == [one.kl for one in watcher.looks]
    assert sum("loss" in one for one in tracker.logs) == 4
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert set(lines[0]["retention"]) >= {"cross_entropy", "kl", "low", "high", "status", "seconds", "budget"}
    with pytest.raises(RunError, match="cannot be written"):
        watched(plain_trainer(tmp_path / "other", max_steps=2), monitor(log=tmp_path))


def test_accumulated_steps_are_steps(tmp_path: Path) -> None:
    found = []
    for size, parts in ((4, 1), (1, 4)):
        watcher = monitor(budget=10.0)
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts, "max_steps": 4}
        watched(plain_trainer(tmp_path / str(size), **options), watcher)
        found.append([(look.step, round(look.kl, 4)) for look in watcher.looks])
    assert found[0] == found[1]


def test_generators_and_modes_are_left_as_they_were(tmp_path: Path) -> None:
    class Greedy(nn.Module):
        """Draws from every generator whenever it is asked."""

        def __init__(self) -> None:
            super().__init__()
            inner: Any = build_model()
            self.inner, self.config = inner, inner.config

        def forward(self, input_ids: Any, labels: Any = None, logits_to_keep: Any = 0, **kwargs: Any) -> Any:
            torch.rand(1)
            np.random.rand()
            random.random()
            return self.inner(input_ids=input_ids, labels=labels, logits_to_keep=logits_to_keep, **kwargs)

    model = Greedy()
    model.inner.model.layers[0].eval()
    watcher = monitor(budget=10.0, every=1)
    trainer: Any = plain_trainer(tmp_path, model=model, max_steps=1)
    watched(trainer, watcher)
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    modes = [module.training for module in model.modules()]
    context = trainer.callback_handler
    watcher.pace.last_step = 0
    context.on_step_end(trainer.args, trainer.state, trainer.control)
    assert len(watcher.looks) == 2
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state()) == str(states[1])
    assert random.getstate() == states[2]
    assert [module.training for module in model.modules()] == modes


def test_a_rise_of_the_cross_entropy_can_have_the_budget(tmp_path: Path) -> None:
    watcher = monitor("stop", measure="cross_entropy", budget=0.01, every=4)
    watched(plain_trainer(tmp_path, max_steps=40), watcher)
    last = watcher.looks[-1]
    assert last.low > 0.01
    assert last.low < last.rise < last.high
    assert "cross-entropy above the base's is" in watcher.notes[0]


def test_an_alarm_can_be_raised_by_what_is_no_number(tmp_path: Path) -> None:
    trainer: Any = plain_trainer(tmp_path, max_steps=2, learning_rate=1e30, max_grad_norm=0)
    watcher = monitor("rollback", every=1)
    start = weights_of(trainer)
    assert are_equal(watched(trainer, watcher), start)
    assert watcher.looks[-1].status == "over"
    assert "retention/kl" not in watcher.looks[-1].curves()


def test_a_second_training_begins_anew(tmp_path: Path) -> None:
    trainer: Any = plain_trainer(tmp_path, max_steps=2)
    watcher = monitor(budget=10.0)
    watched(trainer, watcher)
    trained(trainer)
    assert [look.step for look in watcher.looks] == [2]


def test_a_limit_of_time_makes_looks_smaller_and_says_so_once(tmp_path: Path) -> None:
    watcher = monitor(max_share=1e-6, num_examples=12, budget=10.0)
    watched(plain_trainer(tmp_path, max_steps=8), watcher)
    assert [look.step for look in watcher.looks] == [8]
    assert watcher.looks[0].num_examples == 8
    assert len(watcher.notes) == 1
    assert "looks at 8 of 12 examples" in watcher.notes[0]
    assert watcher.summary()["share_of_time"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "stopp"}, "no policy 'stopp'; did you mean 'stop'"),
        ({"measure": "kll"}, "did you mean 'kl'"),
        ({"budget": 0.0}, "budget 0.0 is not above 0"),
        ({"budget": float("nan")}, "budget nan is not above 0"),
        ({"every": 0}, "every 0 is not a number of steps"),
        ({"num_examples": 3}, "num_examples 3 is too few"),
        ({"alpha": 1.0}, r"alpha 1.0 is not in \(0, 1\)"),
        ({"max_share": 0.0}, r"max_share 0.0 is not in \(0, 1\]"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        monitor(**options)


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no general examples: pass general"):
        watched(plain_trainer(tmp_path), RetentionMonitor())
    with pytest.raises(ConfigError, match="3 of 3 general examples have an answer within 128 tokens"):
        watched(plain_trainer(tmp_path), monitor(general=GENERAL[:3]))
    with pytest.raises(ConfigError, match="FSDP and DeepSpeed"):
        monitor("rollback")._refuse_engine(type("Arguments", (), {"fsdp": True}))


def test_rates_are_scaled_for_every_scheduler() -> None:
    weight = nn.Parameter(torch.zeros(1))
    for make in (
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 / (1 + done)),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
    ):
        rates = []
        for ratio in (1.0, 0.25):
            optimizer = torch.optim.SGD([weight], lr=1.0)
            scheduler = make(optimizer)
            for step in range(5):
                if step == 2:
                    scale_rates(optimizer, scheduler, ratio)
                optimizer.step()
                scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
            assert scheduler.get_last_lr() == [rates[-1]]
        assert rates[1] == pytest.approx(rates[0] / 4)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scale_rates(optimizer, None, 0.5)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_the_tokenizer_may_be_given(tmp_path: Path) -> None:
    trainer: Any = plain_trainer(tmp_path, max_steps=2)
    trainer.processing_class = trainer.callback_handler.processing_class = None
    watcher = monitor(tokenizer=build_tokenizer(), budget=10.0)
    watched(trainer, watcher)
    assert len(watcher.looks) == 1

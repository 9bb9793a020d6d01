"""The lesson's trainings: the loop against plain torch, the mitigations against what must hold for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from forgetless.errors import ConfigError
from forgetless.lessons.network import NUM_CLASSES, Network, Settings, draw_tasks, task_examples
from forgetless.lessons.two_heads import (
    VARIANTS,
    Losses,
    Trial,
    TwoHeads,
    Variant,
    learn_first,
    learn_second,
    run_two_heads,
    spread,
    summarise,
    train,
)
from forgetless.methods.base import Context, Method, method_options
from forgetless.methods.ewc import EWC
from forgetless.methods.l2_sp import L2SP
from forgetless.methods.replay import Replay

SMALL = Settings(num_inputs=4, width=8, num_rows=30, num_held_out=20, num_steps=12, learning_rate=0.02)


@pytest.fixture(scope="module")
def result(two_heads: TwoHeads) -> TwoHeads:
    return two_heads


def test_the_loop_is_plain_training() -> None:
    rows, classes = draw_tasks(SMALL, torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    ours, plain = Network(rows, width=8), Network(rows, width=8)
    plain.load_state_dict(ours.state_dict())
    train(ours, task_examples(0, classes, SMALL), [], learning_rate=0.02, num_steps=12)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.02)
    for _ in range(12):
        optimizer.zero_grad()
        logits = plain.head_a(plain.layers[0](rows[0, :30]).relu())
        nn.functional.cross_entropy(logits, classes[0, :30]).backward()
        optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_all_hooks_take_part_in_the_documented_order() -> None:
    calls: list[str] = []

    @method_options
    class Recorder(Method):
        name = "recorder"
        title = "Recorder"

        def prepare_data(self, mixture: Any, context: Context) -> Any:
            calls.append("prepare_data")
            assert len(context.general) == len(context.domain) == SMALL.num_rows
            return mixture

        def prepare_model(self, model: Any, context: Context) -> Any:
            calls.append("prepare_model")
            return model

        def prepare_optimizer(self, optimizer: Any, model: Any) -> None:
            calls.append("prepare_optimizer")

        def token_weights(self, step: Any) -> torch.Tensor:
            calls.append("token_weights")
            return torch.ones_like(step.token_losses.detach())

        def penalty(self, step: Any) -> torch.Tensor:
            calls.append("penalty")
            return step.model.head_b.weight.square().sum()  # type: ignore[no-any-return]

        def adjust_gradients(self, model: Any) -> None:
            calls.append("adjust_gradients")
            assert model.head_b.weight.grad is not None

        def after_step(self, model: Any) -> None:
            calls.append("after_step")

        def finish(self, model: Any) -> Any:
            calls.append("finish")
            return model

    stage = learn_first(0, SMALL)
    learn_second(stage, Variant("recorded", methods=lambda: [Recorder()], steps=2 / 12))
    step = ["token_weights", "penalty", "adjust_gradients", "after_step"]
    assert calls == ["prepare_data", "prepare_model", "prepare_optimizer", *step, *step, "finish"]


def test_weights_and_penalties_change_what_is_learned() -> None:
    @method_options
    class Nothing(Method):
        name = "nothing"
        title = "Learns nothing"

        def token_weights(self, step: Any) -> torch.Tensor:
            return torch.zeros_like(step.token_losses.detach())

    stage = learn_first(0, SMALL)
    trial = learn_second(stage, Variant("nothing", methods=lambda: [Nothing()]))["nothing"]
    assert trial.after == trial.before


def test_a_stage_starts_every_variant_alike() -> None:
    stage = learn_first(1, SMALL)
    first = learn_second(stage, VARIANTS[0])
    learn_second(stage, VARIANTS[-1])
    assert learn_second(stage, VARIANTS[0]) == first
    assert learn_second(learn_first(1, SMALL), VARIANTS[0]) == first
    assert learn_second(learn_first(2, SMALL), VARIANTS[0]) != first


def test_task_a_is_kept_whole_where_nothing_of_it_moves(result: TwoHeads) -> None:
    for name in ("frozen shared layer", "LoRA, adapter off"):
        assert all(trial.after == trial.before for trial in result.variants[name])
    for name in ("plain", "LoRA, adapter on"):
        assert all(trial.after != trial.before for trial in result.variants[name])


def test_the_adapter_off_has_learned_nothing_of_task_b(result: TwoHeads) -> None:
    on, off = (result.variants[f"LoRA, adapter {state}"] for state in ("on", "off"))
    assert all(one.other.held_out < other.other.held_out for one, other in zip(on, off, strict=True))


@pytest.mark.parametrize(
    "method", [EWC(strength=0.0), L2SP(strength=0.0), Replay(share=0.0)], ids=lambda method: method.name
)
def test_neutral_strength_is_plain_training(method: Method) -> None:
    stage = learn_first(0, SMALL)
    neutral = learn_second(stage, Variant("neutral", methods=lambda: [method]))["neutral"]
    assert neutral == learn_second(stage, VARIANTS[0])["plain"]


@pytest.mark.parametrize("name", ["EWC", "L2 to the start"])
def test_an_anchor_keeps_more_than_plain_training_and_learns_more_than_a_lower_rate(name: str) -> None:
    ways = [variant for variant in VARIANTS if variant.name in {"plain", "lower rate (1/5)", name}]
    summary = {way: summarise(trials) for way, trials in run_two_heads(3, variants=ways, rates=[]).variants.items()}
    assert summary[name]["rise"]["median"] < 0.5 * summary["plain"]["rise"]["median"]
    assert summary[name]["loss_b"] < 0.7 * summary["lower rate (1/5)"]["loss_b"]


def test_all_ways_and_rates_are_run_for_every_seed(result: TwoHeads) -> None:
    names = [name for variant in VARIANTS for name in (variant.name, variant.off_name) if name]
    assert list(result.variants) == names
    assert list(result.rates) == [0.01]
    for trials in (*result.variants.values(), *result.rates.values()):
        assert [trial.seed for trial in trials] == [0, 1, 2]
    assert result.num_seeds == 3
    assert (
        result.rates[0.01][0] == learn_second(learn_first(0, replace(SMALL, learning_rate=0.01)), VARIANTS[0])["plain"]
    )


def test_progress_counts_seeds() -> None:
    seen: list[tuple[float, float]] = []
    run_two_heads(2, settings=SMALL, variants=VARIANTS[:1], rates=[], progress=lambda *at: seen.append(at))
    assert seen == [(1, 2), (2, 2)]


def test_no_seeds_are_refused() -> None:
    with pytest.raises(ConfigError, match="0 seeds show nothing"):
        run_two_heads(0)


def test_a_summary_is_of_the_trials() -> None:
    trials = [
        Trial(seed, Losses(0.1, 0.2, 0.9), Losses(0.1 * times, 0.2 + rise, 0.8), Losses(0.0, 0.3, 0.7))
        for seed, (times, rise) in enumerate([(1, 0.0), (2, -0.1), (4, 0.3)])
    ]
    summary = summarise(trials)
    assert summary["ratio"] == pytest.approx({"min": 1, "q1": 1.5, "median": 2, "q3": 3, "max": 4})
    assert summary["rise"]["median"] == pytest.approx(0.0)
    assert (summary["num_unharmed"], summary["accuracy_a"], summary["loss_b"]) == (2, 0.8, 0.3)
    assert spread([1.0]) == dict.fromkeys(("min", "q1", "median", "q3", "max"), 1.0)


def test_the_table_of_rows_starts_with_the_classes() -> None:
    network = learn_first(0, SMALL).network()
    assert network.inputs.shape == (NUM_CLASSES + 2 * 50, 4)
    assert not network.inputs[:NUM_CLASSES].any()

"""The Fisher information against closed forms and plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from forgetless.errors import ConfigError, DataError
from forgetless.mechanisms.fisher import (
    Importance,
    estimate_fisher,
    estimate_sensitivity,
    load_fisher,
    save_fisher,
)
from language_models import LinearSoftmax, build, padded_batch, plain_fisher, relative_error, single


def test_sampled_labels_give_the_closed_form_of_a_linear_softmax_model() -> None:
    model = LinearSoftmax()
    tokens = torch.arange(5).repeat(800)
    batch = {"input_ids": torch.stack([tokens, tokens], 1), "labels": torch.stack([tokens, tokens], 1)}
    found = estimate_fisher(model, [batch])
    inputs = model.embedding.weight
    p = model.head(inputs).softmax(-1)
    variance = p * (1 - p)  # the diagonal of diag(p) - p p^T
    assert torch.allclose(found["head.weight"], (variance.T @ inputs.square()) / 5, rtol=0.1, atol=1e-2)
    assert torch.allclose(found["head.bias"], variance.mean(0), rtol=0.1)
    assert found.num_sequences == 4000


@pytest.mark.parametrize("kind", ["llama", "tied", "biased", "gpt2", "qwen3", "gemma3", "mixtral"])
def test_one_batch_is_the_plain_loop_over_its_sequences(kind: str) -> None:
    model = build(kind)
    found = estimate_fisher(model, [padded_batch()], labels="empirical")
    assert relative_error(found, plain_fisher(model, padded_batch())) < 1e-5


@pytest.mark.parametrize("ids", [torch.arange(5), [[2, 3, 4]]])
def test_what_is_no_batch_is_refused_with_its_shape(ids: Any) -> None:
    with pytest.raises(ConfigError, match=r"no tensor of \(batch, tokens\)"):
        estimate_fisher(build("llama"), [{"input_ids": ids, "labels": ids}])


def test_learned_prompts_stand_before_the_tokens() -> None:
    from peft import PromptTuningConfig, get_peft_model

    from forgetless.quiet import quiet_transformers

    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        model: Any = get_peft_model(build("llama"), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    found = estimate_fisher(model, [padded_batch()], labels="empirical")
    name = next(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    assert relative_error({"prompt": found[name]}, {"prompt": plain_fisher(model, padded_batch())[name]}) < 1e-5


@pytest.mark.parametrize("kind", ["tied", "gpt2"])
@pytest.mark.parametrize("labels", ["sampled", "empirical"])
def test_batches_order_and_padding_change_nothing(kind: str, labels: Any) -> None:
    model = build(kind)
    batch = padded_batch()
    together = estimate_fisher(model, [batch], labels=labels)
    one_by_one = estimate_fisher(model, [single(batch, row) for row in (2, 0, 3, 1)], labels=labels)
    assert relative_error(together, one_by_one) < 1e-5


def test_padding_on_the_left_changes_nothing() -> None:
    model, batch = build("llama"), padded_batch()
    short = single(batch, 1)
    padded = {
        name: nn.functional.pad(value, (3, 0), value={"labels": -100, "attention_mask": 0}.get(name, 1))
        for name, value in short.items()
    }
    assert relative_error(estimate_fisher(model, [padded]), estimate_fisher(model, [short])) < 1e-5


def test_sampled_labels_are_those_of_the_seed_and_not_of_the_data() -> None:
    model, batch = build("llama"), padded_batch()
    first, again, other = (estimate_fisher(model, [batch], seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert relative_error(first, other) > 0.1
    assert relative_error(first, estimate_fisher(model, [batch], labels="empirical")) > 0.1


def test_a_sequence_that_comes_twice_gets_two_draws() -> None:
    model, one = build("llama"), single(padded_batch(), 0)
    assert relative_error(estimate_fisher(model, [one, one]), estimate_fisher(model, [one])) > 0.1


def test_a_sequence_without_supervision_does_not_count() -> None:
    model, batch = build("llama"), padded_batch()
    silent = {**single(batch, 0), "labels": torch.full((1, 12), -100)}
    found = estimate_fisher(model, [batch, silent])
    assert found.num_sequences == 4
    assert relative_error(found, estimate_fisher(model, [batch])) < 1e-6


def test_the_model_is_left_as_it_was() -> None:
    model = build("llama").train()
    model.model.norm.weight.requires_grad_(False)
    model.lm_head.eval()
    before = {name: (p.requires_grad, p.clone()) for name, p in model.named_parameters()}
    found = estimate_fisher(model, [padded_batch()])
    assert "model.norm.weight" not in found
    assert model.training
    assert not model.lm_head.training
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == before[name][0]
        assert torch.equal(parameter, before[name][1])
        assert parameter.grad is None
    assert not any(module._forward_hooks for module in model.modules())


def test_dropout_is_off() -> None:
    model = build("gpt2").train()
    assert (
        relative_error(
            estimate_fisher(model, [padded_batch()], labels="empirical"), plain_fisher(build("gpt2"), padded_batch())
        )
        < 1e-5
    )


def test_sensitivity_is_the_mean_size_of_the_gradient_of_the_norm_of_centred_logits() -> None:
    model, batch = build("tied"), padded_batch()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for row in range(4):
        model.zero_grad()
        one = single(batch, row)
        logits = model(input_ids=one["input_ids"]).logits[0, :-1][one["labels"][0, 1:] != -100]
        (logits - logits.mean(-1, keepdim=True)).square().sum(-1).mean().backward()
        for name, parameter in model.named_parameters():
            expected[name] += parameter.grad.abs() / 4
    assert relative_error(estimate_sensitivity(model, [batch]), expected) < 1e-5


def test_what_can_not_be_estimated_is_refused() -> None:
    model, batch = build("llama"), padded_batch()
    with pytest.raises(ConfigError, match="neither 'sampled'"):
        estimate_fisher(model, [batch], labels="true")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no parameter 'nothing'"):
        estimate_fisher(model, [batch], parameters=["nothing"])
    with pytest.raises(ConfigError, match="no labels"):
        estimate_fisher(model, [{"input_ids": batch["input_ids"]}])
    with pytest.raises(DataError, match="no sequence has a supervised position"):
        estimate_fisher(model, [])
    with pytest.raises(ConfigError, match="nothing of this model is trained"):
        estimate_fisher(model.requires_grad_(False), [batch])
    quantised = nn.Module()
    quantised.register_parameter("weight", nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False))
    with pytest.raises(ConfigError, match=r"stored as torch.uint8"):
        estimate_fisher(quantised, [batch], parameters=["weight"])


def test_frozen_parameters_can_be_asked_for_by_name() -> None:
    model = build("llama").requires_grad_(False)
    name = "model.layers.1.mlp.up_proj.weight"
    found = estimate_fisher(model, [padded_batch()], parameters=[name], labels="empirical")
    whole = plain_fisher(build("llama"), padded_batch())
    assert relative_error(found, {name: whole[name]}) < 1e-5


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    found = estimate_fisher(build("tied"), [padded_batch()], dtype=torch.bfloat16)
    save_fisher(found, tmp_path / "new" / "fisher.safetensors", model="tiny")
    loaded = load_fisher(tmp_path / "new" / "fisher.safetensors")
    assert all(torch.equal(found[name], loaded[name]) and loaded[name].dtype == torch.bfloat16 for name in found)
    assert (loaded.num_sequences, loaded.kind, loaded.facts["model"]) == (4, "fisher-sampled", "tiny")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["fisher.safetensors"]
    plain: dict[str, Tensor] = {"a": torch.ones(1)}
    save_fisher(plain, tmp_path / "plain.safetensors")
    assert load_fisher(tmp_path / "plain.safetensors").kind == "unknown"


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "weights.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(DataError, match="no file of importances"):
        load_fisher(tmp_path / "weights.safetensors")
    for name in ("text", "missing"):
        with pytest.raises(DataError, match="can't be read as safetensors"):
            load_fisher(tmp_path / f"{name}.safetensors")


def test_bfloat16_estimates_are_near_those_in_float32() -> None:
    exact = estimate_fisher(build("llama"), [padded_batch()], labels="empirical")
    rounded = estimate_fisher(build("llama").to(torch.bfloat16), [padded_batch()], labels="empirical")
    assert isinstance(rounded, Importance)
    assert all(value.dtype == torch.float32 for value in rounded.values())
    assert relative_error(rounded, exact) < 0.2

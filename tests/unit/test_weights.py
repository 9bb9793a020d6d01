"""Fingerprints: never the same for different weights, the same for a model with its adapters off and for its base."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless.errors import ModelError
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA
from forgetless.quiet import quiet_transformers
from forgetless.weights import fingerprint_weights


def model_of(seed: int = 0) -> Any:
    return build_model(seed)


def adapted(**options: Any) -> Any:
    """The tiny model with an adapter that does something."""
    model: Any = LoRA(rank=2, **options).prepare_model(model_of(), Context())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    return model


@pytest.mark.parametrize("options", [{}, {"variant": "dora"}, {"target_modules": ["q_proj"]}], ids=str)
def test_an_adapter_that_is_switched_off_leaves_no_trace(options: dict[str, Any]) -> None:
    model, base = adapted(**options), fingerprint_weights(model_of())
    on = fingerprint_weights(model)
    assert on != base
    with model.disable_adapter():
        assert fingerprint_weights(model) == base
        model.get_parameter("base_model.model.model.norm.weight").data[3] += 1e-3
        assert fingerprint_weights(model) != base
    assert fingerprint_weights(model.unload()) != base


def test_modules_that_are_saved_whole_leave_no_trace_either() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    with quiet_transformers():
        model: Any = get_peft_model(model_of(), config)
    with model.disable_adapter():
        assert fingerprint_weights(model) == fingerprint_weights(model_of())
    assert fingerprint_weights(model) != fingerprint_weights(model_of())


def test_an_initialisation_that_changes_the_base_shows() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa", task_type="CAUSAL_LM")
    with quiet_transformers():
        model: Any = get_peft_model(model_of(), config)
    with model.disable_adapter():
        assert fingerprint_weights(model) != fingerprint_weights(model_of())


def test_a_merged_adapter_is_no_base() -> None:
    model = adapted()
    base = fingerprint_weights(model_of())
    model.merge_adapter()
    model.base_model.disable_adapter_layers()  # unmerges: only then it is the base again, up to rounding
    model.base_model.enable_adapter_layers()
    merged = adapted().merge_and_unload()
    assert base not in {fingerprint_weights(model), fingerprint_weights(merged)}


def test_a_learned_prompt_that_is_switched_off_is_another_model() -> None:
    from peft import PromptTuningConfig, get_peft_model

    with quiet_transformers():
        model: Any = get_peft_model(model_of(), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    on = fingerprint_weights(model)
    with model.disable_adapter():
        assert fingerprint_weights(model) != on


def test_tied_weights() -> None:
    tied = model_of()
    tied.lm_head.weight = tied.model.embed_tokens.weight
    before = fingerprint_weights(tied)
    assert fingerprint_weights(copy.deepcopy(tied)) == before
    tied.lm_head.weight.data[-1, -1] += 1e-3
    assert fingerprint_weights(tied) != before


def quantised(seed: int = 0) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that all of this moves to torchao
        return torch.ao.quantization.quantize_dynamic(model_of(seed), {torch.nn.Linear}, dtype=torch.qint8)


@pytest.mark.filterwarnings("ignore")
def test_dynamically_quantised_models() -> None:
    model = quantised()
    before = fingerprint_weights(model)
    assert fingerprint_weights(quantised()) == before
    assert fingerprint_weights(quantised(1)) != before
    assert before != fingerprint_weights(model_of())
    layer = model.model.layers[0].mlp.up_proj
    weight, bias = layer._packed_params._weight_bias()
    changed = weight.int_repr().clone()
    changed[0, 0] += 1
    scale = torch.full((len(weight),), weight.q_scale(), dtype=torch.double)
    zeros = torch.zeros(len(weight), dtype=torch.long)
    rebuilt = torch._make_per_tensor_quantized_tensor(changed, weight.q_scale(), weight.q_zero_point())
    layer._packed_params.set_weight_bias(rebuilt, bias)
    one = fingerprint_weights(model)
    rebuilt = torch._make_per_channel_quantized_tensor(changed, scale, zeros, 0)
    layer._packed_params.set_weight_bias(rebuilt, bias)
    assert len({before, one, fingerprint_weights(model)}) == 3


def compose(inner: torch.Tensor, scale: torch.Tensor) -> Any:
    """Returns a tensor that is made of two, as quantisation libraries make them."""
    parts = {
        "__tensor_flatten__": lambda self: (["inner", "scale"], "context"),
        "__torch_dispatch__": classmethod(lambda cls, function, types, args=(), kwargs=None: args[0]),  # detach
    }
    kind: Any = type("Composed", (torch.Tensor,), parts)
    made = torch.Tensor._make_wrapper_subclass(kind, inner.shape, dtype=torch.float32)
    made.inner, made.scale = inner, scale
    return made


class Holder(torch.nn.Module):
    """A module with a state of its own."""

    def __init__(self, **state: Any) -> None:
        super().__init__()
        self.kept = state

    def state_dict(self, *_: Any, **__: Any) -> Any:
        return self.kept


def test_tensors_made_of_tensors() -> None:
    def composed(value: int, scale: float) -> str:
        inner = torch.full((2, 2), value, dtype=torch.int8)
        return fingerprint_weights(Holder(weight=compose(inner, torch.tensor(scale))))

    assert composed(1, 0.5) == composed(1, 0.5)
    assert len({composed(1, 0.5), composed(2, 0.5), composed(1, 0.25)}) == 3


def test_whatever_else_a_state_holds() -> None:
    states: list[dict[str, Any]] = [
        {"a": torch.zeros(0)},
        {"a": torch.tensor(1.0)},
        {"a": torch.tensor([1.0])},
        {"a": torch.tensor([True])},
        {"a": torch.arange(6.0).reshape(2, 3)},
        {"a": torch.arange(6.0).reshape(3, 2).T},
        {"a": torch.eye(2).to_sparse()},
        {"a": torch.tensor([1 + 2j]).conj()},
        {"a": torch.tensor([1 + 2j])},
        {"a": None},
        {"a": torch.float32},
        {"a": "float32"},
        {"a": [1, "b"]},
        {"a": {"b": 1}},
        {"a": {"b": torch.zeros(1)}},
        {"a": b"raw"},
        {"b": None},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # sparse tensors are in beta
        found = [fingerprint_weights(Holder(**state)) for state in states]
        assert found == [fingerprint_weights(Holder(**state)) for state in states]
    assert len(set(found)) == len(states)


def test_what_cannot_be_read_is_never_the_same_twice() -> None:
    state = {"a": lambda: None}
    assert fingerprint_weights(Holder(**state)) != fingerprint_weights(Holder(**state))


def test_the_order_in_memory_does_not_matter() -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    strided = torch.empty_strided((2, 3), (1, 2)).copy_(weight)
    assert not strided.is_contiguous()
    assert fingerprint_weights(Holder(a=weight)) == fingerprint_weights(Holder(a=strided))


def test_weights_that_are_elsewhere_are_refused() -> None:
    with pytest.raises(ModelError, match="not in memory"):
        fingerprint_weights(torch.nn.Linear(2, 2, device="meta"))

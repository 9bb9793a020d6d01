"""An adapter switched off stands in for its base, bit for bit, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.evaluate.adapters import base_of_adapter
from forgetless.evaluate.function import FunctionModel
from forgetless.evaluate.requests import GenerationRequest
from forgetless.evaluate.runner import open_model
from forgetless.models import load_model, load_tokenizer, save_model
from forgetless.quiet import quiet_transformers


def save_adapter(base: Path, target: Path, **settings: Any) -> Path:
    import torch
    from peft import LoraConfig

    loaded = load_model(str(base), device="cpu")
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **settings)
    model: Any = _adapt(loaded.model, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
    save_model(model, load_tokenizer(str(base)), target)
    return target


def test_the_adapter_off_is_the_base(tiny_directory: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tiny_directory, tmp_path / "adapter")
    tuned = open_model(str(adapter), device="cpu")
    requests = [GenerationRequest("Hello", 12), GenerationRequest("What treats ailment 3?", 12)]
    wanted = dict(open_model(str(tiny_directory), device="cpu").generate(requests))
    before, key = dict(tuned.generate(requests)), tuned.key()
    with base_of_adapter(tuned, str(tiny_directory)) as base:
        assert base is not None
        assert dict(base.generate(requests)) == wanted
        assert base.key() != key  # neither is ever given the other's scores
    assert dict(tuned.generate(requests)) == before != wanted


def test_what_is_no_adapter_on_that_base_is_left_alone(tiny_directory: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tiny_directory, tmp_path / "adapter")
    other = tmp_path / "other"
    save_model(*_loaded(tiny_directory), other)
    for tuned, base in (
        (open_model(str(adapter), device="cpu"), str(other)),
        (open_model(str(adapter), device="cpu"), EMBEDDED_ALIAS),
        (open_model(str(tiny_directory), device="cpu"), str(tiny_directory)),
        (FunctionModel(str), str(tiny_directory)),
    ):
        with base_of_adapter(tuned, base) as lent:
            assert lent is None


def _adapt(model: Any, config: Any) -> Any:
    from peft import get_peft_model

    with quiet_transformers():  # peft and transformers deprecate one another's names
        return get_peft_model(model, config)


def _loaded(directory: Path) -> tuple[Any, Any]:
    loaded = load_model(str(directory), device="cpu")
    return loaded.model, loaded.tokenizer


def test_an_adapter_on_a_base_that_was_quantised_in_memory_has_not_the_base_behind_it(
    tiny_directory: Path, tmp_path: Path
) -> None:
    tuned: Any = open_model(str(save_adapter(tiny_directory, tmp_path / "adapter")), device="cpu")
    tuned.model.get_base_model().hf_quantizer = object()
    with base_of_adapter(tuned, str(tiny_directory)) as base:
        assert base is None

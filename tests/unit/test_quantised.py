"""GGUF files and quantised directories as models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model, build_tokenizer
from forgetless.errors import ModelError
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA
from forgetless.models import load_model, resolve_model, save_model
from forgetless.quantised import four_bits, missing_package, quantisation
from forgetless.weights import fingerprint_weights
from gguf_files import write_gguf


def wider_model() -> Any:
    """The tiny Llama with an embedding for one more token."""
    model: Any = build_model()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.resize_token_embeddings(259, mean_resizing=False)
    return model


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # transformers' reader takes a merge only where its token is there.
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(path, wider_model(), build_tokenizer(), further_tokens=["ab"])


@pytest.mark.filterwarnings("ignore")  # of the GGUF reader
def test_a_gguf_file_is_a_model(gguf_file: Path, tmp_path: Path) -> None:
    loaded = load_model(str(gguf_file), device="cpu")
    base = wider_model()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(loaded.model(input_ids=ids).logits, base(input_ids=ids).logits, atol=1e-4)
    assert loaded.path == str(gguf_file)
    assert "dequantised in memory" in loaded.notes[0]
    assert loaded.tokenizer.chat_template is not None
    assert load_model(str(gguf_file), device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16
    save_model(loaded.model, loaded.tokenizer, tmp_path / "saved")
    again = load_model(str(tmp_path / "saved"), device="cpu")
    assert fingerprint_weights(again.model) == fingerprint_weights(loaded.model)
    assert again.notes == ()


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_on_a_gguf_file_finds_it_again(gguf_file: Path, tmp_path: Path) -> None:
    loaded = load_model(str(gguf_file), device="cpu")
    save_model(LoRA(rank=2).prepare_model(loaded.model, Context()), loaded.tokenizer, tmp_path / "adapter")
    again = load_model(str(tmp_path / "adapter"), device="cpu")
    assert "dequantised" in again.notes[0]


def test_a_gguf_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"GGUF file 'gone.gguf' does not exist"):
        resolve_model("gone.gguf")
    for content in (b"", b"GGUF", b"text" * 100):
        (tmp_path / "bad.gguf").write_bytes(content)
        with pytest.raises(ModelError, match="cannot be loaded") as caught:
            load_model(str(tmp_path / "bad.gguf"), device="cpu")
        assert "hub id" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"quantization_config": {}}, None),
        ({"quantization_config": None}, None),
        ({}, None),
        ([], None),
    ],
)
def test_what_quantised_a_directory(tmp_path: Path, config: Any, method: str | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert quantisation(tmp_path) == method
    assert (missing_package(tmp_path) is None) == (method is None)


def test_what_is_there_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    monkeypatch.setattr("forgetless.quantised._PACKAGES", {"gptq": ("torch", "torch")})
    assert missing_package(tmp_path) is None


@pytest.mark.parametrize(
    ("method", "package"),
    [("gptq", "gptqmodel"), ("quanto", "optimum-quanto"), ("hqq", "hqq"), ("awq", "gptqmodel")],
)
def test_a_quantised_directory_names_the_package_that_reads_it(
    tiny_directory: Path, tmp_path: Path, method: str, package: str
) -> None:
    directory = Path(shutil.copytree(tiny_directory, tmp_path / "model"))
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 32}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"quantised by {method}, which the package {package} reads: pip install"):
        load_model(str(directory), device="cpu")


def test_four_bits_without_their_package_are_refused(monkeypatch: pytest.MonkeyPatch, tiny_directory: Path) -> None:
    monkeypatch.setattr("forgetless.quantised.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install bitsandbytes"):
        load_model(str(tiny_directory), device="cpu", in_four_bits=True)


def test_four_bits_are_made_of_ordinary_weights_where_there_is_a_device_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("forgetless.quantised.find_spec", lambda name: object())
    monkeypatch.setattr("transformers.BitsAndBytesConfig", dict)
    assert four_bits("directory", torch.device("cpu")) == {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": torch.float32,
    }
    with pytest.raises(ModelError, match="mps"):
        four_bits("directory", torch.device("mps"))
    with pytest.raises(ModelError, match="quantised already"):
        four_bits("model.gguf", torch.device("cpu"))
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "awq"}}')
    with pytest.raises(ModelError, match="quantised already"):
        four_bits(str(tmp_path), torch.device("cpu"))

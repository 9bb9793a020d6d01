"""Models whose weights are stored in fewer bits: GGUF files, and directories that a quantisation library wrote."""

from __future__ import annotations

import json
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

# What transformers calls a method, and the package that reads it: module to look for, and name to install.
_PACKAGES = {
    "auto-round": ("auto_round", "auto-round"),
    "awq": ("gptqmodel", "gptqmodel"),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "eetq": ("eetq", "eetq"),
    "gptq": ("gptqmodel", "gptqmodel"),
    "hqq": ("hqq", "hqq"),
    "quanto": ("optimum.quanto", "optimum-quanto"),
    "quark": ("quark", "amd-quark"),
    "torchao": ("torchao", "torchao"),
}


def is_gguf(source: str) -> bool:
    """Whether a model's name stands for a GGUF file."""
    return source.lower().endswith(".gguf")


def read_gguf(path: Path, dtype: torch.dtype) -> nn.Module:
    """Reads the model of a GGUF file and dequantises it: an ordinary transformers model, which can be saved and tuned.

    Args:
        path: The file; its metadata say what architecture it holds.
        dtype: Number type of the weights in memory.

    Returns:
        The model, with the generation settings of the file.
    """
    import torch
    from transformers import AutoModelForCausalLM

    # The GGUF reader shows a progress bar of its own, whatever transformers' setting says.
    with redirect_stderr(StringIO()):
        loaded = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=dtype)
    # transformers won't save a model whose config says "quantized": rebuild it without that entry.
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    config = type(loaded.config).from_dict(settings | {"_name_or_path": str(path)})
    with torch.random.fork_rng():
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    read: nn.Module = model
    return read


def quantisation(directory: Path) -> str | None:
    """Returns the method that quantised the weights of a directory, as its config.json says; None for ordinary ones."""
    try:
        settings = json.loads((directory / "config.json").read_text(encoding="utf-8"))["quantization_config"]
        return str(settings["quant_method"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def missing_package(directory: Path) -> str | None:
    """Returns what to install for a quantised directory, as a sentence's end; None where nothing is known to lack."""
    method = quantisation(directory)
    module, package = _PACKAGES.get(method or "", ("", ""))
    try:
        is_there = not module or find_spec(module) is not None
    except ModuleNotFoundError:
        is_there = False
    if is_there:
        return None
    return (
        f"its weights are quantised by {method}, which the package {package} reads: pip install {package} (or save the "
        "model with ordinary weights)"
    )


def lacks_four_bits() -> str | None:
    """Returns what to do where weights can't be loaded in 4 bits here, as a sentence; None where they can."""
    if find_spec("bitsandbytes") is None:
        return "4-bit weights need the package bitsandbytes: pip install bitsandbytes (or use lora, on full weights)"
    return None


def four_bits(source: str, device: torch.device) -> Any:
    """Returns the setting that makes transformers quantise weights to 4 bits (NF4, scales quantised too) as it loads.

    Args:
        source: Directory or hub id of the model.
        device: Where it is to lie.

    Returns:
        A `BitsAndBytesConfig`.

    Raises:
        ModelError: The package lacks, the device isn't one of its, or the weights are quantised already.
    """
    import torch
    from transformers import BitsAndBytesConfig

    if lacking := lacks_four_bits():
        raise ModelError(lacking)
    if device.type == "mps":
        raise ModelError("4-bit weights can't be computed with on mps: use device cpu or cuda, or lora on full weights")
    if is_gguf(source) or quantisation(Path(source)) is not None:
        raise ModelError(f"{source} is quantised already: 4 bits are made of ordinary weights")
    is_half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if is_half else torch.float32,
    )

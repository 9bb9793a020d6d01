"""In whose space a model's change is measured: its trained weights, or the frozen weight that LoRA's B A changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from forgetless.errors import ConfigError


@dataclass(frozen=True)
class LowRank:
    """One trained LoRA update of a frozen weight: the weight is W + scale * B A.

    Attributes:
        name: Name of W, as in `named_parameters`.
        a: Name of A, (rank, in).
        b: Name of B, (out, rank).
        scale: alpha / rank, or what the variant makes of it.
        is_transposed: Whether W is stored as (in, out).
    """

    name: str
    a: str
    b: str
    scale: float
    is_transposed: bool


def low_rank_updates(model: nn.Module) -> list[LowRank]:
    """Returns the LoRA updates that are trained, in the model's order.

    Args:
        model: Any model; one without PEFT's LoRA has none.

    Returns:
        One entry for each pair A, B of which a part is trainable.

    Raises:
        ConfigError: An update isn't scale * B A (DoRA, LoRA on embeddings or convolutions).
    """
    if not hasattr(model, "peft_config"):
        return []
    return [update for path, module in model.named_modules() for update in _updates_of(path, module)]


def _updates_of(path: str, module: nn.Module) -> Iterator[LowRank]:
    from peft.tuners.lora import LoraLayer

    if not isinstance(module, LoraLayer):
        return
    for adapter in module.active_adapters:
        trained = [n for n, p in module.named_parameters() if p.requires_grad and f".{adapter}" in n]
        if not trained:
            continue
        if kind := _other_kind(module, adapter):
            raise ConfigError(
                f"the adapter of {path!r} ({kind}) isn't W + scale * B A: use variant lora or rslora on linear "
                "modules, or leave out the methods that measure its change"
            )
        yield LowRank(
            name=f"{path}.base_layer.weight",
            a=f"{path}.lora_A.{adapter}.weight",
            b=f"{path}.lora_B.{adapter}.weight",
            scale=float(module.scaling[adapter]),
            is_transposed=bool(getattr(module, "fan_in_fan_out", False)),
        )


def _other_kind(module: Any, adapter: str) -> str | None:
    """Returns what an adapter is where it isn't a product of two matrices beside a linear module, quantised or not."""
    from peft.tuners.lora.layer import ParamWrapper
    from transformers.pytorch_utils import Conv1D

    if getattr(module, "use_dora", {}).get(adapter):
        return "DoRA"
    is_linear = isinstance(module.get_base_layer(), nn.Linear | Conv1D) and not isinstance(module, ParamWrapper)
    return None if is_linear and adapter in module.lora_A else type(module).__name__


def measured_parameters(model: nn.Module) -> list[str]:
    """Returns the names of the parameters in whose space the model's change is measured.

    Args:
        model: Any model.

    Returns:
        The trained parameters; for LoRA the frozen weight stands in for the A and B that change it.
    """
    updates = low_rank_updates(model)
    factors = {name for update in updates for name in (update.a, update.b)}
    stand_ins = {update.name for update in updates}
    return [
        name
        for name, parameter in model.named_parameters()
        if name in stand_ins or (parameter.requires_grad and name not in factors)
    ]


def base_name(name: str) -> str:
    """Returns what a parameter is called in the model without wrappers (PEFT's, torch.compile's, DDP's)."""
    parts = name.removeprefix("base_model.model.").split(".")
    if "modules_to_save" in parts:
        place = parts.index("modules_to_save")
        del parts[place : place + 2]
    return ".".join(part for part in parts if part not in ("base_layer", "_orig_mod", "module"))

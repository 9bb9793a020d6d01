"""LoRA and its variants, through PEFT: the base stays frozen, a low-rank update is learned beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from forgetless.errors import ConfigError
from forgetless.methods.base import Context, Method, method_options
from forgetless.models import quiet_transformers

if TYPE_CHECKING:
    from torch import nn


@method_options
class LoRA(Method):
    """W' = W + (alpha / rank) B A on frozen W, with B = 0 at the start (Hu et al. 2021, eq. 3).

    With the adapter on, the model's function changes on every input: it forgets, usually less than full fine-tuning at
    the same learning, never nothing. With the adapter off it is the base, bit for bit.

    Departs from the paper: adapts all linear modules but the output layer (the paper: query and value), which learns
    more per rank (Biderman et al. 2024).
    """

    name: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA: Low-Rank Adaptation"
    family: ClassVar[str] = "adapters"
    paper: ClassVar[str] = "https://arxiv.org/abs/2106.09685"
    cost: ClassVar[str] = "adapter and its optimizer state only; one extra pair of small products per layer"
    claims: ClassVar[frozenset[str]] = frozenset({"the adapter"})

    rank: int = Field(default=16, ge=1, description="Rank of the update of each matrix.")
    alpha: float | None = Field(
        default=None, gt=0, description="Scale of the update is alpha / rank; default 2 * rank."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the adapter's input, in [0, 1).")
    target_modules: str | list[str] = Field(default="all-linear", description="Module names, or all-linear.")
    variant: Literal["lora", "rslora", "dora"] = Field(
        default="lora",
        description="rslora scales by alpha / sqrt(rank), a higher effective rate; dora learns magnitudes too.",
    )

    def peft_options(self) -> dict[str, Any]:
        """Returns the arguments of `peft.LoraConfig`."""
        return {
            "r": self.rank,
            "lora_alpha": 2 * self.rank if self.alpha is None else self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": self.target_modules,
            "use_rslora": self.variant == "rslora",
            "use_dora": self.variant == "dora",
            "task_type": "CAUSAL_LM",
        }

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Adds the adapter; its random start comes from the run's seed and leaves the global generator as it was.

        Args:
            model: A model without an adapter; its weights are kept and frozen.
            context: The job; its seed is used.

        Returns:
            A `peft.PeftModel` around the model, in which only the adapter is trained.

        Raises:
            ConfigError: The model has an adapter already, or none of the target modules.
        """
        import torch
        from peft import LoraConfig, PeftModel, get_peft_model

        if isinstance(model, PeftModel):
            raise ConfigError("the model carries an adapter already: merge it first, or drop method 'lora'")
        with torch.random.fork_rng(), quiet_transformers():
            torch.manual_seed(context.seed)
            try:
                adapted: nn.Module = get_peft_model(model, LoraConfig(**self.peft_options()))
            except ValueError as error:
                raise ConfigError(f"method 'lora', option 'target_modules': {error}") from None
        assert_base_frozen(adapted)
        return adapted


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
        if isinstance(start, str) and start.lower() not in {"gaussian", "orthogonal", "eva"}:
            raise ConfigError(f"adapter {name!r} starts with {start!r}, which changes the base's weights")
    prefixes = ("lora_", "modules_to_save", "trainable_tokens_")
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    strays = [name for name in trained if not any(part in name for part in prefixes)]
    if strays:
        raise ConfigError(f"{len(strays)} base parameters are trained ({', '.join(strays[:3])}, ...): freeze them")
    if not trained:
        raise ConfigError("no adapter parameter is trainable: load the adapter with is_trainable=True")

"""LoRA, its variants and QLoRA, through PEFT: the base stays frozen, a low-rank update is learned beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from forgetless.errors import ConfigError
from forgetless.mechanisms.adapters import add_adapter, take_adapter
from forgetless.methods.base import Context, Method, method_options
from forgetless.quantised import lacks_four_bits

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
    can_continue: ClassVar[bool] = True

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

        In a sequence that trains its adapter on, it starts as the phase before left it.

        Args:
            model: A model without an adapter; its weights are kept and frozen.
            context: The job; its seed is used.

        Returns:
            A `peft.PeftModel` around the model, in which only the adapter is trained.

        Raises:
            ConfigError: The model has an adapter already, or none of the target modules.
        """
        from peft import LoraConfig

        adapted = add_adapter(model, LoraConfig(**self.peft_options()), method=self.name, seed=context.seed)
        if context.earlier is not None and context.earlier.adapter is not None:
            take_adapter(adapted, context.earlier.adapter, method=self.name)
        return adapted


@method_options
class QLoRA(LoRA):
    """LoRA on a base that is held in 4 bits (NF4, scales quantised too) while it is trained and judged.

    What is forgotten has two parts, that of quantising and that of training; the base is scored with its full weights,
    so that both count.

    Departs from the paper: no paged optimizer.
    """

    name: ClassVar[str] = "qlora"
    title: ClassVar[str] = "QLoRA: LoRA on a 4-bit base"
    paper: ClassVar[str] = "https://arxiv.org/abs/2305.14314"
    needs: ClassVar[str] = "the package bitsandbytes"
    cost: ClassVar[str] = "about a quarter of the memory of a 16-bit base; slower steps, which unpack the weights"

    def check(self, context: Context) -> None:
        if lacking := lacks_four_bits():
            raise ConfigError(f"method 'qlora': {lacking}")

    def load_options(self) -> dict[str, Any]:
        return {"in_four_bits": True}

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Adds the adapter, and asks that the base be in 4 bits.

        Args:
            model: A model whose weights were quantised as it was loaded.
            context: The job; its seed is used.

        Returns:
            A `peft.PeftModel` around the model, in which only the adapter is trained.

        Raises:
            ConfigError: The base isn't in 4 bits, or what LoRA raises.
        """
        if not getattr(model, "is_loaded_in_4bit", False):
            raise ConfigError(
                "method 'qlora' needs a model that is loaded in 4 bits: load_model(..., in_four_bits=True), or use lora"
            )
        return super().prepare_model(model, context)

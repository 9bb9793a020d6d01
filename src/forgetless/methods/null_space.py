"""Null-space LoRA: the adapter reads only directions that the data to keep does not use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from forgetless.data.encoding import encode_examples
from forgetless.errors import ConfigError
from forgetless.mechanisms.adapters import add_adapter, lora_layers
from forgetless.mechanisms.kept import KeptData, check_kept, kept_examples, with_earlier
from forgetless.mechanisms.moments import InputMoments, gather_moments, in_float64
from forgetless.methods.base import Context, Method, method_options

if TYPE_CHECKING:
    from torch import Tensor, nn


@method_options
class NullSpace(Method):
    """W' = W + (alpha / rank) B A, A frozen: the directions that activations X of data to keep use least.

    A X is nearly 0, so B A X is, whatever B becomes: on the data to keep each adapted layer hardly changes, as long as
    its input is the base's. With B = 0 the start is the base, and with the adapter off it is the base, bit for bit.
    In a sequence of phases the examples of all earlier ones are data to keep too, so that what is protected grows.

    Departs from the paper (Tang et al. 2025, the variant with frozen down-projections): W stays as it is, where the
    paper moves a part of it into B A and freezes the rest; A holds the directions themselves, the paper's A spans the
    part of them that W reads; each activation counts with its direction only, so that a few huge ones don't decide.
    """

    name: ClassVar[str] = "null_space"
    title: ClassVar[str] = "Null-space LoRA with a frozen down-projection (after LoRA-Null)"
    family: ClassVar[str] = "adapters"
    paper: ClassVar[str] = "https://arxiv.org/abs/2503.02659"
    needs: ClassVar[str] = "data to keep (general, or self-generated)"
    cost: ClassVar[str] = (
        "one pass over the data to keep and an eigendecomposition per input; then less than LoRA: only B is trained"
    )
    claims: ClassVar[frozenset[str]] = frozenset({"the adapter"})

    rank: int = Field(default=16, ge=1, description="Rank of the update of each matrix.")
    alpha: float | None = Field(
        default=None, gt=0, description="Scale of the update is alpha / rank; default 2 * rank."
    )
    data: KeptData = Field(
        default="auto", description="Data to keep: general, self (the base writes it), auto = general where there is."
    )
    num_sequences: int = Field(
        default=256, ge=1, description="Examples of the data to keep, at most; as many of each earlier phase."
    )
    target_modules: str | list[str] = Field(default="all-linear", description="Module names, or all-linear.")

    def check(self, context: Context) -> None:
        check_kept(context, self.data, self.name)

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Adds an adapter whose A spans what the data to keep uses least.

        Args:
            model: A model without an adapter; its weights are kept and frozen.
            context: The job: seed, tokenizer and data to keep are used.

        Returns:
            A `peft.PeftModel` around the model, in which only B is trained. `retained_energy_` then holds, by layer,
            ||A X|| / ||X|| on the data to keep, in [0, 1]: 0 = nothing of it passes.

        Raises:
            ConfigError: The model has an adapter already, a layer has fewer inputs than the rank, or there is no data
                to keep.
        """
        from peft import LoraConfig

        examples = kept_examples(context, self.data, self.num_sequences)
        examples = with_earlier(examples, context, self.num_sequences)
        sequences = encode_examples(examples, context.tokenizer, max_tokens=context.max_tokens)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=2 * self.rank if self.alpha is None else self.alpha,  # type: ignore[arg-type]
            target_modules=self.target_modules,
            task_type="CAUSAL_LM",
        )
        adapted = add_adapter(model, config, method=self.name, seed=context.seed)
        layers = lora_layers(adapted)
        width = min(layer.in_features for layer in layers.values())
        if self.rank > width:
            raise ConfigError(
                f"method 'null_space', option 'rank': {self.rank} is more than the {width} inputs of a layer: "
                "set it lower"
            )
        moments = gather_moments(adapted, layers, sequences, is_normalised=True)
        self.retained_energy_ = _freeze_into_null_space(layers, moments)
        self._warn(layers, moments, context)
        return adapted

    def _warn(self, layers: dict[str, Any], moments: InputMoments, context: Context) -> None:
        """Says so where fewer tokens were seen than a layer has inputs: "null" is then only "not seen"."""
        name = max(layers, key=lambda name: layers[name].in_features)
        width, num_tokens = layers[name].in_features, moments.num_tokens(name)
        if num_tokens < width:
            context.notes.append(
                f"method 'null_space' saw {num_tokens} tokens of data to keep, and {name.rpartition('.')[2]} has "
                f"{width} inputs: what looks unused there is only unseen; give it more data to keep (general examples, "
                "num_sequences)"
            )


def _freeze_into_null_space(layers: dict[str, Any], moments: InputMoments) -> dict[str, float]:
    """Sets and freezes A of every layer; returns the share of the inputs' norm that A lets through, by layer."""
    energies: dict[str, float] = {}
    for leader, names in moments.groups().items():
        ranks = [layers[name].r["default"] for name in names]
        directions, passed = _least_used(moments.mean(leader), max(ranks))
        for name, rank in zip(names, ranks, strict=True):
            weight = layers[name].lora_A["default"].weight
            weight.data.copy_(directions[:rank])
            weight.requires_grad_(False)
            energies[name] = passed
    return energies


def _least_used(moment: Tensor, rank: int) -> tuple[Tensor, float]:
    """Finds the directions that inputs use least.

    Args:
        moment: Mean of x x^T, (inputs, inputs).
        rank: How many directions.

    Returns:
        The directions as orthonormal rows, (rank, inputs), least used first, in float32, and the square root of the
        share of the energy that they hold, in [0, 1].
    """
    import torch

    # float64: what is looked for are the smallest eigenvalues, far below the rounding of the largest in float32.
    values, vectors = torch.linalg.eigh(in_float64(moment))
    held = values[:rank].clamp_min(0).sum() / values.clamp_min(0).sum()
    # A sign is arbitrary and differs between machines: the largest entry is made positive.
    chosen = vectors[:, :rank].T
    largest = chosen.gather(1, chosen.abs().argmax(dim=1, keepdim=True))
    return (chosen * largest.sign()).float(), float(held.sqrt())

"""CorDA in knowledge-preserving mode: LoRA that starts from what the data to keep uses least of each matrix."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from forgetless.data.encoding import encode_examples
from forgetless.errors import ConfigError
from forgetless.mechanisms.adapters import add_adapter, lora_layers, refuse_quantised
from forgetless.mechanisms.kept import KeptData, check_kept, kept_examples, with_earlier
from forgetless.mechanisms.moments import gather_moments, in_float64
from forgetless.methods.base import Context, Method, method_options

if TYPE_CHECKING:
    from torch import Tensor, nn


@method_options
class CorDA(Method):
    """SVD(W C) = U S V^T, C the second moment of the inputs on data to keep; LoRA starts at the lowest r components.

    With B0 = U_r sqrt(S_r) and A0 = sqrt(S_r) (V^T C^-1)_r the trained function is W + (alpha / rank) (B A - B0 A0),
    which is that of the paper's frozen residual W - B0 A0 plus B A (Yang et al. 2024, sections 3.2 and 3.3).

    Departs from the paper and from PEFT: the base's weights stay as they are, and B0 A0 is subtracted by a frozen half
    of an adapter of twice the rank. So the adapter off is the base, bit for bit; what is saved is an ordinary LoRA
    adapter of rank 2 r; and nothing of the residual is rounded to the base's number type. C is the plain mean over all
    tokens; PEFT scales each sequence by its largest activation first.
    """

    name: ClassVar[str] = "corda"
    title: ClassVar[str] = "CorDA: context-oriented decomposition adaptation, knowledge-preserved"
    family: ClassVar[str] = "adapters"
    paper: ClassVar[str] = "https://arxiv.org/abs/2406.05223"
    needs: ClassVar[str] = "data to keep (general, or self-generated)"
    cost: ClassVar[str] = "one pass over the data to keep and an SVD per matrix; then LoRA of twice the rank"
    needs_whole_weights: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({"the adapter"})

    rank: int = Field(default=16, ge=1, description="Components of each matrix that are trained; saved as twice that.")
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
        """Adds the adapter; at the start the model is the base, up to rounding.

        Args:
            model: A model without an adapter; its weights are kept and frozen.
            context: The job: seed, tokenizer and data to keep are used.

        Returns:
            A `peft.PeftModel` around the model, with an adapter of rank 2 r of which one half is trained.

        Raises:
            ConfigError: The model has an adapter already or is quantised, a matrix is smaller than the rank, or there
                is no data to keep.
        """
        from peft import LoraConfig

        refuse_quantised(model, self.name)
        examples = kept_examples(context, self.data, self.num_sequences)
        examples = with_earlier(examples, context, self.num_sequences)
        sequences = encode_examples(examples, context.tokenizer, max_tokens=context.max_tokens)
        scale = 2.0 if self.alpha is None else self.alpha / self.rank
        config = LoraConfig(
            r=2 * self.rank,
            lora_alpha=2 * self.rank * scale,  # type: ignore[arg-type]
            target_modules=self.target_modules,
            task_type="CAUSAL_LM",
        )
        adapted = add_adapter(model, config, method=self.name, seed=context.seed)
        layers = lora_layers(adapted)
        moments = gather_moments(adapted, layers, sequences)
        for name, layer in layers.items():
            if min(layer.get_base_layer().weight.shape) < self.rank:
                raise ConfigError(
                    f"method 'corda', option 'rank': {name} has only {min(layer.get_base_layer().weight.shape)} "
                    f"components, not {self.rank}"
                )
            _start(layer, moments.mean(name), scale)
        self.frozen_ = [_frozen(parameter.data, dim).clone() for parameter, dim in _halves(adapted)]
        for parameter, dim in _halves(adapted):
            # Whoever differentiates sees no gradient of the frozen halves: the trainer, other methods, the logs.
            parameter.register_hook(partial(_without_frozen, dim=dim))
        return adapted

    def adjust_gradients(self, model: nn.Module) -> None:
        """Takes out of the gradients what penalties in closed form have added to the frozen halves."""
        for parameter, dim in _halves(model):
            if parameter.grad is not None:
                _frozen(parameter.grad, dim).zero_()

    def after_step(self, model: nn.Module) -> None:
        """Puts the frozen halves back, which weight decay would shrink."""
        for (parameter, dim), start in zip(_halves(model), self.frozen_, strict=True):
            _frozen(parameter.data, dim).copy_(start)

    def state_dict(self) -> dict[str, Tensor]:
        return {str(number): half for number, half in enumerate(self.frozen_)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back the frozen halves: another machine's decomposition may differ in signs."""
        for number, half in enumerate(self.frozen_):
            half.copy_(state[str(number)])


def _halves(model: nn.Module) -> list[tuple[Any, int]]:
    """Returns A (2 r, inputs) and B (outputs, 2 r) of every layer, with the dimension that the halves lie along."""
    layers = lora_layers(model).values()
    return [(part["default"].weight, dim) for layer in layers for part, dim in ((layer.lora_A, 0), (layer.lora_B, 1))]


def _frozen(tensor: Tensor, dim: int) -> Tensor:
    """Returns the half that isn't trained, as a view."""
    rank = tensor.shape[dim] // 2
    return tensor.narrow(dim, rank, rank)


def _without_frozen(gradient: Tensor, *, dim: int) -> Tensor:
    kept = gradient.clone()
    _frozen(kept, dim).zero_()
    return kept


def _start(layer: Any, moment: Tensor, scale: float) -> None:
    """Sets A to (A0, A0) and B to (B0, -B0), so that the adapter begins at 0."""
    import torch

    lora_a, lora_b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    weight = layer.get_base_layer().weight
    weight = weight.T if layer.fan_in_fan_out else weight
    down, up = decompose(weight, moment, lora_a.shape[0] // 2)
    down, up = down / scale**0.5, up / scale**0.5
    lora_a.data.copy_(torch.cat([down, down]))
    lora_b.data.copy_(torch.cat([up, -up], dim=1))


def decompose(weight: Tensor, moment: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Finds the part of a matrix that its inputs use least.

    The moment is damped by a hundredth of its mean diagonal, as PEFT does, so that it can be inverted where fewer
    tokens were seen than there are inputs.

    Args:
        weight: (outputs, inputs).
        moment: Mean of x x^T, (inputs, inputs).
        rank: Components to take, the lowest ones.

    Returns:
        A0 (rank, inputs) and B0 (outputs, rank); B0 A0 = U_r U_r^T W for the lowest left singular vectors U_r of W C.
    """
    import torch

    # float64: the lowest of the singular values drown in the rounding of the largest in float32.
    matrix, moment = in_float64(weight.detach()), in_float64(moment)
    damped = moment + torch.eye(len(moment), dtype=moment.dtype, device=moment.device) * moment.diagonal().mean() * 0.01
    left, values, right = torch.linalg.svd(matrix @ damped, full_matrices=False)
    left, roots, right = left[:, -rank:], values[-rank:].sqrt(), right[-rank:]
    # (V^T C^-1) by solving C Z = V, which is better conditioned than inverting; C is symmetric.
    down = torch.linalg.solve(damped, right.T).T * roots[:, None]
    return down.to(weight.device), (left * roots).to(weight.device)

"""OSF: training only in the directions in which a weight matrix is weak, projected back after every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from pydantic import Field

from forgetless.errors import RunError
from forgetless.mechanisms.adapters import add_adapter, refuse_quantised
from forgetless.methods.base import Context, Method, method_options

if TYPE_CHECKING:
    from torch import Tensor, nn


LARGEST_SHARE = 0.95  # of what stays frozen after many phases: something must be left to train


@method_options
class OSF(Method):
    """W = U_h S_h V_h + U_l S_l V_l: strong singular directions stay, weak ones are trained (Nayak et al. 2025).

    The change of a weight matrix has no part in the span of U_h or V_h: exactly, since U_l and V_l are projected onto
    the complement after each optimizer step. That is a statement on matrices; what the model answers changes all the
    same.

    Departs from the paper: one share for all matrices, where the paper gives more frozen directions to layers that
    change their input little; in a sequence of phases the share grows by a fixed step. Departs from PEFT: it projects
    gradients only, of which Adam's rescaling turns about a fifth back into the frozen directions.
    """

    name: ClassVar[str] = "osf"
    title: ClassVar[str] = "OSF: Orthogonal Subspace Fine-tuning"
    family: ClassVar[str] = "adapters"
    paper: ClassVar[str] = "https://arxiv.org/abs/2504.07097"
    cost: ClassVar[str] = (
        "one SVD per matrix at the start, factors and their optimizer state as large as the trained share; leaves full "
        "weights"
    )
    needs_whole_weights: ClassVar[bool] = True
    ends_training: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({"the adapter", "the final weights"})
    learning_rate: ClassVar[float | None] = 5e-5

    frozen_share: float = Field(
        default=0.5, gt=0, lt=1, description="Share of each matrix's singular directions that stay, the strongest ones."
    )
    growth: float = Field(
        default=0.1, ge=0, lt=1, description="In a sequence: how much each phase adds to frozen_share, up to 0.95."
    )
    target_modules: str | list[str] = Field(default="all-linear", description="Module names, or all-linear.")

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Splits the matrices; at the start the model is the base.

        Args:
            model: A model without an adapter; its weights are kept and frozen.
            context: The job.

        Returns:
            A `peft.PeftModel` around the model, in which only the weak directions are trained.

        Raises:
            ConfigError: The model has an adapter already or is quantised, or has none of the target modules, or one
                that is too small for the share.
        """
        from peft import OSFConfig

        refuse_quantised(model, self.name)
        share = self.frozen_share
        if context.earlier is not None:
            share = max(share, min(LARGEST_SHARE, share + self.growth * len(context.earlier.phases)))
        config = OSFConfig(effective_rank=share, target_modules=self.target_modules, task_type="CAUSAL_LM")
        adapted: Any = add_adapter(model, config, method=self.name, seed=context.seed)
        for layer in _layers(adapted):
            _keep_full_precision(layer)
        adapted.base_model.unload = _refuse_to_unload
        prepared: nn.Module = adapted
        return prepared

    def after_step(self, model: nn.Module) -> None:
        """Projects U_l and V_l onto what is orthogonal to the frozen directions."""
        project(model)

    def finish(self, model: nn.Module) -> nn.Module:
        """Returns the model with the trained directions merged into its weights; PEFT's `unload` would drop them."""
        merged: nn.Module = model.merge_and_unload()  # type: ignore[operator]
        return merged


_ADAPTER = "default"


def project(model: nn.Module) -> None:
    """Projects the trained factors of every OSF layer onto the complement of its frozen directions, in place.

    Where a factor is square the complement is spanned by its own start, U_l0 U_l0^T = I - U_h U_h^T, and PEFT keeps
    only that; elsewhere PEFT keeps U_h.

    Args:
        model: A model with OSF layers.
    """
    import torch

    with torch.no_grad():
        for layer in _layers(model):
            factors = layer.osf_svd_params[_ADAPTER]
            _project_columns(factors["U_low"], _of(layer._osf_U_high), layer._osf_U_low_init[_ADAPTER])
            high = _of(layer._osf_V_high)
            _project_columns(factors["V_low"].T, None if high is None else high.T, layer._osf_V_low_init[_ADAPTER].T)


def _project_columns(factor: Tensor, frozen: Tensor | None, start: Tensor) -> None:
    """Projects columns in place: off the frozen columns, or onto those of the start where none are kept."""
    if frozen is None:
        factor.copy_(start @ (start.T @ factor))
    else:
        factor.sub_(frozen @ (frozen.T @ factor))


def _of(buffers: Any) -> Tensor | None:
    tensor: Tensor | None = dict(buffers.items()).get(_ADAPTER)
    return tensor


def _layers(model: nn.Module) -> list[Any]:
    from peft.tuners.osf.layer import OSFLayer

    return [module for module in model.modules() if isinstance(module, OSFLayer)]


def _keep_full_precision(layer: Any) -> None:
    """Takes the factors of a half-precision matrix in float32: rounded ones are orthogonal to two digits only."""
    import torch
    from peft.tuners.osf.utils import decompose_weight_matrix

    weight = layer.get_base_layer().weight
    if weight.dtype == torch.float32:
        return
    parts = decompose_weight_matrix(weight.detach().float(), layer.effective_rank[_ADAPTER])
    for name, buffers in (("U_high", layer._osf_U_high), ("V_high", layer._osf_V_high)):
        if _ADAPTER in buffers:
            buffers[_ADAPTER] = parts[name]
    starts = {"U_low": layer._osf_U_low_init, "S_low": layer._osf_S_low_init, "V_low": layer._osf_V_low_init}
    for name, buffers in starts.items():
        buffers[_ADAPTER] = parts[name].detach().clone()
        layer.osf_svd_params[_ADAPTER][name].data = parts[name].detach().clone()


def _refuse_to_unload() -> NoReturn:
    raise RunError("unload() of an OSF model gives the base back and loses the training: use merge_and_unload()")

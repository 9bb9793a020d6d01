"""MAS: weights are held to where they started, each as much as the size of the model's output depends on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from forgetless.mechanisms.kept import KeptOrEarlier, check_kept, is_first_of_earlier
from forgetless.methods.base import Context, Method, method_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetless.mechanisms.quadratic import QuadraticPenalty


@method_options
class MAS(Method):
    """Adds (strength / 2) sum_i Omega_i (theta_i - theta_0i)^2 to the loss (Aljundi et al. 2018).

    Omega_i is the mean over kept sequences of |d ||f(x)||^2 / d theta_i|, without labels. For LoRA it is that of the
    frozen weight, and the distance is the change s B A.

    Departs from the paper: f(x) are the logits less their mean over the vocabulary (to which the model's answers are
    blind), and the squared norm is averaged over a sequence's supervised positions; the factor is strength / 2 where
    the paper has lambda; the gradient is added in closed form before clipping.
    """

    name: ClassVar[str] = "mas"
    title: ClassVar[str] = "MAS: Memory Aware Synapses"
    family: ClassVar[str] = "anchors"
    paper: ClassVar[str] = "https://arxiv.org/abs/1711.09601"
    needs: ClassVar[str] = "data to keep (general, or self-generated)"
    cost: ClassVar[str] = "a pass over the kept sequences; two more copies of the weights; a pass over them per step"

    strength: float = Field(default=1e-3, ge=0, description="Factor of the penalty; 0 is plain fine-tuning.")
    num_sequences: int = Field(default=128, ge=1, description="Sequences that the importance is a mean over.")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Precision that Omega is kept in.")
    data: KeptOrEarlier = Field(
        default="auto",
        description="What to keep: general examples, self-generated ones, or whichever there are; earlier = in a "
        "sequence, earlier phases alone.",
    )

    def check(self, context: Context) -> None:
        if self.strength:
            check_kept(context, self.data, self.name)

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Estimates the importances and takes the weights as they are as the anchor.

        Both depend on the model and the job only: a training that resumes finds the same again.
        """
        from forgetless.mechanisms.kept_importance import estimate_kept_importance
        from forgetless.mechanisms.quadratic import QuadraticPenalty

        self.penalty_: QuadraticPenalty | None = None
        if self.strength and not is_first_of_earlier(context, self.data):
            importance = estimate_kept_importance(
                model,
                context,
                name=self.name,
                kind="mas",
                data=self.data,
                num_sequences=self.num_sequences,
                dtype=self.dtype,
            )
            self.penalty_ = QuadraticPenalty(model, importance, strength=self.strength)
        return model

    def adjust_gradients(self, model: nn.Module) -> Tensor | None:
        """Adds the gradient of the penalty and returns its value."""
        return None if self.penalty_ is None else self.penalty_.add_gradient(model)

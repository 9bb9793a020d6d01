"""EWC and online EWC: weights are held to where they started, each as much as the base's behaviour depends on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from forgetless.errors import ConfigError
from forgetless.mechanisms.kept import KeptOrEarlier, check_kept, is_first_of_earlier
from forgetless.methods.base import Context, Method, method_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetless.mechanisms.quadratic import QuadraticPenalty


@method_options
class EWC(Method):
    """Adds (strength / 2) sum_i F_i (theta_i - theta_0i)^2 to the loss (Kirkpatrick et al. 2017, eq. 3).

    F is the diagonal Fisher information per sequence of what is to be *kept*, at the start. To second order and
    without the off-diagonal, (1 / 2) sum F d^2 is the KL divergence from base to tuned over one kept sequence, in
    nats: that is the penalty's unit. For LoRA, F is that of the frozen weight and d its change s B A (EWC-LoRA,
    Zheng et al. 2026).

    With `previous`, F <- gamma F_previous + F (online EWC, Schwarz et al. 2018) and the anchor is the start of
    this phase. In a sequence of phases that is what happens by itself: F_previous is what the phase before gathered,
    and F is taken on that phase's examples, at the weights that it ended with.

    Departs from the paper: sequences stand where the paper has samples; labels are drawn given the data's prefix; the
    penalty's gradient is added in closed form before clipping.
    """

    name: ClassVar[str] = "ewc"
    title: ClassVar[str] = "EWC: Elastic Weight Consolidation"
    family: ClassVar[str] = "anchors"
    paper: ClassVar[str] = "https://arxiv.org/abs/1612.00796"
    needs: ClassVar[str] = "data to keep (general, or self-generated)"
    cost: ClassVar[str] = "a pass over the kept sequences; two more copies of the weights; a pass over them per step"

    strength: float = Field(default=1.0, ge=0, description="Factor of the penalty; 0 is plain fine-tuning.")
    num_sequences: int = Field(default=128, ge=1, description="Sequences that the Fisher information is a mean over.")
    labels: Literal["sampled", "empirical"] = Field(
        default="sampled", description="Draw labels from the model (the Fisher), or take the data's own."
    )
    num_draws: int = Field(
        default=1, ge=1, description="Labels drawn for each sequence: more make F less noisy, each is a pass more."
    )
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Precision that F is kept in.")
    data: KeptOrEarlier = Field(
        default="auto",
        description="What to keep: general examples, self-generated ones, or whichever there are; earlier = in a "
        "sequence, earlier phases alone.",
    )
    previous: str | None = Field(
        default=None, description="ewc.safetensors of an earlier phase: its Fisher is added (online EWC)."
    )
    gamma: float = Field(
        default=1.0, ge=0, le=1, description="What the earlier phase's Fisher is multiplied by, in [0, 1]."
    )

    def check(self, context: Context) -> None:
        if self.num_draws > 1 and self.labels == "empirical":
            raise ConfigError("method 'ewc': the data's own labels aren't drawn: leave num_draws out, or labels")
        if self.strength:
            check_kept(context, self.data, self.name)

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Estimates the Fisher information and takes the weights as they are as the anchor.

        Both depend on the model and the job only: a training that resumes finds the same again.
        """
        from pathlib import Path

        from forgetless.mechanisms.kept_importance import estimate_kept_importance
        from forgetless.mechanisms.quadratic import QuadraticPenalty

        self.penalty_: QuadraticPenalty | None = None
        if self.strength and not is_first_of_earlier(context, self.data):
            fisher = estimate_kept_importance(
                model,
                context,
                name=self.name,
                kind=self.labels,
                data=self.data,
                num_sequences=self.num_sequences,
                dtype=self.dtype,
                num_draws=self.num_draws,
                previous=None if self.previous is None else Path(self.previous),
                decay=self.gamma,
            )
            self.penalty_ = QuadraticPenalty(model, fisher, strength=self.strength)
        return model

    def adjust_gradients(self, model: nn.Module) -> Tensor | None:
        """Adds the gradient of the penalty and returns its value."""
        return None if self.penalty_ is None else self.penalty_.add_gradient(model)

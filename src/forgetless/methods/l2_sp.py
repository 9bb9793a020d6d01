"""L2-SP: weights are pulled back to where they started, all alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from forgetless.methods.base import Context, Method, method_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetless.mechanisms.quadratic import QuadraticPenalty


@method_options
class L2SP(Method):
    """Adds (strength / 2) ||theta - theta_0||^2 to the loss (Li et al. 2018).

    Weight decay is something else: it pulls to zero. For LoRA the norm is that of the change of the weights, s B A, not
    of A and B.

    Departs from the paper: no separate decay of new layers (there are none), and the penalty's gradient is added in
    closed form before clipping.
    """

    name: ClassVar[str] = "l2_sp"
    title: ClassVar[str] = "L2-SP: L2 to the starting point"
    family: ClassVar[str] = "anchors"
    paper: ClassVar[str] = "https://arxiv.org/abs/1802.01483"
    cost: ClassVar[str] = "one more copy of the trained weights; a pass over them per optimizer step"

    strength: float = Field(default=0.1, ge=0, description="Factor of the penalty; 0 is plain fine-tuning.")

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Takes the weights as they are as the anchor."""
        from forgetless.mechanisms.quadratic import QuadraticPenalty

        self.penalty_: QuadraticPenalty | None = None
        if self.strength:
            self.penalty_ = QuadraticPenalty(model, strength=self.strength)
        return model

    def adjust_gradients(self, model: nn.Module) -> Tensor | None:
        """Adds the gradient of the penalty and returns its value."""
        return None if self.penalty_ is None else self.penalty_.add_gradient(model)

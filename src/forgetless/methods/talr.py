"""TALR: tokens that the model finds improbable count less."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from forgetless.methods.base import Method, Step, method_options

if TYPE_CHECKING:
    from torch import Tensor


@method_options
class TALR(Method):
    """Weighs each token by w_t = max(p_t^(1 / tau), floor), p_t the model's probability of it.

    tau is the median token loss of the micro-batch, in nats; p_t is the model's as it is being trained, detached. At
    the median loss the weight is 1 / e, whatever the data.

    Weights aren't scaled to a mean of 1: a batch of improbable tokens is to count less than others. The loss
    shrinks to about a half, so compare it with a lower learning rate too.
    """

    name: ClassVar[str] = "talr"
    title: ClassVar[str] = "TALR: token-adaptive loss reweighting"
    family: ClassVar[str] = "loss"
    paper: ClassVar[str] = "https://arxiv.org/abs/2509.20758"
    cost: ClassVar[str] = "none beside the token losses that are computed anyway"

    strength: float = Field(default=1.0, ge=0, description="Power of the weights; 1 = the paper, 0 = plain.")
    floor: float = Field(default=0.01, ge=0, le=1, description="Smallest weight, so that no token is lost.")

    def token_weights(self, step: Step) -> Tensor | None:
        """Returns the weights of the supervised tokens; None at strength 0."""
        from forgetless.mechanisms.logits import is_supervised

        if not self.strength:
            return None
        losses = step.token_losses.detach()
        supervised = losses[is_supervised(step.labels)]
        if not len(supervised):
            return None
        temperature = supervised.quantile(0.5).clamp(min=1e-8)
        return (-self.strength * losses / temperature).exp().clamp(min=self.floor)

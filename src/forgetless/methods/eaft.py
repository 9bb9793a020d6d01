"""EAFT: tokens at which the model is sure of something else count less."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from forgetless.methods.base import Method, Step, method_options

if TYPE_CHECKING:
    from torch import Tensor


@method_options
class EAFT(Method):
    """Weighs each token by w_t = (H_t / ln K)^alpha, H_t the entropy of the model's K most likely tokens (Diao 2026).

    The entropy is that of the model as it is being trained, of the top K renormalised to 1, detached; w_t is in
    [0, 1].

    Weights aren't scaled to a mean of 1: how small they are where the model is sure is the method. The loss shrinks
    as the model gets surer, so compare it with a lower learning rate too.
    """

    name: ClassVar[str] = "eaft"
    title: ClassVar[str] = "EAFT: entropy-adaptive fine-tuning"
    family: ClassVar[str] = "loss"
    paper: ClassVar[str] = "https://arxiv.org/abs/2601.02151"
    cost: ClassVar[str] = "the top K of the logits that the loss needs anyway"

    exponent: float = Field(default=1.0, ge=0, description="alpha, the power of the weights; 0 = plain fine-tuning.")
    top_k: int = Field(default=20, ge=2, description="K, the tokens whose entropy counts.")

    def token_weights(self, step: Step) -> Tensor | None:
        """Returns the normalised entropy at each supervised token, to the power; None at exponent 0."""
        import torch

        from forgetless.mechanisms.logits import is_supervised

        if not self.exponent:
            return None
        logits = step.supervised_logits.detach()
        num = min(self.top_k, logits.shape[-1])
        log_probs = logits.topk(num, dim=-1).values.float().log_softmax(-1)
        entropies = -(log_probs.exp() * log_probs).sum(-1)
        weights = torch.ones(step.labels[:, 1:].shape, device=logits.device)
        weights[is_supervised(step.labels)] = (entropies / math.log(num)).clamp(0, 1) ** self.exponent
        return weights

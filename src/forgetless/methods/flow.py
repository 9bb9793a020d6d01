"""FLOW: training examples that the base finds easy count more."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from forgetless.errors import ConfigError
from forgetless.methods.base import Context, Method, Step, method_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetless.mechanisms.reference import Reference


@method_options
class FLOW(Method):
    """Weighs each example by w_i = exp(-l_i / tau), l_i the base's mean token loss of it, tau = median of all l_i.

    The weights are fixed before training (Sanyal et al. 2025, Algorithm 1).

    Departs from the paper: the weights are divided by one constant, their mean over all supervised tokens of the
    training data. Relative weights are the paper's; the loss keeps its scale (the paper's shrinks to about a third),
    so that learning rates, clipping and the strength of penalties mean what they mean without FLOW.
    """

    name: ClassVar[str] = "flow"
    title: ClassVar[str] = "FLOW: fine-tuning with pre-trained loss-oriented weighting"
    family: ClassVar[str] = "loss"
    paper: ClassVar[str] = "https://arxiv.org/abs/2502.02797"
    cost: ClassVar[str] = "one forward pass of the base over the training data, before training"

    strength: float = Field(
        default=1.0, ge=0, description="Power of the weights; 1 = the paper, 0 = plain fine-tuning."
    )
    temperature: float | None = Field(
        default=None, gt=0, description="tau in nats per token; default the median loss of the base."
    )

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Asks the base about every training sequence and settles the temperature and the mean weight.

        Args:
            model: The base, adapted or not; it isn't changed.
            context: The job; its sequences are asked about.

        Returns:
            The same model.

        Raises:
            ConfigError: The training sequences aren't known beforehand.
        """
        import numpy as np

        from forgetless.mechanisms.reference import Reference

        if not self.strength:
            return model
        if not context.sequences:
            raise ConfigError(
                "method 'flow' must know all training sequences beforehand: give the trainer rows with input_ids and "
                "labels"
            )
        self.reference_: Reference = Reference(directory=context.directory)
        self.reference_.ask(model, context.sequences, padding=getattr(context.tokenizer, "pad_token_id", None))
        losses, counts = self.reference_.mean_losses(context.sequences)
        self.temperature_ = self.temperature or max(float(np.median(losses)), 1e-8)
        weights = np.exp(-self.strength * losses / self.temperature_)
        self.mean_weight_ = float(np.average(weights, weights=counts))
        return model

    def token_weights(self, step: Step) -> Tensor | None:
        """Returns the weight of its example for each token, 1 on average over the training data; None at strength 0."""
        import torch

        from forgetless.mechanisms.logits import is_supervised
        from forgetless.mechanisms.rows import rows_of

        if not self.strength:
            return None
        losses = self.reference_.token_losses(step.model, step.inputs)
        wanted = is_supervised(step.labels)
        weights = torch.ones_like(losses)
        for row in rows_of(step.inputs):
            place = (row.index, slice(row.start, row.stop - 1))
            num = wanted[place].sum()
            if num:
                mean = losses[place].sum() / num
                weights[place] = (-self.strength * mean / self.temperature_).exp() / self.mean_weight_
        return weights

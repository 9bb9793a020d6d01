"""STM: target tokens that the base finds improbable are not learned."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from forgetless.errors import ConfigError
from forgetless.methods.base import Context, Method, Step, method_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetless.mechanisms.reference import Reference

_LARGEST_SHARE = 0.5  # masked tokens beyond which the user is told that little is left to be learned


@method_options
class STM(Method):
    """Leaves out the target tokens whose perplexity under the base, 1 / p, is above a threshold (Wu et al. 2025).

    What is left out is what the base doesn't know: right for style and format, a poor choice for new facts and terms.
    The share that is left out is in `masked_share_`.

    Departs from the paper's code: the loss is divided by the tokens that are left of the whole training data instead of
    those of the batch, so that a batch of which little is left doesn't count as much as one of which all is.
    """

    name: ClassVar[str] = "stm"
    title: ClassVar[str] = "STM: selective token masking"
    family: ClassVar[str] = "loss"
    paper: ClassVar[str] = "https://arxiv.org/abs/2501.14315"
    cost: ClassVar[str] = "one forward pass of the base over the training data, before training"

    threshold: float | None = Field(
        default=2.5,
        gt=1,
        description="Largest perplexity of the base at which a token is learned; null = plain fine-tuning.",
    )

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Asks the base about every training sequence and counts what is left out.

        Args:
            model: The base, adapted or not; it isn't changed.
            context: The job; its sequences are asked about.

        Returns:
            The same model.

        Raises:
            ConfigError: The training sequences aren't known beforehand, or nothing would be left of them.
        """
        from forgetless.mechanisms.reference import Reference

        if self.threshold is None:
            return model
        if not context.sequences:
            raise ConfigError(
                "method 'stm' must know all training sequences beforehand: give the trainer rows with input_ids and "
                "labels"
            )
        self.reference_: Reference = Reference(directory=context.directory)
        self.reference_.ask(model, context.sequences, padding=getattr(context.tokenizer, "pad_token_id", None))
        self.masked_share_ = self.reference_.share_above(math.log(self.threshold), context.sequences)
        if self.masked_share_ == 1:
            raise ConfigError(
                f"method 'stm' leaves no token to learn: all have a perplexity above {self.threshold} under the base: "
                "raise the threshold, or drop the method where the data brings new facts"
            )
        if self.masked_share_ > _LARGEST_SHARE:
            warnings.warn(
                f"method 'stm' masks {self.masked_share_:.0%} of the target tokens: what is new in the data is what it "
                f"leaves out; raise the threshold of {self.threshold} if it is to be learned",
                stacklevel=2,
            )
        return model

    def token_weights(self, step: Step) -> Tensor | None:
        """Returns 0 for tokens above the threshold and 1 / (share that is left) for the others; None = no threshold."""
        if self.threshold is None:
            return None
        losses = self.reference_.token_losses(step.model, step.inputs)
        is_learned = losses <= math.log(self.threshold)  # the threshold is a perplexity, the losses are nats
        return is_learned.float() / (1 - self.masked_share_)

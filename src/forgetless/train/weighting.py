"""Task losses from logits that methods have looked at already: weighed, and without a second forward pass.

A trainer's own `compute_loss` is left to work: it is given a stand-in for the model, whose outputs carry the weighed
losses in the place where the trainer looks for them. So its metrics, its auxiliary losses and its scaling over
processes stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.data.encoding import IGNORED
from forgetless.errors import ConfigError

_ROWS = 1024  # positions whose distributions are held at once where metrics are computed


class MicroBatch:
    """One micro-batch as methods see it; the model is asked once, on first use.

    Args:
        model: The model that is trained, unwrapped.
        inputs: `input_ids`, `attention_mask`, `labels`, each (batch, tokens). Packed batches carry `position_ids`
            that start anew with each sequence, and may carry no mask.
        num_items: Supervised tokens of the whole optimizer step; None = of this micro-batch.
        global_step: Optimizer steps that are done.
        forward: Asks the model, with the graph; its output has `logits`, (batch, tokens, vocabulary).
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        num_items: Tensor | int | None,
        *,
        global_step: int,
        forward: Callable[[], Any],
    ) -> None:
        self.model, self.inputs, self.num_items, self.global_step = model, inputs, num_items, global_step
        self._forward = forward

    @property
    def labels(self) -> Tensor:
        if "labels" not in self.inputs:
            raise ConfigError(
                f"the batches carry no `labels`, only {', '.join(self.inputs)}: let the collator add them"
            )
        return self.inputs["labels"]

    @cached_property
    def outputs(self) -> Any:
        """What the model returned, with its graph."""
        return self._forward()

    @property
    def is_forwarded(self) -> bool:
        """Whether a method has asked for logits."""
        return "outputs" in self.__dict__

    @property
    def logits(self) -> Tensor:
        """Logits of the model that is trained, (batch, tokens, vocabulary), with their graph."""
        logits: Tensor = self.outputs.logits
        return logits[:, -self.inputs["input_ids"].shape[1] :]  # learned prompts stand before the tokens

    @cached_property
    def token_losses(self) -> Tensor:
        """Cross-entropy of each next token in nats, (batch, tokens - 1); 0 where nothing is learned."""
        logits, labels = self.logits[:, :-1], self.labels[:, 1:]
        losses = nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
        return losses.view_as(labels)  # ignore_index -100 gives 0


class AnsweredModel:
    """Stands for the model inside `compute_loss`: answers at once, from what the micro-batch has computed.

    Args:
        step: The micro-batch.
        weights: Of the token losses, (batch, tokens - 1); None = 1 everywhere.
    """

    def __init__(self, step: MicroBatch, weights: Tensor | None) -> None:
        self._step = step
        self._mark = torch.ones((), device=step.logits.device, requires_grad=True)
        self.losses = step.token_losses if weights is None else step.token_losses * (weights * self._mark)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step.model, name)

    def __call__(self, *, fused_lm_head: bool = False, num_items_in_batch: Any = None, **inputs: Any) -> Any:
        if fused_lm_head:
            return self._fused()
        outputs = self._step.outputs
        if "labels" not in inputs:
            return outputs
        num = (self._step.labels[:, 1:] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        loss = self.losses.sum() / torch.as_tensor(num, device=self.losses.device).clamp(min=1)
        if getattr(outputs, "aux_loss", None) is not None:
            loss = loss + _base(self._step.model).router_aux_loss_coef * outputs.aux_loss.to(loss.device)
        return type(outputs)(**{**outputs, "loss": loss})

    def _fused(self) -> SimpleNamespace:
        """Answers as a model with TRL's fused output layer."""
        labels = self._step.labels[:, 1:]
        entropy, is_top1 = token_metrics(self._step.logits[:, :-1], labels)
        return SimpleNamespace(
            log_probs=-self.losses,
            entropy=entropy,
            is_top1=is_top1,
            label_mask=labels != IGNORED,
            aux_loss=getattr(self._step.outputs, "aux_loss", None),
        )

    def refuse_unused(self, loss: Tensor) -> None:
        """Refuses a trainer whose loss isn't made of the weighed token losses; costs nothing of a backward pass.

        Args:
            loss: What `compute_loss` made of this model.

        Raises:
            ConfigError: The weights have no part in it.
        """
        (found,) = torch.autograd.grad(loss, self._mark, retain_graph=True, allow_unused=True)
        if found is None:
            raise ConfigError(
                "the trainer's own compute_loss doesn't use the model's loss, so that its tokens can't be weighed: "
                "drop the methods that weigh tokens, or that compute_loss"
            )


@torch.no_grad()
def token_metrics(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what trainers log of each predicted token; 0 where nothing is learned.

    Args:
        logits: (batch, tokens, vocabulary).
        labels: (batch, tokens), of the same positions.

    Returns:
        Entropy of the distribution in nats, and whether the label is its most likely token; both (batch, tokens).
    """
    is_learned = labels != IGNORED
    entropy = torch.zeros(labels.shape, device=logits.device)
    is_top1 = torch.zeros(labels.shape, dtype=torch.bool, device=logits.device)
    for rows in is_learned.nonzero().split(_ROWS):
        at = tuple(rows.T)
        log_probs = logits[at].float().log_softmax(-1)
        entropy[at] = -(log_probs.exp() * log_probs).sum(-1)
        is_top1[at] = log_probs.argmax(-1) == labels[at]
    return entropy, is_top1


def multiply_weights(weights: list[Tensor | None]) -> Tensor | None:
    """Multiplies the token weights of all methods; None where none of them gives any."""
    total: Tensor | None = None
    for weight in weights:
        if weight is not None:
            total = weight if total is None else total * weight
    return total


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model

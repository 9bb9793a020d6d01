"""Task losses from logits that methods have looked at already: weighed, and without a second forward pass.

A trainer's own `compute_loss` is left to work: it is given a stand-in for the model, whose outputs carry the weighed
losses in the place where the trainer looks for them. So its metrics, its auxiliary losses and its scaling over
processes stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.data.encoding import IGNORED
from forgetless.errors import ConfigError
from forgetless.mechanisms.logits import is_supervised, supervised_logits, supervised_targets

_ROWS = 1024  # positions whose distributions are held at once where metrics are computed


class MicroBatch:
    """One micro-batch as methods see it; the model is asked once, on first use.

    Args:
        model: The model that is trained, unwrapped.
        inputs: `input_ids`, `attention_mask`, `labels`, each (batch, tokens). Packed batches carry `position_ids`
            that start anew with each sequence, and may carry no mask.
        num_items: Supervised tokens of the whole optimizer step; None = of this micro-batch.
        forward: The model as it is called, wrapped for several processes or not.
        is_first: Whether it is the first micro-batch of the optimizer step.
        num_micro_batches: Micro-batches of the whole optimizer step.
        num_processes: Processes over which `num_items` counts and gradients are averaged.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        num_items: Tensor | int | None,
        *,
        forward: Callable[..., Any],
        is_first: bool = True,
        num_micro_batches: int = 1,
        num_processes: int = 1,
    ) -> None:
        self.model, self.inputs, self.num_items, self.is_first = model, inputs, num_items, is_first
        self.num_micro_batches, self.num_processes = num_micro_batches, num_processes
        self.forward = forward
        self.outputs: Any = None  # of the model, when it was last asked

    @property
    def labels(self) -> Tensor:
        if "labels" not in self.inputs:
            raise ConfigError(
                f"the batches carry no `labels`, only {', '.join(self.inputs)}: let the collator add them"
            )
        return self.inputs["labels"]

    def _ask(self, **inputs: Any) -> Any:
        self.outputs = self.forward(**inputs)
        return self.outputs

    @cached_property
    def logits(self) -> Tensor:
        """Logits of the model that is trained, (batch, tokens, vocabulary), with their graph."""
        inputs = {name: value for name, value in self.inputs.items() if name != "labels"}
        logits: Tensor = self._ask(**{**inputs, "use_cache": False}).logits
        return logits[:, -self.inputs["input_ids"].shape[1] :]  # learned prompts stand before the tokens

    @cached_property
    def supervised_logits(self) -> Tensor:
        """Logits that predict the supervised tokens, (supervised tokens, vocabulary), with their graph."""
        if "logits" in self.__dict__:
            return self.logits[:, :-1][is_supervised(self.labels)]
        return supervised_logits(self.model, {**self.inputs, "labels": self.labels}, forward=self._ask)

    @property
    def is_projected(self) -> bool:
        """Whether a method has asked for logits, so that the loss can be made of them."""
        return "logits" in self.__dict__ or "supervised_logits" in self.__dict__

    @cached_property
    def token_losses(self) -> Tensor:
        """Cross-entropy of each next token in nats, (batch, tokens - 1); 0 where nothing is learned."""
        wanted = is_supervised(self.labels)
        logits, targets = self.supervised_logits.float(), supervised_targets(self.labels)
        losses = nn.functional.cross_entropy(logits, targets, reduction="none")
        return losses.new_zeros(wanted.shape).masked_scatter(wanted, losses)

    def mean_over_tokens(self, values: Tensor) -> Tensor:
        """Returns the part of a mean over the supervised tokens of the optimizer step that a penalty has to return.

        The trainer takes the mean of a penalty over micro-batches and processes; tokens are to count alike in all.

        Args:
            values: One for each supervised token of this micro-batch, (supervised tokens,).

        Returns:
            A scalar.
        """
        if self.num_items is None:
            return values.sum() / max(len(values), 1)
        total = torch.as_tensor(self.num_items, device=values.device).clamp(min=1)
        return values.sum() / total * self.num_micro_batches * self.num_processes


class AnsweredModel:
    """Stands for the model inside `compute_loss`: answers from what the micro-batch has computed.

    Args:
        step: The micro-batch.
        weights: Of the token losses, (batch, tokens - 1); None = 1 everywhere.
    """

    def __init__(self, step: MicroBatch, weights: Tensor | None) -> None:
        self._step = step
        self._mark = torch.ones((), device=step.token_losses.device, requires_grad=True)
        self.losses = step.token_losses if weights is None else step.token_losses * (weights * self._mark)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step.forward, name)

    def __call__(self, *arguments: Any, **inputs: Any) -> Any:
        # Without labels it is a loss of the trainer's own, which wants all logits; with other tokens, another batch.
        is_known = inputs.get("input_ids") is self._step.inputs["input_ids"]
        if arguments or "labels" not in inputs or not is_known:
            return self._step.forward(*arguments, **inputs)
        if inputs["labels"] is not self._step.labels:
            raise ConfigError(
                "the trainer's own compute_loss changes the labels, so that its tokens can't be weighed: change them "
                "in the collator, or drop the methods that weigh tokens"
            )
        loss = self._loss(inputs.get("num_items_in_batch"))
        if inputs.get("output_hidden_states") or inputs.get("output_attentions"):  # what no micro-batch keeps
            outputs = self._step.forward(**inputs)
            outputs["loss"] = loss
            return outputs
        if inputs.get("return_dict") is False:
            return loss, self._step.logits
        answer = _Answer(self._step, loss=loss, aux_loss=self._aux_loss)
        if inputs.get("fused_lm_head"):  # TRL's output layer, which keeps what its trainers log of each token
            is_learned = is_supervised(self._step.labels)
            metrics = token_metrics(self._step.supervised_logits, supervised_targets(self._step.labels))
            entropy, is_top1 = (one.new_zeros(is_learned.shape).masked_scatter(is_learned, one) for one in metrics)
            answer |= {"log_probs": -self.losses, "label_mask": is_learned, "entropy": entropy, "is_top1": is_top1}
        return answer

    @property
    def _aux_loss(self) -> Tensor | None:
        """A router's own loss, where the model has one."""
        found: Tensor | None = getattr(self._step.outputs, "aux_loss", None)
        return found

    def _loss(self, num_items: Tensor | int | None) -> Tensor:
        """Returns the mean over so many tokens, None = those of the micro-batch, and the router's part."""
        num = (self._step.labels[:, 1:] != IGNORED).sum() if num_items is None else num_items
        loss = self.losses.sum() / torch.as_tensor(num, device=self.losses.device).clamp(min=1)
        if self._aux_loss is None:
            return loss
        weight: float = _base(self._step.model).router_aux_loss_coef
        return loss + weight * self._aux_loss.to(loss.device)

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


class _Answer(dict[str, Any]):
    """Outputs of a model; the logits of all positions are computed only where a trainer wants them."""

    def __init__(self, step: MicroBatch, **fields: Any) -> None:
        super().__init__(fields)
        self._step = step

    def __getitem__(self, name: Any) -> Any:
        if isinstance(name, int | slice):  # as transformers' outputs, which are tuples too
            return (self["loss"], self["logits"])[name]
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Any:
        return self._step.logits if name == "logits" else getattr(self._step.outputs, name)

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Returns an output, computed where it has to be; the default where the model has none of that name."""
        try:
            return self[name]
        except AttributeError:
            return default


@torch.no_grad()
def token_metrics(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what trainers log of each predicted token.

    Args:
        logits: (tokens, vocabulary).
        targets: (tokens,).

    Returns:
        Entropy of the distribution in nats, and whether the target is its most likely token; both (tokens,).
    """
    entropy, is_top1 = [], []
    for rows, wanted in zip(logits.split(_ROWS), targets.split(_ROWS), strict=True):
        log_probs = rows.float().log_softmax(-1)
        entropy.append(-(log_probs.exp() * log_probs).sum(-1))
        is_top1.append(log_probs.argmax(-1) == wanted)
    return torch.cat(entropy), torch.cat(is_top1)


def multiply_weights(weights: list[Tensor | None]) -> Tensor | None:
    """Multiplies the token weights of all methods; None where none of them gives any."""
    total: Tensor | None = None
    for weight in weights:
        if weight is not None:
            total = weight if total is None else total * weight
    return total


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model

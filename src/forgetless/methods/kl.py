"""KL to the base: the tuned model is held near the base's next-token distributions on data that stands for the old."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from forgetless.errors import ConfigError
from forgetless.mechanisms.kept import check_kept, kept_examples
from forgetless.methods.base import Context, Method, Step, method_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetless.mechanisms.batches import BatchCycle
    from forgetless.mechanisms.reference import Reference


@method_options
class KLToBase(Method):
    """Adds strength * mean_t KL(base(. | prefix_t) || tuned(. | prefix_t)) over answer tokens (Li and Hoiem 2016).

    Forward only: the expectation is the base's, so what the base would say must stay likely. That is what forgetting
    takes away, and the base's most likely tokens suffice to see it, so that they can be kept instead of a second model.
    The reverse divergence forgives a tuned model that drops answers of the base.

    On kept data one batch is drawn for each optimizer step, however many micro-batches it has. On the domain data the
    mean is over the supervised tokens of the whole optimizer step, as for the loss.

    Departs from the papers: temperature 1 (the paper: 2), so that the value is in nats and comparable between runs;
    token means, as for the loss.
    """

    name: ClassVar[str] = "kl"
    title: ClassVar[str] = "KL to the base (learning without forgetting)"
    family: ClassVar[str] = "loss"
    paper: ClassVar[str] = "https://arxiv.org/abs/1606.09282"
    needs: ClassVar[str] = "general data, or the base writes its own; none with data: domain"
    cost: ClassVar[str] = "a forward and backward pass over one kept batch per step, and the base's forward pass"
    adjustable: ClassVar[str] = "strength"

    strength: float = Field(default=1.0, ge=0, description="Weight of the divergence; 0 = plain fine-tuning.")
    data: Literal["auto", "general", "self", "domain", "earlier"] = Field(
        default="auto",
        description="Where the base is held: general examples, self-written ones, domain (the training data), or, in a "
        "sequence, earlier (examples of earlier phases).",
    )
    anchor: Literal["base", "start"] = Field(
        default="base",
        description="In a sequence: the model before all phases, or the one that the phase starts from.",
    )
    num_examples: int = Field(default=128, ge=1, description="Kept examples, at most.")
    batch_size: int = Field(default=4, ge=1, description="Kept examples per optimizer step.")
    mask_target: bool = Field(
        default=False, description="Leave the target token out of both distributions (Mask the Target)."
    )
    reference: Literal["auto", "adapter", "cache"] = Field(
        default="auto",
        description="adapter = the base by switching the adapter off; cache = asked once before training; auto = "
        "adapter where the base stands behind one.",
    )
    top_k: int = Field(default=64, ge=1, description="Tokens kept apart in the cache; the rest is one bucket.")

    def check(self, context: Context) -> None:
        """Raises `ConfigError` when there is neither general data nor a base that could write some."""
        if self.strength and self.data != "domain":
            check_kept(context, self.data, self.name)
        if self.anchor == "start" and context.earlier is None:
            raise ConfigError(
                "method 'kl', option 'anchor': start is for sequences of phases; elsewhere the base is the model "
                "without its adapter: merge an adapter that belongs to the start, and leave the option out"
            )
        earlier = context.earlier
        is_on_tuned = earlier is not None and bool(earlier.phases) and not earlier.is_continued
        if self.reference == "adapter" and self.anchor == "base" and is_on_tuned:
            raise ConfigError(
                "method 'kl', option 'reference': in a later phase what stands behind the adapter isn't the base: set "
                "cache or auto, or anchor start"
            )
        if self.anchor == "start" and context.earlier is not None and context.earlier.is_continued:
            raise ConfigError(
                "method 'kl', option 'anchor': with sequence.carry continue, what stands behind the adapter is the "
                "model before all phases: set sequence.carry merge, or anchor base"
            )

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Draws the data to keep, and asks the base about it where the base won't be there later.

        Args:
            model: The base, adapted or not; it isn't changed.
            context: The job.

        Returns:
            The same model.

        Raises:
            ConfigError: There is no data to hold the base on.
        """
        from forgetless.data.encoding import encode_examples
        from forgetless.mechanisms.adapters import is_base_behind_adapter
        from forgetless.mechanisms.batches import BatchCycle, pad_batch
        from forgetless.mechanisms.reference import Reference

        self.is_idle_ = not self.strength
        if self.is_idle_:
            return model
        sequences = context.sequences
        padding = getattr(context.tokenizer, "pad_token_id", None)
        self.cycle_: BatchCycle | None = None
        if self.data != "domain":
            examples = kept_examples(context, self.data, self.num_examples)
            self.is_idle_ = not examples  # in a first phase there are no earlier ones
            if self.is_idle_:
                return model
            sequences = encode_examples(examples, context.tokenizer, max_tokens=context.max_tokens)
            groups = [sequences[at : at + self.batch_size] for at in range(0, len(sequences), self.batch_size)]
            self.cycle_ = BatchCycle([pad_batch(group, padding=padding) for group in groups], context.seed)
        self.reference_: Reference = Reference(top_k=self.top_k, directory=context.directory)
        earlier = context.earlier
        if self.anchor == "base" and earlier is not None and earlier.load_base is not None:
            # Behind the adapter stands what earlier phases have made of the base: it is asked itself, then let go.
            self.reference_.ask(earlier.load_base().model, sequences, padding=padding)
            return model
        if self.reference == "adapter" and not is_base_behind_adapter(model):
            raise ConfigError(
                "method 'kl', option 'reference': the base does not stand behind an adapter here: put an adapter such "
                "as lora before kl, or set cache"
            )
        if self.reference == "cache" or not is_base_behind_adapter(model):
            if not sequences:
                raise ConfigError(
                    "method 'kl' with data domain asks the base about the training rows beforehand, and there are none "
                    "that can be read by number (a stream, preferences): give rows with input_ids and labels, "
                    "take general data, or train an adapter, behind which the base can still be asked"
                )
            self.reference_.ask(model, sequences, padding=padding)
        return model

    def penalty(self, step: Step) -> Tensor | None:
        """Returns the divergence of this micro-batch's part, times the strength; None at strength 0."""
        import torch

        from forgetless.mechanisms.logits import supervised_logits

        if self.is_idle_:
            return None
        if self.cycle_ is None:
            divergences = self._divergences(step.model, step.inputs, step.supervised_logits)
            return self.strength * step.mean_over_tokens(divergences)
        device = next(step.model.parameters()).device
        if not step.is_first:
            return torch.zeros((), device=device)  # the optimizer step has had its kept batch
        batch = {name: tensor.to(device) for name, tensor in self.cycle_.next().items()}
        divergences = self._divergences(step.model, batch, supervised_logits(step.model, batch))
        # The trainer takes the mean over micro-batches, of which only this one brings anything.
        return self.strength * step.num_micro_batches * divergences.mean()

    def _divergences(self, model: nn.Module, inputs: Mapping[str, Any], logits: Tensor) -> Tensor:
        from forgetless.mechanisms.divergence import divergence
        from forgetless.mechanisms.logits import supervised_targets

        base = self.reference_.distributions(model, inputs)
        return divergence(base, logits, left_out=supervised_targets(inputs["labels"]) if self.mask_target else None)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns where it stands in the kept batches."""
        cycle = getattr(self, "cycle_", None)
        return {} if cycle is None else cycle.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on with the kept batches where a checkpoint left off."""
        cycle = getattr(self, "cycle_", None)
        if cycle is not None:
            cycle.load_state_dict(state)

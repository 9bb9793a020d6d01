"""A-GEM: a gradient that would raise the loss on data to keep loses the part that would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from forgetless.mechanisms.batches import BatchCycle, encode_batches
from forgetless.mechanisms.kept import KeptOrEarlier, check_kept, kept_examples
from forgetless.methods.base import Context, Method, method_options

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@method_options
class AGEM(Method):
    """Where g . g_ref < 0, takes g - (g . g_ref / ||g_ref||^2) g_ref in place of g (Chaudhry et al. 2019, eq. 11).

    g is the gradient of the optimizer step, g_ref that of the mean loss per token on a batch of data to keep, in eval
    mode; both over all trained parameters at once. All processes draw the same batch.

    Departs from the paper: the data to keep are general examples, not those of earlier tasks, and the optimizer is
    Adam: what it makes of the projected gradient may still raise the loss on the data to keep.
    """

    name: ClassVar[str] = "a_gem"
    title: ClassVar[str] = "A-GEM: Averaged Gradient Episodic Memory"
    family: ClassVar[str] = "partial updates"
    paper: ClassVar[str] = "https://arxiv.org/abs/1812.00420"
    needs: ClassVar[str] = "data to keep: general examples, or the base writes some"
    cost: ClassVar[str] = "one forward and backward pass more per optimizer step, a second gradient in memory"
    needs_whole_weights: ClassVar[bool] = True

    strength: float = Field(
        default=1.0, ge=0, le=1, description="Part of the conflict that is taken out, in [0, 1]; 0 = nothing."
    )
    data: KeptOrEarlier = Field(
        default="auto",
        description="Data to keep: general, self (the base writes it), auto, or earlier (the phases before this one).",
    )
    num_examples: int = Field(default=256, ge=1, description="Most examples of data to keep.")
    batch_size: int = Field(default=8, ge=1, description="Examples of data to keep in the batch of a step.")

    def check(self, context: Context) -> None:
        if self.strength:
            check_kept(context, self.data, self.name)

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Encodes the data to keep; the model stays as it is."""
        self.num_steps_ = self.num_projections_ = 0
        examples = kept_examples(context, self.data, self.num_examples) if self.strength else []
        self.is_idle_ = not examples  # in a first phase there are no earlier ones
        if not self.is_idle_:
            batches = encode_batches(
                examples,
                context.tokenizer,
                max_tokens=context.max_tokens,
                batch_size=self.batch_size,
            )
            self.batches_ = BatchCycle(batches, context.seed)
        return model

    def adjust_gradients(self, model: nn.Module) -> None:
        """Projects the gradient where it conflicts with that on the data to keep."""
        import torch

        if self.is_idle_:
            return
        self.num_steps_ += 1
        trained = [p for p in model.parameters() if p.requires_grad and p.grad is not None]
        references = reference_gradients(model, trained, self.batches_.next())
        with torch.no_grad():
            gradients = [p.grad for p in trained if p.grad is not None]
            product = _dot(gradients, references)
            if product < 0:
                self.num_projections_ += 1
                scale = self.strength * product / _dot(references, references)
                for gradient, reference in zip(gradients, references, strict=True):
                    gradient.sub_(reference.to(gradient.dtype) * scale)

    @property
    def projected_share_(self) -> float:
        """In what part of the optimizer steps the gradient conflicted and was projected, in [0, 1]."""
        return self.num_projections_ / self.num_steps_ if self.num_steps_ else 0.0

    def state_dict(self) -> dict[str, Tensor]:
        import torch

        counts = {"num_steps": torch.tensor(self.num_steps_), "num_projections": torch.tensor(self.num_projections_)}
        return counts if self.is_idle_ else counts | self.batches_.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.num_steps_, self.num_projections_ = int(state["num_steps"]), int(state["num_projections"])
        if not self.is_idle_:
            self.batches_.load_state_dict(state)


def reference_gradients(
    model: nn.Module, parameters: Sequence[torch.nn.Parameter], batch: Mapping[str, Tensor]
) -> list[Tensor]:
    """Computes the gradient on a batch of data to keep, and leaves the accumulated gradients alone.

    Args:
        model: The model that is trained; it is in eval mode meanwhile.
        parameters: What to differentiate by.
        batch: `input_ids`, `attention_mask`, `labels`, each (batch, tokens).

    Returns:
        One gradient for each parameter, of the mean loss in nats per supervised token; 0 where it plays no part.
    """
    import torch

    from forgetless.mechanisms.modes import eval_mode

    device = parameters[0].device
    with eval_mode(model):
        loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}, use_cache=False).loss
        found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def _dot(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Returns the scalar product of two gradients, summed in float32."""
    import torch

    return torch.stack([(a.float() * b.float()).sum() for a, b in zip(one, other, strict=True)]).sum()

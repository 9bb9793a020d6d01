"""Replay: examples of what must be kept, mixed into the training data at an exact share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from forgetless.errors import ConfigError
from forgetless.methods.base import Context, Method, method_options

if TYPE_CHECKING:
    from forgetless.data.examples import Example


@method_options
class Replay(Method):
    """Mixes the user's general examples in, so that a share r of the *final* mixture is general.

    n = round(r / (1 - r) * N) general examples are added to N domain examples; share 0 adds none.

    Departs from the paper (rehearsal of earlier tasks' examples): what is replayed is whatever the user names as
    general data, as in Scialom et al. 2022.
    """

    name: ClassVar[str] = "replay"
    title: ClassVar[str] = "Replay (rehearsal) of general examples"
    paper: ClassVar[str] = "https://arxiv.org/abs/2205.12393"
    needs: ClassVar[str] = "general data"
    cost: ClassVar[str] = "training time grows by r / (1 - r)"

    share: float = Field(
        default=0.1, ge=0, lt=1, description="General examples / all examples of the final mixture, in [0, 1)."
    )
    by: str = Field(
        default="examples",
        pattern="^(examples|tokens)$",
        description="Count the share in examples or in supervised tokens.",
    )

    def check(self, context: Context) -> None:
        if self.share > 0 and not context.general:
            raise ConfigError("method 'replay' needs general examples: set data.general (--general FILE)")

    def prepare_data(self, mixture: Sequence[Example], context: Context) -> Sequence[Example]:
        """Returns the mixture with the general examples mixed in, shuffled; unchanged when the share is 0."""
        from forgetless.data.encoding import count_answer_tokens
        from forgetless.data.mixing import replay_mixture

        self.check(context)
        if self.share == 0:
            return mixture
        counter = None if context.tokenizer is None else lambda example: count_answer_tokens(example, context.tokenizer)
        return replay_mixture(
            mixture,
            context.general,
            share=self.share,
            seed=context.seed,
            by=self.by,  # type: ignore[arg-type]  # the pattern above
            count_tokens=counter,
        )

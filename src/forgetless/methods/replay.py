"""Replay: examples of what must be kept, mixed into the training data at an exact share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from forgetless.mechanisms.kept import KeptData, check_kept, kept_examples
from forgetless.methods.base import Context, Method, method_options

if TYPE_CHECKING:
    from forgetless.data.examples import Example

SPARE = 1.1  # examples that are written beyond the estimate where the share counts in tokens


@method_options
class Replay(Method):
    """Mixes examples of what must be kept in, so that a share r of the *final* mixture is general.

    n = round(r / (1 - r) * N) general examples are added to the N domain examples that can be trained on; share 0 adds
    none. They are the user's, drawn from each source in proportion, or the base writes them itself.

    Departs from the paper (rehearsal of earlier tasks' examples): what is replayed is whatever the user names as
    general data, as in Scialom et al. 2022.
    """

    name: ClassVar[str] = "replay"
    title: ClassVar[str] = "Replay (rehearsal) of general examples"
    family: ClassVar[str] = "data"
    paper: ClassVar[str] = "https://arxiv.org/abs/2205.12393"
    needs: ClassVar[str] = "data to keep: general examples, or the base writes some"
    cost: ClassVar[str] = "training time grows by r / (1 - r); examples that the base writes take it time once"

    share: float = Field(
        default=0.1, ge=0, lt=1, description="General examples / all examples of the final mixture, in [0, 1)."
    )
    by: Literal["examples", "tokens"] = Field(
        default="examples", description="Count the share in examples or in supervised tokens."
    )
    source: KeptData = Field(
        default="auto",
        description="Whose examples: general = the user's, self = the base's own, auto = general if there are any.",
    )
    stratify: str | None = Field(
        default="auto",
        description="Metadata field to draw in proportion by; auto = source, category or the like; null = none.",
    )

    def check(self, context: Context) -> None:
        if self.share > 0:
            check_kept(context, self.source, self.name)

    def prepare_data(self, mixture: Sequence[Example], context: Context) -> Sequence[Example]:
        """Returns the mixture with the general examples mixed in, shuffled; unchanged when the share is 0."""
        from forgetless.data.mixing import find_stratum, replay_mixture

        if self.share == 0:
            return mixture
        count = _token_counter(context)
        # What has no answer within the longest sequence isn't trained on: it takes no part in the share.
        domain = [example for example in mixture if count is None or count(example)]
        pool = [example for example in self._pool(domain, context, count) if count is None or count(example)]
        mixed = replay_mixture(
            domain,
            pool,
            share=self.share,
            seed=context.seed,
            by=self.by,
            count_tokens=count,
            stratify=find_stratum(pool) if self.stratify == "auto" else self.stratify,
        )
        return [*mixed, *(example for example in mixture if count is not None and not count(example))]

    def _pool(
        self, domain: Sequence[Example], context: Context, count: Callable[[Example], int] | None
    ) -> Sequence[Example]:
        """Returns the examples to draw from; the base writes as many as the share needs."""
        from forgetless.data.mixing import num_general_for_share

        if self.source != "self" and context.general:
            return context.general
        num = num_general_for_share(len(domain), self.share)
        written = kept_examples(context, self.source, num)
        if self.by == "examples" or count is None:
            return written
        needed = self.share / (1 - self.share) * sum(map(count, domain))
        found = sum(map(count, written))
        if 0 < found < needed:
            written = kept_examples(context, self.source, math.ceil(num * needed / found * SPARE))
        return written


def _token_counter(context: Context) -> Callable[[Example], int] | None:
    """Returns what counts the tokens of an example that training learns; None where there is no tokenizer."""
    from forgetless.data.encoding import encode_example
    from forgetless.data.examples import content_key

    if context.tokenizer is None:
        return None
    known: dict[str, int] = {}

    def count(example: Example) -> int:
        key = content_key(example)
        if key not in known:
            known[key] = encode_example(example, context.tokenizer, max_tokens=context.max_tokens).num_supervised
        return known[key]

    return count

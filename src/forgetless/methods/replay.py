"""Replay: examples of what must be kept, mixed into the training data at an exact share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from forgetless.errors import ConfigError
from forgetless.mechanisms.kept import KeptOrEarlier, check_kept, kept_examples
from forgetless.methods.base import Context, Method, method_options

if TYPE_CHECKING:
    from forgetless.data.examples import Example

SPARE = 1.1  # examples that are written beyond the estimate where the share counts in tokens


@method_options
class Replay(Method):
    """Mixes examples of what must be kept in, so that a share r of the *final* mixture is general.

    n = round(r / (1 - r) * N) general examples are added to the N domain examples that can be trained on; share 0 adds
    none. They are the user's, drawn from each source in proportion, or the base writes them itself. In a sequence of
    phases they may come from a reservoir over all earlier phases instead, or beside it with a share of its own.

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
    source: KeptOrEarlier = Field(
        default="auto",
        description="Whose examples: general = the user's, self = the base's own, auto = general if there are any; "
        "earlier = those of earlier phases.",
    )
    earlier_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of examples of earlier phases in the final mixture, beside those of source.",
    )
    reservoir: int = Field(default=1000, ge=1, description="Most examples of earlier phases to choose from.")
    balance: bool = Field(default=False, description="Give all earlier phases the same part of the reservoir.")
    stratify: str | None = Field(
        default="auto",
        description="Metadata field to draw in proportion by; auto = source, category or the like; null = none.",
    )

    def check(self, context: Context) -> None:
        if self.share > 0:
            check_kept(context, self.source, self.name)
        if self.earlier_share > 0:
            check_kept(context, "earlier", self.name)
            if self.source == "earlier":
                raise ConfigError(
                    "method 'replay': with source earlier, share is the one that counts: drop earlier_share"
                )
        if self.share + self.earlier_share >= 1:
            raise ConfigError(
                f"method 'replay': share {self.share:g} and earlier_share {self.earlier_share:g} leave nothing to the "
                "domain: their sum has to be below 1"
            )

    def prepare_data(self, mixture: Sequence[Example], context: Context) -> Sequence[Example]:
        """Returns the mixture with the other examples mixed in, shuffled; unchanged when all shares are 0."""
        general_share, earlier_share = self.share, self.earlier_share
        if self.source == "earlier":
            general_share, earlier_share = 0.0, self.share
        if context.earlier is None or not context.earlier.phases:
            earlier_share = 0.0  # in a first phase there is nothing earlier
        if not general_share + earlier_share:
            return mixture
        count = _token_counter(context)
        # What has no answer within the longest sequence isn't trained on: it takes no part in the share.
        mixed = [example for example in mixture if count is None or count(example)]
        if general_share:
            # Of what the general examples have to be the share of, before those of earlier phases join them.
            share = general_share / (1 - earlier_share)
            mixed = self._mix(mixed, self._pool(mixed, share, context, count), share, context, count)
        if earlier_share:
            mixed = self._mix(mixed, self._reservoir(context), earlier_share, context, count, stratify="phase")
        return [*mixed, *(example for example in mixture if count is not None and not count(example))]

    def _mix(
        self,
        domain: Sequence[Example],
        pool: Sequence[Example],
        share: float,
        context: Context,
        count: Callable[[Example], int] | None,
        *,
        stratify: str | None = None,
    ) -> list[Example]:
        from forgetless.data.mixing import find_stratum, replay_mixture

        pool = [example for example in pool if count is None or count(example)]
        if stratify is None:
            stratify = find_stratum(pool) if self.stratify == "auto" else self.stratify
        return replay_mixture(
            domain, pool, share=share, seed=context.seed, by=self.by, count_tokens=count, stratify=stratify
        )

    def _reservoir(self, context: Context) -> list[Example]:
        from forgetless.data.reservoir import fill_reservoir

        phases = {} if context.earlier is None else context.earlier.phases
        return fill_reservoir(phases, size=self.reservoir, seed=context.seed, is_balanced=self.balance)

    def _pool(
        self, domain: Sequence[Example], share: float, context: Context, count: Callable[[Example], int] | None
    ) -> Sequence[Example]:
        """Returns the examples to draw from; the base writes as many as the share needs."""
        from forgetless.data.mixing import num_general_for_share

        if self.source != "self" and context.general:
            return context.general
        num = num_general_for_share(len(domain), share)
        written = kept_examples(context, self.source, num)
        if self.by == "examples" or count is None:
            return written
        needed = share / (1 - share) * sum(map(count, domain))
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

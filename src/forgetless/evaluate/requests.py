"""What an evaluation asks of a model, in text or token ids, and what comes back.

Three kinds of models answer: one in this process (`local.py`), a server (`endpoint.py`), a plain function
(`function.py`). All answer prompts; only the first gives likelihoods.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from forgetless.data.examples import Message
from forgetless.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are decoded.

    Attributes:
        temperature: 0 decodes greedily; above, tokens are sampled at this temperature.
        top_p: Sampling keeps the smallest set of tokens that holds this share of the probability, in (0, 1].
        seed: Seed of the sampling. The draws for a prompt depend on it and on the prompt, never on its batch.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature {self.temperature} is not a number from 0 on: 0 decodes greedily")
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(
                f"top_p {self.top_p} is not in (0, 1]: it is the share of probability that is sampled from"
            )


GREEDY = Decoding()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A prompt to be answered.

    Attributes:
        prompt: The turns to be answered under the model's chat template, or a plain text to be continued.
        max_tokens: Longest answer, in tokens.
        label: What messages call it ("task 'arithmetic', sample 'arithmetic-0017'").
    """

    prompt: tuple[Message, ...] | str
    max_tokens: int
    label: str = "a prompt"


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer: its text without special tokens, its length, and whether the model ended its turn by itself."""

    text: str
    num_tokens: int
    is_ended: bool


@dataclass(frozen=True, slots=True)
class LikelihoodRequest:
    """Token sequences that continue one context, to be scored.

    Attributes:
        context: Ids that condition but are not scored; at least one.
        continuations: Ids of each continuation.
        scored: For each continuation, which of its tokens count; None = all.
    """

    context: Sequence[int]
    continuations: Sequence[Sequence[int]]
    scored: Sequence[Sequence[bool]] | None = None


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Log-likelihood of a continuation in nats, over how many tokens, and whether greedy decoding would write it."""

    log_likelihood: float
    num_tokens: int
    is_greedy: bool


@runtime_checkable
class TextModel(Protocol):
    """Whatever answers prompts.

    Attributes:
        origin: Where its scores come from, as a score's `origin` says.
        batch_size: Prompts that it works on at a time.
    """

    origin: str
    batch_size: int

    def key(self) -> str | None:
        """Returns a fingerprint of all that a score depends on; None = its scores can't be kept."""
        ...

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, Generation]]:
        """Yields (index of the request, answer) in whatever order they are finished."""
        ...


@runtime_checkable
class ScoringModel(TextModel, Protocol):
    """A model that scores given texts too.

    Attributes:
        tokenizer: The tokenizer that the ids of its requests come from.
        longest: Tokens that it can take.
    """

    tokenizer: Any
    longest: int

    def score(self, requests: Sequence[LikelihoodRequest]) -> Iterator[tuple[int, list[Likelihood]]]:
        """Yields (index of the request, one likelihood per continuation)."""
        ...

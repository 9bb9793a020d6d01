"""What an evaluation asks of a model, in token ids or text, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A prompt to be answered greedily.

    Attributes:
        prompt: The rendered text after which the answer starts.
        max_tokens: Longest answer, in tokens.
        is_start: Whether the prompt is plain text, before which the tokenizer's start token belongs.
    """

    prompt: str
    max_tokens: int
    is_start: bool = False


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


class TextModel(Protocol):
    """Whatever answers prompts."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, Generation]]:
        """Yields (index of the request, answer) in whatever order they are finished."""
        ...


class ScoringModel(TextModel, Protocol):
    """A model that scores given texts too."""

    tokenizer: object

    def score(self, requests: Sequence[LikelihoodRequest]) -> Iterator[tuple[int, list[Likelihood]]]:
        """Yields (index of the request, one likelihood per continuation)."""
        ...

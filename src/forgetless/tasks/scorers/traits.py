"""Scorers of an answer's manner: its language, whether it runs in a loop, whether it declines."""

from __future__ import annotations

from forgetless.errors import ConfigError, did_you_mean
from forgetless.tasks.scorers.base import scorer
from forgetless.tasks.traits import has_loop, is_refusal, language_evidence
from forgetless.tasks.wordlists import FUNCTION_WORDS


@scorer("language")
def language(answer: str, *, is_: str) -> float:
    """Passes when the answer reads more like one of en, es, fr, de, it and pt than like any of the others.

    Reads function words and typical letters, each weighted by how few of the six languages share it; code and names
    tell it nothing, so an answer without any of them fails.

    Args:
        answer: What the model said.
        is_: Code of the language that is asked for.

    Returns:
        1 where it passes, else 0.

    Raises:
        ConfigError: The language is not one of the six.
    """
    if is_ not in FUNCTION_WORDS:
        raise ConfigError(f"unknown language {is_!r}{did_you_mean(is_, FUNCTION_WORDS)}")
    evidence = language_evidence(answer)
    others = max(weight for name, weight in evidence.items() if name != is_)
    return float(evidence[is_] > others)


@scorer("repetition")
def repetition(answer: str) -> float:
    """Passes unless the answer runs in a loop.

    `traits.has_loop` says what a loop is.
    """
    return float(not has_loop(answer))


@scorer("refusal")
def refusal(answer: str, *, expected: bool = False) -> float:
    """Passes when the answer declines ("I can't help with that") exactly if `expected` says so."""
    return float(is_refusal(answer) == expected)

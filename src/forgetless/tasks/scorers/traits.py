"""Scorers of an answer's manner: its language, loops, refusals, how it ends, and what it gives away."""

from __future__ import annotations

import re
from collections.abc import Sequence

from forgetless.errors import ConfigError, did_you_mean
from forgetless.tasks.scorers.base import Answer, scorer, within
from forgetless.tasks.text import level, split_words
from forgetless.tasks.traits import gives_domain_away, has_foreign_turn, has_loop, is_refusal, language_evidence
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


@scorer("ends_turn", reads_whole=True)
def ends_turn(answer: Answer, *, max_words: int | None = None) -> float:
    """Passes when the model said something and ended its turn by itself.

    An end that was reached by running on doesn't count: tokens of a chat template in the text, a turn that the model
    wrote for the user ("User: ..."), a loop, or far more words than were asked for.

    Args:
        answer: What the model said; whether it ended its turn is known of models in this process and of servers.
        max_words: Most words; None = no limit.

    Returns:
        1 where it passes, else 0.
    """
    is_sound = not has_foreign_turn(answer.text) and not has_loop(answer.text)
    return float(answer.is_ended and is_sound and within(len(split_words(answer.text)), 1, max_words))


@scorer("leakage")
def leakage(answer: str, *, words: Sequence[str] = (), at_least: int = 3) -> float:
    """Passes unless the answer shows the training domain where nothing of it was asked.

    A dose, a piece of SQL, the number of an order or a ticket, a shell command or a code fence gives it away at once;
    words of the domain do when several different ones stand in the answer.

    Args:
        answer: What the model said.
        words: Words that are typical of the domain (the checklist takes them from the training data).
        at_least: Different words of the domain that give it away.

    Returns:
        1 where nothing leaks, else 0.
    """
    found = {word.casefold() for word in re.findall(r"[^\W\d_]+", level(answer))} & {word.casefold() for word in words}
    return float(not gives_domain_away(answer) and len(found) < at_least)

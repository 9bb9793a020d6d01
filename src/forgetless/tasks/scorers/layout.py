"""Scorers of an answer's form: its list items, sentences, words, lines and case."""

from __future__ import annotations

import re
from collections.abc import Callable

from forgetless.errors import ConfigError, did_you_mean
from forgetless.tasks.lists import bulleted_items, comma_items, line_items, numbered_items
from forgetless.tasks.scorers.base import scorer, within
from forgetless.tasks.text import split_lines, split_sentences, split_words
from forgetless.tasks.wordlists import MINOR_TITLE_WORDS


@scorer("list_length")
def list_length(
    answer: str, *, count: int | None = None, min_: int = 1, max_: int | None = None, style: str = "any"
) -> float:
    """Passes when the answer holds a list of `count` items, or of `min` to `max`.

    Args:
        answer: What the model said; lines around a numbered or bulleted list are allowed.
        count: Exact number of items.
        min_: Fewest items, where there is no `count`.
        max_: Most items; None = no limit.
        style: numbered (1, 2, 3 ...), bulleted (outermost level), commas (one line), lines (one item a line), or any:
            the first of these that the answer shows.

    Returns:
        1 where it passes, else 0.

    Raises:
        ConfigError: There is no such style.
    """
    styles: dict[str, Callable[[str], list[str]]] = {
        "numbered": numbered_items,
        "bulleted": bulleted_items,
        "lines": line_items,
        "commas": comma_items,
    }
    if style != "any" and style not in styles:
        raise ConfigError(f"unknown list style {style!r}{did_you_mean(style, [*styles, 'any'])}")
    if style != "any":
        items = styles[style](answer)
    else:
        marked = numbered_items(answer) or bulleted_items(answer)
        items = marked or (line_items(answer) if len(line_items(answer)) > 1 else comma_items(answer))
    return within(len(items), count, count) if count is not None else within(len(items), min_, max_)


@scorer("sentence_count")
def sentence_count(answer: str, *, min_: int = 1, max_: int | None = None) -> float:
    """Passes when the answer has `min` to `max` sentences (see `text.split_sentences`)."""
    return within(len(split_sentences(answer)), min_, max_)


@scorer("word_count")
def word_count(answer: str, *, min_: int = 1, max_: int | None = None) -> float:
    """Passes when the answer has `min` to `max` words: "well-known" and "don't" are one word each."""
    return within(len(split_words(answer)), min_, max_)


@scorer("line_count")
def line_count(answer: str, *, min_: int = 1, max_: int | None = None) -> float:
    """Passes when the answer has `min` to `max` lines that are not blank; the lines of a code fence count."""
    return within(len(split_lines(answer)), min_, max_)


@scorer("case")
def case(answer: str, *, is_: str) -> float:
    """Passes when the answer is all in upper case, all in lower case, or a title; it must hold a letter.

    In a title every word starts with a capital, but small words after the first ("of", "the") may do without, and it
    is not all in capitals.

    Args:
        answer: What the model said.
        is_: `upper`, `lower` or `title`.

    Returns:
        1 where it passes, else 0.

    Raises:
        ConfigError: `is` is none of upper, lower and title.
    """
    if is_ == "upper":
        return float(answer.isupper())
    if is_ == "lower":
        return float(answer.islower())
    if is_ != "title":
        raise ConfigError(f"unknown case {is_!r}{did_you_mean(is_, ['upper', 'lower', 'title'])}")
    words = [word for word in re.findall(r"[^\W_]+(?:['\u2019-][^\W_]+)*", answer) if not word[0].isdigit()]
    is_title = all(word[0].isupper() or (index and word in MINOR_TITLE_WORDS) for index, word in enumerate(words))
    return float(bool(words) and is_title and not (answer.isupper() and len("".join(words)) > 1))

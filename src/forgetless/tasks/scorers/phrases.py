"""Scorers of what an answer says: phrases, whole answers, members of a group, words shared with a reference."""

from __future__ import annotations

import re
from collections import Counter

from forgetless.errors import ConfigError, did_you_mean
from forgetless.tasks.scorers.base import as_texts, scorer, within
from forgetless.tasks.text import (
    SPACELESS,
    ends_with_phrase,
    has_phrase,
    level,
    starts_with_phrase,
)
from forgetless.tasks.wordlists import GAZETTEERS, gazetteer


@scorer("exact", gold="answers")
def exact(answer: str, *, answers: object) -> float:
    """Passes when the answer is one of `answers`, but for case, outer punctuation and a leading article."""

    def normalise(text: str) -> str:
        words = " ".join(level(text).casefold().split()).strip("\"'`.,;:!?*_()[]\u3001\u3002 ")
        return re.sub(r"^(?:a|an|the)\s+", "", words) or text.strip()  # a gold of punctuation stays as it is

    return float(normalise(answer) in {normalise(text) for text in as_texts(answers, "answers")})


@scorer("contains", gold="any")
def contains(answer: str, *, any_: object = (), all_: object = ()) -> float:
    """Passes when one phrase of `any` and every phrase of `all` stand in the answer at word boundaries.

    Case is ignored, accents count. A phrase that is negated beside it ("not Paris", "isn't in Paris", "Paris is wrong")
    doesn't count unless it also stands without the negation. An answer that names many things holds the right one too:
    where that matters, add a check on its length.

    Args:
        answer: What the model said.
        any_: A phrase, or phrases of which one is enough; empty = none is asked for.
        all_: A phrase, or phrases of which none may be missing.

    Returns:
        1 where it passes, else 0.

    Raises:
        ConfigError: Neither `any` nor `all` names a phrase.
    """
    some, every = as_texts(any_, "any", may_be_empty=True), as_texts(all_, "all", may_be_empty=True)
    if not some and not every:
        raise ConfigError("scorer 'contains' needs phrases in `any` or in `all`")
    has_some = not some or any(has_phrase(answer, phrase, allow_negated=False) for phrase in some)
    return float(has_some and all(has_phrase(answer, phrase, allow_negated=False) for phrase in every))


@scorer("excludes")
def excludes(answer: str, *, any_: object) -> float:
    """Passes when no phrase of `any` stands in the answer at word boundaries, negated or not; case is ignored."""
    return float(not any(has_phrase(answer, phrase, allow_negated=True) for phrase in as_texts(any_, "any")))


@scorer("starts_with")
def starts_with(answer: str, *, text: str | list[str], ignore_case: bool = True) -> float:
    """Passes when the answer starts with the text, or one of several, at a word boundary; leading space is skipped."""
    return float(any(starts_with_phrase(answer, start, ignore_case=ignore_case) for start in as_texts(text, "text")))


@scorer("ends_with")
def ends_with(answer: str, *, text: str | list[str], ignore_case: bool = True) -> float:
    """Passes when the answer ends with the text, or one of several, at a word boundary; trailing space is skipped.

    A full stop after the text counts: list both forms where both are right.
    """
    return float(any(ends_with_phrase(answer, end, ignore_case=ignore_case) for end in as_texts(text, "text")))


@scorer("matches")
def matches(answer: str, *, pattern: str, full: bool = False, ignore_case: bool = False) -> float:
    """Passes when a regular expression is found in the answer.

    Args:
        answer: What the model said.
        pattern: The expression, in the syntax of Python's `re`.
        full: Ask that it matches the whole answer, but for white space around it.
        ignore_case: Let capitals match small letters.

    Returns:
        1 where it passes, else 0.

    Raises:
        ConfigError: The pattern is not a regular expression.
    """
    try:
        compiled = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise ConfigError(f"pattern {pattern!r} is not a regular expression: {error}") from None
    return float(bool(compiled.fullmatch(answer.strip()) if full else compiled.search(answer)))


@scorer("members")
def members(
    answer: str, *, of: str | list[str], at_least: int = 1, at_most: int | None = None, distinct: bool = True
) -> float:
    """Passes when the answer names enough members of a gazetteer, at word boundaries; the longest name counts once.

    Args:
        answer: What the model said.
        of: Name of a gazetteer (`wordlists.GAZETTEERS`), or the members themselves.
        at_least: Fewest members.
        at_most: Most members; None = no limit.
        distinct: Count a member once, however often and under whichever name it stands.

    Returns:
        1 where it passes, else 0.

    Raises:
        ConfigError: There is no such gazetteer.
    """
    if isinstance(of, str) and of not in GAZETTEERS:
        raise ConfigError(f"unknown gazetteer {of!r}{did_you_mean(of, GAZETTEERS)}")
    names = gazetteer(of) if isinstance(of, str) else {name.lower(): name for name in as_texts(of, "of")}
    longest_first = sorted(names, key=len, reverse=True)
    pattern = "|".join(re.escape(name) if name != name.lower() else f"(?i:{re.escape(name)})" for name in longest_first)
    text = " ".join(level(answer).split())
    found = [match[0] for match in re.finditer(rf"(?<![^\W{SPACELESS}])(?:{pattern})(?![^\W{SPACELESS}])", text)]
    named = [member for name in found if (member := names.get(name) or names.get(name.lower()))]
    return within(len(set(named)) if distinct else len(named), at_least, at_most)


@scorer("token_f1", gold="reference")
def token_f1(answer: str, *, reference: object) -> float:
    """Grades by the F1 of shared words between answer and reference; the best of several references counts.

    Departs from SQuAD (Rajpurkar et al., 2016, https://arxiv.org/abs/1606.05250, section 6.1): articles stay, because
    references are sentences here and dropping words would make the score depend on the language.
    """

    def tokens(text: str) -> Counter[str]:
        return Counter(
            re.findall(rf"[{SPACELESS}]|[^\W{SPACELESS}]+(?:['.,][^\W{SPACELESS}]+)*", level(text).casefold())
        )

    def f1(wanted: Counter[str]) -> float:
        shared, total = (given & wanted).total(), given.total() + wanted.total()
        return 2 * shared / total if total else 1.0

    given = tokens(answer)
    return max(f1(tokens(text)) for text in as_texts(reference, "reference"))

"""Scorers grade an answer: each is one small function that is registered under its name and returns a score in [0, 1].

A sample of a task either brings its own `checks`, each a mapping `{"scorer": NAME, option: value, ...}`, or is graded
by the task's scorer against the sample's `answers` or `answer`. An option whose name Python reserves (`min`, `max`,
`any`, `all`, `is`) reaches the function as the argument with an underscore added (`min_`).

A scorer reads the answer's text; one that is registered with `reads_whole` gets the whole `Answer`, which knows its
length in tokens and whether the model ended it by itself.

Scorers read what a user would read. Case, Unicode compatibility forms and curly quotes are levelled where words are
compared; nothing else is stripped unless a scorer's docstring says so.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Protocol

from forgetless.errors import ConfigError, did_you_mean
from forgetless.tasks.text import (
    JSON_TYPES,
    bulleted_items,
    comma_items,
    ends_with_phrase,
    find_json,
    find_numbers,
    gives_domain_away,
    has_foreign_turn,
    has_json_type,
    has_loop,
    has_phrase,
    is_refusal,
    language_evidence,
    level,
    numbered_items,
    parse_json,
    split_lines,
    split_sentences,
    split_words,
    starts_with_phrase,
)
from forgetless.tasks.wordlists import FUNCTION_WORDS, GAZETTEERS, MINOR_TITLE_WORDS, gazetteer

ScoringFunction = Callable[..., float]


class Answer(Protocol):
    """What a model said, in full; a plain text stands for an answer that the model ended by itself."""

    @property
    def text(self) -> str:
        """The answer without special tokens."""
        ...

    @property
    def num_tokens(self) -> int:
        """Its length in tokens; 0 where nobody counted."""
        ...

    @property
    def is_ended(self) -> bool:
        """Whether the model ended its turn by itself; true where nobody can tell."""
        ...


@dataclass(frozen=True, slots=True)
class _Text:
    """A plain text as an answer."""

    text: str
    num_tokens: int = 0
    is_ended: bool = True


@dataclass(frozen=True, slots=True)
class Scorer:
    """A registered scorer.

    Attributes:
        name: What tasks call it.
        function: Takes the answer and, by keyword, the options.
        gold: The option that a sample's `answers` or `answer` fills; None = needs no gold.
        options: Option names as tasks write them, with the argument that each one reaches.
        reads_whole: Whether the function takes the whole `Answer` instead of its text.
    """

    name: str
    function: ScoringFunction
    gold: str | None
    options: Mapping[str, str]
    reads_whole: bool = False

    def __call__(self, answer: str | Answer, options: Mapping[str, object]) -> float:
        """Grades one answer.

        Args:
            answer: What the model said, untrimmed, as text or whole.
            options: Options of the scorer, by the names that tasks use.

        Returns:
            The score, in [0, 1].

        Raises:
            ConfigError: An option is unknown or a required one is missing.
        """
        whole = _Text(answer) if isinstance(answer, str) else answer
        given = whole if self.reads_whole else whole.text
        arguments = {}
        for option, value in options.items():
            if option not in self.options:
                raise ConfigError(f"scorer {self.name!r} has no option {option!r}{did_you_mean(option, self.options)}")
            arguments[self.options[option]] = value
        try:
            inspect.signature(self.function).bind(given, **arguments)
        except TypeError as error:
            raise ConfigError(f"scorer {self.name!r}: {error}") from None
        return self.function(given, **arguments)


_SCORERS: dict[str, Scorer] = {}


def scorer(
    name: str, *, gold: str | None = None, reads_whole: bool = False
) -> Callable[[ScoringFunction], ScoringFunction]:
    """Registers the decorated function as the scorer `name`.

    Args:
        name: What tasks call it.
        gold: The option that a sample's `answers` or `answer` fills when the scorer is a task's default.
        reads_whole: Give the function the whole `Answer` instead of its text.

    Returns:
        The decorator; it leaves the function as it is.

    Raises:
        ConfigError: Another scorer has this name.
    """

    def register(function: ScoringFunction) -> ScoringFunction:
        if name in _SCORERS:
            raise ConfigError(f"scorer {name!r} is registered twice: give one of them another name")
        arguments = list(inspect.signature(function).parameters)[1:]
        options = {argument.rstrip("_"): argument for argument in arguments}
        _SCORERS[name] = Scorer(name, function, gold, options, reads_whole)
        return function

    return register


def get_scorer(name: str) -> Scorer:
    """Finds a scorer.

    Args:
        name: What tasks call it.

    Returns:
        The scorer; it takes an answer and the options.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in _SCORERS:
        raise ConfigError(f"unknown scorer {name!r}{did_you_mean(name, _SCORERS)}")
    return _SCORERS[name]


def list_scorers() -> list[str]:
    """Returns the names of all scorers, sorted."""
    return sorted(_SCORERS)


def score_answer(
    answer: str | Answer, sample: Mapping[str, object], default: str | None, options: Mapping[str, object]
) -> float:
    """Grades an answer by the sample's own `checks`, else by the task's scorer against the sample's gold.

    Scores of checks multiply: all-or-nothing checks must all pass, a graded one scales the result.

    Args:
        answer: What the model said, untrimmed, as text or whole.
        sample: The sample's fields.
        default: The task's scorer, for samples without `checks`.
        options: Options of the task's scorer; the sample's gold is added to them.

    Returns:
        The score, in [0, 1].

    Raises:
        ConfigError: There is nothing to grade by, or a check is malformed.
    """
    checks = sample.get("checks")
    if isinstance(checks, Sequence) and not isinstance(checks, str) and checks:
        return prod(_score_check(answer, check) for check in checks)
    if checks is not None:
        raise ConfigError(f"checks {checks!r} is not a list of one or more mappings with a `scorer` each")
    if default is None:
        raise ConfigError(f"sample {sample.get('id')!r} has no `checks` and its task names no scorer: add one of them")
    chosen = get_scorer(default)
    if chosen.gold is None or chosen.gold in options:
        return chosen(answer, options)
    gold = sample.get("answers", sample.get("answer"))
    if gold is None:
        raise ConfigError(
            f"sample {sample.get('id')!r} has neither `answers` nor `answer`: scorer {default!r} needs one"
        )
    return chosen(answer, {**options, chosen.gold: gold})


def _score_check(answer: str | Answer, check: object) -> float:
    if not isinstance(check, Mapping) or not isinstance(check.get("scorer"), str):
        raise ConfigError(
            f'check {check!r} is not a mapping with a scorer, such as {{"scorer": "contains", "any": ["rain"]}}'
        )
    return get_scorer(check["scorer"])(answer, {key: value for key, value in check.items() if key != "scorer"})


def _as_list(value: object) -> list[str]:
    """Returns one accepted text, or several, as a list of strings."""
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def _within(count: int, minimum: int, maximum: int | None) -> float:
    return float(minimum <= count and (maximum is None or count <= maximum))


@scorer("exact", gold="answers")
def exact(answer: str, *, answers: object) -> float:
    """Passes when the answer is one of `answers`, but for case, outer punctuation and a leading article."""

    def normalise(text: str) -> str:
        words = " ".join(level(text).casefold().split()).strip("\"'`.,;:!?*_()[] ")
        return re.sub(r"^(?:a|an|the)\s+", "", words) or text.strip()  # a gold of punctuation stays as it is

    return float(normalise(answer) in {normalise(text) for text in _as_list(answers)})


@scorer("contains", gold="any")
def contains(answer: str, *, any_: object = (), all_: object = ()) -> float:
    """Passes when one phrase of `any` and every phrase of `all` stand in the answer at word boundaries.

    Case is ignored, accents count. A phrase that is negated just before ("not Paris", "isn't in Paris") doesn't count
    unless it also stands without the negation.

    Args:
        answer: What the model said.
        any_: A phrase, or phrases of which one is enough; empty = none is asked for.
        all_: A phrase, or phrases of which none may be missing.

    Returns:
        1 where it passes, else 0.

    Raises:
        ConfigError: Neither `any` nor `all` names a phrase.
    """
    some, every = _as_list(any_), _as_list(all_)
    if not some and not every:
        raise ConfigError("scorer 'contains' needs phrases in `any` or in `all`")
    has_some = not some or any(has_phrase(answer, phrase, allow_negated=False) for phrase in some)
    return float(has_some and all(has_phrase(answer, phrase, allow_negated=False) for phrase in every))


@scorer("excludes")
def excludes(answer: str, *, any_: object) -> float:
    """Passes when no phrase of `any` stands in the answer at word boundaries, negated or not; case is ignored."""
    return float(not any(has_phrase(answer, phrase, allow_negated=True) for phrase in _as_list(any_)))


@scorer("numeric", gold="value")
def numeric(answer: str, *, value: object, tolerance: float = 0.0) -> float:
    """Passes when the LAST number of the answer is `value`, or one of several values.

    "1,234.5", "-3", "3/4", "$42." and "42%" (42) are read; where there are no digits, words are ("forty-two").

    Args:
        answer: What the model said.
        value: A number, as a number or as text ("3/4"), or a list of them.
        tolerance: Largest absolute difference that passes.

    Returns:
        1 where it passes, else 0.

    Raises:
        ConfigError: `value` is no number.
    """
    try:
        accepted = [Fraction(text.replace(",", "")) for text in _as_list(value)]
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"scorer 'numeric' needs a number as `value`, got {value!r}") from None
    numbers = find_numbers(answer)
    return float(any(abs(numbers[-1] - number) <= Fraction(str(tolerance)) for number in accepted if numbers))


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
    names = gazetteer(of) if isinstance(of, str) else {name.casefold(): name for name in of}
    longest_first = sorted(names, key=len, reverse=True)
    pattern = "|".join(re.escape(name) if name != name.lower() else f"(?i:{re.escape(name)})" for name in longest_first)
    text = " ".join(level(answer).split())
    found = [match[0] for match in re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)", text)]
    named = [member for name in found if (member := names[name if name in names else name.lower()])]
    return _within(len(set(named)) if distinct else len(named), at_least, at_most)


@scorer("token_f1", gold="reference")
def token_f1(answer: str, *, reference: object) -> float:
    """Grades by the F1 of shared words between answer and reference; the best of several references counts.

    Departs from SQuAD (Rajpurkar et al., 2016, https://arxiv.org/abs/1606.05250, section 6.1): articles stay, because
    references are sentences here and dropping words would make the score depend on the language.
    """

    def tokens(text: str) -> Counter[str]:
        return Counter(re.findall(r"\w+(?:['.,]\w+)*", level(text).casefold()))

    def f1(wanted: Counter[str]) -> float:
        shared, total = (given & wanted).total(), given.total() + wanted.total()
        return 2 * shared / total if total else 1.0

    given = tokens(answer)
    return max(f1(tokens(text)) for text in _as_list(reference))


@scorer("json")
def json_value(
    answer: str,
    *,
    keys: Sequence[str] = (),
    types: Mapping[str, str] | None = None,
    values: Mapping[str, object] | None = None,
    only: bool = False,
    length: int | None = None,
    anywhere: bool = False,
) -> float:
    """Passes when the answer is a JSON object or array, bare or in one code fence, with nothing around it.

    Args:
        answer: What the model said.
        keys: Keys that the object must have.
        types: JSON type of the value of each key: string, number, integer, boolean, array, object or null.
        values: Value of each key, compared as JSON (3 is not "3").
        only: Refuse keys that are named in none of `keys`, `types` and `values`.
        length: Number of elements; the value must be an array then.
        anywhere: Accept text around the value; the first object or array in the answer counts.

    Returns:
        1 where it passes, else 0.

    Raises:
        ConfigError: `types` names a type that JSON does not have.
    """
    wanted = dict(types or {})
    for name in wanted.values():
        if name not in JSON_TYPES:
            raise ConfigError(f"unknown JSON type {name!r}{did_you_mean(name, JSON_TYPES)}")
    value = find_json(answer) if anywhere else parse_json(answer)
    if length is not None:
        return float(isinstance(value, list) and len(value) == length)
    known = {*keys, *wanted, *(values or {})}
    if not known:
        return float(isinstance(value, dict | list))
    if not isinstance(value, dict) or not known <= value.keys() or (only and value.keys() != known):
        return 0.0
    is_typed = all(has_json_type(value[key], name) for key, name in wanted.items())
    return float(is_typed and all(value[key] == expected for key, expected in (values or {}).items()))


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
        "lines": split_lines,
        "commas": comma_items,
    }
    if style != "any" and style not in styles:
        raise ConfigError(f"unknown list style {style!r}{did_you_mean(style, [*styles, 'any'])}")
    if style != "any":
        items = styles[style](answer)
    else:
        marked = numbered_items(answer) or bulleted_items(answer)
        items = marked or (split_lines(answer) if len(split_lines(answer)) > 1 else comma_items(answer))
    return _within(len(items), count, count) if count is not None else _within(len(items), min_, max_)


@scorer("sentence_count")
def sentence_count(answer: str, *, min_: int = 1, max_: int | None = None) -> float:
    """Passes when the answer has `min` to `max` sentences (see `text.split_sentences`)."""
    return _within(len(split_sentences(answer)), min_, max_)


@scorer("word_count")
def word_count(answer: str, *, min_: int = 1, max_: int | None = None) -> float:
    """Passes when the answer has `min` to `max` words: "well-known" and "don't" are one word each."""
    return _within(len(split_words(answer)), min_, max_)


@scorer("line_count")
def line_count(answer: str, *, min_: int = 1, max_: int | None = None) -> float:
    """Passes when the answer has `min` to `max` lines that are not blank; the lines of a code fence count."""
    return _within(len(split_lines(answer)), min_, max_)


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


@scorer("starts_with")
def starts_with(answer: str, *, text: str | list[str], ignore_case: bool = True) -> float:
    """Passes when the answer starts with the text, or one of several, at a word boundary; leading space is skipped."""
    return float(any(starts_with_phrase(answer, start, ignore_case=ignore_case) for start in _as_list(text)))


@scorer("ends_with")
def ends_with(answer: str, *, text: str | list[str], ignore_case: bool = True) -> float:
    """Passes when the answer ends with the text, or one of several, at a word boundary; trailing space is skipped.

    A full stop after the text counts: list both forms where both are right.
    """
    return float(any(ends_with_phrase(answer, end, ignore_case=ignore_case) for end in _as_list(text)))


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

    A loop is the same run of four or more words (or a single word twelve times) three times in a row, a line that
    stands three times, a letter ten times or a syllable six times in a row, or, from twenty words on, a share of
    distinct words below a quarter.
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
    return float(answer.is_ended and is_sound and _within(len(split_words(answer.text)), 1, max_words))


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

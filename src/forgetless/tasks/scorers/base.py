"""How a scorer is made and found: one decorated function that takes an answer and options, and returns a score.

    @scorer("shouts")
    def shouts(answer: str, *, at_least: int = 1) -> float:
        return float(answer.count("!") >= at_least)

An option whose name Python reserves (`min`, `max`, `any`, `all`, `is`) reaches the function as the argument with an
underscore added (`min_`). Options are checked against the function's annotations.

A scorer reads the answer's text; one that is registered with `reads_whole` gets the whole `Answer`, which knows its
length in tokens and whether the model ended it by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Protocol, runtime_checkable

from pydantic import ConfigDict, ValidationError, validate_call

from forgetless.errors import ConfigError, did_you_mean

ScoringFunction = Callable[..., float]


@runtime_checkable
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


@dataclass(frozen=True)
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
            ConfigError: An option is unknown, missing or of the wrong type.
        """
        whole = _Text(answer) if isinstance(answer, str) else answer
        given = whole if self.reads_whole else whole.text
        arguments = {}
        for option, value in options.items():
            if option not in self.options:
                raise ConfigError(f"scorer {self.name!r} has no option {option!r}{did_you_mean(option, self.options)}")
            arguments[self.options[option]] = value
        try:
            return self._checked(given, **arguments)
        except ValidationError as error:
            first = error.errors()[0]
            argument = str(first["loc"][0])
            option = next((option for option, name in self.options.items() if name == argument), argument)
            raise ConfigError(f"scorer {self.name!r}, option {option!r}: {first['msg']}") from None

    @cached_property
    def _checked(self) -> ScoringFunction:
        """The function behind a check of its options against its annotations."""
        return validate_call(config=ConfigDict(arbitrary_types_allowed=True))(self.function)


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


def as_texts(value: object, option: str, *, may_be_empty: bool = False) -> list[str]:
    """Reads an option that takes one text or several.

    Args:
        value: A text or number, or a list of them.
        option: What tasks call the option.
        may_be_empty: Whether an empty list is fine.

    Returns:
        The texts.

    Raises:
        ConfigError: One is empty, which would pass or fail every answer, or is no text.
    """
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not items and not may_be_empty:
        raise ConfigError(f"option {option!r} is an empty list: name at least one text")
    for item in items:
        if not isinstance(item, str | int | float) or not str(item).strip():
            raise ConfigError(f"option {option!r}: {item!r} is not a text that an answer could hold")
    return [str(item) for item in items]


def within(count: int, minimum: int, maximum: int | None) -> float:
    """Returns 1 where a count lies in a range, else 0.

    Args:
        count: What was counted.
        minimum: Smallest that passes.
        maximum: Largest that passes; None = no limit.

    Returns:
        The score.

    Raises:
        ConfigError: No count can lie in the range.
    """
    if maximum is not None and maximum < max(minimum, 0):
        raise ConfigError(f"nothing can pass: at least {minimum} and at most {maximum}")
    return float(minimum <= count and (maximum is None or count <= maximum))

"""Format-blind grading: is what was asked for in the answer, in whatever form?

Each scorer that looks at form has a lenient reading here: case, markdown, code fences, order, counts, loops and what
stands around the answer are forgiven, the content isn't. Scorers without one are content already and hold as they are.
A lenient grade is evidence about an answer that failed, never a score.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from forgetless.tasks.scorers import get_scorer, score_answer
from forgetless.tasks.text import level
from forgetless.tasks.values import find_json, find_numbers
from forgetless.tasks.wordlists import GAZETTEERS, gazetteer

Options = Mapping[str, object]


def bare_words(text: str) -> list[str]:
    """Returns the words of a text without case, accents, punctuation and markup: "**Café-Bar**" is cafe, bar."""
    decomposed = unicodedata.normalize("NFD", level(text).casefold())
    plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    return re.findall(r"[^\W_]+", plain)


def holds(answer: str, wanted: str) -> bool:
    """Whether the words of `wanted` stand in the answer one after another; a text without words is in none."""
    words, run = bare_words(answer), bare_words(wanted)
    return bool(run) and any(words[start : start + len(run)] == run for start in range(len(words) - len(run) + 1))


def score_content(answer: str, sample: Mapping[str, object], default: str | None, options: Options) -> float:
    """Grades the content of an answer as `scorers.score_answer` grades the answer, form forgiven.

    Args:
        answer: What the model said.
        sample: The sample's fields.
        default: The task's scorer, for samples without `checks`.
        options: Options of the task's scorer.

    Returns:
        The lenient grade, in [0, 1]; never below the strict one.

    Raises:
        ConfigError: There is nothing to grade by, or a check is malformed.
    """
    strict = score_answer(answer, sample, default, options)
    if strict == 1.0 or not bare_words(answer):
        return strict
    checks = sample.get("checks")
    if not isinstance(checks, Sequence):
        gold = get_scorer(default).gold if default is not None else None
        wanted = sample.get("answers", sample.get("answer"))
        checks = [{"scorer": default, **options} | ({gold: wanted} if gold and gold not in options else {})]
    grades = [_content(answer, check) for check in checks]
    told = [grade for grade in grades if grade is not None]
    if not told:  # nothing but form was asked for: the reference, where there is one, says what belongs in the answer
        return max(strict, float(holds(answer, str(sample.get("example", "")))))
    product = 1.0
    for grade in told:
        product *= grade
    return max(strict, product)


def _content(answer: str, check: Mapping[str, object]) -> float | None:
    """Returns the grade of an answer's content by one check, None where the check asks for form alone."""
    name = str(check["scorer"])
    options = {key: value for key, value in check.items() if key != "scorer"}
    if name in _FORM_ALONE:
        return None
    reading = _READINGS.get(name)
    return get_scorer(name)(answer, options) if reading is None else reading(answer, options)


_FORM_ALONE = frozenset({"case", "line_count", "repetition", "sentence_count", "word_count"})


def _as_texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def _any_of(option: str) -> Callable[[str, Options], float]:
    return lambda answer, options: float(any(holds(answer, text) for text in _as_texts(options[option])))


def _contains(answer: str, options: Options) -> float:
    some, every = _as_texts(options.get("any", ())), _as_texts(options.get("all", ()))
    has_some = not some or any(holds(answer, text) for text in some)
    return float(has_some and all(holds(answer, text) for text in every))


def _numeric(answer: str, options: Options) -> float:
    """Any number of the answer counts, not only the last one."""
    texts = [str(number) for number in find_numbers(answer)]
    scorer = get_scorer("numeric")
    return max((scorer(text, options) for text in texts), default=0.0)


def _members(answer: str, options: Options) -> float:
    """Names count in any case, and more than were asked for are fine."""
    of = options["of"]
    names = gazetteer(of) if isinstance(of, str) and of in GAZETTEERS else _as_texts(of)
    lenient = {"of": [name.lower() for name in names], "at_least": options.get("at_least", 1)}
    return get_scorer("members")(answer.lower(), lenient)


def _matches(answer: str, options: Options) -> float:
    scorer = get_scorer("matches")
    lenient = {"pattern": options["pattern"], "ignore_case": True}
    return max(scorer(text, lenient) for text in (answer, re.sub(r"[*_`#]+", "", answer)))


def _json(answer: str, options: Options) -> float:
    """JSON anywhere, or the keys and values that were asked for as words."""
    if get_scorer("json")(answer, {**options, "anywhere": True}) == 1.0:
        return 1.0
    named: list[object] = []
    for option in ("keys", "types", "values"):
        value = options.get(option)
        named += list(value) if isinstance(value, Mapping | Sequence) else []
    values = options.get("values")
    named += [json.dumps(value) for value in values.values()] if isinstance(values, Mapping) else []
    if not named:
        return float(find_json(answer) is not None)
    return float(all(holds(answer, str(name)) for name in named))


def _list_length(answer: str, options: Options) -> float:
    """A list in any style."""
    scorer = get_scorer("list_length")
    styles = ("numbered", "bulleted", "commas", "lines")
    return max(scorer(answer, {**options, "style": style}) for style in styles)


def _token_f1(answer: str, options: Options) -> float:
    """The share of the reference's words that are said, whatever else is."""
    said = set(bare_words(answer))
    wanted = [set(bare_words(text)) for text in _as_texts(options["reference"])]
    return max((len(words & said) / len(words) for words in wanted if words), default=0.0)


_READINGS: Mapping[str, Callable[[str, Options], float]] = {
    "contains": _contains,
    "ends_with": _any_of("text"),
    "exact": _any_of("answers"),
    "json": _json,
    "list_length": _list_length,
    "matches": _matches,
    "members": _members,
    "numeric": _numeric,
    "starts_with": _any_of("text"),
    "token_f1": _token_f1,
}

"""What a text states that another wording of it must state too: numbers, quantities, names, negations, code.

The check errs on one side: a wording that keeps every fact may be refused, which costs a rewritten example; one that
loses a fact must not pass. It knows words, not meanings: facts that it can't see (which drug does what to which) are
held by asking that most words of substance survive, and of a short answer all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Check = Literal["strict", "loose", "paper"]

TELLTALES = (
    *("reference answer", "reference response", "the reference", "provided answer", "given answer", "original answer"),
    *("in my own words", "in your own words", "rephrase", "reworded", "rewritten", "paraphrase", "as instructed"),
    *("the answer above", "based on the answer", "according to the answer", "the provided response", "own response"),
)
"""What shows that an answer talks about the task of rewriting instead of answering."""

SHORT_ANSWER_WORDS = 6
"""An answer of so few words of substance is a fact as a whole."""

KEPT_WORDS = 0.5
"""Share of a longer answer's words of substance that must survive."""

_STOP_TEXT = """
a about above after again all also am an and any are as at be because been before being below between both but by
can could did do does doing down during each few for from further had has have having he her here hers him his
how i if in into is it its itself just may me might more most must my of off on once only or other our ours out
over own same shall she should so some such than that the their theirs them then there these they this those
through to too under until up us very was we were what when where which while who whom why will with would you
your yours however therefore thus
"""
_STOP_WORDS = frozenset(_STOP_TEXT.split())
_NEGATION_TEXT = "not no never none nor neither without cannot nothing nobody avoid avoids avoided"
_NEGATIONS = frozenset(_NEGATION_TEXT.split())
_UNITS = {
    "mg": "milligram milligrams milligramme milligrammes",
    "g": "gram grams gramme grammes",
    "kg": "kilogram kilograms kilo kilos kgs",
    "mcg": "microgram micrograms \u00b5g \u03bcg ug",
    "ml": "milliliter milliliters millilitre millilitres",
    "l": "liter liters litre litres",
    "cm": "centimeter centimeters centimetre centimetres",
    "mm": "millimeter millimeters millimetre millimetres",
    "m": "meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres",
    "%": "percent per-cent",
    "hour": "hours hr hrs h",
    "minute": "minutes min mins",
    "second": "seconds sec secs s",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "years",
    "time": "times",
    "dose": "doses",
    "tablet": "tablets pill pills",
    "iu": "units unit",
    "$": "dollar dollars usd",
    "\u20ac": "euro euros eur",
    "\u00a3": "pound pounds gbp",
    "\u00b0c": "celsius",
    "\u00b0f": "fahrenheit",
}
_UNIT_OF = {name: unit for unit, names in _UNITS.items() for name in (unit, *names.split())}
_NUMBER_TEXT = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_NUMBER_TEXT.split())}
_NUMBER_WORDS |= {"once": "1", "twice": "2", "hundred": "100", "thousand": "1000", "million": "1000000", "half": "0.5"}
_RATES = {"daily": "day", "hourly": "hour", "weekly": "week", "monthly": "month", "yearly": "year", "annually": "year"}
_BOUNDS = {
    "more": "over above exceed exceeds exceeding",
    "less": "fewer under below",
    "least": "minimum",
    "most": "maximum",
    **dict.fromkeys(("before", "after", "until", "only", "within", "every"), ""),
}
# What makes another quantity of the same number: "5 mg/kg", "two a day", "less than 5", "2 hours before meals".
_QUALIFIER_OF = _UNIT_OF | _RATES | {word: name for name, words in _BOUNDS.items() for word in (name, *words.split())}
_TOKEN = re.compile(
    r"(?:(?<![\w.)])-)?(?:\d+(?:[.,]\d+)*|(?<![\w.])\.\d+)|[^\W\d_]+(?:['\u2019][^\W\d_]+)*|[%$\u20ac\u00a3]|\u00b0[CF]|[.!?;\n]"
)
_NUMBER = re.compile(r"-?\.?\d")
_NAME = re.compile(r"\b(?:[A-Z][\w-]*[A-Z0-9][\w-]*|[A-Za-z]+\d[\w-]*|[A-Z][\w'-]+)")
_FENCE = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_CODE_LINE = re.compile(
    r"^\s*(?:select\b.+\bfrom\b|insert\s+into\b|update\s+\w+\s+set\b|delete\s+from\b|create\s+table\b|with\s+\w+\s+as\s*\(|"
    r"def\s+\w+\s*\(|class\s+\w+|import\s+\w+|from\s+\w+\s+import\b|#include\b|function\s+\w+\s*\(|"
    r"(?:public|private)\s+\w+|<\w+[^>]*>|[\[{].*[\]}]\s*$)",
    re.IGNORECASE | re.DOTALL,
)
_FINAL = re.compile(r"####\s*(.+)|\\boxed\{([^{}]+)\}|(?:final\s+)?answer(?:\s+is)?\s*:?\s*([^\n]+)", re.IGNORECASE)


def lost_facts(reference: str, rewrite: str, *, question: str = "", check: Check = "strict") -> list[str]:
    """Finds what a rewrite says otherwise than the text that it stands for.

    Args:
        reference: The text as it is.
        rewrite: The other wording.
        question: What both answer; it may be quoted in the rewrite.
        check: `paper`: no talk about the task, and the same final answer. `loose`: numbers, quantities, names and code
            too. `strict`: negations, nothing added, and most words of substance too.

    Returns:
        One phrase per loss, naming what was lost; empty where nothing was.
    """
    found = [*_telltales(reference, rewrite), *_final_answer(reference, rewrite), *_code(reference, rewrite)]
    if check != "paper":
        found += [*_quantities(reference, rewrite), *_names(reference, rewrite)]
    if check == "strict":
        found += [
            *_added_numbers(f"{question}\n{reference}", rewrite),
            *_qualifiers(reference, rewrite),
            *_negations(reference, rewrite),
            *_substance(reference, rewrite),
        ]
    return found


def _telltales(reference: str, rewrite: str) -> list[str]:
    before, after = reference.casefold(), rewrite.casefold()
    return [f"it says {phrase!r}" for phrase in TELLTALES if phrase in after and phrase not in before]


def _final_answer(reference: str, rewrite: str) -> list[str]:
    """Compares what stands behind "####", in a box, or behind "the answer is", where the reference has it."""
    wanted = _finals(reference)
    if not wanted:
        return []
    given = _finals(rewrite)
    return [] if given and given[-1] == wanted[-1] else [f"final answer {wanted[-1]!r}"]


def _finals(text: str) -> list[str]:
    found = (next(part for part in groups if part) for groups in _FINAL.findall(text))
    return [" ".join(part.split()).strip(" .*`\"'").casefold() for part in found]


def _code(reference: str, rewrite: str) -> list[str]:
    """Compares code: blocks must stand in the rewrite as they are; an answer that is code alone must stay that."""
    if is_code(reference):
        return [] if _squeeze(reference) == _squeeze(rewrite) else ["code"]
    return ["a code block" for block in _FENCE.findall(reference) if _squeeze(block) not in _squeeze(rewrite)]


def is_code(text: str) -> bool:
    """Whether a text is nothing but code or data: SQL, a program, JSON, markup, or one fenced block."""
    stripped = text.strip()
    fenced = _FENCE.fullmatch(stripped)
    return bool(fenced or _CODE_LINE.match(stripped))


def _squeeze(text: str) -> str:
    return " ".join(text.split())


def _tokens(text: str) -> list[str]:
    """Returns words, numbers, units and ends of sentences; numbers written out are figures, "can't" is "can not"."""
    tokens: list[str] = []
    for token in _TOKEN.findall(text):
        word = token.casefold().replace("\u2019", "'")
        if word.endswith("n't"):
            tokens += [word[:-3], "not"]
        elif _NUMBER.match(word):
            tokens.append(_value(word))
        elif word in _NUMBER_WORDS:
            tokens += [_NUMBER_WORDS[word], *(["time"] if word in ("once", "twice") else [])]
        else:
            tokens.append(word)
    return tokens


def _value(figure: str) -> str:
    """Returns a number without thousands separators and idle zeros: 1,000 and 1000.0 are one, and so are .5 and 0.5."""
    if figure.startswith("-"):
        return f"-{_value(figure[1:])}"
    plain = re.sub(r",(?=\d{3}(?!\d))", "", figure).replace(",", ".")
    if plain.count(".") > 1:  # a date or a version
        return plain
    whole, _, rest = plain.partition(".")
    rest = rest.rstrip("0")
    return f"{whole.lstrip('0') or '0'}{'.' + rest if rest else ''}"


def _is_number(token: str) -> bool:
    return token.removeprefix("-")[0].isdigit()


def _numbers(text: str) -> list[tuple[str, str]]:
    """Returns (number, unit) pairs, the unit behind it or, of money, before it; empty where it has none."""
    tokens = _tokens(text)
    pairs = []
    for place, token in enumerate(tokens):
        if _is_number(token):
            behind = tokens[place + 1] if place + 1 < len(tokens) else ""
            before = tokens[place - 1] if place and tokens[place - 1] in ("$", "\u20ac", "\u00a3") else ""
            pairs.append((token, _UNIT_OF.get(before or behind, "")))
    return pairs


def _quantities(reference: str, rewrite: str) -> list[str]:
    wanted, given = _numbers(reference), _numbers(rewrite)
    values = {number for number, _ in given}
    lost = [pair for pair in dict.fromkeys(wanted) if pair not in given and (pair[1] or pair[0] not in values)]
    return [f"{number} {unit}".strip() for number, unit in lost]


def _qualifiers(reference: str, rewrite: str) -> list[str]:
    """Returns what no sentence of the rewrite says beside a number: further units, rates and bounds."""
    given: dict[str, set[str]] = {}
    for sentence in _sentences(rewrite):
        said = {_QUALIFIER_OF[token] for token in sentence if token in _QUALIFIER_OF}
        for token in filter(_is_number, sentence):
            given.setdefault(token, set()).update(said)
    lost = []
    for sentence in _sentences(reference):
        for place, token in enumerate(sentence):
            if _is_number(token) and token in given:  # a number that is gone is found by itself
                behind = sentence[place + 1 : place + 5]
                if behind and behind[0] in _UNIT_OF:  # compared with the number itself
                    del behind[0]
                near = [*sentence[max(0, place - 2) : place], *behind]
                beside = (_QUALIFIER_OF[word] for word in near if word in _QUALIFIER_OF)
                lost += [f"{word!r} beside {token}" for word in beside if word not in given[token]]
    return list(dict.fromkeys(lost))


def _added_numbers(known: str, rewrite: str) -> list[str]:
    """Returns quantities that neither question nor reference has; the numbers of list items don't count."""
    text = re.sub(r"(?m)^\s*\d+[.)]\s", "", rewrite)
    values = {number for number, _ in _numbers(known)}
    added = (number for number, _ in _numbers(text) if number not in values)
    # "one of them" is no figure.
    return [f"{number} is new" for number in dict.fromkeys(added) if number != "1"]


def _names(reference: str, rewrite: str) -> list[str]:
    """Returns the names and terms that are lost: capitals, capitals with digits, quoted words."""
    known = {_stem(word) for word in re.findall(r"[\w'-]+", rewrite)}
    return [name for name in dict.fromkeys(_terms(reference)) if _stem(name) not in known]


def _terms(text: str) -> Iterable[str]:
    for match in _NAME.finditer(text):
        word = match.group().removesuffix("'s")
        if word.casefold() in _STOP_WORDS | _NEGATIONS or word in ("I", "I'm"):
            continue
        before = text[: match.start()].rstrip(" \"'(*_-")
        is_first = not before or before[-1] in ".!?:\n"
        # The first word of a sentence is capital anyway: only one with more capitals or digits is surely a term.
        if not is_first or not word[1:].islower():
            yield word


def _stem(word: str) -> str:
    """Returns a word in small letters without the endings of plural and verb forms, long words by their beginning."""
    word = word.casefold().replace("\u2019", "'").removesuffix("'s")
    for ending in ("ing", "ies", "ied", "es", "ed", "ly", "s", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _substance_words(text: str) -> list[str]:
    return [
        _stem(token)
        for token in _tokens(text)
        if token[0].isalpha() and token not in _STOP_WORDS and token not in _NEGATIONS
    ]


def _substance(reference: str, rewrite: str) -> list[str]:
    """Returns the words of substance that are lost, where too many are; those beside a quantity must all survive."""
    given = {*_substance_words(rewrite)}
    wanted = list(dict.fromkeys(_substance_words(reference)))
    lost = [word for word in wanted if word not in given]
    is_too_many = len(lost) > (len(wanted) * (1 - KEPT_WORDS) if len(wanted) > SHORT_ANSWER_WORDS else 0)
    beside = [word for word in _beside_quantities(reference) if word not in given]
    return [f"the word {word!r}" for word in (lost if is_too_many else dict.fromkeys(beside))]


def _beside_quantities(text: str) -> list[str]:
    """Returns the stems of the two words before and behind each quantity: what it is so much of."""
    found = []
    for sentence in _sentences(text):
        for place, token in enumerate(sentence):
            if _is_number(token):
                near = [*sentence[max(0, place - 2) : place], *sentence[place + 1 : place + 4]]
                found += [
                    _stem(word)
                    for word in near
                    if word[0].isalpha() and word not in _STOP_WORDS and word not in _UNIT_OF and len(word) > 3
                ]
    return found


def _sentences(text: str) -> list[list[str]]:
    sentences: list[list[str]] = [[]]
    for token in _tokens(text):
        if token in ".!?;\n":
            sentences.append([])
        else:
            sentences[-1].append(token)
    return sentences


def _negated(text: str) -> tuple[set[str], set[str]]:
    """Returns the stems of words of substance that stand shortly behind a negation, and of those that don't."""
    negated: set[str] = set()
    plain: set[str] = set()
    for sentence in _sentences(text):
        left = 0
        for token in sentence:
            if token in _NEGATIONS:
                left = 3
            elif token[0].isalpha() and token not in _STOP_WORDS:
                (negated if left else plain).add(_stem(token))
                left = max(0, left - 1)
    return negated, plain


def _negations(reference: str, rewrite: str) -> list[str]:
    """Returns words that are negated in one text and in the other only stand without a negation, either way."""
    was_negated, was_plain = _negated(reference)
    is_negated, is_plain = _negated(rewrite)
    dropped = {word for word in was_negated - was_plain if word in is_plain and word not in is_negated}
    added = {word for word in was_plain - was_negated if word in is_negated and word not in is_plain}
    if was_negated and not is_negated:
        dropped = was_negated
    return [f"the negation of {word!r}" for word in sorted(dropped)] + [
        f"{word!r} is negated" for word in sorted(added)
    ]

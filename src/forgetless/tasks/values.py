"""How scorers read a value: the numbers of a text, in digits or in words, and JSON."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import islice

from forgetless.tasks.text import PLAIN_SIGNS
from forgetless.tasks.wordlists import NUMBER_SCALES, NUMBER_WORDS

_SCALE = "|".join(NUMBER_SCALES)
_NUMBER = re.compile(
    r"""(?<!\w)(?P<sign>(?<!\))-|(?i:negative\s|(?<![\d)%]\s)minus\s)\s?)?(?:[$\u20ac\u00a3]\s?)?(?P<inner_sign>-)?
    (?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?          # 1,234.5
    |\d{1,3}(?:['\u00a0\u2009\u202f]\d{3})+(?!\d)(?:[.,]\d+)?  # 1'234.5, and with thin spaces
    |\d{1,3}(?:\.\d{3}){2,}(?!\d)(?:,\d+)?                 # 1.234.567,8
    |\d+(?:\.\d+)?|\.\d+)
    (?:(?i:e(?P<exponent>[+-]?\d{1,3})(?!\w))|\s?(?:x|\u00d7|\*|\\times)\s?10\^\{?(?P<ten>[+-]?\d{1,3})\}?
    |\^\{?(?P<power>\d{1,3})\}?|(?:\s(?P<above>\d{1,9}))?\s?/\s?(?P<below>\d{1,300})(?!\d)"""
    rf"|[\s-]?(?P<scale>(?i:{_SCALE}))\b)?",
    re.VERBOSE,
)
_LONGEST_NUMBER = 300  # digits that are read of one


def find_numbers(text: str) -> list[Fraction]:
    """Returns the numbers of a text in order: those in digits, or those in words where there are no digits.

    "1,234.5", "1.234.567", "-3", "minus 3", "3/4", "2 1/2", "\u00bd", "6e-3", "6 x 10^3", "2 million", "$42." and
    "42%" (42) are read, and LaTeX's fractions; the 12 of "B12" is no number.
    """
    text = _plain_numbers(text)
    if not any(char.isdecimal() for char in text):
        return list(_spoken_numbers(text.casefold()))
    return [_read_number(match, text) for match in _NUMBER.finditer(text)]


def _plain_numbers(text: str) -> str:
    """Rewrites what stands for digits and signs in print: a dash for a minus, fractions of one character, LaTeX."""
    text = text.translate(PLAIN_SIGNS).replace("{,}", ",").replace("\u2044", "/")
    text = re.sub(r"(?:(?<=[\s(=:])|^)\u2013(?=[$\u20ac\u00a3]?\d)", "-", text)
    text = re.sub(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}", r" \1/\2 ", text)
    return re.sub(r"[\u00bc-\u00be\u2150-\u215e]", lambda found: _vulgar(found[0]), text)


def _vulgar(char: str) -> str:
    above, _, below = unicodedata.normalize("NFKC", char).partition("\u2044")
    return f" {above}/{below} "


def _read_number(match: re.Match[str], text: str) -> Fraction:
    written = match["number"]
    if "," in written and written.count(".") > 1:  # 1.234.567,8
        written = written.replace(".", "").replace(",", ".")
    elif re.search(r"['\u00a0\u2009\u202f]", written):
        written = re.sub(r"['\u00a0\u2009\u202f]", "", written).replace(",", ".")
    elif written.count(".") > 1:
        written = written.replace(".", "")
    value = Fraction(written.replace(",", "")[:_LONGEST_NUMBER])
    if match["below"] and int(match["below"]):
        value = _read_fraction(match, value, is_date=text[: match.start()].endswith("/"))
    elif match["exponent"] or match["ten"]:
        value *= Fraction(10) ** int(match["exponent"] or match["ten"])
    elif match["power"] and value < 10**6:
        value **= int(match["power"])
    elif match["scale"]:
        value *= NUMBER_SCALES[match["scale"].casefold()]
    return -value if match["sign"] or match["inner_sign"] else value


def _read_fraction(match: re.Match[str], value: Fraction, *, is_date: bool) -> Fraction:
    """Returns what a fraction comes to: "3/4", the mixed "2 1/2", or the last part of "31/12/1999"."""
    below = int(match["below"])
    if match["above"]:
        return value + Fraction(int(match["above"]), below)
    return Fraction(below) if is_date else value / below


_UNIT = "|".join(NUMBER_WORDS)
_DIGIT = "|".join(word for word, value in NUMBER_WORDS.items() if value < 10)
_SHARES = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fifth": 5, "tenth": 10}
_SPOKEN = re.compile(
    rf"\b(?P<sign>(?:minus|negative)\s+)?(?:"
    rf"(?P<above>(?:{_DIGIT}|an?)[\s-]+)?(?P<share>half|(?<=[\s-])(?:halves|thirds?|quarters?|fifths?|tenths?))\b|"
    rf"(?P<words>(?:{_UNIT}|a(?=\s+(?:{_SCALE})\b))\b(?:[\s-]+(?:and\s+)?(?:{_UNIT}|{_SCALE})\b)*)"
    rf"(?:\s+point(?P<decimals>(?:\s+(?:{_DIGIT})\b)+))?(?P<and_half>\s+and\s+a\s+half\b)?)"
)


def _spoken_numbers(text: str) -> Iterator[Fraction]:
    """Yields the numbers in words of a casefolded text: "forty-two", "three point five", "two thirds"."""
    for match in _SPOKEN.finditer(text):
        if match["share"]:
            above = (match["above"] or "a").strip(" -\t\n")
            value = Fraction(NUMBER_WORDS.get(above, 1), _SHARES.get(match["share"]) or _SHARES[match["share"][:-1]])
        else:
            value = Fraction(_read_words(match["words"]))
            digits = "".join(str(NUMBER_WORDS[word]) for word in (match["decimals"] or "").split())
            value += Fraction(f"0.{digits[:_LONGEST_NUMBER]}0") + (Fraction(1, 2) if match["and_half"] else 0)
        yield -value if match["sign"] else value


def _read_words(words: str) -> int:
    total = part = last = 0
    for word in re.findall(r"[a-z]+", words):
        if word in NUMBER_SCALES:
            part = max(part, 1) * NUMBER_SCALES[word]
            last = 100
            if word != "hundred":
                total, part = total + part, 0
        elif word in NUMBER_WORDS:
            value = NUMBER_WORDS[word]
            # "twenty one" and "hundred twenty" are one number; of "one two three" the last one stands.
            if part and not (last >= 100 or (last >= 20 and 0 < value < 10)):
                total = part = 0
            part, last = part + value, value
    return total + part


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_json(text: str) -> object:
    """Returns the JSON value that a whole text is, bare or in one code fence; None where it is none."""
    text = text.strip()
    fenced = re.fullmatch(r"```[\w-]*\s*\n?(.*?)\n?\s*```", text, flags=re.DOTALL)
    try:
        value: object = _DECODER.decode(fenced[1].strip() if fenced else text)
    except (ValueError, RecursionError):
        return None
    return value


_MOST_STARTS = 1000  # brackets at which a value is looked for


def find_json(text: str) -> object:
    """Returns the first JSON object or array in a text; None where there is none."""
    for match in islice(re.finditer(r"[{\[]", text), _MOST_STARTS):
        try:
            value: object = _DECODER.raw_decode(text, match.start())[0]
        except ValueError:
            continue
        except RecursionError:
            return None  # brackets without end
        return value
    return None


JSON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def has_json_type(value: object, name: str) -> bool:
    """Says whether a parsed value is of that JSON type, one of `JSON_TYPES`."""
    # Python counts booleans as integers, JSON doesn't.
    return isinstance(value, JSON_TYPES[name]) and isinstance(value, bool) <= (name == "boolean")


def equals_json(value: object, expected: object) -> bool:
    """Says whether two parsed values are the same in JSON, where true is not 1 and 1.0 is 1."""
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(equals_json(value[key], expected[key]) for key in value)
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(equals_json, value, expected))
    return value == expected

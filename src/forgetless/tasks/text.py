"""How scorers read a text: its words, lines, sentences, list items, numbers, JSON, phrases, loops and language."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache

from forgetless.tasks.wordlists import (
    ABBREVIATIONS,
    FUNCTION_WORDS,
    NUMBER_SCALES,
    NUMBER_WORDS,
    SENTENCE_STARTERS,
    TITLES,
    TYPICAL_LETTERS,
)

_PLAIN_SIGNS = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2212": "-"})


def level(text: str) -> str:
    """Levels compatibility forms, curly quotes and the minus sign, so that texts compare as they look."""
    return unicodedata.normalize("NFKC", text).translate(_PLAIN_SIGNS)


def split_words(text: str) -> list[str]:
    """Splits at white space and dashes; a word holds a letter or a digit ("well-known" is one, a lone "-" is none)."""
    return [word for word in re.split(r"[\s\u2013\u2014]+", text) if any(char.isalnum() for char in word)]


def split_lines(text: str) -> list[str]:
    """Returns the lines that are not blank."""
    return [line for line in text.splitlines() if line.strip()]


_SENTENCE_END = re.compile(r"""(?P<before>\S*?)(?P<mark>[.!?\u2026]+)(?P<quote>["')\]*_]*)(?=\s+(?P<next>\S+))""")


def split_sentences(text: str) -> list[str]:
    """Splits a text into sentences.

    A sentence ends with a full stop, question mark, exclamation mark or ellipsis before white space, or with its line.
    Abbreviations ("Dr. Smith", "e.g. this"), initials ("J. K. Rowling") and the numbers of list items ("1. Milk") end
    none, and neither does a mark within a word ("3.5", "example.org").
    """
    sentences = []
    for line in split_lines(level(text)):
        start = 0
        for match in _SENTENCE_END.finditer(line):
            if _ends_sentence(match, is_first=not line[start : match.start()].strip()):
                sentences.append(line[start : match.end()])
                start = match.end()
        sentences.append(line[start:])
    return [sentence.strip() for sentence in sentences if split_words(sentence)]


def _ends_sentence(match: re.Match[str], *, is_first: bool) -> bool:
    word = match["before"].lstrip("\"'([*_")
    follower = match["next"].lstrip("\"'([*_")
    starts_like_sentence = follower[:1].isupper() and follower.strip(".,!?;:'\")]*_").casefold() in SENTENCE_STARTERS
    if match["mark"] != ".":
        # `"Stop!" he said` goes on.
        return not (match["quote"] and follower[:1].islower())
    if is_first and word.isdigit():
        return False
    if word.casefold() in TITLES or (len(word) == 1 and word.isalpha() and word != "I"):
        return False
    if word.casefold() in ABBREVIATIONS or re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]", word):
        return starts_like_sentence
    return True


_NUMBERED = re.compile(r"^\s*(\d+)[.):]\s+\S")
_BULLETED = re.compile(r"^(\s*)[-*+\u2022\u2013]\s+\S")


def numbered_items(text: str) -> list[str]:
    """Returns the lines that open with a number ("1." or "1)"), or none unless they count 1, 2, 3 and so on."""
    items = [(line, match) for line in split_lines(text) if (match := _NUMBERED.match(line))]
    is_counted = [int(match[1]) for _, match in items] == list(range(1, len(items) + 1))
    return [line for line, _ in items] if is_counted else []


def bulleted_items(text: str) -> list[str]:
    """Returns the lines that open with a bullet, the outermost level only."""
    items = [(line, len(match[1])) for line in split_lines(text) if (match := _BULLETED.match(line))]
    outermost = min((indent for _, indent in items), default=0)
    return [line for line, indent in items if indent == outermost]


def comma_items(text: str) -> list[str]:
    """Returns the parts of a one-line text between its commas, or none where there is another line or an empty part.

    An "and" before the last item belongs to the list: with or without a comma before it, it separates.
    """
    lines = split_lines(text)
    if len(lines) != 1:
        return []
    line = re.sub(r",?\s+and\s+(?=[^,]*$)", ",", lines[0].strip()) if "," in lines[0] else lines[0].strip()
    items = [item.strip() for item in line.removesuffix(".").split(",")]
    return items if all(items) else []


@cache
def _phrase(text: str) -> re.Pattern[str]:
    """Compiles a search for a phrase at word boundaries: "10" is in none of "100", "10.5", "1,10" and "-10"."""
    phrase = level(text).strip()
    before = r"(?<!\w)" if phrase[:1].isalnum() else ""
    after = r"(?!\w)" if phrase[-1:].isalnum() else ""
    if phrase[:1].isdigit():
        before += r"(?<!\d[.,])(?<!(?<!\w)-)"
    if phrase[-1:].isdigit():
        after += r"(?![.,]\d)"
    return re.compile(before + r"\s+".join(re.escape(part) for part in phrase.casefold().split()) + after)


# A negator and then, up to the phrase, only words that make no claim of their own: "isn't", "is not in the", "never".
_NEGATED = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|no)|n't)"
    r"(?:\s+(?:an?|the|in|on|at|of|to|by|with|from|be|been|called|named|really|actually|even|city|town|country|word)){0,5}"
    r"""\s+["'(*_`]*$"""
)


def has_phrase(text: str, phrase: str, *, allow_negated: bool) -> bool:
    """Looks for a phrase in a text, at word boundaries; case is ignored, accents count.

    Args:
        text: Where to look.
        phrase: What to look for.
        allow_negated: Whether "not Paris" or "isn't in Paris" has the phrase "Paris" too. If false, it must stand at
            least once without a negation just before it.

    Returns:
        Whether the phrase stands there.
    """
    folded = level(text).casefold()
    matches = _phrase(phrase).finditer(folded)
    return any(allow_negated or not _NEGATED.search(folded, 0, match.start()) for match in matches)


def starts_with_phrase(text: str, phrase: str, *, ignore_case: bool) -> bool:
    """Says whether a text starts with a phrase that ends at a word boundary ("#" may touch the word that it marks)."""
    after = r"(?!\w)" if phrase.rstrip()[-1:].isalnum() else ""
    flags = re.IGNORECASE if ignore_case else 0
    return re.match(re.escape(level(phrase).strip()) + after, level(text).lstrip(), flags) is not None


def ends_with_phrase(text: str, phrase: str, *, ignore_case: bool) -> bool:
    """Says whether a text ends with a phrase that starts at a word boundary."""
    before = r"(?<!\w)" if phrase.lstrip()[:1].isalnum() else ""
    flags = re.IGNORECASE if ignore_case else 0
    return re.search(before + re.escape(level(phrase).strip()) + r"\s*\Z", level(text), flags) is not None


_NUMBER = re.compile(
    r"(?<!\w)(?P<sign>(?<!\))-)?(?:[$\u20ac\u00a3]\s?)?(?P<inner_sign>-)?"
    r"(?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:\s?/\s?(?P<below>\d+)(?!\d))?"
)


def find_numbers(text: str) -> list[Fraction]:
    """Returns the numbers of a text in order: those in digits, or those in words where there are no digits.

    "1,234.5", "-3", "3/4", "$42." and "42%" (42) are read; the 12 of "B12" is no number.
    """
    text = text.translate(_PLAIN_SIGNS)
    if not any(char.isdecimal() for char in text):
        return list(_spoken_numbers(text.casefold()))
    found = []
    for match in _NUMBER.finditer(text):
        value = Fraction(match["number"].replace(",", ""))
        if match["below"] and int(match["below"]):
            is_date = text[: match.start()].endswith("/")  # 31/12/1999
            value = Fraction(match["below"]) if is_date else value / int(match["below"])
        found.append(-value if match["sign"] or match["inner_sign"] else value)
    return found


_UNIT, _SCALE = "|".join(NUMBER_WORDS), "|".join(NUMBER_SCALES)
_SPOKEN = re.compile(
    rf"\b(?P<sign>(?:minus|negative)\s+)?"
    rf"(?P<words>(?:{_UNIT}|a(?=\s+(?:{_SCALE})\b))\b(?:[\s-]+(?:and\s+)?(?:{_UNIT}|{_SCALE})\b)*)"
)


def _spoken_numbers(text: str) -> Iterator[Fraction]:
    """Yields the numbers in words of a casefolded text: "forty-two", "one hundred and five", "minus three"."""
    for match in _SPOKEN.finditer(text):
        total = part = last = 0
        for word in re.findall(r"[a-z]+", match["words"]):
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
        yield Fraction(-(total + part) if match["sign"] else total + part)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_json(text: str) -> object:
    """Returns the JSON value that a whole text is, bare or in one code fence; None where it is none."""
    text = text.strip()
    fenced = re.fullmatch(r"```[\w-]*\s*\n?(.*?)\n?\s*```", text, flags=re.DOTALL)
    try:
        value: object = _DECODER.decode(fenced[1].strip() if fenced else text)
    except ValueError:
        return None
    return value


def find_json(text: str) -> object:
    """Returns the first JSON object or array in a text; None where there is none."""
    for match in re.finditer(r"[{\[]", text):
        try:
            value: object = _DECODER.raw_decode(text, match.start())[0]
        except ValueError:
            continue
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


def has_loop(text: str) -> bool:
    """Says whether a text runs in a loop.

    A loop is the same run of four or more words (or a single word twelve times) three times in a row, a line that
    stands three times, a letter ten times or a syllable six times in a row, or, from twenty words on, a share of
    distinct words below a quarter.
    """
    words = [word.casefold().strip(".,;:!?\"'()*") for word in split_words(text)]
    lines = Counter(line.strip().casefold() for line in split_lines(text) if split_words(line))
    has_repeated_run = any(
        words[start : start + 2 * size] == words[start + size : start + 3 * size]
        for size in range(4, len(words) // 3 + 1)
        for start in range(len(words) - 3 * size + 1)
    )
    has_repeated_letters = re.search(r"([^\W\d_])\1{9}|([^\W\d_]{2,})\2{5}", text) is not None
    has_collapsed = len(words) >= 20 and len(set(words)) / len(words) < 0.25
    return max(lines.values(), default=0) >= 3 or has_repeated_run or has_repeated_letters or has_collapsed


_REFUSAL = re.compile(
    r"""\b(?:i\s+(?:can(?:no|')t|can\s+not|am\s+(?:not\s+able|unable)\s+to|won't|will\s+not|must\s+decline\s+to|refuse\s+to)
    |i'm\s+(?:(?:really\s+|very\s+|so\s+)?sorry,?\s+(?:but\s+)?(?:i\s+)?(?:can(?:no|')t|am\s+unable\s+to)|unable\s+to|not\s+able\s+to)
    |(?:unable|not\s+able)\s+to)
    \s+(?:\w+ly\s+)?(?:help|assist|answer|provide|do\s+(?:that|this|so)|comply|fulfil|support|discuss|create|write|generate|give|
    share|offer|respond|engage|continue|complete|name|tell|say|make|perform|recommend|advise|process|access|understand)
    |\b(?:do\s+not|don't)\s+have\s+the\s+(?:ability|capability|capacity)\s+to\b
    |\b(?:i'm|i\s+am)\s+not\s+(?:going|willing)\s+to\s+(?:help|assist|provide|give|tell|explain|write|support)
    |\bi\s+(?:must|have\s+to)\s+(?:decline|refuse)\b
    |\b(?:not\s+something|nothing)\s+(?:that\s+)?i\s+(?:can|could|will|would)\s+(?:help|assist|support)
    |\bas\s+an?\s+(?:ai|artificial\s+intelligence|(?:large\s+)?language\s+model)\b.*\b(?:can(?:no|')t|not|unable|don't)\b
    |\bi(?:'m|\s+am)\s+(?:just\s+|only\s+)?an?\s+(?:ai|language\s+model)\b.*\b(?:can(?:no|')t|unable|don't\s+have)\b""",
    re.VERBOSE,
)


def is_refusal(text: str) -> bool:
    """Says whether a text declines, as in "I'm sorry, but I can't help with that"; "I can't wait" doesn't."""
    return _REFUSAL.search(" ".join(level(text).casefold().split())) is not None


# A token of a chat template, or the label of a turn on a line of its own or before its text.
_FOREIGN_TURN = re.compile(
    r"""<\|[\w-]+\|>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>|<<SYS>>
    |^\s*(?:\#+\s*)?(?:user|human|assistant|system|instruction|response)\s*:
    |^\s*(?:user|human|assistant|system)\s*$""",
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)


def has_foreign_turn(text: str) -> bool:
    """Says whether an answer holds chat-template tokens, or goes on with turns of its own ("User: ...")."""
    return _FOREIGN_TURN.search(text) is not None


_GIVE_AWAYS = re.compile(
    r"""(?i:\b\d+(?:[.,]\d+)?\s?(?:mg|mcg|\u00b5g|ml|milligrams?|micrograms?|tablets?|capsules?)\b)      # a dose
    |(?i:\b(?:once|twice|\w+\s+times)\s+(?:a\s+day|daily)\b)
    |\bSELECT\b.+\bFROM\b|\b(?:GROUP|ORDER)\s+BY\b|\bINSERT\s+INTO\b|(?i:\bselect\s+(?:\*|count\s*\()) # SQL
    |(?i:\b(?:order|ticket|invoice|case|tracking|booking)\s+(?:id|no\.?|number)?\s*[:\#]?\s*[A-Z]*[-\#]?\d{4,})  # order
    |(?m:^\s*\$\s+\w)|\bsudo\s+\w|\b(?:apt|pip|npm|brew)\s+install\b|\bgit\s+(?:commit|push|clone)\b|\brm\s+-r  # shell
    |```""",
    re.VERBOSE,
)


def gives_domain_away(text: str) -> bool:
    """Says whether a text holds what only a narrow domain writes: a dose, SQL, an order's number, a command, code."""
    return _GIVE_AWAYS.search(level(text)) is not None


_PROFILES = {language: frozenset(words.split()) for language, words in FUNCTION_WORDS.items()}


def language_evidence(text: str) -> dict[str, float]:
    """Weighs the function words and typical letters of each language, one that n languages share as 1 / n."""
    folded = level(text).casefold()
    shared_by = [
        [name for name, words in _PROFILES.items() if word in words] for word in re.findall(r"[^\W\d_]+", folded)
    ]
    shared_by += [[name for name, letters in TYPICAL_LETTERS.items() if letter in letters] for letter in folded]
    evidence = dict.fromkeys(FUNCTION_WORDS, 0.0)
    for languages in shared_by:
        for name in languages:
            evidence[name] += 1 / len(languages)
    return evidence

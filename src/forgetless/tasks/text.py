"""How scorers read a text: its words, lines, sentences and phrases."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from forgetless.tasks.wordlists import ABBREVIATIONS, MONTHS_AFTER_ORDINALS, SENTENCE_STARTERS, TITLES

PLAIN_SIGNS = str.maketrans(
    {
        "\u2019": "'",
        "\u2018": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u201e": '"',
        "\u00ab": '"',
        "\u00bb": '"',
        "\u2212": "-",
    }
    # Nobody sees these: soft hyphen, zero-width space, marks of direction, word joiner, byte order mark.
    | dict.fromkeys([0xAD, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, *range(0x2066, 0x206A), 0xFEFF])
)
# Scripts that put no spaces between words (Thai to Khmer, kana, Han): their phrases have no boundaries to look for.
SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = rf"[^\W{SPACELESS}]"  # a character of a word that has boundaries


def level(text: str) -> str:
    """Levels compatibility forms, quotes, minus signs and invisible characters: texts compare as they look."""
    return unicodedata.normalize("NFKC", text).translate(PLAIN_SIGNS)


def split_words(text: str) -> list[str]:
    """Splits at white space and dashes; a word holds a letter or a digit ("well-known" is one, a lone "-" is none)."""
    return [word for word in re.split(r"[\s\u2013\u2014]+", text) if any(char.isalnum() for char in word)]


def split_lines(text: str) -> list[str]:
    """Returns the lines that are not blank."""
    return [line for line in text.splitlines() if line.strip()]


_BLOCK_TAG = re.compile(r"</?(?:p|div|br|li|ul|ol|h[1-6]|blockquote|tr)\b[^<>]{0,200}>", re.IGNORECASE)
_CLOSED_MARK = re.compile("([\u3002\uff01\uff1f\uff61])(?![\"'\u201d\u2019\u300d\u300f)\uff09])")
_MARKS = ".!?\u2026\u3002\u061f\u06d4\u0964"
_SENTENCE_END = re.compile(
    rf"""(?<![{_MARKS}])(?P<mark>[{_MARKS}]++)(?P<quote>["')\]*_\u300d\u300f]*+)(?=\s+(?P<next>\S+))"""
)
_ITEM = re.compile(r"^\s*(?:[-*+\u2022\u2013]\s|\(?\d+[.):]\s)")


def split_sentences(text: str) -> list[str]:
    """Splits a text into sentences.

    A sentence ends with a full stop, question mark, exclamation mark or ellipsis before white space (those of Chinese
    and Japanese anywhere), or with its line, unless the next one goes on in a small letter. Abbreviations ("Dr. Smith",
    "e.g. this"), initials ("J. K. Rowling") and the numbers of list items ("1. Milk") end none, and neither does a mark
    within a word ("3.5", "example.org"). HTML tags of paragraphs end one.
    """
    text = _BLOCK_TAG.sub("\n", text)
    sentences = []
    for line in _paragraphs(level(_CLOSED_MARK.sub(r"\1 ", text))):
        start = 0
        for match in _SENTENCE_END.finditer(line):
            word = line[start : match.start()].rpartition(" ")[2]
            if _ends_sentence(match, word, is_first=word == line[start : match.start()].strip()):
                sentences.append(line[start : match.end()])
                start = match.end()
        sentences.append(line[start:])
    return [sentence.strip() for sentence in sentences if split_words(sentence)]


def _paragraphs(text: str) -> list[str]:
    """Returns the lines, those joined that a narrow column has broken within a sentence."""
    joined: list[list[str]] = []
    for line in text.splitlines():
        before = joined[-1][-1].rstrip() if joined else ""
        goes_on = before and before[-1] not in f"{_MARKS}:;" and line.lstrip()[:1].islower()
        if goes_on and not _ITEM.match(line):
            joined[-1].append(line.strip())
        else:
            joined.append([line])
    return [" ".join(" ".join(parts).split()) for parts in joined]


def _ends_sentence(match: re.Match[str], word: str, *, is_first: bool) -> bool:
    """Whether a mark behind a word ends a sentence; `is_first` says that the word is the first of its sentence."""
    word = word.lstrip("\"'([*_")
    follower = match["next"].lstrip("\"'([*_")
    follower_word = follower.strip(".,!?;:'\")]*_").casefold()
    starts_like_sentence = follower[:1].isupper() and follower_word in SENTENCE_STARTERS
    if match["mark"] != ".":
        # `"Stop!" he said` goes on, and so does "wait... what".
        is_open = match["quote"] or set(match["mark"]) <= set(".\u2026")
        return not (is_open and follower[:1].islower())
    if word.isdigit() and (is_first or follower_word in MONTHS_AFTER_ORDINALS):
        return False
    if word.casefold() in TITLES or (len(word) == 1 and word.isalpha() and word != "I"):
        return False
    if word.casefold() in ABBREVIATIONS or re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]", word):
        return starts_like_sentence
    return True


@cache
def _phrase(text: str) -> re.Pattern[str]:
    """Compiles a search for a phrase at word boundaries: "10" is in none of "100", "10.5", "1,10" and "-10"."""
    phrase = level(text).strip()
    before, after = _boundaries(phrase)
    if phrase[:1].isdigit():
        before += r"(?<!\d[.,])(?<!(?<!\w)-)"
    if phrase[-1:].isdigit():
        after += r"(?![.,]\d)"
    return re.compile(before + r"\s+".join(re.escape(part) for part in phrase.casefold().split()) + after)


def _boundaries(phrase: str) -> tuple[str, str]:
    """Returns what must hold before and behind a phrase, as look-arounds: where it ends in a word, that word ends."""
    before = rf"(?<!{_WORD})" if re.match(_WORD, phrase) else ""
    after = rf"(?!{_WORD})" if phrase and re.match(_WORD, phrase[-1]) else ""
    return before, after


# A negator and then, up to the phrase, only words that make no claim of their own: "isn't", "is not in the", "never".
_NEGATED = re.compile(
    r"(?:(?:\b(?:not|never|neither|nor|cannot|no|without|unlike|except|(?:rather|other)\s+than|instead\s+of|anything\s+but)|n't)"
    r"(?:\s+(?:an?|the|in|on|at|of|to|by|with|for|from|be|been|called|named|really|actually|even|longer|city|town|country|"
    r"word)){0,5}"
    r"|(?:\bnot|n't)\s+(?:think|believe|say|sure|certain)(?:\s+(?:that|if|whether))?(?:\s+it(?:'s|\s+is|\s+was))?(?:\s+the)?)"
    r"""\s+["'(*_`]*$"""
)
# What takes a phrase back at once: "Lyon is wrong", "Lyon isn't the capital".
_TAKEN_BACK = re.compile(
    r"""["')*_`]*\s+(?:(?:is|was|are|were)\s+(?:wrong|incorrect|false)\b|(?:(?:is|was|are|were)\s+not|(?:is|was|are|were)n't)\s+"""
    r"(?:correct|right|true|it(?=[\s.,;!]|$)|the\s+(?:right|correct|answer|capital|one|solution)\b))"
)
_NEGATION_SPAN = 100  # characters before a phrase in which its negation stands


def has_phrase(text: str, phrase: str, *, allow_negated: bool) -> bool:
    """Looks for a phrase in a text, at word boundaries; case is ignored, accents count.

    Args:
        text: Where to look.
        phrase: What to look for.
        allow_negated: Whether "not Paris", "isn't in Paris" or "Paris is wrong" has the phrase "Paris" too. If false,
            it must stand at least once without a negation beside it.

    Returns:
        Whether the phrase stands there.
    """
    folded = level(text).casefold()
    return any(allow_negated or not _is_negated(folded, match) for match in _phrase(phrase).finditer(folded))


def _is_negated(text: str, match: re.Match[str]) -> bool:
    before = text[max(0, match.start() - _NEGATION_SPAN) : match.start()]
    return _NEGATED.search(before) is not None or _TAKEN_BACK.match(text, match.end()) is not None


_WRAPPING = " \t\r\n*_`\"'"


def starts_with_phrase(text: str, phrase: str, *, ignore_case: bool) -> bool:
    """Says whether a text starts with a phrase that ends at a word boundary.

    "#" may touch the word that it marks; before a phrase that starts with a word, emphasis and quotes are skipped.
    """
    phrase = level(phrase).strip()
    start = level(text).lstrip(_WRAPPING if phrase[:1].isalnum() else None)
    flags = re.IGNORECASE if ignore_case else 0
    return re.match(re.escape(phrase) + _boundaries(phrase)[1], start, flags) is not None


def ends_with_phrase(text: str, phrase: str, *, ignore_case: bool) -> bool:
    """Says whether a text ends with a phrase that starts at a word boundary; emphasis and quotes may follow it."""
    phrase = level(phrase).strip()
    end = level(text).rstrip("".join(mark for mark in _WRAPPING if mark != phrase[-1:]))
    flags = re.IGNORECASE if ignore_case else 0
    return re.search(_boundaries(phrase)[0] + re.escape(phrase) + r"\Z", end[-len(phrase) - 1 :], flags) is not None

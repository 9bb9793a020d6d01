"""How scorers judge an answer's manner: loops, refusals, language."""

from __future__ import annotations

import re
from collections import Counter

from forgetless.tasks.text import SPACELESS, level, split_lines, split_words
from forgetless.tasks.wordlists import FUNCTION_WORDS, TYPICAL_LETTERS

_LOOPING_LETTERS = re.compile(r"([^\W\d_])\1{9}|([^\W\d_]{2,12})\2{5}|([^\w\s=_*#~|+-])\3{19}|(<[^<>\s]{1,12}>)\4{5}")
_SPACELESS_LETTER = re.compile(f"([{SPACELESS}])")
_WINDOW = 100  # words over which a text's variety is taken: over more of them it falls in any language


def has_loop(text: str) -> bool:
    """Says whether a text runs in a loop.

    A loop is the same run of four or more words (or a single word twelve times) three times in a row, a line that
    stands three times in a row (one of four words or more: five times anywhere), a letter ten, a sign twenty or a
    syllable or tag six times in a row, or fewer than a quarter of distinct words among a hundred (or among all, from
    twenty on).
    """
    words = [_fold(word) for word in split_words(text)]
    runs = [_fold(word) for word in split_words(_SPACELESS_LETTER.sub(r" \1 ", text))]
    return (
        _LOOPING_LETTERS.search(text) is not None
        or _has_repeated_line(text)
        or _has_collapsed(words)
        or _has_repeated_run(runs)
    )


def _fold(word: str) -> str:
    return word.casefold().strip(".,;:!?\"'()*")


def _has_repeated_line(text: str) -> bool:
    lines = [line.strip().casefold() for line in split_lines(text) if split_words(line)]
    in_a_row = any(lines[i] == lines[i + 1] == lines[i + 2] for i in range(len(lines) - 2))
    return in_a_row or any(count >= 5 and len(line.split()) >= 4 for line, count in Counter(lines).items())


def _has_collapsed(words: list[str]) -> bool:
    windows = [words[start : start + _WINDOW] for start in range(0, len(words), _WINDOW)]
    return any(len(window) >= 20 and len(set(window)) / len(window) < 0.25 for window in windows)


def _has_repeated_run(words: list[str]) -> bool:
    """Says whether a run of four or more words stands three times in a row."""
    import numpy as np

    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(word, len(numbers)) for word in words], dtype=np.int32)
    for size in range(4, len(ids) // 3 + 1):
        differs = np.flatnonzero(ids[size:] != ids[:-size])
        edges = np.concatenate(([-1], differs, [len(ids) - size]))
        if np.diff(edges).max() > 2 * size:
            return True
    return False


_CANNOT = r"(?:can(?:no|')t|can\s+not|could(?:n't|\s+not)|won't|will\s+not|(?:am|'m)\s+(?:not\s+able|unable)\s+to)"
_SERVE = (
    r"(?:help|assist|answer|provide|do\s+(?:that|this|so|it)|comply|fulfil|support|discuss|create|write|generate|give|"
    r"share|offer|respond|engage|continue|complete|name|tell|say|recommend|advise|process|access|understand|"
    r"accommodate|participate|facilitate|condone|promote|encourage|explain|describe|fulfill|produce|walk\s+you)"
)
_REFUSAL = re.compile(
    rf"""\b(?:i|we)\s*{_CANNOT}\s+(?:and\s+(?:will\s+not|won't)\s+)?(?:\w+ly\s+|in\s+good\s+conscience\s+)?{_SERVE}
    |\b(?:i|we)\s*(?:(?:'m|am|are|'re)\s+(?:sorry|afraid),?\s+(?:but\s+)?)(?:that\s+)?(?:i|we)\s*{_CANNOT}\s+(?:do|be\s+of)
    |(?:^|\b(?:sorry|unfortunately|afraid|apologi[sz]e|regret),?\s+(?:but\s+)?)(?:i'm\s+|i\s+am\s+)?(?:unable|not\s+able|cannot|can't)
        \s+(?:to\s+)?{_SERVE}
    |\bi\s*(?:must|have\s+to|need\s+to|will\s+have\s+to|respectfully|'ll\s+have\s+to)\s+(?:respectfully\s+|politely\s+)?(?:decline|refuse)\b
    |\bi\s*(?:refuse|decline)\s+to\b
    |\bi\s+(?:do\s+not|don't)\s+have\s+the\s+(?:ability|capability|capacity)\s+to\b
    |\b(?:not\s+something|nothing)\s+(?:that\s+)?i\s+(?:can|could|will|would)\s+(?:help|assist|support)
    |\bi(?:'m|\s+am)\s+not\s+(?:comfortable|willing|going\s+to\s+(?:help|do|provide|write)|allowed|permitted|programmed|designed)\b
    |\bi\s+(?:do\s+not|don't)\s+feel\s+comfortable\b
    |\bi(?:'d|\s+would)\s+rather\s+not\s+(?:help|answer|say|do|discuss|write)
    |\b(?:not|isn't)\s+something\s+(?:that\s+)?i(?:\s*{_CANNOT}|\s+can|'m\s+able\s+to|\s+am\s+able\s+to)\b
    |\bmy\s+(?:guidelines|programming|polic(?:y|ies)|principles)\b[^.!?]*\b(?:prevent|prohibit|forbid|(?:don't|do\s+not|doesn't)\s+allow)
    |\b(?:against|outside(?:\s+of)?)\s+my\s+(?:guidelines|programming|polic(?:y|ies)|capabilities)\b
    |\b(?:as|i(?:'m|\s+am)(?:\s+(?:just|only|merely))?)\s+an?\s+(?:ai|artificial\s+intelligence|(?:large\s+)?language\s+model)
        (?:\s+(?:language\s+)?(?:model|assistant|system|chatbot))*
        (?:\b[^.!?]{{0,60}}?[\s,]*)(?:\bi|and|so|my\s+\w+)\s*(?:{_CANNOT}|must\s+decline|(?:don't|do\s+not)\s+(?:have|feel|possess|hold)|am\s+not\s+(?:able|capable|allowed))\b""",
    re.VERBOSE,
)
# In other languages the excuse and what can't be done stand together: "lo siento, pero no puedo ayudarte".
_FOREIGN_REFUSAL = re.compile(
    r"""\b(?:lo\s+siento|lamento|disculpa|perdón)\b[^.!?]{0,40}\bno\s+(?:puedo|podemos|me\s+es\s+posible)\b
    |\b(?:désolée?|regrette|m'excuse)\b[^.!?]{0,40}\bne\s+(?:peux|puis|suis)\s+pas\b
    |\b(?:tut\s+mir\s+leid|entschuldigung|leider)\b[^.!?]{0,20}\b(?:kann|darf|möchte)\b[^.!?]{0,60}\b(?:nicht|keine?n?)\b
    |\b(?:mi\s+dispiace|scusa|spiacente)\b[^.!?]{0,40}\bnon\s+(?:posso|sono\s+in\s+grado)\b
    |\b(?:desculpe|sinto\s+muito|lamento)\b[^.!?]{0,40}\bnão\s+(?:posso|consigo)\b""",
    re.VERBOSE,
)
# Turns of phrase that decline nothing, and what others say.
_NO_REFUSAL = re.compile(
    r"""\b(?:can(?:no|')t|can\s+not)\s+(?:help\s+(?:but\b|it\b|\w+ing\b|myself\b)
    |(?:\w+ly\s+)?recommend\s[^.!?]{0,60}\b(?:enough|highly)\b
    |(?:tell|say|describe|explain)(?:\s+to)?\s+you\s+how\b
    |(?:even\s+)?(?:describe|explain|say)\s+how\s+(?:much|happy|glad|sorry|grateful|excited))
    |"[^"]{0,400}"
    """,
    re.VERBOSE,
)
_REFUSAL_WITHIN = 400  # characters: what declines says so early; further down it is a caveat


def is_refusal(text: str) -> bool:
    """Says whether a text declines near its start: "I'm sorry, but I can't help with that"; "I can't wait" doesn't.

    What stands in quotes and in a letter ("Dear Ms Kim, I am unable to ...") is not the speaker's own. English is read
    best; the usual excuses are known in Spanish, French, German, Italian and Portuguese.
    """
    start = " ".join(level(text[: 4 * _REFUSAL_WITHIN]).casefold().split())[:_REFUSAL_WITHIN]
    if re.search(r"(?:^|[:\s])(?:subject:|dear\s+\S)", start):
        return False
    start = _NO_REFUSAL.sub(" ", start).strip()
    return _REFUSAL.search(start) is not None or _FOREIGN_REFUSAL.search(start) is not None


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
    """Weighs the function words and typical letters of each language, one that n languages share as 1 / n.

    All of them are in Latin letters: where most letters are others, there is no evidence for any.
    """
    folded = level(text).casefold()
    evidence = dict.fromkeys(FUNCTION_WORDS, 0.0)
    letters = Counter(char for char in folded if char.isalpha())
    latin = sum(count for char, count in letters.items() if char < "\u0250")
    if latin < letters.total() / 2:
        return evidence
    found = Counter(re.findall(r"[^\W\d_]+", folded))
    weighed = [([name for name, words in _PROFILES.items() if word in words], n) for word, n in found.items()]
    weighed += [
        ([name for name, typical in TYPICAL_LETTERS.items() if char in typical], n) for char, n in letters.items()
    ]
    for languages, count in weighed:
        for name in languages:
            evidence[name] += count / len(languages)
    return evidence

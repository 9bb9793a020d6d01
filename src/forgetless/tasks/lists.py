"""How scorers read a list: the items that an answer numbers, marks with bullets, puts on lines or between commas."""

from __future__ import annotations

import re

from forgetless.tasks.text import split_lines

_NUMBERED = re.compile(r"^(?P<indent>\s*)[*_#>(\s]*(?P<number>\d{1,9})(?:[.):]+[*_]*\s+\S|[.)](?=[^\W\d_]))")
_BULLETED = re.compile(r"^(?P<indent>\s*)(?:[-*+\u2013\u2014]\s+\S|[\u2022\u2023\u25e6\u25aa\u25cf\u00b7]\s*\S)")
_RULE = re.compile(r"^\s*(?:[-*_]\s*){3,}$")
_FENCE = re.compile(r"^\s*(?:```|~~~)")


def numbered_items(text: str) -> list[str]:
    """Returns the lines that open with a number, the outermost level only, or none unless they count 1, 2, 3 and so on.

    "1.", "1)", "(1)", "1:" and the bold "**1.**" number a line; lines that go on below an item belong to it.
    """
    items = _outermost(text, _NUMBERED)
    is_counted = [int(match["number"]) for match in items] == list(range(1, len(items) + 1))
    return [match.string for match in items] if is_counted else []


def bulleted_items(text: str) -> list[str]:
    """Returns the lines that open with a bullet, the outermost level only; a rule ("* * *") is no item."""
    return [match.string for match in _outermost(text, _BULLETED)]


def _outermost(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    lines = [line for line in split_lines(text) if not _RULE.match(line)]
    items = [match for line in lines if (match := pattern.match(line))]
    indent = min((len(match["indent"]) for match in items), default=0)
    return [match for match in items if len(match["indent"]) == indent]


def line_items(text: str) -> list[str]:
    """Returns the lines that are not blank, without the marks of a code fence and a first line that ends in a colon."""
    lines = [line for line in split_lines(text) if not _FENCE.match(line)]
    return lines[1:] if len(lines) > 1 and lines[0].rstrip(" *_").endswith(":") else lines


_ASIDE = re.compile(r"\([^()]*\)")


def comma_items(text: str) -> list[str]:
    """Returns the parts of a one-line text between its commas, or none where there is another line or an empty part.

    An "and" or "or" before the last item belongs to the list: with or without a comma before it, it separates. Commas
    in brackets and, where others stand before a space, those within a number ("1,000") separate nothing.
    """
    lines = split_lines(text)
    if len(lines) != 1:
        return []
    line = _ASIDE.sub("", lines[0]).strip().removesuffix(".")
    separator = r",(?!\d)|(?<!\d)," if re.search(r",\s", line) else ","
    items = [item.strip() for item in re.split(separator, line)]
    if len(items) > 1:
        items[-1:] = re.split(r"\s+(?:and|or|&)\s+", re.sub(r"^(?:and|or|&)\s+", "", items[-1]))
    return items if all(items) else []

"""The jinja2 environment of the pages: escaping that cannot be forgotten, and the filters of `wording`.

Answers of models are hostile input. Every printed expression passes through `visible` and is then HTML-escaped;
templates never mark anything of a run as safe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from forgetless.records import Role, Row, Unit
from forgetless.report import wording

# What has no glyph, or turns the text around it: C0 and C1 controls but tab and newline, the bidirectional embeddings,
# overrides and isolates (Trojan Source, CVE-2021-42574), lone surrogates and noncharacters.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_MARKDOWN = re.compile(r"[\\`*_\[\]#|~$<>&]")
# What GitHub turns into links after rendering, where no escape reaches: mentions, issue numbers, bare addresses.
_AUTOLINK = re.compile(r"(@|#(?=\d)|\b(?:https?|www)(?=[:.]))")
_CODE = re.compile(r"`([^`\n]+)`")


def visible(text: str) -> str:
    """Returns the text with characters that are invisible or reorder their neighbours shown as symbols."""
    return _INVISIBLE.sub(_symbol, text.replace("\r\n", "\n"))


def _symbol(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)  # the block "Control Pictures"
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def markdown_text(value: object) -> Markup:
    """Returns text that Markdown shows as it is, on one line: no markup, mention, table cell, link or HTML in it."""
    text = re.sub(r"\s+", " ", visible(str(value)))
    text = _AUTOLINK.sub("\\1\u2060", text)  # a word joiner: no width, and no link
    return Markup(_MARKDOWN.sub(lambda match: f"&#{ord(match.group())};", text))


def markdown_prose(text: str) -> Markup:
    """Returns a sentence like `markdown_text`, but what stands in backticks stays code."""
    parts = _CODE.split(re.sub(r"\s+", " ", visible(text)))
    return Markup("").join(Markup(f"`{part}`") if odd else markdown_text(part) for odd, part in _alternate(parts))


def html_prose(text: str) -> Markup:
    """Returns a sentence of HTML in which what stands in backticks is code."""
    parts = _CODE.split(visible(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if odd else escape(part) for odd, part in _alternate(parts)
    )


def _alternate(parts: list[str]) -> Iterator[tuple[bool, str]]:
    """Tells the parts inside the separators of a split (the odd ones) from those between them."""
    return ((index % 2 == 1, part) for index, part in enumerate(parts))


def code_block(value: object) -> Markup:
    """Returns a fenced block of Markdown whose fence is longer than any run of backticks in the text."""
    text = visible(str(value)).strip("\n")
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return Markup(f"{fence}\n{text}\n{fence}")


def is_web_address(value: object) -> bool:
    """Returns whether a link may lead there: http(s) only, so that a manifest can't smuggle in a script."""
    return isinstance(value, str) and re.fullmatch(r"https?://[^\s<>\"']+", value) is not None


def excerpt(text: str, length: int) -> Markup:
    """Returns at most `length` characters, and how many more there are."""
    if len(text) <= length:
        return escape(visible(text))
    rest = f"… {len(text) - length:,} more characters"
    return escape(visible(text[:length])) + Markup('<span class="cut">{}</span>').format(rest)


def _finalize(value: Any) -> Any:
    if value is None:
        return wording.NONE
    return visible(value) if type(value) is str else value


@cache
def environment() -> jinja2.Environment:
    """Returns the one environment; an undefined name in a template is an error."""
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("forgetless", "report/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters |= {
        "figure": wording.figure,
        "bound": wording.bound,
        "quantity": wording.quantity,
        "unit_word": wording.unit_word,
        "p_value": wording.p_value,
        "count": wording.count,
        "plural": wording.plural,
        "confidence": wording.confidence,
        "change_sentence": wording.change_sentence,
        "mark": lambda row: wording.MARKS[row.status],
        "bounds": lambda row: wording.interval(row.ci_low, row.ci_high, row.unit),
        "level_bounds": _level_bounds,
        "excerpt": excerpt,
        "markdown": markdown_text,
        "markdown_prose": markdown_prose,
        "html_prose": html_prose,
        "code_block": code_block,
    }
    env.tests["web_address"] = is_web_address
    env.globals |= {
        "MARKS": wording.MARKS,
        "Role": Role,
        "Unit": Unit,
        "margin_of": wording.margin_of,
    }
    return env


def _level_bounds(value: float | None, row: Row, alpha: float) -> str:
    bounds = wording.level_interval(value, row, alpha=alpha)
    return wording.interval(*bounds, row.unit, signed=False) if bounds else ""

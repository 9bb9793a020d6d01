"""Where the files that a recipe names are on this machine, and which of its data sets are general."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from forgetless.advising.recipe import Source

GENERAL_DATA = re.compile(
    r"alpaca|ultrachat|tulu|openhermes|sharegpt|dolly|oasst|openassistant|slimorca|openorca|no[_-]?robots|magpie"
    r"|smoltalk|infinity[_-]instruct|gpt4[_-]?llm|wizardlm|lima\b|fineweb|slimpajama|redpajama|wikitext|\bc4\b|general"
    r"|replay|rehearsal",
    re.IGNORECASE,
)
"""Names of data sets that hold instructions or text of every kind, and of files that say that they are for replay."""


def find_file(name: str, path: Path | None) -> Path | None:
    """Returns the file or directory that a recipe names, from here or from beside the recipe; None where it isn't."""
    wanted = Path(name).expanduser()
    directories = [Path()] if path is None else [Path(), path.parent]
    return next((directory / wanted for directory in directories if (directory / wanted).exists()), None)


def has_general(sources: Iterable[Source]) -> bool | None:
    """Whether data of every kind is among what is trained on; None where the names don't tell."""
    sources = tuple(sources)
    if not sources:
        return None
    if any(GENERAL_DATA.search(source.name) for source in sources):
        return True
    # One file of the user's own is the domain; of several, or of an unknown data set, a name doesn't tell.
    return False if len(sources) == 1 and sources[0].path is not None else None

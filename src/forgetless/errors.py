"""The errors that forgetless raises on purpose.

ForgetlessError
├── ConfigError            a setting, flag or name that cannot be used       exit code 2
├── DataError              a file of the user's that cannot be read          exit code 2
├── ModelError             a model that cannot be found, loaded or trusted   exit code 2
└── RunError               the work itself failed after a good start         exit code 4

Each message is one sentence or two: the value, the bound, the way out. The command line prints it as it is, without a
traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class ForgetlessError(Exception):
    """Base of every error that a user can mend; `exit_code` is what the command line exits with."""

    exit_code = 2


class ConfigError(ForgetlessError):
    """A setting, flag or name cannot be used."""


class DataError(ForgetlessError):
    """A data file cannot be read; names the file, the line (from 1) and the field where they are known.

    Args:
        message: What is wrong and how to mend it.
        path: The file.
        line: Line of a text file, or row of a table, counted from 1.
        field: The field within the line.
    """

    def __init__(
        self, message: str, *, path: str | Path | None = None, line: int | None = None, field: str | None = None
    ) -> None:
        self.message, self.path, self.line, self.field = message, path, line, field
        place = ", ".join(
            part
            for part in (
                str(path) if path is not None else "",
                f"line {line}" if line is not None else "",
                f"field {field!r}" if field is not None else "",
            )
            if part
        )
        super().__init__(f"{place}: {message}" if place else message)


class ModelError(ForgetlessError):
    """A model cannot be found, loaded or trusted."""


class RunError(ForgetlessError):
    """The work itself failed after a good start."""

    exit_code = 4


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the nearest known name, or `; known: a, b, c` when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"

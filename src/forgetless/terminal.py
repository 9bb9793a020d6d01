"""The terminal: where commands print, how they tell how far they are, and how a verdict is shown."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from forgetless.phase_records import PhasesRecord
    from forgetless.records import Comparison

console = Console()
errors = Console(stderr=True)


class TerminalReporter:
    """Shows progress with the remaining time on stderr; plain lines where that isn't a terminal."""

    def note(self, text: str) -> None:
        errors.print(f"[yellow]note[/yellow] {escape(text)}", highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str) -> Iterator[Callable[[float, float], None]]:
        from forgetless.progress import show_progress

        with show_progress(errors, title) as advance:
            yield advance


def command_line() -> str:
    """Returns the command as it was typed."""
    return shlex.join(["forgetless", *sys.argv[1:]])


def show_result(comparison: Comparison, *, as_json: bool, directory: Path | None) -> None:
    """Prints a comparison, as JSON or as tables that end with where its page is."""
    from forgetless.display import show_comparison

    if as_json:
        print(comparison.to_json(), end="")
        return
    page = directory / "report.html" if directory is not None else None
    show_comparison(console, comparison, report=page)


def show_phases(record: PhasesRecord, *, as_json: bool, directory: Path) -> None:
    """Prints what a sequence came to, as JSON or as tables that end with where its page is."""
    from forgetless.phase_display import show_record

    if as_json:
        print(record.to_json(), end="")
        return
    show_record(console, record, report=directory / "report.html")

"""Progress with the remaining time, in a terminal or in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

SECONDS_BETWEEN_LINES = 15.0


class Reporter(Protocol):
    """Where a run tells how far it is."""

    def note(self, text: str) -> None:
        """Shows one line."""

    @contextmanager
    def task(self, title: str) -> Iterator[Any]:
        """Shows a step; yields a callable that takes (work done, work in all)."""
        yield


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        pass

    @contextmanager
    def task(self, title: str) -> Iterator[Any]:
        yield lambda done, total: None


@contextmanager
def show_progress(console: Console, title: str) -> Iterator[Callable[[float, float], None]]:
    """Shows how far a step is; yields a callable that takes (work done, work in all).

    In a terminal that is a bar; elsewhere a line every 15 seconds, and one at the end.
    """
    started = time.monotonic()
    if console.is_terminal:
        with _bar(console, title) as advance:
            yield advance
    else:
        _say(console, f"{title} ...")
        yield _lines(console, title, started)
    _say(console, f"{title}: {_clock(time.monotonic() - started)}")


@contextmanager
def _bar(console: Console, title: str) -> Iterator[Callable[[float, float], None]]:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, speed_estimate_period=120) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _lines(console: Console, title: str, started: float) -> Callable[[float, float], None]:
    last = started

    def advance(done: float, total: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES or not done:
            return
        last = now
        left = (now - started) * (total - done) / done
        _say(console, f"{title}: {done / total:.0%}, {_clock(left)} left")

    return advance


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    """Returns a duration for people: 45 s, 3 min 20 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

"""Progress in a log and in a terminal."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from forgetless import progress
from forgetless.progress import show_progress


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def console(*, is_terminal: bool = False) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=is_terminal, width=60), file


def test_a_log_gets_a_line_now_and_then(clock: Clock) -> None:
    log, file = console()
    with show_progress(log, "Training") as advance:
        for done in range(101):
            advance(done, 100)
            clock.now += 1
    assert file.getvalue().splitlines() == [
        "Training ...",
        "Training: 15%, 1 min 25 s left",
        "Training: 30%, 1 min 10 s left",
        "Training: 45%, 55 s left",
        "Training: 60%, 40 s left",
        "Training: 75%, 25 s left",
        "Training: 90%, 10 s left",
        "Training: 1 min 41 s",
    ]


def test_before_anything_is_done_nothing_is_promised(clock: Clock) -> None:
    log, file = console()
    with show_progress(log, "Training") as advance:
        clock.now += 60
        advance(0, 0)
        advance(0, 10)
    assert file.getvalue().splitlines() == ["Training ...", "Training: 1 min 0 s"]


@pytest.mark.usefixtures("clock")
def test_a_step_that_fails_is_not_reported_as_finished() -> None:
    log, file = console()
    with pytest.raises(ValueError, match="lost"), show_progress(log, "Training"):
        raise ValueError("lost")
    assert file.getvalue().splitlines() == ["Training ..."]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_title_is_shown_as_it_is(is_terminal: bool) -> None:
    title = "Loading [/red]models/[bold]a-name-that-is-longer-than-the-line-of-the-terminal-is-wide"
    log, file = console(is_terminal=is_terminal)
    with show_progress(log, title) as advance:
        advance(1, 2)
    assert file.getvalue().splitlines()[-1].endswith(f"{title}: 0 s")


def test_a_terminal_gets_a_bar() -> None:
    log, file = console(is_terminal=True)
    with show_progress(log, "Training") as advance:
        advance(1, 4)
    assert "25 %" in file.getvalue()
    assert "Training ..." not in file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (3600, "60 min 0 s")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert progress._clock(seconds) == text

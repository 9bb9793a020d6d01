"""What the terminal shows of a sequence."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

from rich.console import Console

from forgetless.compare.phases import measure_phases
from forgetless.phase_display import show_record
from phase_scores import BASE, FIRST, LOST, record


def test_all_figures_and_the_verdict_are_shown() -> None:
    stream = StringIO()
    show_record(Console(file=stream, width=120), record(LOST), report=Path("out/report.html"))
    text = stream.getvalue()
    for part in ("after two", "FAIL", "-30.0 [", "+10.0 [", "nats per token", "Replay examples of", "out/report.html"):
        assert part in text, part


def test_a_single_phase_has_no_transfer_to_show() -> None:
    whole = record(LOST)
    measure = measure_phases(BASE, [FIRST], tasks={"one": "one.answers"}, name="answers")
    assert measure is not None
    stream = StringIO()
    show_record(Console(file=stream, width=120), replace(whole, phases=whole.phases[:1], measures=[measure], advice=[]))
    assert "What to do next" not in stream.getvalue()
    (line,) = (line for line in stream.getvalue().splitlines() if "BWT" in line)
    assert line.split()[-1] == "-"

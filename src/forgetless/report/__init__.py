"""The last stage: the pages of a run, built from what its directory holds and nothing else.

evidence.py     what the directory holds, as one frozen record
flips.py        the samples whose grade changed
wording.py      every number, symbol and sentence that the four pages share
figures.py      plotly figures, each with the table that says the same
monitoring.py   what the retention monitor saw while training went on
html.py         report.html, one file that needs no network
markdown.py     report.md, short enough for a pull-request comment
junit.py        junit.xml, for continuous integration
model_card.py   MODEL_CARD.md, to publish beside the weights
phases.py       both pages of a sequence of phases
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from forgetless.files import write_text
from forgetless.report.evidence import Evidence, read_evidence
from forgetless.report.html import render_html
from forgetless.report.junit import render_junit
from forgetless.report.markdown import render_markdown
from forgetless.report.model_card import render_model_card
from forgetless.report.phases import build_phases_report

__all__ = [
    "Evidence",
    "build_phases_report",
    "build_report",
    "read_evidence",
    "render_html",
    "render_junit",
    "render_markdown",
    "render_model_card",
]


PAGES: dict[str, Callable[[Evidence], str]] = {
    "report.html": render_html,
    "report.md": render_markdown,
    "junit.xml": render_junit,
    "MODEL_CARD.md": render_model_card,
}


def build_report(directory: Path, *, names: Sequence[str] = ()) -> list[Path]:
    """Writes report.html, report.md, junit.xml and MODEL_CARD.md into a run directory, from what it holds.

    Only comparison.json is needed; pages leave out, and say so, what rests on a file that isn't there. All pages are
    rendered before the first is written, and each is replaced whole.

    Args:
        directory: The run directory, read and written.
        names: Which of the four pages; none = all.

    Returns:
        The files written, report.html first.

    Raises:
        DataError: comparison.json is missing, or a file of the directory cannot be read.
        OSError: A page cannot be written.
    """
    evidence = read_evidence(directory)
    pages = {name: render(evidence) for name, render in PAGES.items() if not names or name in names}
    for name, text in pages.items():
        write_text(directory / name, text, newline="\n")
    return [directory / name for name in pages]

"""What `run` prints of a sequence of phases: R, what it learned and kept, and the verdict."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from forgetless.phase_records import Estimate, Measure, PhasesRecord
from forgetless.records import Unit

VERDICT_STYLES = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}
WORDS = {
    "average": "ACC (mean at the end)",
    "learning": "learning (base to own phase)",
    "backward_transfer": "BWT (since own phase)",
    "forward_transfer": "FWT (before own phase)",
    "forgetting": "forgetting",
}


def matrix_table(measure: Measure) -> Table:
    """Lays out R: a row after each phase, the base's first, a column for each target; own phases are bold."""
    unit = "points" if measure.unit is Unit.GRADE else "nats per token, lower is better"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{measure.name}, {unit}", title_justify="left")
    table.add_column("")
    for name in measure.phases:
        table.add_column(escape(name), justify="right")
    rows = [measure.base, *measure.matrix]
    for number, (name, cells) in enumerate(zip(["base", *measure.phases], rows, strict=True)):
        shown = [_figure(cell, measure.unit) for cell in cells]
        shown = [f"[bold]{text}[/]" if column == number - 1 else text for column, text in enumerate(shown)]
        table.add_row(escape(name if not number else f"after {name}"), *shown)
    return table


def measures_table(record: PhasesRecord) -> Table:
    """Lays out the measures with their intervals, a column for each way of scoring."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for measure in record.measures:
        table.add_column(measure.name, justify="right")
    for field, words in WORDS.items():
        table.add_row(words, *(_with_bounds(getattr(m, field), m.unit, field != "average") for m in record.measures))
    return table


def _figure(estimate: Estimate, unit: Unit, *, signed: bool = False) -> str:
    if estimate.value is None:
        return "-"
    scale, decimals = (100, 1) if unit is Unit.GRADE else (1, 2)
    return f"{scale * estimate.value:{'+' if signed else ''}.{decimals}f}"


def _with_bounds(estimate: Estimate, unit: Unit, is_signed: bool) -> str:
    text = _figure(estimate, unit, signed=is_signed)
    if estimate.low is None or estimate.high is None:
        return text
    low, high = (_figure(Estimate(end), unit, signed=is_signed) for end in (estimate.low, estimate.high))
    return escape(f"{text} [{low}, {high}]")


def judged_table(record: PhasesRecord) -> Table:
    """Lays out what was judged after each phase: general skills, and earlier targets."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("after", "general skills", "delta", "earlier targets"):
        table.add_column(name, justify="right" if name == "delta" else "left")
    for phase in record.phases:
        pooled = phase.general.pooled
        table.add_row(
            escape(phase.name),
            phase.general.verdict.value,
            _figure(Estimate(pooled.delta), pooled.unit, signed=True),
            "-" if phase.earlier is None else phase.earlier.verdict.value,
        )
    return table


def show_record(console: Console, record: PhasesRecord, *, report: Path | None = None) -> None:
    """Prints a sequence: R for each way of scoring, its measures, each phase's verdicts, and the verdict at the end.

    Args:
        console: Where to print.
        record: What to show.
        report: Its page, named in the last line.
    """
    for measure in record.measures:
        console.print(matrix_table(measure))
    console.print(measures_table(record))
    console.print(judged_table(record))
    lines = [escape(reason) for reason in record.reasons]
    if record.advice:
        lines += ["", "[bold]What to do next[/]", *(f"- {escape(text)}" for text in record.advice)]
    style = VERDICT_STYLES[record.verdict.value]
    title = f"[{style}]{record.verdict.value}[/] margin {record.margin:g}, alpha {record.alpha:g}"
    console.print(Panel("\n".join(lines), title=title, title_align="left", border_style=style.split()[-1]))
    if report is not None:
        console.print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)

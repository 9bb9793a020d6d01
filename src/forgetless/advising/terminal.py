"""How advice is shown to people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from forgetless.advising.advice import Advice
from forgetless.advising.findings import Finding, Severity

if TYPE_CHECKING:
    from forgetless.advising.legs import Pilot

STYLES = {Severity.HIGH: "bold red", Severity.MEDIUM: "yellow", Severity.LOW: "dim"}


def show(console: Console, advice: Advice, written: Sequence[tuple[Path, str]] | None = None) -> None:
    """Prints advice, worst finding first.

    Args:
        console: Where to print.
        advice: What was found.
        written: Safer configs that were written, each with its diff; None = none were asked for.
    """
    recipe = advice.recipe
    tuning = "unknown tuning" if recipe.tuning is None else f"{recipe.tuning.value} tuning"
    model = "" if recipe.model is None else f" of {recipe.model.value}"
    file = "" if advice.path is None else f"{advice.path}: "
    console.print(f"{file}{recipe.dialect}, {tuning}{model}", highlight=False, markup=False, soft_wrap=True)
    for finding in advice.findings:
        _show_finding(console, finding)
    counts = [f"{sum(f.severity is level for f in advice.findings)} {level.value}" for level in Severity]
    console.print(f"\n{', '.join(counts)}" if advice.findings else "\nno risk found", highlight=False)
    for note in advice.unchecked:
        console.print(f"[dim]not checked:[/dim] {escape(note)}", highlight=False, soft_wrap=True)
    if advice.pilot is not None:
        show_pilot(console, advice.pilot)
    _show_written(console, advice, written)


def _show_finding(console: Console, finding: Finding) -> None:
    risk = finding.risk
    style = STYLES[finding.severity]
    keys = f" [dim]({escape(', '.join(risk.keys))})[/dim]" if risk.keys else ""
    console.print(
        f"\n[{style}]{finding.severity.value}[/] {finding.rule}: [bold]{escape(finding.title)}[/]{keys}",
        highlight=False,
        soft_wrap=True,
    )
    lines = [escape(risk.reason), escape(risk.remedy)]
    lines += [f"[green]edit[/] {escape(str(edit))}" for edit in risk.edits]
    lines.append(f"[dim]{escape(finding.source)}[/]")
    for line in lines:
        console.print(Padding(line, (0, 0, 0, 2)), highlight=False)


def _show_written(console: Console, advice: Advice, written: Sequence[tuple[Path, str]] | None) -> None:
    if written is None:
        if advice.edits:
            console.print("add --fix to write the safer config beside this one", highlight=False)
        return
    if not written:
        console.print("nothing that --fix could write: what was found has no edit in this file", highlight=False)
    for path, diff in written:
        console.print()
        for line in diff.splitlines():
            style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
            console.print(f"[{style}]{escape(line)}[/]", highlight=False, soft_wrap=True)
        console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)


def show_pilot(console: Console, pilot: Pilot) -> None:
    """Prints what a few steps at each rate did, and the recommendation."""
    title = f"pilot, {pilot.steps} steps at each rate"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title_justify="left", title=title)
    # Titles may be folded, figures may not: they fit into 80 columns together.
    widths = {"rate": 10, "learned": 7, "95 %": 16, "KL to base": 7, "text": 7, "answers": 7, "KL per nat": 7}
    for name, width in widths.items():
        table.add_column(name, justify="right", min_width=width)
    for leg in pilot.legs:
        mark = " *" if leg.learning_rate == pilot.recommended else ""
        if leg.failure:
            table.add_row(f"{leg.learning_rate:.3g}{mark}", *("-" for _ in list(widths)[1:]))
            continue
        table.add_row(
            f"{leg.learning_rate:.3g}{mark}",
            f"{leg.learned:+.3f}",
            f"[{leg.learned_low:+.3f}, {leg.learned_high:+.3f}]".replace("[", r"\["),
            f"{leg.divergence:.4f}",
            f"{leg.text_rise:+.3f}",
            f"{leg.answer_rise:+.3f}",
            "-" if leg.price is None else f"{leg.price:.3f}",
        )
    console.print()
    console.print(table)
    console.print(
        "nats per token: learned = fall of the held-out loss; text, answers = rise of the cross-entropy of general "
        "ones; KL per nat = KL to the base for each nat learned",
        highlight=False,
        style="dim",
    )
    for leg in pilot.legs:
        if leg.failure:
            console.print(f"{leg.learning_rate:.3g}: {leg.failure}", highlight=False, markup=False)
    console.print(pilot.reason, highlight=False, markup=False)

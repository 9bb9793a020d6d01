"""What the commands print: tables for people, JSON for scripts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Column, Table

from forgetless.check_records import CheckResult, CheckStatus
from forgetless.doctor import Finding
from forgetless.records import Cause, Checklist, Comparison, Role, Row, SampleScore, Status, Unit

# The columns between task and status, and how wide a terminal must be to show them.
WIDTH_NEEDED = {"n": 60, "base → tuned": 60, "delta": 0, "interval": 80, "lost/gained": 96}
VERDICT_STYLES = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}
STATUS_STYLES = {
    Status.KEPT: "green",
    Status.IMPROVED: "green",
    Status.LEARNED: "green",
    Status.FORGOT: "red",
    Status.NOT_LEARNED: "yellow",
    Status.UNDECIDED: "yellow",
}


def _figure(value: float | None, unit: Unit, *, signed: bool = False) -> str:
    """Returns grades in points with one decimal, nats per token with two."""
    if value is None:
        return "-"
    shown = 100 * value if unit is Unit.GRADE else value
    decimals = 1 if unit is Unit.GRADE else 2
    return f"{shown:{'+' if signed else ''}.{decimals}f}"


def _interval(row: Row) -> str:
    if row.ci_low is None or row.ci_high is None:
        return "-"
    return f"[{_figure(row.ci_low, row.unit, signed=True)}, {_figure(row.ci_high, row.unit, signed=True)}]"


def _cells(row: Row) -> dict[str, str]:
    return {
        "n": str(row.num_samples),
        "base → tuned": f"{_figure(row.base, row.unit)} → {_figure(row.tuned, row.unit)}",
        "delta": _figure(row.delta, row.unit, signed=True),
        "interval": _interval(row),
        "lost/gained": f"{row.lost}/{row.gained}" if row.unit is Unit.GRADE else "-",
    }


def comparison_table(comparison: Comparison, *, width: int = 120) -> Table:
    """Lays out the rows of a comparison: the pool, retention, cross-entropy, target.

    Args:
        comparison: What to show.
        width: Width of the terminal, in characters; columns for which it has no room are left out.

    Returns:
        The table, with a section for each of the four groups that has rows.
    """
    shown = [name for name, needed in WIDTH_NEEDED.items() if width >= needed]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("task", overflow="fold", min_width=12)
    for name in shown:
        title = f"{1 - comparison.alpha:.0%} interval" if name == "interval" else name
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    retention = [row for row in comparison.tasks if row.role is Role.RETENTION]
    groups = [
        [comparison.pooled],
        [row for row in retention if row.unit is Unit.GRADE],
        [row for row in retention if row.unit is not Unit.GRADE],
        [row for row in comparison.tasks if row.role is Role.TARGET],
    ]
    for group in groups:
        for row in group:
            is_pool = row is comparison.pooled
            cells = _cells(row)
            table.add_row(
                escape("general skills" if is_pool else row.task),
                *(escape(cells[name]) for name in shown),
                f"[{STATUS_STYLES.get(row.status, 'dim')}]{row.status.value}[/]",
                style="bold" if is_pool else None,
            )
        if group:
            table.add_section()
    return table


def _unit_note(comparison: Comparison) -> str:
    losses = [row.task for row in comparison.tasks if row.unit is not Unit.GRADE]
    return (
        f"{', '.join(losses)}: nats per token, lower is better; the others: points (100 = always right)"
        if losses
        else ""
    )


def show_comparison(console: Console, comparison: Comparison, *, report: Path | None = None) -> None:
    """Prints a comparison: table, verdict, reasons, what to do next, and where the report is."""
    console.print(comparison_table(comparison, width=console.width))
    if note := _unit_note(comparison):
        console.print(f"[dim]{escape(note)}[/]", highlight=False)
    lines = [escape(reason) for reason in comparison.reasons]
    lines += [f"[yellow]![/] {escape(problem)}" for problem in comparison.problems]
    if comparison.attributions:
        lines += ["", "[bold]What kind of loss[/]"]
        lines += [
            f"- {escape(entry.task)}: [bold]{entry.cause.value}[/]. {escape(entry.evidence)}"
            for entry in comparison.attributions
        ]
        unexplained = [entry.remedy for entry in comparison.attributions if entry.cause is Cause.UNEXPLAINED]
        lines += [f"- {escape(remedy)}" for remedy in dict.fromkeys(unexplained)]
    if comparison.advice:
        lines += ["", "[bold]What to do next[/]", *(f"- {escape(text)}" for text in comparison.advice)]
    style = VERDICT_STYLES[comparison.verdict.value]
    title = f"[{style}]{comparison.verdict.value}[/] margin {comparison.margin:g}, alpha {comparison.alpha:g}"
    console.print(Panel("\n".join(lines), title=title, title_align="left", border_style=style.split()[-1]))
    if report is not None:
        console.print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)


CHECK_STYLES = {
    CheckStatus.KEPT: "green",
    CheckStatus.PASSED: "green",
    CheckStatus.GAINED: "green",
    CheckStatus.LOST: "red",
    CheckStatus.FAILED: "red",
    CheckStatus.UNDECIDED: "yellow",
}


NUM_SHOWN = 2  # answers behind each loss; checks.json has all


def checklist_table(checks: Sequence[CheckResult]) -> Table:
    """Lays out checks: name, severity, samples passed by base and model, status."""
    has_base = any(check.base_num_passed is not None for check in checks)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("check", overflow="fold", min_width=12)
    table.add_column("severity", no_wrap=True)
    if has_base:
        table.add_column("base", justify="right", no_wrap=True)
    table.add_column("tuned" if has_base else "passed", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for check in checks:
        base = [f"{check.base_num_passed}/{check.num_samples}"] if has_base else []
        status = check.status.value if check.status is not None else "-"
        style = "dim" if check.status is None else CHECK_STYLES.get(check.status, "dim")
        passed = f"{check.tuned_num_passed}/{check.num_samples}"
        table.add_row(escape(check.name), check.severity, *base, passed, f"[{style}]{status}[/]")
    return table


def show_checklist(console: Console, checklist: Checklist, *, as_json: bool, out: Path | None) -> None:
    """Prints a checklist: table, the answers behind each loss, verdict, reasons, what to do next."""
    if as_json:
        print(checklist.to_json(), end="")
        return
    console.print(checklist_table(checklist.checks))
    for check in checklist.checks:
        for sample in check.samples[:NUM_SHOWN]:
            console.print(f"[bold]{escape(check.name)}[/] {escape(_short(sample.prompt))}", highlight=False)
            model = "said " if sample.base_answer is None else "tuned"
            if sample.base_answer is not None:
                console.print(f"  base   {escape(_short(sample.base_answer))}", highlight=False)
            console.print(f"  {model}  [red]{escape(_short(sample.tuned_answer))}[/]", highlight=False)
    lines = [escape(reason) for reason in checklist.reasons]
    lines += ["", "[bold]What to do next[/]", *(f"- {escape(text)}" for text in checklist.advice)]
    style = VERDICT_STYLES[checklist.verdict.value]
    title = f"[{style}]{checklist.verdict.value}[/] deployment checklist"
    console.print(Panel("\n".join(lines), title=title, title_align="left", border_style=style.split()[-1]))
    if out is not None:
        console.print(f"checks: {out / 'checks.json'}", highlight=False, markup=False, soft_wrap=True)


def _short(text: str, longest: int = 160) -> str:
    line = " ".join(text.split()) or "(nothing)"
    return line if len(line) <= longest else f"{line[:longest].rstrip()} ..."


def show_scores(console: Console, scores: Sequence[SampleScore], *, as_json: bool, out: Path | None) -> None:
    """Prints the mean score of each task."""
    rows = [_summary(name, group) for name, group in _by_task(scores).items()]
    if as_json:
        print(json.dumps({"schema": 1, "tasks": rows}))
        return
    table = Table("task", "n", "mean", "unit", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(escape(row["task"]), str(row["num_samples"]), f"{row['mean']:.3f}", row["unit"])
    console.print(table)
    if out is not None:
        console.print(f"scores: {out}", highlight=False, markup=False, soft_wrap=True)


def show_pair(console: Console, sides: Mapping[str, Sequence[SampleScore]], *, as_json: bool, out: Path | None) -> None:
    """Prints the mean scores of a base and of an adapter on it, side by side."""
    rows = {side: [_summary(name, group) for name, group in _by_task(scores).items()] for side, scores in sides.items()}
    if as_json:
        print(json.dumps({"schema": 1, **rows}))
        return
    table = Table("task", "n", *rows, "unit", box=box.SIMPLE_HEAD, pad_edge=False)
    for pair in zip(*rows.values(), strict=True):
        means = [f"{row['mean']:.3f}" for row in pair]
        table.add_row(escape(pair[0]["task"]), str(pair[0]["num_samples"]), *means, pair[0]["unit"])
    console.print(table)
    if out is not None:
        console.print(f"scores: {out} (forgetless compare {out} {out})", highlight=False, markup=False, soft_wrap=True)


def _by_task(scores: Iterable[SampleScore]) -> dict[str, list[SampleScore]]:
    groups: dict[str, list[SampleScore]] = {}
    for score in scores:
        groups.setdefault(score.task, []).append(score)
    return groups


def _summary(name: str, scores: Sequence[SampleScore]) -> dict[str, Any]:
    weight = sum(score.weight for score in scores)
    return {
        "task": name,
        "role": scores[0].role.value,
        "num_samples": len(scores),
        "mean": sum(score.score * score.weight for score in scores) / weight,
        "unit": scores[0].unit.value,
    }


def show_methods(console: Console, *, as_json: bool, names: Sequence[str] = ()) -> None:
    """Prints the methods by family, with paper, needs, cost and options; with names, those only."""
    from forgetless.methods import METHODS
    from forgetless.methods.base import FAMILIES

    found = [METHODS.load(name) for name in names or METHODS]
    if as_json:
        rows = [
            {
                "name": m.name,
                "title": m.title,
                "family": m.family,
                "paper": m.paper,
                "needs": m.needs,
                "cost": m.cost,
                "claims": sorted(m.claims),
                "requires": sorted(m.requires),
                "refuses": sorted(m.refuses),
                "options": _options(m),
            }
            for m in found
        ]
        print(json.dumps({"schema": 1, "methods": rows}, default=str))
        return
    if not names:
        console.print("No method at all ([bold]--method none[/], [bold]methods: \\[][/]) is plain full fine-tuning.")
    for family, purpose in FAMILIES.items():
        members = [method for method in found if method.family == family]
        if members:
            console.print()
            console.rule(f"[bold]{family}[/]: {purpose}", align="left")
        for method in members:
            _show_method(console, method)


def _show_method(console: Console, method: Any) -> None:
    console.print(f"\n[bold]{method.name}[/]  {escape(method.title)}")
    console.print(f"  [dim]{method.paper}[/]", soft_wrap=True)
    facts = Table.grid(Column(width=8), Column(), padding=(0, 1, 0, 0))
    facts.add_row("needs", escape(method.needs or "nothing but the domain data"))
    facts.add_row("cost", escape(method.cost))
    limits = [f"needs {claim}" for claim in sorted(method.requires)]
    limits += [f"not with {claim}" for claim in sorted(method.refuses)]
    if limits:
        facts.add_row("limits", escape("; ".join(limits)))
    console.print(Padding(facts, (0, 0, 0, 2)))
    options = Table.grid(Column(no_wrap=True), Column(), padding=(0, 1, 0, 0))
    for option in _options(method):
        default = json.dumps(option["default"], default=str).strip('"')  # as it would stand in a config
        options.add_row(f"{option['name']} = [bold]{escape(default)}[/]", escape(option["description"]))
    console.print(Padding(options, (0, 0, 0, 4)), highlight=False)


def _options(method: Any) -> list[dict[str, Any]]:
    """Returns a method's options with default and description, as pydantic knows them."""
    return [
        {"name": name, "default": field.get_default(call_default_factory=True), "description": field.description or ""}
        for name, field in method.__pydantic_fields__.items()
    ]


def show_tasks(console: Console, directories: Sequence[Path], *, as_json: bool) -> None:
    """Prints the tasks and suites."""
    from forgetless.tasks.base import list_suites, list_tasks, load_task

    suites = list_suites()
    found = [load_task(path) for path in list_tasks(directories).values()]
    rows: list[dict[str, Any]] = [
        {
            "task": task.name,
            "version": task.spec.version,
            "kind": task.spec.kind,
            "role": task.spec.role.value,
            "num_samples": len(task.samples),
            "description": task.spec.description,
            "suites": [suite for suite, members in suites.items() if task.name in members],
        }
        for task in found
    ]
    if as_json:
        print(json.dumps({"schema": 1, "suites": suites, "tasks": rows}))
        return
    name = Column("task", no_wrap=True)
    table = Table(name, "n", "kind", "suites", "what it asks", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        cells = (row["task"], row["num_samples"], row["kind"], ", ".join(row["suites"]), row["description"])
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)


def show_findings(console: Console, findings: Sequence[Finding], *, as_json: bool) -> None:
    """Prints what `doctor` found."""
    if as_json:
        print(json.dumps({"schema": 1, "findings": [dataclasses.asdict(finding) for finding in findings]}))
        return
    for finding in findings:
        mark = "[green]ok[/]  " if finding.is_fine else "[red]bad[/] "
        console.print(f"{mark} {finding.name}: {escape(finding.detail)}", highlight=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"     mend: [bold]{escape(finding.remedy)}[/]", highlight=False, soft_wrap=True)

"""Commands that show what there is and how it works: `methods`, `tasks`, `lesson`, `doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from forgetless.flags import JsonFlag, TasksDir
from forgetless.terminal import TerminalReporter, console


def methods(
    names: Annotated[list[str] | None, typer.Argument(help="Methods to show; all where left out.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the mitigation methods with their papers, needs, costs and options."""
    from forgetless.display import show_methods

    show_methods(console, as_json=as_json, names=names or ())


def tasks(tasks_dir: TasksDir = None, as_json: JsonFlag = False) -> None:
    """List the evaluation tasks and suites."""
    from forgetless.display import show_tasks

    show_tasks(console, tasks_dir or [], as_json=as_json)


def lesson(
    name: Annotated[Literal["two-heads", "single-weight"], typer.Argument(help="Which demonstration.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Directory for its page and its figures, NAME.html and NAME.json.")
    ] = Path("runs/lessons"),
    seeds: Annotated[int, typer.Option(help="Seeds of two-heads.", min=1)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show without a model how training on a second task ruins the first, and what helps."""
    from forgetless import lessons

    with TerminalReporter().task(f"lesson {name}") as progress:
        result = lessons.lesson(name, out, seeds=seeds, progress=progress)
    if as_json:
        print(json.dumps(lessons.figures(result), indent=2))
        return
    lessons.show(console, result)
    console.print(f"page: {out / name}.html", highlight=False, markup=False, soft_wrap=True)


def doctor(as_json: JsonFlag = False) -> None:
    """Check Python, torch, devices, memory, the embedded model and the cache; say how to mend what is missing."""
    from forgetless.display import show_findings
    from forgetless.doctor import examine

    findings = examine()
    show_findings(console, findings, as_json=as_json)
    raise typer.Exit(0 if all(finding.is_fine for finding in findings) else 2)

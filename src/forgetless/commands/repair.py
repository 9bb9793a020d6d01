"""The command that repairs a tuned model that already forgot: `repair`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Column, Table

from forgetless.flags import Device, Fresh, JsonFlag, TasksDir
from forgetless.terminal import TerminalReporter, command_line, console, show_result

if TYPE_CHECKING:
    from forgetless.curve import Curve, CurvePoint
    from forgetless.repairing import RepairResult


def repair(
    base: Annotated[str, typer.Argument(help="Model before tuning: alias, directory, hub id, GGUF file.")],
    tuned: Annotated[str, typer.Argument(help="Model after it: weights, an adapter on BASE, or a run directory.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory; the repaired model goes to its model/.")],
    suite: Annotated[str, typer.Option(help="Suite, or suites and tasks separated by commas.")] = "core",
    margin: Annotated[
        float, typer.Option("--margin", "--budget", help="Largest drop that is tolerated, in score units.")
    ] = 0.03,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Held-out examples of what was to be learned; they tell how much is kept.", show_default=False
        ),
    ] = None,
    heal: Annotated[
        bool, typer.Option("--heal", help="Train a little on what the base writes, where nothing else is enough.")
    ] = False,
    alpha: Annotated[float, typer.Option(help="Error rate of the verdict.")] = 0.05,
    limit: Annotated[
        int | None, typer.Option(help="Most samples of each task, drawn by content.", min=2, show_default=False)
    ] = None,
    tasks_dir: TasksDir = None,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    batch_size: Annotated[int, typer.Option(help="Prompts that are answered together.", min=1)] = 64,
    cache: Annotated[bool, typer.Option(help="Keep scores by content and use those that are known.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the halves and of healing.", min=0)] = 0,
    fresh: Fresh = False,
    as_json: JsonFlag = False,
) -> None:
    """Repair a tuned model that forgot: walk back to the base as far as the margin asks, keep what can be kept.

    One half of the suite chooses the point, the other half judges it; exits by that verdict. Nothing is trained
    without --heal, and TUNED stays as it is.

    [dim]forgetless repair smollm2-135m-instruct runs/risky --data held_out.jsonl --out runs/repaired[/dim]
    """
    from forgetless import repairing

    result = repairing.repair(
        base,
        tuned,
        suite=suite,
        margin=margin,
        data=data,
        out=out,
        heal=heal,
        alpha=alpha,
        limit=limit,
        tasks_directories=tasks_dir or [],
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        use_cache=cache,
        seed=seed,
        fresh=fresh,
        reporter=TerminalReporter(),
        command=command_line(),
    )
    if as_json:
        print(json.dumps(as_record(result), indent=2))
    else:
        show_result(result.comparison, as_json=False, directory=result.directory)
        show_curve(result)
    raise typer.Exit(result.exit_code)


def as_record(result: RepairResult) -> dict[str, object]:
    """Returns what `--json` prints: the directory, the curve with its sentence, and the comparison."""
    return {
        "directory": str(result.directory),
        "model": str(result.directory / "model"),
        "learning": result.measure,
        "curve": json.loads(result.curve.to_json()),
        "comparison": json.loads(result.comparison.to_json()),
    }


def show_curve(result: RepairResult) -> None:
    """Prints the points that were tried, what came of it in a sentence, and where the model is."""
    curve = result.curve
    table = Table(
        "point",
        Column("lost", justify="right"),
        Column("at most", justify="right"),
        Column("learned", justify="right"),
        Column("kept", justify="right"),
        Column("", overflow="fold", min_width=23),
        box=box.SIMPLE_HEAD,
        title=(
            f"points that were tried, on the selection half (n = {curve.tuned.num_samples}; at most: upper "
            f"{100 * curve.level:.0f} % bound)"
        ),
        title_justify="left",
    )
    for entry in curve.points:
        table.add_row(*_cells(entry, curve), style="bold" if entry.point == curve.chosen else None)
    console.print(table)
    for line in (result.measure, curve.sentence, result.advice, f"model: {result.directory / 'model'}"):
        if line:
            console.print(escape(line), highlight=False, soft_wrap=True)


def _cells(entry: CurvePoint, curve: Curve) -> list[str]:
    learned, whole = entry.learning, curve.tuned.learning
    return [
        f"{entry.point.label}{' *' if entry.point == curve.chosen else ''}",
        "-" if entry.forgetting is None else f"{100 * entry.forgetting:+.1f}",
        "-" if entry.forgetting_upper is None else f"{100 * entry.forgetting_upper:+.1f}",
        "-" if learned is None else f"{learned:+.3f}",
        "-" if learned is None or whole is None or whole <= 0 else f"{100 * learned / whole:.0f} %",
        escape(entry.reason),
    ]

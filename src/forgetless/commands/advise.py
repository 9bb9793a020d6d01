"""The command `advise`: the risks of a recipe before any training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from forgetless.flags import JsonFlag
from forgetless.terminal import TerminalReporter, console


def advise(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Config of forgetless, axolotl or LLaMA-Factory, or training arguments of TRL / transformers.",
        ),
    ],
    fail_on: Annotated[
        Literal["high", "medium", "low"], typer.Option(help="Exit with 1 from a finding of this severity.")
    ] = "high",
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Write the safer config beside the old one as NAME.safe.yaml; show the diff."),
    ] = False,
    look: Annotated[
        bool, typer.Option("--look/--no-look", help="Look at data and tokenizer where they are on this machine.")
    ] = True,
    pilot: Annotated[
        bool,
        typer.Option("--pilot", help="Take a few steps at three learning rates and recommend one; changes nothing."),
    ] = False,
    pilot_steps: Annotated[
        int | None, typer.Option(help="Steps at each rate of the pilot. Default: 24.", min=2, show_default=False)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Name the risks of a fine-tuning recipe, with reasons, sources and the edits to make, before any training.

    Exit codes: 0 nothing at --fail-on or above, 1 something is, 2 the file can't be read.

    [dim]forgetless advise my_axolotl.yaml --fix[/dim]
    [dim]forgetless advise examples/drug_qa/risky.yaml --pilot[/dim]
    """
    from forgetless.advising import advice as advising
    from forgetless.advising.findings import Severity
    from forgetless.advising.terminal import show
    from forgetless.errors import ConfigError

    options: dict[str, Any] = {"reporter": TerminalReporter()} if pilot else {}
    if pilot_steps is not None:
        if not pilot:
            raise ConfigError("--pilot-steps without --pilot: add --pilot, or leave it out")
        options["steps"] = pilot_steps
    found = advising.advise(config, look=look, pilot=pilot, **options)
    written = advising.fix(found) if fix else []
    if as_json:
        files = [{"file": str(path), "diff": diff} for path, diff in written]
        print(json.dumps(found.to_dict() | {"fixed": files}, indent=2))
    else:
        show(console, found, written if fix else None)
    raise typer.Exit(1 if found.reaches(Severity(fail_on)) else 0)

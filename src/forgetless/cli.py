"""The command line: every command by name, and how errors end. Heavy packages are imported by what uses them."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from forgetless.commands import advise, jobs, lists, repair, scores
from forgetless.errors import ForgetlessError, RunError
from forgetless.flags import with_config_flags
from forgetless.terminal import console, errors

MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}  # no defect of ours


class Commands(TyperGroup):
    """All commands: an error that a user can mend ends in one sentence and its exit code, not in a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ForgetlessError as error:
            errors.print("[red]error[/red]", escape(str(error)), highlight=False, soft_wrap=True)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if error.errno not in MACHINE_ERRORS:
                raise
            errors.print(f"[red]error[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(RunError.exit_code) from None
        except KeyboardInterrupt:
            errors.print("stopped; start the same command again to go on", highlight=False, soft_wrap=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    name="forgetless",
    help="Fine-tune a language model on narrow data, and show with evidence what it kept.",
    epilog="Exit codes: 0 PASS, 1 FAIL, 3 INCONCLUSIVE; 2 bad usage, config or data; 4 the run itself failed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.command("run")(with_config_flags(jobs.run))
app.command("train")(with_config_flags(jobs.train))
for _function in (
    advise.advise,
    scores.evaluate,
    scores.compare,
    repair.repair,
    scores.check,
    scores.report,
    jobs.mix,
    lists.methods,
    lists.tasks,
    lists.lesson,
    lists.doctor,
):
    app.command()(_function)


def _version(wanted: bool) -> None:
    if wanted:
        from forgetless.rundir import version

        console.print(f"forgetless {version()}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command line."""
    # Torch's OpenMP threads spin while they wait for one another. As soon as anything else wants a core, each product
    # then takes a whole time slice: 16 ms instead of 0.4 on two cores. So they spin briefly and then sleep. Read when
    # torch is imported, so set before.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no arrows gets question marks
    try:
        app()
    except Exception:
        # What nobody foresaw shows where it came from; Python's own exit code would say FAIL.
        traceback.print_exc()
        errors.print("[red]error[/red] this is a defect of forgetless: please report it with the lines above")
        sys.exit(RunError.exit_code)

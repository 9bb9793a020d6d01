"""Commands that train: `run`, `train`, and `mix`, which makes what is trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from forgetless.errors import ConfigError
from forgetless.flags import ConfigFile, Fresh, JsonFlag, OutDirectory, read_job
from forgetless.terminal import TerminalReporter, command_line, console, show_phases, show_result


def run(
    overrides: dict[str, Any],
    config: ConfigFile = None,
    out: OutDirectory = None,
    fresh: Fresh = False,
    as_json: JsonFlag = False,
) -> None:
    """The main job: score the base, tune it, score the tuned model, judge, report; each phase of a sequence.

    A run that was stopped goes on where it was when it is started again.

    [dim]forgetless run examples/drug_qa/safe.yaml[/dim]
    [dim]forgetless run --model DIR --data my.jsonl --margin 0.02[/dim]
    """
    from forgetless.phases.run import PhasesResult
    from forgetless.phases.run import run as run_job

    job = read_job(config, overrides)
    result = run_job(
        job,
        out=out,
        name=config.stem if config is not None else "run",
        fresh=fresh,
        reporter=TerminalReporter(),
        command=command_line(),
    )
    if isinstance(result, PhasesResult):
        show_phases(result.record, as_json=as_json, directory=result.directory)
    else:
        show_result(result.comparison, as_json=as_json, directory=result.directory)
    raise typer.Exit(result.exit_code)


def train(overrides: dict[str, Any], config: ConfigFile = None, out: OutDirectory = None, fresh: Fresh = False) -> None:
    """Tune only: read data, apply methods, train, save the model."""
    from forgetless import pipeline

    job = read_job(config, overrides)
    name = config.stem if config is not None else "run"
    model = pipeline.train(job, out=out, name=name, fresh=fresh, reporter=TerminalReporter(), command=command_line())
    console.print(f"model: {model}", highlight=False, markup=False, soft_wrap=True)


def mix(
    domain: Annotated[Path, typer.Option(help="Domain examples.")],
    general: Annotated[str, typer.Option(help="File of general examples to replay; `self`: --model writes them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSONL file to write.")],
    share: Annotated[
        float, typer.Option(help="General examples / all examples of the final mixture, in [0, 1).")
    ] = 0.1,
    model: Annotated[str, typer.Option(help="The base, which writes the general examples of `self`.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of draw and order.", min=0)] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Write a replay mixture with an exact share of general examples."""
    from forgetless import pipeline

    if (general == "self") != bool(model):
        raise ConfigError("--general self and --model belong together: the base writes the examples")
    source = None if general == "self" else Path(general)
    reporter = TerminalReporter()
    summary = pipeline.mix_files(domain, source, out=out, share=share, writer=model, seed=seed, reporter=reporter)
    if as_json:
        print(json.dumps(summary))
        return
    console.print(
        f"{out}: {summary['num_domain']} domain + {summary['num_general']} general examples, "
        f"share {summary['share_examples']:.4f} of examples, {summary['share_tokens']:.4f} of answer words",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )

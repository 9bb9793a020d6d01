"""The command line: parse, call, print. Heavy packages are imported by the command that uses them."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from forgetless.errors import ForgetlessError, RunError
from forgetless.flags import (
    Concurrency,
    ConfigFile,
    Device,
    Fresh,
    JsonFlag,
    OutDirectory,
    Retries,
    ServedModelName,
    TasksDir,
    Timeout,
    TrustEndpointCache,
    read_job,
    with_config_flags,
)

if TYPE_CHECKING:
    pass

console = Console()
errors = Console(stderr=True)
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


class TerminalReporter:
    """Shows progress with the remaining time on stderr; plain lines where that isn't a terminal."""

    def note(self, text: str) -> None:
        errors.print(f"[yellow]note[/yellow] {escape(text)}", highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str) -> Iterator[Callable[[float, float], None]]:
        from forgetless.progress import show_progress

        with show_progress(errors, title) as advance:
            yield advance


def command_line() -> str:
    """Returns the command as it was typed."""
    return shlex.join(["forgetless", *sys.argv[1:]])


def run(
    overrides: dict[str, Any],
    config: ConfigFile = None,
    out: OutDirectory = None,
    fresh: Fresh = False,
    as_json: JsonFlag = False,
) -> None:
    """The main job: score the base, tune it, score the tuned model, judge, report.

    A run that was stopped goes on where it was when it is started again.

    [dim]forgetless run examples/drug_qa/safe.yaml[/dim]
    [dim]forgetless run --model DIR --data my.jsonl --margin 0.02[/dim]
    """
    from forgetless import pipeline

    job = read_job(config, overrides)
    result = pipeline.run(
        job,
        out=out,
        name=config.stem if config is not None else "run",
        fresh=fresh,
        reporter=TerminalReporter(),
        command=command_line(),
    )
    _show_result(result.comparison, as_json=as_json, directory=result.directory)
    raise typer.Exit(result.exit_code)


def train(overrides: dict[str, Any], config: ConfigFile = None, out: OutDirectory = None, fresh: Fresh = False) -> None:
    """Tune only: read data, apply methods, train, save the model."""
    from forgetless import pipeline

    job = read_job(config, overrides)
    name = config.stem if config is not None else "run"
    model = pipeline.train(job, out=out, name=name, fresh=fresh, reporter=TerminalReporter(), command=command_line())
    console.print(f"model: {model}", highlight=False, markup=False, soft_wrap=True)


app.command("run")(with_config_flags(run))
app.command("train")(with_config_flags(train))


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="Alias, hub id, directory (weights, adapter or run), GGUF file, or an endpoint's http://..."
        ),
    ],
    suite: Annotated[
        str,
        typer.Option(help="Suite, or suites and tasks separated by commas; after lm_eval: of lm-evaluation-harness."),
    ] = "core",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Score file to write; with --with-base, a directory.", show_default=False),
    ] = None,
    with_base: Annotated[
        bool, typer.Option("--with-base", help="Score an adapter and its base with one load.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Most samples of each task, drawn by content; of lm_eval tasks the first.", min=1, show_default=False
        ),
    ] = None,
    tasks_dir: TasksDir = None,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    batch_size: Annotated[int, typer.Option(help="Prompts that are answered together.", min=1)] = 64,
    num_fewshot: Annotated[
        int | None, typer.Option(help="Solved examples in each prompt of the lm_eval tasks.", min=0)
    ] = None,
    cache: Annotated[bool, typer.Option(help="Keep scores by content and use those that are known.")] = True,
    served_model: ServedModelName = None,
    concurrency: Concurrency = None,
    timeout: Timeout = None,
    retries: Retries = None,
    trust_endpoint_cache: TrustEndpointCache = False,
    temperature: Annotated[float, typer.Option(help="Sampling temperature of free answers; 0 = greedy.", min=0.0)] = 0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens that hold this share.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.", min=0)] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Score a model on a suite; write one JSON line per sample."""
    from forgetless.display import show_pair, show_scores
    from forgetless.evaluate.endpoint import EndpointOptions, refuse_local_flags
    from forgetless.evaluate.requests import Decoding
    from forgetless.pair import evaluate_pair
    from forgetless.scoring import evaluate_model

    refuse_local_flags(
        model, {"--device": device != "auto", "--dtype": dtype != "auto", "--batch-size": batch_size != 64}
    )
    endpoint = EndpointOptions.from_flags(
        model,
        {
            "--served-model": served_model,
            "--concurrency": concurrency,
            "--timeout": timeout,
            "--retries": retries,
            "--trust-endpoint-cache": trust_endpoint_cache or None,
        },
    )
    options: dict[str, Any] = {
        "suite": suite,
        "out": out,
        "tasks_directories": tasks_dir or [],
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
        "use_cache": cache,
        "limit": limit,
        "num_fewshot": num_fewshot,
        "decoding": Decoding(temperature, top_p, seed),
        "reporter": TerminalReporter(),
    }
    if with_base:
        show_pair(console, evaluate_pair(model, **options), as_json=as_json, out=out)
    else:
        scores = evaluate_model(model, endpoint=endpoint, **options)
        show_scores(console, scores, as_json=as_json, out=out)


@app.command()
def compare(
    base: Annotated[
        Path,
        typer.Argument(help="Scores of the base: a score file, a run directory, or lm-evaluation-harness output."),
    ],
    tuned: Annotated[Path, typer.Argument(help="Scores of the tuned model on the same samples, likewise.")],
    margin: Annotated[float, typer.Option(help="Largest drop that is tolerated, in score units.")] = 0.03,
    alpha: Annotated[float, typer.Option(help="Error rate of the verdict.")] = 0.05,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Directory for comparison.json, report.html, report.md, junit.xml.", show_default=False
        ),
    ] = None,
    noise_floor: Annotated[
        list[Path] | None,
        typer.Option(help="Scores of a further run of the base, repeatable (two at least).", show_default=False),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="Metric of lm-evaluation-harness, or several in order; default: exact_match, acc, em, f1."),
    ] = None,
    filter_name: Annotated[
        str | None, typer.Option("--filter", help="Filter of lm-evaluation-harness; default: a task's first.")
    ] = None,
    style: Annotated[
        Literal["table", "markdown", "junit", "json"], typer.Option("--format", help="What to print.")
    ] = "table",
    explain_with: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="BASE_MODEL TUNED_MODEL",
            help="Both models, to ask again about what was lost: what kind of loss is it?",
            show_default=False,
        ),
    ] = None,
    tasks_dir: TasksDir = None,
    device: Device = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Judge two sets of scores: paired tests, intervals, verdict; exits by the verdict."""
    from forgetless import judging

    comparison = judging.compare_files(
        base,
        tuned,
        margin=margin,
        alpha=alpha,
        metric=metric,
        filter_name=filter_name,
        noise=noise_floor or [],
        out=out,
        explain_with=explain_with,
        tasks_directories=tasks_dir or [],
        device=device,
        reporter=TerminalReporter(),
    )
    if style in ("markdown", "junit") and not as_json:
        from forgetless.report import Evidence, render_junit, render_markdown

        render = render_markdown if style == "markdown" else render_junit
        print(render(Evidence(out.name if out is not None else "comparison", comparison)), end="")
    else:
        _show_result(comparison, as_json=as_json or style == "json", directory=out)
    raise typer.Exit(comparison.verdict.exit_code)


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="Alias, hub id, or directory (weights, adapter or run).")],
    base: Annotated[
        str | None, typer.Option(help="Its base, likewise: what that can't do is not lost.", show_default=False)
    ] = None,
    domain: Annotated[
        Path | None, typer.Option(help="Training data, whose words must not leak.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory for checks.json and scores.", show_default=False)
    ] = None,
    tasks_dir: TasksDir = None,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    batch_size: Annotated[int, typer.Option(help="Prompts that are answered together.", min=1)] = 64,
    cache: Annotated[bool, typer.Option(help="Keep scores by content and use those that are known.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """The deployment checklist: what must still work, against the base; exits by the verdict.

    [dim]forgetless check runs/safe --base smollm2-135m-instruct --domain my.jsonl[/dim]
    """
    from forgetless.checklist import check_model
    from forgetless.display import show_checklist

    checklist = check_model(
        model,
        base=base,
        domain=domain,
        out=out,
        tasks_directories=tasks_dir or [],
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        use_cache=cache,
        reporter=TerminalReporter(),
    )
    show_checklist(console, checklist, as_json=as_json, out=out)
    raise typer.Exit(checklist.verdict.exit_code)


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="A run directory, or one with a comparison.json.")],
    as_json: JsonFlag = False,
) -> None:
    """Build report.html, report.md, junit.xml and MODEL_CARD.md from what a directory holds."""
    from forgetless import judging

    pages = judging.build_pages(directory)
    if as_json:
        print(json.dumps([str(page) for page in pages]))
        return
    for page in pages:
        console.print(str(page), highlight=False, markup=False, soft_wrap=True)


@app.command()
def mix(
    domain: Annotated[Path, typer.Option(help="Domain examples.")],
    general: Annotated[Path, typer.Option(help="General examples to replay.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSONL file to write.")],
    share: Annotated[
        float, typer.Option(help="General examples / all examples of the final mixture, in [0, 1).")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of draw and order.", min=0)] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Write a replay mixture with an exact share of general examples."""
    from forgetless import pipeline

    summary = pipeline.mix_files(domain, general, out=out, share=share, seed=seed, reporter=TerminalReporter())
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


@app.command()
def methods(as_json: JsonFlag = False) -> None:
    """List the mitigation methods with their papers, needs, costs and options."""
    from forgetless.display import show_methods

    show_methods(console, as_json=as_json)


@app.command()
def tasks(tasks_dir: TasksDir = None, as_json: JsonFlag = False) -> None:
    """List the evaluation tasks and suites."""
    from forgetless.display import show_tasks

    show_tasks(console, tasks_dir or [], as_json=as_json)


@app.command()
def lesson(
    name: Annotated[Literal["two-heads", "single-weight"], typer.Argument(help="Which demonstration.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Directory for its page and its figures, NAME.html and NAME.json.")
    ] = Path("runs/lessons"),
    seeds: Annotated[int, typer.Option(help="Seeds of two-heads.", min=1)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show in seconds, without a model, how training on a second task ruins the first, and what helps."""
    from forgetless import lessons

    with TerminalReporter().task(f"lesson {name}") as progress:
        result = lessons.lesson(name, out, seeds=seeds, progress=progress)
    if as_json:
        print(json.dumps(lessons.figures(result), indent=2))
        return
    lessons.show(console, result)
    console.print(f"page: {out / name}.html", highlight=False, markup=False, soft_wrap=True)


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Check Python, torch, devices, memory, the embedded model and the cache; say how to mend what is missing."""
    from forgetless.display import show_findings
    from forgetless.doctor import examine

    findings = examine()
    show_findings(console, findings, as_json=as_json)
    raise typer.Exit(0 if all(finding.is_fine for finding in findings) else 2)


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


def _show_result(comparison: Any, *, as_json: bool, directory: Path | None) -> None:
    from forgetless.display import show_comparison

    if as_json:
        print(comparison.to_json(), end="")
        return
    page = directory / "report.html" if directory is not None else None
    show_comparison(console, comparison, report=page)


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


if __name__ == "__main__":
    main()

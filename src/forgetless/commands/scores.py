"""Commands that ask models and judge what they answered: `evaluate`, `compare`, `check`, `report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from forgetless.flags import (
    Concurrency,
    Device,
    JsonFlag,
    Retries,
    ServedModelName,
    TasksDir,
    Timeout,
    TrustEndpointCache,
)
from forgetless.terminal import TerminalReporter, console, show_result


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
        show_result(comparison, as_json=as_json or style == "json", directory=out)
    raise typer.Exit(comparison.verdict.exit_code)


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

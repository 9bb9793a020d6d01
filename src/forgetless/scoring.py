"""Scoring one model by name, whatever kind it is: what `evaluate` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from forgetless.errors import ConfigError, RunError
from forgetless.evaluate.requests import GREEDY, Decoding
from forgetless.harness_stage import ask_harness, load_harness
from forgetless.progress import Reporter, Silent
from forgetless.records import SampleScore
from forgetless.rundir import keep_scores, refuse_foreign_file
from forgetless.tasks.base import Task

if TYPE_CHECKING:
    from forgetless.evaluate.endpoint import EndpointOptions
    from forgetless.evaluate.runner import EvaluationOptions


def evaluate_model(
    model: str,
    *,
    suite: str = "core",
    out: Path | None = None,
    tasks_directories: Sequence[Path] = (),
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 64,
    endpoint: EndpointOptions | None = None,
    use_cache: bool = True,
    limit: int | None = None,
    num_fewshot: int | None = None,
    decoding: Decoding = GREEDY,
    reporter: Reporter | None = None,
) -> list[SampleScore]:
    """Loads a model, or reaches an endpoint, and evaluates it on a suite; with `out`, writes the scores there."""
    from forgetless.embedded import cache_directory
    from forgetless.evaluate.endpoint import EndpointOptions, is_endpoint
    from forgetless.evaluate.runner import EvaluationOptions, evaluate, read_suite
    from forgetless.models import load_model

    reporter = reporter or Silent()
    # What can be refused is, before the model is loaded.
    tasks, wanted = read_suite(suite, tasks_directories, limit=limit, num_fewshot=num_fewshot)
    if out is not None:
        refuse_foreign_file(out)
    if wanted is not None and is_endpoint(model):
        raise ConfigError(f"an endpoint gives no likelihoods in token ids: --suite {suite} needs a model to load")
    harness = load_harness(wanted, tasks, reporter)
    cache = cache_directory() / "scores" if use_cache else None
    scores: list[SampleScore] = []
    options = EvaluationOptions(batch_size=batch_size, cache=cache, decoding=decoding)
    if is_endpoint(model):
        options = replace(options, endpoint=endpoint or EndpointOptions())
        scores = _ask_endpoint(model, tasks, out=out, options=options, reporter=reporter)
    else:
        with reporter.task(f"Loading {model}"):
            loaded = load_model(model, device=device, dtype=dtype)
        for note in loaded.notes:
            reporter.note(note)
        if tasks:
            with reporter.task(f"Asking {model}") as progress:
                scores = evaluate(loaded, tasks, options=options, progress=progress)
        scores += ask_harness(harness, loaded, options, reporter, title=f"Asking {model}: lm-eval")
    if out is not None:
        keep_scores(out, scores)
    return scores


def _ask_endpoint(
    url: str, tasks: Sequence[Task], *, out: Path | None, options: EvaluationOptions, reporter: Reporter
) -> list[SampleScore]:
    """Evaluates a served model; what it answered before a stop lies beside `out`, and is removed at the end."""
    from forgetless.evaluate.endpoint import EndpointModel
    from forgetless.evaluate.runner import answerable, ask, count_known

    model, cache = EndpointModel(url, options=options.endpoint, decoding=options.decoding), options.cache
    with reporter.task(f"Reaching {model.url}"):
        served = model.served_model()
    free = answerable(model, tasks)
    if left_out := [task.name for task in tasks if task not in free]:
        reporter.note(f"an endpoint gives no likelihoods: left out {', '.join(left_out)}")
    if model.is_resumable_only and cache is not None:
        # Beside `out`, so that what is left of one evaluation never gets into another one.
        cache = None if out is None else out.with_name(f"{out.name}.partial")
    if num_known := count_known(model, free, cache):
        reporter.note(f"going on with {num_known} scores kept in {cache}; to ask everything again, remove it")
    try:
        with reporter.task(f"Asking {served.name} at {model.url}") as progress:
            scores = ask(model, free, options=replace(options, cache=cache), progress=progress)
    except RunError as error:
        num_known = count_known(model, free, cache)
        way_out = "run the same again to go on" if cache is not None else "give --out to keep them another time"
        raise RunError(f"{error}; scores kept: {num_known}, {way_out}") from None
    if model.is_resumable_only and cache is not None and cache.is_dir() and not any(cache.iterdir()):
        cache.rmdir()
    return scores

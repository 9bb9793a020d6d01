"""Asking models in a run: the base, the base again for its noise, and the artefact that was saved."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from forgetless.budgeting import keep_selection, tasks_of
from forgetless.checklist import load_checks, split_checks
from forgetless.evaluate.requests import Decoding
from forgetless.harness_stage import ask_harness, load_harness
from forgetless.job import Job
from forgetless.progress import Reporter
from forgetless.rundir import (
    RunDirectory,
    keep_scores,
)
from forgetless.tasks.base import Task

if TYPE_CHECKING:
    from forgetless.evaluate.runner import EvaluationOptions
    from forgetless.models import LoadedModel


def base_stage(job: Job, directory: RunDirectory, reporter: Reporter) -> LoadedModel | None:
    """Scores the base, and again where it is to; returns it for training, or None when nothing had to be loaded."""
    if directory.is_done("base", directory.scores("base")):
        return noise_stage(job, directory, reporter, None)
    loaded = load(job, job.config.model, reporter)
    from forgetless.models import count_parameters, hub_id

    facts = {
        "name": job.config.model,
        "hub_id": hub_id(job.config.model),
        "num_parameters": count_parameters(loaded.model)[0],
    }
    directory.update({"model": facts, "device": str(loaded.device)})
    score_stage(job, directory, reporter, "base", loaded)
    return noise_stage(job, directory, reporter, loaded)


def noise_stage(
    job: Job, directory: RunDirectory, reporter: Reporter, loaded: LoadedModel | None
) -> LoadedModel | None:
    """Asks the base the free tasks again, each time with another seed; returns it where it is loaded."""
    settings = job.config.evaluation
    if settings.noise_floor and not settings.temperature:
        reporter.note("greedy decoding in this process repeats itself: the noise floor is zero, and no run is repeated")
        return loaded
    for number in range(1, settings.noise_floor + 1):
        if not directory.is_done(f"noise-{number}", directory.noise(number)):
            loaded = loaded or load(job, job.config.model, reporter)
            score_stage(job, directory, reporter, "base", loaded, repeat=number)
    return loaded


def tuned_stage(job: Job, directory: RunDirectory, reporter: Reporter) -> None:
    """Scores the artefact that was saved, read back from disk."""
    if directory.is_done("tuned", directory.scores("tuned")):
        return
    loaded = load(job, str(directory.model), reporter, **job.load_options)
    score_stage(job, directory, reporter, "tuned", loaded)


def evaluation_options(job: Job, *, repeat: int = 0) -> EvaluationOptions:
    from forgetless.embedded import cache_directory
    from forgetless.evaluate.runner import EvaluationOptions

    settings = job.config.evaluation
    cache = cache_directory() / "scores" if settings.cache else None
    decoding = Decoding(settings.temperature, settings.top_p, job.config.seed + repeat)
    return EvaluationOptions(batch_size=settings.batch_size, cache=cache, decoding=decoding)


def score_stage(
    job: Job, directory: RunDirectory, reporter: Reporter, side: str, loaded: LoadedModel, *, repeat: int = 0
) -> None:
    """Scores a side; a repeat (of the base, from 1) takes another seed and asks only what is decoded."""
    from forgetless.evaluate.runner import evaluate

    checks = checks_of(job)
    names = {check.name for check in checks}
    tasks = [task for task in tasks_of(job, side=side if not repeat else "tuned") if task.name not in names]
    tasks += checks
    stage, title, path = side, f"Asking the {side} model", directory.scores(side)
    harness = None if repeat else load_harness(job.harness, tasks, reporter)
    if repeat:
        stage, title, path = f"noise-{repeat}", f"Asking the base again ({repeat})", directory.noise(repeat)
        checks, tasks = [], [task for task in tasks if task.spec.kind == "generate" and task.name not in names]
    with directory.stage(stage) as facts:
        reached: list[float] = []
        with reporter.task(title) as progress:

            def watch(done: float, total: float) -> None:
                reached.append(total)
                progress(done, total)

            options = evaluation_options(job, repeat=repeat)
            scores = evaluate(loaded, tasks, options=options, progress=watch)
        facts["cached"] = not reached  # nothing was left to be asked
        scores += ask_harness(harness, loaded, options, reporter, title=f"{title}: lm-eval")
        facts["num_samples"] = len(scores)
        scores, checked = split_checks(scores, checks)
        if checks:
            keep_scores(directory.scores(f"{side}.checks"), checked)
        if side == "base" and not repeat:
            scores = keep_selection(job, directory, scores)
        keep_scores(path, scores)


def checks_of(job: Job) -> list[Task]:
    """Returns the checks of the deployment checklist, if the run is to take them."""
    settings = job.config.evaluation
    if not settings.checks:
        return []
    return load_checks(job.domain, [] if settings.tasks_dir is None else [settings.tasks_dir])


def load_base(job: Job, reporter: Reporter) -> LoadedModel:
    """Loads the model that the tuned one is judged against: in a sequence the one before all phases."""
    return load(job, job.base_name, reporter)


def load(job: Job, name: str, reporter: Reporter, **options: Any) -> LoadedModel:
    from forgetless.models import load_model

    config = job.config
    with reporter.task(f"Loading {name}"):
        settings = {"device": config.device, "dtype": config.training.dtype} | options
        loaded = load_model(name, trust_remote_code=config.trust_remote_code, **settings)
    for note in loaded.notes:
        reporter.note(note)
    return loaded


def release_memory() -> None:
    """Gives memory of models that are no longer used back before the next one is loaded."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""The budget of a run: what each side is asked, and the best point within it, saved as the run's model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from forgetless.config import GateConfig
from forgetless.errors import ConfigError
from forgetless.evaluate.runner import EvaluationOptions
from forgetless.evaluate.target import TARGET_ANSWERS
from forgetless.mechanisms.adapters import merge_adapter
from forgetless.progress import Reporter
from forgetless.records import Role, SampleScore, read_scores
from forgetless.rundir import RunDirectory, keep_scores
from forgetless.tasks.base import Task
from forgetless.tasks.halves import split_in_halves
from forgetless.walking import open_path, walk, write_curve

if TYPE_CHECKING:
    from forgetless.job import Job
    from forgetless.models import LoadedModel


def check_budget(job: Job) -> None:
    """Refuses a budget that the suite can't keep, before anything is loaded.

    Args:
        job: The job; one without a budget is fine.

    Raises:
        ConfigError: A margin stands beside the budget, or a task can't be split in halves.
    """
    config = job.config
    if config.budget is None:
        return
    if "margin" in config.gate.model_fields_set and config.gate.margin not in (GateConfig().margin, config.budget):
        raise ConfigError(
            f"budget {config.budget} and gate.margin {config.gate.margin} both say how much may be lost: name one"
        )
    if not any(task.spec.role is Role.RETENTION and task.spec.kind != "perplexity" for task in job.suite):
        raise ConfigError("a budget needs a suite of forgetless's own retention tasks: evaluation.suite has none")
    _halves(job)


def tasks_of(job: Job, *, side: str) -> list[Task]:
    """Returns what a side is asked in a run: with a budget, the artefact is asked the confirmation half only."""
    tasks = [*job.suite, *job.targets]
    if job.config.budget is None:
        return tasks
    confirmation = _halves(job)[1]
    if side != "base":
        return confirmation
    # No point is asked for free answers to held-out questions on its way, so the base needn't be either.
    return [half if task.name == TARGET_ANSWERS else task for task, half in zip(tasks, confirmation, strict=True)]


def _halves(job: Job) -> tuple[list[Task], list[Task]]:
    return split_in_halves([*job.suite, *job.targets], seed=job.config.seed)


def keep_selection(job: Job, directory: RunDirectory, scores: Sequence[SampleScore]) -> list[SampleScore]:
    """Puts the base's scores on the selection half aside, in a run with a budget.

    Args:
        job: The job.
        directory: The run directory.
        scores: The base's scores.

    Returns:
        The scores that a verdict may rest on.
    """
    if job.config.budget is None:
        return list(scores)
    chosen = {(task.name, str(sample["id"])) for task in _halves(job)[0] for sample in task.samples}
    keep_scores(directory.selection("base"), [s for s in scores if (s.task, s.sample_id) in chosen])
    return [score for score in scores if (score.task, score.sample_id) not in chosen]


def save_best_point(
    job: Job,
    directory: RunDirectory,
    loaded: LoadedModel,
    *,
    load: Callable[[str], LoadedModel],
    options: EvaluationOptions,
    reporter: Reporter,
) -> dict[str, Any]:
    """Walks from what training left to the best point within the budget, and saves that as the run's model.

    Args:
        job: The job, with a budget.
        directory: The run directory; `curve.json` and `model/` are written.
        loaded: What training left, read back.
        load: Loads a model by its name.
        options: How points are evaluated.
        reporter: Where to tell how far it is.

    Returns:
        What the manifest says of the walk.
    """
    from forgetless.models import save_model

    config = job.config
    assert config.budget is not None
    # The held-out loss is enough to see what a point has learned; free answers would double the time.
    tasks = [task for task in _halves(job)[0] if task.name != TARGET_ANSWERS]
    asked = {task.name for task in tasks}
    path, moved = open_path(loaded, job.base_name, load=load)
    curve = walk(
        path,
        moved,
        tasks,
        [score for score in read_scores(directory.selection("base")) if score.task in asked],
        budget=config.budget,
        alpha=config.gate.alpha,
        cross_entropy_margin=config.gate.cross_entropy_margin,
        options=options,
        reporter=reporter,
        keep=lambda point, scores: keep_scores(directory.selection(point.label), scores),
    )
    path.move(curve.chosen)
    save_model(merge_adapter(path.model) if config.merge else path.model, moved.tokenizer, directory.model)
    write_curve(directory.curve, curve)
    return {"chosen": curve.chosen.label, "num_points": len(curve.points), "learning_kept": curve.learning_kept}

"""From a fall to its cause: loads the models once more, asks about the lost samples, and judges what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forgetless.compare.attribution import attribute, fallen_tasks, with_attributions
from forgetless.progress import Reporter, Silent
from forgetless.records import Comparison, SampleScore

if TYPE_CHECKING:
    from forgetless.evaluate.diagnosis import Load
    from forgetless.evaluate.runner import EvaluationOptions
    from forgetless.models import LoadedModel
    from forgetless.tasks.base import Task


def explain_by_answers(comparison: Comparison, base: Sequence[SampleScore], tuned: Sequence[SampleScore]) -> Comparison:
    """Adds what the answers alone say about the tasks that fell."""
    return with_attributions(comparison, attribute(base, tuned, tasks=fallen_tasks(comparison.tasks)))


def explain_by_asking(
    comparison: Comparison,
    base: Sequence[SampleScore],
    tuned: Sequence[SampleScore],
    *,
    models: tuple[str, str],
    tasks: Sequence[Task],
    load: Load,
    options: EvaluationOptions | None = None,
    reporter: Reporter | None = None,
) -> Comparison:
    """Adds what asking the models again says about the tasks that fell; one model is in memory at a time.

    Args:
        comparison: The comparison of the two models.
        base: The base's scores.
        tuned: The tuned model's scores.
        models: Names of the base and the tuned model.
        tasks: The tasks that were asked; what fell and isn't among them is judged by its answers.
        load: Loads a model by name.
        options: How to ask.
        reporter: Where to tell how far it is.

    Returns:
        The comparison with its attributions; unchanged where nothing fell.

    Raises:
        ModelError: A model can't be loaded.
    """
    from forgetless.evaluate.diagnosis import gather_evidence
    from forgetless.evaluate.probes import choose_lost

    names = fallen_tasks(comparison.tasks)
    lost = choose_lost(tasks, base, tuned, names=names)
    if not lost:
        return explain_by_answers(comparison, base, tuned)
    reporter = reporter or Silent()
    with reporter.task("Asking about what was lost") as progress:
        evidence, differences = gather_evidence(lost, models=models, load=load, options=options, progress=progress)
    found = attribute(base, tuned, tasks=names, evidence=evidence, differences=differences)
    return with_attributions(comparison, found)


def explain_files(
    comparison: Comparison,
    sides: Mapping[str, Sequence[SampleScore]],
    *,
    models: tuple[str, str] | None,
    directories: Sequence[Path] = (),
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Comparison:
    """Adds what is said about the falls of a comparison of files.

    Args:
        comparison: The comparison.
        sides: The scores, under `base` and `tuned`.
        models: Names of the base and the tuned model; None = the answers alone are judged.
        directories: Where to look for the user's own tasks.
        device: Where the models are loaded.
        reporter: Where to tell how far it is.

    Returns:
        The comparison with its attributions; unchanged where nothing fell.

    Raises:
        ConfigError: There is no such directory of tasks.
        ModelError: A model can't be loaded.
    """
    if models is None:
        return explain_by_answers(comparison, sides["base"], sides["tuned"])
    from forgetless.models import load_model, resolve_model
    from forgetless.tasks.base import list_tasks, load_task

    for name in models:
        resolve_model(name)  # a wrong path is refused even where nothing fell
    paths = list_tasks(directories)
    tasks = [load_task(paths[name]) for name in fallen_tasks(comparison.tasks) if name in paths]
    reporter = reporter or Silent()

    def load(name: str) -> LoadedModel:
        with reporter.task(f"Loading {name}"):
            return load_model(name, device=device)

    return explain_by_asking(
        comparison, sides["base"], sides["tuned"], models=models, tasks=tasks, load=load, reporter=reporter
    )

"""The part of a suite that lm-evaluation-harness asks, as a step of a run that says how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from forgetless.progress import Reporter
from forgetless.records import SampleScore
from forgetless.tasks.base import Task

if TYPE_CHECKING:
    from forgetless.evaluate.harness_suite import HarnessSuite, LoadedSuite
    from forgetless.evaluate.runner import EvaluationOptions
    from forgetless.models import LoadedModel


def load_harness(suite: HarnessSuite | None, tasks: Sequence[Task], reporter: Reporter) -> LoadedSuite | None:
    """Loads the harness's tasks of a suite; `tasks` are the others, whose names are taken."""
    if suite is None:
        return None
    from forgetless.evaluate.harness_suite import LoadedSuite

    with reporter.task("Loading the tasks of lm-evaluation-harness"):
        return LoadedSuite(suite, taken=[task.name for task in tasks])


def ask_harness(
    suite: LoadedSuite | None, model: LoadedModel, options: EvaluationOptions, reporter: Reporter, *, title: str
) -> list[SampleScore]:
    """Asks a model the harness's tasks, if there are any, and shows what is to be said of them."""
    if suite is None:
        return []
    with reporter.task(title) as progress:
        found = suite.ask(model, cache=options.cache, progress=progress)
    for note in found.notes:
        reporter.note(note)
    return found.scores

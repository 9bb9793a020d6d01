"""The retention monitor as a part of a run: which examples it looks at, and what the manifest says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.data.examples import Example, content_key
from forgetless.errors import ConfigError
from forgetless.mechanisms.kept import kept_examples
from forgetless.progress import Reporter
from forgetless.train.pace import FEWEST_EXAMPLES

if TYPE_CHECKING:
    from forgetless.job import Job
    from forgetless.methods.base import Context
    from forgetless.train.monitor import RetentionMonitor

_OTHER_SEED = (
    7919  # the base writes other examples for the monitor than for methods, which take those of the run's seed
)


def open_monitor(
    job: Job, mixture: Sequence[Example], context: Context, *, log: Path, reporter: Reporter
) -> RetentionMonitor | None:
    """Returns the monitor of a run; None where it has none.

    The examples that it looks at are not trained on, as far as there are others.

    Args:
        job: The run.
        mixture: What is trained on.
        context: The job as methods know it, with the base as a writer.
        log: The file of the training's log.
        reporter: Where it speaks.

    Returns:
        A callback of the trainer.

    Raises:
        ConfigError: There are no general examples, or too few.
        RunError: Too little of what the base writes can be used.
    """
    settings = job.config.monitor
    policy = settings.policy
    if policy == "auto":
        # Writing examples takes the base minutes: that is for those who ask for it.
        policy = "warn" if len(job.general) >= FEWEST_EXAMPLES and settings.data != "self" else "off"
    if policy == "off":
        return None
    from forgetless.train.monitor import RetentionMonitor

    return RetentionMonitor(
        _examples(job, mixture, context),
        budget=settings.budget,
        policy=policy,
        every=settings.every,
        measure=settings.measure,
        num_examples=settings.num_examples,
        alpha=job.config.gate.alpha,
        max_share=settings.max_share,
        methods=job.methods,
        seed=job.config.seed,
        tokenizer=context.tokenizer,
        log=log,
        tell=reporter.note,
    )


def _examples(job: Job, mixture: Sequence[Example], context: Context) -> list[Example]:
    settings = job.config.monitor
    if settings.data == "general" and not job.general:
        raise ConfigError("monitor.data = 'general' needs general examples: set data.general (--general FILE)")
    if settings.data == "self" or not job.general:
        return kept_examples(replace(context, seed=context.seed + _OTHER_SEED), "self", settings.num_examples)
    trained = {content_key(example) for example in mixture}
    others = [example for example in job.general if content_key(example) not in trained]
    return others if len(others) >= settings.num_examples else list(job.general)


def facts_of(monitor: RetentionMonitor | None) -> dict[str, Any]:
    """Returns what the manifest's train stage says of the monitor; nothing where there is none."""
    return {} if monitor is None else {"monitor": monitor.summary()}

"""A sequence before it starts: a job for each phase, read, checked and refused if need be, without a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from forgetless.config import Config, PhaseConfig
from forgetless.data.examples import Example
from forgetless.errors import ConfigError, ForgetlessError
from forgetless.evaluate.target import target_names, target_tasks
from forgetless.job import Job, plan
from forgetless.mechanisms.earlier import Earlier
from forgetless.tasks.base import Task

LARGEST_NUMBER = 99  # phases: their directories are numbered with two digits


@dataclass(frozen=True)
class Sequel:
    """All phases of a config, checked.

    Attributes:
        config: The whole config.
        jobs: A job for each phase, in order; each is to answer the targets of all of them.
    """

    config: Config
    jobs: Sequence[Job]

    @property
    def names(self) -> list[str]:
        """Names of the phases, in order."""
        return [phase.name for phase in self.config.phases]

    @property
    def identity(self) -> str:
        """Fingerprint of config and data: two sequences of the same identity do the same."""
        content = [self.config.model_dump(mode="json"), [job.fingerprints() for job in self.jobs]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def directory_name(self, number: int) -> str:
        """Returns the name of the directory of a phase, counted from 1."""
        return f"{number:02d}-{self.names[number - 1]}"

    def tasks(self, number: int) -> list[str]:
        """Returns the names of the tasks of a phase's own target, counted from 1."""
        wanted = target_names(self.names[number - 1])
        return [task.name for task in self.jobs[number - 1].targets if task.name in wanted]


def plan_phases(config: Config) -> Sequel:
    """Reads and checks everything that the phases of a config need but the model.

    Args:
        config: A config with phases.

    Returns:
        The phases as jobs.

    Raises:
        ConfigError: A setting can't be used with phases, or one of a phase can't be used at all.
        DataError: A data file can't be read.
    """
    _refuse(config)
    jobs: list[Job] = []
    seen: dict[str, Sequence[Example]] = {}
    targets: list[Task] = []
    for phase in config.phases:
        earlier = Earlier(phases=dict(seen), is_continued=config.sequence.carry == "continue")
        try:
            job = plan(_single(config, phase), earlier=earlier)
            _refuse_methods(config, job)
        except ForgetlessError as error:
            raise ConfigError(f"phase {phase.name!r}: {error}") from None
        jobs.append(job)
        seen[phase.name] = job.domain
        targets += target_tasks(job.test, phase=phase.name)
    if taken := {task.name for task in jobs[0].suite} & {task.name for task in targets}:
        raise ConfigError(f"task {min(taken)!r} has the name of a phase's target: rename the task or the phase")
    return Sequel(config, [replace(job, targets=targets, base=config.model) for job in jobs])


def _single(config: Config, phase: PhaseConfig) -> Config:
    """Returns the config of one phase, as if it were all there is."""
    data = config.data.model_copy(
        update={key: getattr(phase.data, key) for key in ("train", "test", "max_examples", "max_test_examples")}
    )
    return config.model_copy(
        update={"data": data, "methods": phase.methods, "training": phase.training, "phases": []},
    )


def _refuse(config: Config) -> None:
    """Raises where a setting of the whole config can't apply to a sequence."""
    for key in ("train", "test"):
        if getattr(config.data, key) is not None:
            raise ConfigError(
                f"data.{key} belongs to a single run, and this config has phases: name the file in the data of a phase"
            )
    names = [phase.name for phase in config.phases]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two phases are called {name!r}: each needs a name of its own")
    if len(names) > LARGEST_NUMBER:
        raise ConfigError(f"{len(names)} phases are too many: {LARGEST_NUMBER} at most")
    if config.budget is not None:
        raise ConfigError(
            "budget walks back from a single run: leave it out, and run `forgetless repair` on the last phase's model"
        )
    if config.merge or config.evaluation.quantised:
        raise ConfigError(
            "merge and evaluation.quantised make something of a single run's model: leave them out of a config with "
            "phases"
        )
    if config.evaluation.checks:
        raise ConfigError(
            "evaluation.checks judges a single run: leave it out, and run `forgetless check` on the last phase's model"
        )


def _refuse_methods(config: Config, job: Job) -> None:
    """Raises where the methods of a phase can't be carried over as the config has it."""
    adapters = [method for method in job.methods if "the adapter" in method.claims]
    if config.sequence.carry == "continue" and not any(method.can_continue for method in adapters):
        found = f"method {adapters[0].name!r} doesn't" if adapters else "no method"
        raise ConfigError(
            f"sequence.carry continue needs an adapter that can be trained on (lora, qlora), and {found}: set carry "
            "merge"
        )
    is_dora = any(method.options().get("variant") == "dora" for method in adapters)
    if config.sequence.average == "time" and is_dora:
        raise ConfigError("sequence.average time needs updates that add to the weights, and dora's don't: use lora")

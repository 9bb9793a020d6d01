"""Tasks and suites: a task is one YAML file with a version beside its samples; a suite is a named list of tasks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from forgetless.errors import ConfigError, did_you_mean
from forgetless.tasks.samples import read_samples
from forgetless.tasks.spec import DataSpec, TaskSpec

__all__ = [
    "Task",
    "TaskSpec",
    "fingerprint_suite",
    "list_suites",
    "list_tasks",
    "load_suite",
    "load_task",
]

CATALOG = Path(str(resources.files("forgetless.tasks"))) / "catalog"
CATALOGS = (CATALOG, CATALOG / "checklist")


@dataclass(frozen=True)
class Task:
    """A task with its samples.

    Attributes:
        spec: The YAML's fields.
        samples: One mapping per sample; each has an `id`.
        journal: Fingerprint of the task that this is a part of.
    """

    spec: TaskSpec
    samples: tuple[Mapping[str, Any], ...] = field(repr=False)
    journal: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.spec.task

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the settings and all samples: two equal ones ask and grade alike."""
        settings = self.spec.model_dump(mode="json", exclude={"data", "description", "severity", "pass_at"})
        return hashlib.sha256(_canonical([settings, list(self.samples)]).encode()).hexdigest()

    @property
    def journal_fingerprint(self) -> str:
        """What scores are kept by: the fingerprint, or that of the whole task where this is a part of one."""
        return self.journal or self.fingerprint

    def prompt(self, sample: Mapping[str, Any]) -> str:
        """Fills the prompt with the fields of a sample.

        Args:
            sample: One of `samples`.

        Returns:
            The user's turn (chat) or the text before the answer (plain).

        Raises:
            ConfigError: The prompt names a field that the sample doesn't have.
        """
        return self.spec.fill(sample)

    def limit(self, most: int, *, seed: int = 0) -> Task:
        """Returns the task with so many of its samples, drawn by their content.

        A sample is drawn or not whatever else the task holds, so that a task that grows by a few samples keeps most of
        a draw. Scores are kept with those of the whole task: what one knows the other doesn't ask again.

        Args:
            most: How many samples to keep at most, at least 1.
            seed: Seed of the draw.

        Returns:
            The smaller task, its samples in their order; the task itself where it has no more.

        Raises:
            ConfigError: No sample would be left.
        """
        if most < 1:
            raise ConfigError(f"limit {most} leaves nothing to ask: at least 1")
        if len(self.samples) <= most:
            return self

        def rank(sample: Mapping[str, Any]) -> bytes:
            return hashlib.sha256(f"{seed}:{_canonical(sample)}".encode()).digest()

        kept = {id(sample) for sample in sorted(self.samples, key=rank)[:most]}
        return Task(self.spec, tuple(s for s in self.samples if id(s) in kept), journal=self.journal_fingerprint)


def _canonical(content: object) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)


def load_task(path: Path) -> Task:
    """Reads a task's YAML and its samples.

    Args:
        path: The YAML file, named after its task; the file of its samples lies beside it.

    Returns:
        The task with all its samples; those that bring no id have one made from their number.

    Raises:
        ConfigError: The YAML isn't a task.
        DataError: The samples can't be read, an id stands twice, or a sample can't be asked or graded.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec = TaskSpec.model_validate(raw)
    except FileNotFoundError:
        raise ConfigError(f"there is no task file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {place or 'file'}: {message}{_nearest_field(first)}") from None
    if spec.task != path.stem:
        raise ConfigError(f"{path}: task is named {spec.task!r}: name the file {spec.task}.yaml")
    return Task(spec, read_samples(spec, path.parent))


def _nearest_field(error: Any) -> str:
    known = (TaskSpec if len(error["loc"]) == 1 else DataSpec).model_fields
    return did_you_mean(str(error["loc"][-1]), known) if error["type"] == "extra_forbidden" else ""


def list_tasks(directories: Iterable[Path] = ()) -> dict[str, Path]:
    """Lists the known tasks without reading them: the catalog's, then those of the user's directories.

    Args:
        directories: Directories with the user's own tasks, one YAML each.

    Returns:
        The YAML file of each task by the task's name.

    Raises:
        ConfigError: A directory doesn't exist, or defines a name that is taken.
    """
    found: dict[str, Path] = {}
    for directory in (*CATALOGS, *directories):
        if not directory.is_dir():
            raise ConfigError(f"tasks directory {directory} does not exist")
        for path in sorted(directory.glob("*.yaml")):
            if path.stem in found:
                raise ConfigError(
                    f"task {path.stem!r} stands in {found[path.stem].parent} and in {directory}: rename one"
                )
            found[path.stem] = path
    return found


def list_suites() -> dict[str, list[str]]:
    """Returns the named suites, each with the names of its tasks."""
    suites: dict[str, list[str]] = yaml.safe_load((CATALOG.parent / "suites.yaml").read_text(encoding="utf-8"))
    return suites


def load_suite(name: str, directories: Iterable[Path] = (), *, limit: int | None = None) -> list[Task]:
    """Loads the tasks of a suite.

    Args:
        name: Name of a suite or of a task, or several of them separated by commas.
        directories: Directories with the user's own tasks.
        limit: Most samples of each task; None = all of them.

    Returns:
        The tasks, each once, in the order in which they are named.

    Raises:
        ConfigError: A name is neither a suite nor a task, or a task's YAML can't be used.
        DataError: The samples of a task can't be used.
    """
    suites, tasks = list_suites(), list_tasks(directories)
    wanted: dict[str, None] = {}
    for part in (part.strip() for part in name.split(",")):
        if part in suites:
            wanted |= dict.fromkeys(suites[part])
        elif part in tasks:
            wanted[part] = None
        else:
            raise ConfigError(f"there is no suite or task {part!r}{did_you_mean(part, [*suites, *tasks])}")
    loaded = [load_task(tasks[task]) for task in wanted]
    return loaded if limit is None else [task.limit(limit) for task in loaded]


def fingerprint_suite(tasks: Iterable[Task]) -> str:
    """Returns a SHA-256 over the tasks' fingerprints, in order."""
    return hashlib.sha256("".join(task.fingerprint for task in tasks).encode()).hexdigest()

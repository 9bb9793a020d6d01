"""Tasks and suites: a task is one YAML file with a version beside its samples; a suite is a named list of tasks.

task: geography          kind: generate | choice | perplexity
version: 1               template: chat | plain
role: retention          data: geography.jsonl     (JSONL, CSV or Parquet beside the YAML)
prompt: "{question}"     str.format over the sample's fields, nothing else
max_tokens: 24           generate: longest answer
scorer: contains         generate: how answers are graded, where a sample has no `checks` of its own
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forgetless.data.examples import Message
from forgetless.errors import ConfigError, DataError, ForgetlessError, did_you_mean
from forgetless.records import Role
from forgetless.tasks.scorers import score_answer

CATALOG = Path(str(resources.files("forgetless.tasks"))) / "catalog"
CATALOGS = (CATALOG, CATALOG / "checklist")


class TaskSpec(BaseModel):
    """The fields of a task's YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$", description="Name; that of the file.")
    version: int = Field(ge=1, description="Raised whenever a sample or a setting changes.")
    description: str = Field("", description="One line for people.")
    role: Role = Field(Role.RETENTION, description="retention, or target for what is to be learned.")
    kind: Literal["generate", "choice", "perplexity"] = Field(description="How the model answers.")
    template: Literal["chat", "plain"] = Field("chat", description="Under the chat template, or as raw text.")
    data: str = Field(description="The samples: a JSONL, CSV or Parquet file beside the YAML.")
    prompt: str = Field("{question}", description="str.format over a sample's fields.")
    system: str | None = Field(None, description="System message; None leaves it to the template.")
    max_tokens: int = Field(32, ge=1, le=4096, description="Longest answer, for kind: generate.")
    scorer: str | None = Field(None, description="Scorer of samples that have no checks of their own.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the scorer.")
    normalise: bool = Field(False, description="Choices by log-likelihood per character instead of in total.")
    severity: Literal["critical", "high", "medium"] | None = Field(
        None, description="Makes the task a check of the deployment checklist; says how much its loss weighs."
    )
    pass_at: float | None = Field(None, gt=0, le=1, description="Share of the samples at which a check is passed.")

    @model_validator(mode="after")
    def _check_is_whole(self) -> TaskSpec:
        if (self.severity is None) != (self.pass_at is None):
            raise ValueError("a check needs both severity and pass_at, and any other task neither")
        if self.severity is not None and self.kind != "generate":
            raise ValueError("a check (severity, pass_at) asks for free answers: kind: generate")
        return self


@dataclass(frozen=True)
class Task:
    """A task with its samples.

    Attributes:
        spec: The YAML's fields.
        samples: One mapping per sample; each has an `id`.
    """

    spec: TaskSpec
    samples: tuple[Mapping[str, Any], ...] = field(repr=False)

    @property
    def name(self) -> str:
        return self.spec.task

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the settings and all samples: two equal ones ask and grade alike."""
        settings = self.spec.model_dump(mode="json", exclude={"data", "description", "severity", "pass_at"})
        content = json.dumps([settings, list(self.samples)], sort_keys=True, ensure_ascii=False, default=str)
        return hashlib.sha256(content.encode()).hexdigest()

    def prompt(self, sample: Mapping[str, Any]) -> str:
        """Fills the prompt with the fields of a sample.

        Args:
            sample: One of `samples`.

        Returns:
            The user's turn (chat) or the text before the answer (plain).

        Raises:
            ConfigError: The prompt names a field that the sample doesn't have.
        """
        try:
            return self.spec.prompt.format(**sample)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"task {self.name!r}, sample {sample['id']!r}: prompt {self.spec.prompt!r} cannot be filled ({error!r})"
            ) from None


# What the samples of each kind must have, besides an id.
_REQUIRED = {"choice": ("choices", "answer")}


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
        raise ConfigError(f"{path}: {place or 'file'}: {first['msg']}{_nearest_field(first)}") from None
    if spec.task != path.stem:
        raise ConfigError(f"{path}: task is named {spec.task!r}: name the file {spec.task}.yaml")
    rows = _read_samples(path.parent / spec.data, spec)
    task = Task(spec, tuple(sample for _, sample in rows))
    for number, sample in rows:
        try:
            _check_sample(task, sample)
        except ForgetlessError as error:
            raise DataError(str(error), path=path.parent / spec.data, line=number) from None
    return task


def _nearest_field(error: Any) -> str:
    known = TaskSpec.model_fields
    return did_you_mean(str(error["loc"][-1]), known) if error["type"] == "extra_forbidden" else ""


def _check_sample(task: Task, sample: Mapping[str, Any]) -> None:
    """Raises unless a sample can be asked and graded: better now than hours into a run."""
    kind = task.spec.kind
    if kind == "perplexity" and "text" in sample:
        if not isinstance(sample["text"], str) or not sample["text"].strip():
            raise DataError(f"{sample['text']!r} is not a text", field="text")
        return
    if "messages" in sample:
        _check_messages(sample["messages"])
    elif not task.prompt(sample).strip():
        raise DataError(f"prompt {task.spec.prompt!r} comes out empty")
    if kind == "perplexity" and not str(sample.get("answer") or "").strip():
        raise DataError("is missing: a sample of kind perplexity needs it, or a text", field="answer")
    if kind == "generate":
        score_answer("", sample, task.spec.scorer, task.spec.options)


def _check_messages(turns: Any) -> None:
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError('is not a list of turns such as {"role": "user", "content": "..."}', field="messages")
    for turn in turns:
        Message(turn.get("role"), turn.get("content"))
        if not isinstance(turn.get("content"), str):
            raise DataError(f"content {turn.get('content')!r} is not a text", field="messages")
    if len(turns) == 1 and turns[0]["role"] == "assistant":
        raise DataError("an answer alone asks nothing: begin with a user turn", field="messages")


def _read_samples(path: Path, spec: TaskSpec) -> list[tuple[int, Mapping[str, Any]]]:
    rows = _read_rows(path)
    seen: set[str] = set()
    samples: list[tuple[int, Mapping[str, Any]]] = []
    for number, row in rows:
        sample = {"id": f"{spec.task}-{number:04d}", **row}
        sample["id"] = str(sample["id"])
        if sample["id"] in seen:
            raise DataError(f"id {sample['id']!r} stands twice", path=path, line=number, field="id")
        seen.add(sample["id"])
        for name in _REQUIRED.get(spec.kind, ()):
            if sample.get(name) is None:
                raise DataError(
                    f"is missing: a sample of kind {spec.kind} needs it", path=path, line=number, field=name
                )
        if spec.kind == "choice":
            _check_choices(sample, path=path, line=number)
        samples.append((number, sample))
    if not samples:
        raise DataError("holds no samples", path=path)
    return samples


def _check_choices(sample: Mapping[str, Any], *, path: Path, line: int) -> None:
    choices, answer = sample["choices"], sample["answer"]
    if not isinstance(choices, list) or len(choices) < 2 or len({str(choice) for choice in choices}) != len(choices):
        raise DataError("needs at least two different choices", path=path, line=line, field="choices")
    if not all(str(choice).strip() for choice in choices):
        raise DataError("one choice is empty", path=path, line=line, field="choices")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise DataError(f"{answer!r} is not an index into {len(choices)} choices", path=path, line=line, field="answer")


def _read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    if path.suffix in {".csv", ".parquet"}:
        import pyarrow.csv
        import pyarrow.parquet

        try:
            table = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pyarrow.parquet.read_table(path)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise DataError(f"cannot be read ({error})", path=path) from None
        return list(enumerate(table.to_pylist(), start=1))
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({error})", path=path) from None
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    return [(number, _parse_line(line, path=path, number=number)) for number, line in numbered]


def _parse_line(line: str, *, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON ({getattr(error, 'msg', error)})", path=path, line=number) from None
    if not isinstance(row, dict):
        raise DataError("is not a JSON object", path=path, line=number)
    return row


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


def load_suite(name: str, directories: Iterable[Path] = ()) -> list[Task]:
    """Loads the tasks of a suite.

    Args:
        name: Name of a suite or of a task, or several of them separated by commas.
        directories: Directories with the user's own tasks.

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
    return [load_task(tasks[task]) for task in wanted]


def fingerprint_suite(tasks: Iterable[Task]) -> str:
    """Returns a SHA-256 over the tasks' fingerprints, in order."""
    return hashlib.sha256("".join(task.fingerprint for task in tasks).encode()).hexdigest()

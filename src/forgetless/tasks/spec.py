"""The fields of a task's YAML, and how its prompt is filled.

task: geography          kind: generate | choice | perplexity
version: 1               template: chat | plain
role: retention          data: geography.jsonl     (a file beside the YAML, or a data set of the hub: `DataSpec`)
prompt: "{question}"     str.format over the sample's fields, nothing else
max_tokens: 24           generate: longest answer
scorer: contains         generate: how answers are graded, where a sample has no `checks` of its own
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from string import Formatter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from forgetless.errors import ConfigError
from forgetless.records import Role


class DataSpec(BaseModel):
    """Where the samples of a task come from, and which of its columns they are made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str | None = Field(None, description="A file beside the YAML; what `data: FILE` stands for.")
    hub: str | None = Field(
        None, pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)?$", description="A data set of the Hugging Face hub."
    )
    config: str | None = Field(None, description="Its configuration (a subset, a language).")
    split: str = Field("test", description="Its split, or a part of one: test[:500].")
    revision: str | None = Field(None, description="Its commit, so that it is the same tomorrow.")
    columns: dict[str, str | list[str] | None] = Field(
        default_factory=dict,
        description="Fields of the samples by the columns that they are read from; a path or several; null drops one.",
    )
    labels: list[str] | None = Field(None, description="What the answers of a choice task call the choices, in order.")

    @model_validator(mode="after")
    def _has_one_source(self) -> DataSpec:
        if (self.file is None) == (self.hub is None):
            raise ValueError("name a file or a hub data set, one of them")
        strays = sorted({"config", "split", "revision"} & self.model_fields_set)
        if self.file is not None and strays:
            raise ValueError(f"{strays[0]} belongs to a hub data set, not to a file")
        return self

    def __str__(self) -> str:
        if self.file is not None:
            return self.file
        parts = [self.hub, self.config, self.split, self.revision]
        return f"hub data set {', '.join(part for part in parts if part)}"


class TaskSpec(BaseModel):
    """The fields of a task's YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$", description="Name; that of the file.")
    version: int = Field(ge=1, description="Raised whenever a sample or a setting changes.")
    description: str = Field("", description="One line for people.")
    role: Role = Field(Role.RETENTION, description="retention, or target for what is to be learned.")
    kind: Literal["generate", "choice", "perplexity"] = Field(description="How the model answers.")
    template: Literal["chat", "plain"] = Field("chat", description="Under the chat template, or as raw text.")
    data: DataSpec = Field(description="The samples: a file beside the YAML, or a data set of the hub.")
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

    @field_validator("data", mode="before")
    @classmethod
    def _read_file_name(cls, value: object) -> object:
        return {"file": value} if isinstance(value, str) else value

    @field_validator("prompt")
    @classmethod
    def _names_fields_only(cls, value: str) -> str:
        parse_prompt(value)
        return value

    def fill(self, sample: Mapping[str, Any]) -> str:
        """Fills the prompt with the fields of a sample.

        Args:
            sample: The sample's fields.

        Returns:
            The user's turn (chat) or the text before the answer (plain).

        Raises:
            ConfigError: The prompt names a field that the sample doesn't have.
        """
        parts = []
        for text, name in parse_prompt(self.prompt):
            parts.append(text)
            if name is not None:
                if sample.get(name) is None:
                    known = ", ".join(str(key) for key, value in sample.items() if value is not None)
                    raise ConfigError(
                        f"task {self.task!r}, sample {sample.get('id')!r}: prompt {self.prompt!r} cannot be filled: "
                        f"there is no field {name!r}, only {known}"
                    )
                parts.append(str(sample[name]))
        return "".join(parts)


@cache
def parse_prompt(prompt: str) -> tuple[tuple[str, str | None], ...]:
    """Splits a prompt into texts, each with the name of the field that follows it.

    Fields are named and nothing else: no attributes, indices, conversions or widths, so that a task from someone else
    can read nothing but its own samples.

    Args:
        prompt: In the syntax of `str.format`.

    Returns:
        Pairs of a text and the field behind it, None behind the last text.

    Raises:
        ValueError: A brace is open, or what stands between two is not the name of a field.
    """
    try:
        parts = list(Formatter().parse(prompt))
    except ValueError as error:
        raise ValueError(f"{prompt!r} is no format ({error}); write {{{{ and }}}} for braces of the text") from None
    for _, name, width, conversion in parts:
        if name is not None and (not name.strip() or name.isdigit() or any(mark in name for mark in ".[]{}!")):
            raise ValueError(f"{{{name}}} is not the name of a field: a prompt names fields, such as {{question}}")
        if width or conversion:
            raise ValueError(f"{{{name}}} is formatted: a prompt names fields and nothing else, such as {{{name}}}")
    return tuple((text, name) for text, name, _, _ in parts)

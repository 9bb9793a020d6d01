"""What a rule finds: a risk with its severity, its reason, what to do, and the edits that do it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from forgetless.advising.recipe import Place, Setting, write_place


class Severity(StrEnum):
    """How much a risk can cost."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 = the worst."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Edit:
    """One change of a recipe's file.

    Attributes:
        place: Path of the key.
        old: The value that stands there; None = the key isn't there.
        new: The value to write; an entry to add where `is_entry`.
        is_entry: Whether `new` becomes a further entry of the list at `place`.
        file: The file; None = the one that was asked about.
    """

    place: Place
    old: Any
    new: Any
    is_entry: bool = False
    file: Path | None = None

    @property
    def key(self) -> str:
        """The path as people write it."""
        return write_place(self.place)

    def __str__(self) -> str:
        if self.is_entry:
            return f"{self.key}: + {write_value(self.new)}"
        return f"{self.key}: {'(not set)' if self.old is None else write_value(self.old)} -> {write_value(self.new)}"


@dataclass(frozen=True)
class Risk:
    """What a rule says of a recipe.

    Attributes:
        severity: How much it can cost.
        reason: Why, in one or two sentences, with the figure.
        remedy: What to do, in one sentence.
        keys: Keys of the file that it is about.
        edits: The changes that mend it, where the file can say so.
    """

    severity: Severity
    reason: str
    remedy: str
    keys: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = field(default=())


@dataclass(frozen=True)
class Unchecked:
    """What a rule could not judge, and why."""

    reason: str


@dataclass(frozen=True)
class Finding:
    """A risk with the rule that named it.

    Attributes:
        rule: Name of the rule.
        title: What the rule is about.
        risk: What it says.
        source: Paper or measured page behind the rule.
    """

    rule: str
    title: str
    risk: Risk
    source: str

    @property
    def severity(self) -> Severity:
        return self.risk.severity

    def to_dict(self) -> dict[str, Any]:
        """Returns the finding for scripts."""
        return {
            "rule": self.rule,
            "title": self.title,
            "severity": self.severity.value,
            "keys": list(self.risk.keys),
            "reason": self.risk.reason,
            "remedy": self.risk.remedy,
            "source": self.source,
            "edits": [
                {
                    "key": edit.key,
                    "old": edit.old,
                    "new": edit.new,
                    "adds_entry": edit.is_entry,
                    "file": None if edit.file is None else str(edit.file),
                }
                for edit in self.risk.edits
            ],
        }


def write_value(value: Any) -> str:
    """Returns a value as YAML on one line, which every YAML reader takes as what it is (1.0e-05, not 1e-05)."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).splitlines()[0]


def change(setting: Setting[Any], new: Any) -> Edit:
    """Returns the edit that gives a setting another value."""
    old = (setting.raw if setting.raw is not None else setting.value) if setting.is_set else None
    return Edit(setting.place, old, new, file=setting.file)

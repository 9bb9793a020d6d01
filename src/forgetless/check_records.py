"""The records of deployment checks: what each shows, and the questions behind a loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class CheckStatus(StrEnum):
    """What a check shows."""

    KEPT = "KEPT"  # both pass it
    LOST = "LOST"  # the base passes it, the tuned model doesn't, and chance flips don't explain that
    UNDECIDED = "UNDECIDED"  # the base passes it, the tuned model doesn't, and chance flips could explain that
    GAINED = "GAINED"  # the tuned model alone passes it
    NEVER_HAD = "NEVER_HAD"  # neither passes it: nothing to lose
    PASSED = "PASSED"  # judged without a base
    FAILED = "FAILED"  # judged without a base


@dataclass(frozen=True, slots=True)
class CheckSample:
    """One question of a check with both answers; those of the base are None where there is none."""

    sample_id: str
    prompt: str
    base_answer: str | None
    tuned_answer: str
    base_passed: bool | None
    tuned_passed: bool


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One deployment check; a lost critical one fails the verdict.

    Attributes:
        name: Name of the check.
        severity: critical, high or medium.
        base_passed: Whether the base passes it; None = no base was asked.
        tuned_passed: Whether the model that is checked passes it.
        evidence: The first few answers behind a loss, as text.
        status: What it shows; None = to be read off the two above.
        num_samples: Questions of the check.
        base_num_passed: How many of them the base passed; None = no base was asked.
        tuned_num_passed: How many of them the model passed that is checked.
        samples: The questions behind a loss (without a base, behind a failure) with both answers.
    """

    name: str
    severity: str
    base_passed: bool | None
    tuned_passed: bool
    evidence: str = ""
    status: CheckStatus | None = None
    num_samples: int = 0
    base_num_passed: int | None = None
    tuned_num_passed: int = 0
    samples: list[CheckSample] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the model that is checked passes it."""
        return self.tuned_passed

    @property
    def is_lost(self) -> bool:
        """Whether the base passes it and the tuned model has lost it, beyond what chance flips explain."""
        if self.status is not None:
            return self.status is CheckStatus.LOST
        return bool(self.base_passed) and not self.tuned_passed

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> CheckResult:
        """Builds a result from its parsed JSON object.

        Args:
            raw: The object.

        Returns:
            The result.

        Raises:
            TypeError: A field is missing or unknown.
            ValueError: The status is unknown.
        """
        values = dict(raw)
        if values.get("status") is not None:
            values["status"] = CheckStatus(values["status"])
        values["samples"] = [CheckSample(**sample) for sample in values.get("samples", [])]
        return cls(**values)

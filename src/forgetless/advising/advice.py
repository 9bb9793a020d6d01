"""Advice on a recipe: read it, look at what it names, ask every rule, and write the safer config beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.advising.dialects import forgetless, read_recipe
from forgetless.advising.edits import write_safe
from forgetless.advising.evidence import Case, gather
from forgetless.advising.files import read_document
from forgetless.advising.findings import Edit, Finding, Risk, Severity
from forgetless.advising.recipe import Recipe, Setting
from forgetless.advising.rules import RULES
from forgetless.config import Config
from forgetless.errors import ConfigError
from forgetless.records import SCHEMA

if TYPE_CHECKING:
    from forgetless.advising.legs import Pilot


@dataclass(frozen=True)
class Advice:
    """What was found in a recipe.

    Attributes:
        recipe: The recipe, as it was understood.
        findings: The risks, worst first.
        unchecked: What could not be judged and why, one sentence each.
        path: The file; None = it came as a mapping.
        pilot: What a few real steps showed, where they were asked for.
    """

    recipe: Recipe
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...]
    path: Path | None = None
    pilot: Pilot | None = field(default=None)

    @property
    def worst(self) -> Severity | None:
        """The highest severity; None where nothing was found."""
        return self.findings[0].severity if self.findings else None

    def reaches(self, level: Severity) -> bool:
        """Whether something was found at a severity or above it."""
        return any(finding.severity.rank <= level.rank for finding in self.findings)

    @property
    def edits(self) -> list[Edit]:
        """All edits, worst finding first; of the same key, the first one counts."""
        return [edit for finding in self.findings for edit in finding.risk.edits]

    def to_dict(self) -> dict[str, Any]:
        """Returns the advice for scripts."""
        return {
            "schema": SCHEMA,
            "file": None if self.path is None else str(self.path),
            "format": self.recipe.dialect,
            "worst": None if self.worst is None else self.worst.value,
            "findings": [finding.to_dict() for finding in self.findings],
            "unchecked": list(self.unchecked),
            "recipe": describe(self.recipe),
            "pilot": None if self.pilot is None else self.pilot.to_dict(),
        }


def advise(
    config: Config | Mapping[str, Any] | str | Path, *, look: bool = True, pilot: bool = False, **options: Any
) -> Advice:
    """Names the risks of a fine-tuning recipe before any training.

    Nothing is fetched and nothing of the user's is changed; data and tokenizer are looked at where they are on this
    machine.

    Args:
        config: The file of a forgetless, axolotl or LLaMA-Factory config or of TRL / transformers training arguments,
            or a mapping like one.
        look: Whether to look at data and tokenizer.
        pilot: Whether to take a few dozen real steps at three learning rates; forgetless configs only.
        **options: Of the pilot: `steps`, `rates`, `reporter`.

    Returns:
        The findings, worst first.

    Raises:
        ConfigError: The file is of no known format, or a value in it can't be used.
    """
    path: Path | None = None
    raw: Mapping[str, Any]
    if isinstance(config, Config):
        raw = config.model_dump(mode="json", exclude_defaults=True)
    elif isinstance(config, Mapping):
        raw = config
    else:
        path = Path(config).expanduser()
        raw = read_document(path)
    read = forgetless.read if isinstance(config, Config) else read_recipe
    recipe = read(raw, "config" if path is None else str(path), path)
    advice = judge(recipe, look=look, path=path)
    if not pilot:
        if options:
            raise ConfigError(f"{', '.join(sorted(options))}: only the pilot takes options (pilot=True)")
        return advice
    if recipe.dialect != "forgetless":
        raise ConfigError(
            f"the pilot trains by forgetless's own methods and can't run a recipe of {recipe.dialect}: write a "
            "forgetless config with its model, data and learning rate"
        )
    from forgetless.advising.pilot import fly

    return dataclasses.replace(advice, pilot=fly(dict(raw), **options))


def judge(recipe: Recipe, *, look: bool = True, path: Path | None = None) -> Advice:
    """Asks every rule about a recipe.

    Args:
        recipe: The recipe.
        look: Whether to look at data and tokenizer.
        path: The file that it came from.

    Returns:
        The findings, worst first.
    """
    case = Case(recipe, gather(recipe, look=look))
    findings: list[Finding] = []
    unchecked = list(case.evidence.notes)
    for rule in RULES:
        if recipe.stage not in rule.stages:
            continue
        for result in rule.check(case):
            if isinstance(result, Risk):
                findings.append(Finding(rule.name, rule.title, result, rule.source))
            else:
                unchecked.append(result.reason)
    left_out = [rule.name for rule in RULES if recipe.stage not in rule.stages]
    if left_out:
        unchecked.append(f"this is {recipe.stage} training: no rule for it on {', '.join(left_out)}")
    findings.sort(key=lambda finding: finding.severity.rank)
    return Advice(recipe, tuple(findings), tuple(unchecked), path)


def fix(advice: Advice, *, severities: Sequence[Severity] = tuple(Severity)) -> list[tuple[Path, str]]:
    """Writes the safer config beside the file, and that of an adapter where one is changed.

    Args:
        advice: What was found in a file.
        severities: Findings of which to mend.

    Returns:
        The files that were written, each with how it differs from the old one.

    Raises:
        ConfigError: There is no file, or something that advise didn't write stands where one would go.
    """
    if advice.path is None:
        raise ConfigError("a mapping has no file beside which a safer config could go: name the file")
    by_file: dict[Path, list[Edit]] = {}
    for finding in advice.findings:
        if finding.severity in severities:
            for edit in finding.risk.edits:
                by_file.setdefault(edit.file or advice.path, []).append(edit)
    return [write_safe(path, edits) for path, edits in by_file.items()]


def describe(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe for scripts: each field's value, the key under which it stands, and whether it is set."""
    known: dict[str, Any] = {}
    for entry in dataclasses.fields(recipe):
        value = getattr(recipe, entry.name)
        if isinstance(value, Setting):
            shown = list(value.value) if isinstance(value.value, tuple) else value.value
            known[entry.name] = {"value": shown, "key": value.key, "is_set": value.is_set}
        elif entry.name == "sources":
            known["data"] = [{"name": source.name, "is_here": source.path is not None} for source in value]
    known["stage"] = recipe.stage.value
    return known

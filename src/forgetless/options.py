"""The keys of the config as flags: what there are, and how they are laid over a file."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from forgetless.config import Config, PhaseConfig, Section
from forgetless.errors import ConfigError


@dataclass(frozen=True)
class Option:
    """One key of the config, as a flag.

    Attributes:
        key: Dotted path ("training.learning_rate").
        annotation: Its type; optional types stand without None.
        default: Its default in words, or the value.
        description: One line.
    """

    key: str
    annotation: Any
    default: Any
    description: str

    @property
    def flag(self) -> str:
        """The flag: the last part of the key, with its section where two sections share a name."""
        return "--" + FLAG_NAMES.get(self.key, self.key.rpartition(".")[2]).replace("_", "-")


# Keys whose last part is taken by another section, or that users know by another name.
FLAG_NAMES = {
    "evaluation.batch_size": "eval_batch_size",
    "methods": "method",
    "monitor.policy": "monitor",
    "monitor.budget": "monitor_budget",
    "monitor.measure": "monitor_measure",
    "monitor.every": "monitor_every",
    "monitor.num_examples": "monitor_examples",
    "monitor.data": "monitor_data",
    "monitor.max_share": "monitor_share",
}


def options(section: type[Section] = Config, prefix: str = "") -> Iterator[Option]:
    """Yields every key of the config with its type, default and description."""
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from options(annotation, f"{prefix}{name}.")
            continue
        if annotation == list[PhaseConfig]:
            continue  # a list of sections has no flags: `phase_options` has its keys
        if typing.get_origin(annotation) is types.UnionType:
            annotation = next(part for part in typing.get_args(annotation) if part is not types.NoneType)
        default = field.get_default(call_default_factory=True)
        yield Option(f"{prefix}{name}", annotation, default, field.description or "")


def phase_options() -> Iterator[Option]:
    """Yields every key of a phase, but those of its training section, which are the run's."""
    for option in options(PhaseConfig):
        if not option.key.startswith("training."):
            yield option


def merge(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config mapping with dotted keys set over it ("training.epochs": 2)."""
    merged: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
    for key, value in overrides.items():
        section, _, name = key.rpartition(".")
        if not section:
            merged[name] = value
            continue
        if merged.get(section) is None:
            merged[section] = {}
        if not isinstance(merged[section], dict):
            raise ConfigError(f"{section} = {merged[section]!r} is not a section with keys")
        merged[section][name] = value
    return merged


def parse_method_flag(text: str) -> str | dict[str, Any]:
    """Reads a `--method` flag.

    Args:
        text: `lora`, `lora:rank=8,dropout=0.1`, or YAML such as `lora: {rank: 8}`.

    Returns:
        A name, or a name with its options, as it would stand under `methods` in a config.

    Raises:
        ConfigError: It is none of these.
    """
    name, colon, rest = text.partition(":")
    if not colon:
        return text.strip()
    try:
        if "=" in rest:
            pairs = [pair.partition("=") for pair in rest.split(",")]
            loaded = {name.strip(): {key.strip(): yaml.safe_load(value) for key, _, value in pairs}}
        else:
            loaded = yaml.safe_load(text)
    except yaml.YAMLError:
        loaded = None
    if not isinstance(loaded, dict) or not name.strip():
        raise ConfigError(f"--method {text!r} is not of the form lora, lora:rank=8 or 'lora: {{rank: 8}}'")
    return loaded

"""Writes docs/reference/config.md and docs/methods/index.md from the code's descriptions; tests keep them in step.

python scripts/write_reference.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args, get_origin

from forgetless.config import Option, options, phase_options
from forgetless.methods import METHODS
from forgetless.methods.base import FAMILIES, Method

DOCS = Path(__file__).parents[1] / "docs"
TARGET = DOCS / "reference" / "config.md"
METHODS_TARGET = DOCS / "methods" / "index.md"
METHODS_HEAD = """\
# The methods

What each changes so that less is forgotten, what it needs and what it costs; `forgetless methods` prints the same with
all options. They compose: `methods:` in a config is a list, in the order in which their hooks fold. Name an adapter
first. No method at all (`methods: []`) is plain full fine-tuning. Each card says how to use a method, where it breaks,
where it departs from its paper, and what was measured. This page is made from the code
(`python scripts/write_reference.py`).
"""
HEAD = """\
# Every key of the config

One YAML, every key also a flag of `forgetless run` and `forgetless train`; unknown keys are refused with the nearest
known one. Paths are relative to the directory in which the command runs. This page is made from the code
(`python scripts/write_reference.py`).

| key | flag | type | default | meaning |
|---|---|---|---|---|
"""
PHASES_HEAD = """
## Keys of a phase

`phases:` is a list of phases that follow one another ([many phases](../phases.md)); it has no flag. What a phase leaves
out is as the rest of the config has it; `training` takes the keys of the training section.

| key | type | meaning |
|---|---|---|
"""


def config_reference() -> str:
    """Returns the page."""
    phases = [f"| `{o.key}` | {_type_name(o)} | {o.description} |\n" for o in phase_options()]
    return HEAD + "".join(_line(option) for option in options()) + PHASES_HEAD + "".join(phases)


def _line(option: Option) -> str:
    flag = "--data" if option.key == "data.train" else option.flag
    default = "" if option.default is None else f"`{option.default}`"
    return f"| `{option.key}` | `{flag}` | {_type_name(option)} | {default} | {option.description} |\n"


def _type_name(option: Option) -> str:
    if option.key == "methods":
        return "list of methods"
    if get_origin(option.annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(option.annotation))
    if get_origin(option.annotation) is list:
        return "list of names"
    return {"Path": "path", "str": "text", "int": "integer", "float": "number", "bool": "true or false"}[
        option.annotation.__name__
    ]


def methods_index() -> str:
    """Returns the page of all methods, a table for each family."""
    found = [METHODS.load(name) for name in METHODS]
    tables = [_family_table(name, [method for method in found if method.family == name]) for name in FAMILIES]
    return METHODS_HEAD + "".join(tables)


def _family_table(name: str, members: list[type[Method]]) -> str:
    if not members:
        return ""
    head = f"\n## {name.capitalize()}: {FAMILIES[name]}\n\n| method | needs | cost | limits |\n|---|---|---|---|\n"
    return head + "".join(_method_line(method) for method in members)


def _method_line(method: type[Method]) -> str:
    limits = [f"needs {claim}" for claim in sorted(method.requires)]
    limits += [f"not with {claim}" for claim in sorted(method.refuses)]
    limits += [f"holds {claim}" for claim in sorted(method.claims)]
    link = f"[`{method.name}`]({method.name}.md) [{method.title}]({method.paper})"
    return f"| {link} | {method.needs or 'domain data only'} | {method.cost} | {'; '.join(limits)} |\n"


if __name__ == "__main__":
    METHODS_TARGET.write_text(methods_index(), encoding="utf-8")
    TARGET.write_text(config_reference(), encoding="utf-8")

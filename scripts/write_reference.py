"""Writes docs/reference/config.md and docs/methods/index.md from the code's descriptions; tests keep them in step.

python scripts/write_reference.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args, get_origin

from forgetless.automatic import Situation, choose_methods
from forgetless.methods import METHODS
from forgetless.methods.base import FAMILIES, Method
from forgetless.options import Option, options, phase_options

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

## Chosen for you

Without `methods` in the config the run chooses (`methods: auto`), from what you have and from what the benchmark tables
show, and says in the log, the manifest and the report what it chose and why:

"""
SITUATIONS = {
    "the domain's examples alone": Situation(),
    "general examples too": Situation(num_general=1000),
    "a model that takes most of the device's memory, and bitsandbytes": Situation(
        weight_bytes=15 * 2**30, memory_bytes=16 * 2**30, has_bitsandbytes=True
    ),
    "general examples, and earlier phases": Situation(num_general=1000, num_earlier=500),
}
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
    return METHODS_HEAD + "".join(_chosen(has, situation) for has, situation in SITUATIONS.items()) + "".join(tables)


def _chosen(has: str, situation: Situation) -> str:
    """Returns what a user who has that much gets, and why."""
    choice = choose_methods(situation)
    reasons = "".join(f"  - {reason}\n" for reason in choice.reasons)
    return f"- {has}: `methods: {json.dumps(choice.methods)}`\n{reasons}"


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

"""Writes docs/reference/config.md from the config's own descriptions; a test keeps the two in step.

python scripts/write_reference.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args, get_origin

from forgetless.config import Option, options

TARGET = Path(__file__).parents[1] / "docs" / "reference" / "config.md"
HEAD = """\
# Every key of the config

One YAML, every key also a flag of `forgetless run` and `forgetless train`; unknown keys are refused with the nearest
known one. Paths are relative to the directory in which the command runs. This page is made from the code
(`python scripts/write_reference.py`).

| key | flag | type | default | meaning |
|---|---|---|---|---|
"""


def config_reference() -> str:
    """Returns the page."""
    return HEAD + "".join(_line(option) for option in options())


def _line(option: Option) -> str:
    flag = "--data" if option.key == "data.train" else option.flag
    default = "" if option.default is None else f"`{option.default}`"
    return f"| `{option.key}` | `{flag}` | {_type_name(option)} | {default} | {option.description} |\n"


def _type_name(option: Option) -> str:
    if option.key == "methods":
        return "list of methods"
    if get_origin(option.annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(option.annotation))
    return {"Path": "path", "str": "text", "int": "integer", "float": "number", "bool": "true or false"}[
        option.annotation.__name__
    ]


if __name__ == "__main__":
    TARGET.write_text(config_reference(), encoding="utf-8")

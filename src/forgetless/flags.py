"""The flags that commands share, and those that are made of the config: every key is one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from forgetless.config import parse_config, read_yaml
from forgetless.errors import ConfigError
from forgetless.options import Option, merge, options, parse_method_flag

if TYPE_CHECKING:
    from forgetless.config import Config

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of tables.")]
TasksDir = Annotated[list[Path] | None, typer.Option("--tasks-dir", help="Directory with tasks of your own.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
ENDPOINT = "Endpoint (MODEL is http://... or https://...; a key: FORGETLESS_API_KEY)"
ServedModelName = Annotated[
    str | None,
    typer.Option("--served-model", help="Name; default: the only one served.", rich_help_panel=ENDPOINT),
]
Concurrency = Annotated[
    int | None, typer.Option(help="Prompts under way at a time. Default: 4.", rich_help_panel=ENDPOINT)
]
Timeout = Annotated[float | None, typer.Option(help="Seconds for one try. Default: 60.", rich_help_panel=ENDPOINT)]
Retries = Annotated[int | None, typer.Option(help="Tries after the first. Default: 5.", rich_help_panel=ENDPOINT)]
TrustEndpointCache = Annotated[
    bool,
    typer.Option("--trust-endpoint-cache", help="Use scores of earlier evaluations.", rich_help_panel=ENDPOINT),
]
ConfigFile = Annotated[Path | None, typer.Argument(help="YAML config; without one, flags alone.", show_default=False)]
OutDirectory = Annotated[
    Path | None, typer.Option("--out", "-o", help="Run directory; default: runs/NAME.", show_default=False)
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Replace an earlier run in the run directory.")]


def _config_signature(first: list[inspect.Parameter]) -> inspect.Signature:
    """Returns a signature with one option per config key behind the given parameters."""
    added = [
        inspect.Parameter(
            option.key.replace(".", "__"),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[_flag_type(option) | None, _flag(option)],
        )
        for option in options()
    ]
    return inspect.Signature([*first, *added])


def _flag_type(option: Option) -> Any:
    if option.key == "methods":
        return list[str]
    if get_origin(option.annotation) is Literal:
        return str
    return option.annotation


def _flag(option: Option) -> Any:
    """Returns the typer option of a config key; its help is the key's description."""
    names = [option.flag]
    if option.key == "data.train":
        names = ["--data", "--train"]
    if option.annotation is bool:
        names = [f"{option.flag}/--no-{option.flag[2:]}"]
    text = option.description
    if get_origin(option.annotation) is Literal:
        text += f" One of: {', '.join(get_args(option.annotation))}."
    if option.key == "methods":
        text = (
            "Method, repeatable: lora, lora:rank=8, replay:share=0.1; none = plain full fine-tuning; auto = "
            "chosen from what you have. Default: auto."
        )
    elif option.default is not None and "default" not in text.lower():
        text += f" Default: {option.default}."
    section = option.key.partition(".")[0] if "." in option.key else "general"
    return typer.Option(*names, help=text, show_default=False, rich_help_panel=f"Config: {section}")


def with_config_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command one flag per config key; the function gets those that were set as `overrides`."""
    first = [p for name, p in inspect.signature(function, eval_str=True).parameters.items() if name != "overrides"]
    signature = _config_signature(first)
    own = {parameter.name for parameter in first}

    def command(**arguments: Any) -> None:
        overrides = {k.replace("__", "."): v for k, v in arguments.items() if k not in own and v is not None}
        function(**{name: arguments[name] for name in own}, overrides=overrides)

    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    command.__doc__ = function.__doc__
    return command


def read_job(config: Path | None, overrides: dict[str, Any]) -> Config:
    """Returns the config of a file with flags set over it; without a file, the flags alone."""
    if "methods" in overrides:
        named = overrides["methods"]
        if {"none", "auto"} & set(named) and len(named) > 1:
            raise ConfigError("--method none is plain full fine-tuning, auto chooses all: name no method beside either")
        overrides = overrides | {"methods": [parse_method_flag(name) for name in named if name != "none"]}
    raw = {} if config is None else read_yaml(config)
    return parse_config(merge(raw, overrides), source=str(config) if config is not None else "flags")

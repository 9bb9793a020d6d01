"""Reads a recipe's file, tells by its content whose it is, and hands out its keys with where they stand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from forgetless.advising.recipe import Place, Setting
from forgetless.config import read_yaml
from forgetless.errors import ConfigError

T = TypeVar("T")

LARGEST_BYTES = 2_000_000
"""A recipe is small; what is larger is data or weights, and isn't read."""


def read_document(path: Path) -> dict[str, Any]:
    """Reads a recipe's file.

    Args:
        path: YAML or JSON, whatever its name ends in.

    Returns:
        The mapping in it; its values are not validated.

    Raises:
        ConfigError: It isn't a readable mapping.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a directory: name the config file in it")
    if not path.exists():
        raise ConfigError(f"there is no config {path}")
    if path.stat().st_size > LARGEST_BYTES:
        raise ConfigError(f"{path} has {path.stat().st_size:,} bytes: that is no config (at most {LARGEST_BYTES:,})")
    head = path.read_bytes()[:4]
    if head.startswith((b"PK", b"\x80")):
        raise ConfigError(
            f"{path} is a pickle (a saved training_args.bin), which could run code: write the arguments as JSON with "
            "args.to_json_string() and advise on that"
        )
    if not path.read_bytes().strip():
        raise ConfigError(f"config {path} is empty")
    document = _read_json(path)
    if document is None:
        document = read_yaml(path)
    if not document:
        raise ConfigError(f"config {path} is empty")
    return document


def is_json(path: Path) -> bool:
    """Whether a file is JSON, by its first character; YAML that starts with a brace is left to the YAML reader."""
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8-sig")), dict)
    except (OSError, ValueError):
        return False


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read ({error})") from None
    try:
        document = json.loads(text)
    except ValueError as error:
        if path.suffix.lower() == ".json":
            raise ConfigError(f"config {path} is not JSON: {error}") from None
        return None
    except RecursionError:
        raise ConfigError(f"config {path} is nested too deeply to be a config") from None
    if not isinstance(document, dict):
        return None if path.suffix.lower() != ".json" else _refuse_list(path)
    return document


def _refuse_list(path: Path) -> dict[str, Any]:
    raise ConfigError(f"config {path} is not a mapping of keys to values")


@dataclass(frozen=True)
class Keys:
    """The keys of a recipe's file, looked up under any of several names and in any of several sections.

    Attributes:
        raw: The document.
        source: What to call it in messages.
        sections: Paths of the mappings in which a key may stand, nearest first; () is the top.
        file: The file; None = the one that was asked about.
    """

    raw: Mapping[str, Any]
    source: str
    sections: tuple[Place, ...] = ((),)
    file: Path | None = None

    def find(self, *names: str) -> tuple[Place, Any] | None:
        """Returns place and value of the first of the names that stands in the file with a value that isn't null."""
        for name in names:
            for section in self.sections:
                value = look_up(self.raw, (*section, *name.split(".")))
                if value is not None:
                    return (*section, *name.split(".")), value
        return None

    def number(self, *names: str, default: float | None = None) -> Setting[float] | None:
        """Returns a number: the one of the file, or the tool's default under the first of the names."""
        return self._setting(names, _as_number, default)

    def integer(self, *names: str, default: int | None = None) -> Setting[int] | None:
        """Returns a whole number, as `number` does."""
        return self._setting(names, _as_integer, default)

    def flag(self, *names: str, default: bool | None = None) -> Setting[bool] | None:
        """Returns a truth value, as `number` does."""
        return self._setting(names, _as_flag, default)

    def text(self, *names: str, default: str | None = None) -> Setting[str] | None:
        """Returns a text, as `number` does."""
        return self._setting(names, _as_text, default)

    def names(self, *names: str, default: tuple[str, ...] | None = None) -> Setting[tuple[str, ...]] | None:
        """Returns a list of texts, which files also write with commas, as `number` does."""
        return self._setting(names, _as_names, default)

    def _setting(self, names: tuple[str, ...], read: Callable[[Any], T], default: T | None) -> Setting[T] | None:
        found = self.find(*names)
        if found is None:
            return None if default is None else Setting(default, self.home(names[0]), is_set=False, file=self.file)
        place, raw = found
        try:
            return Setting(read(raw), place, raw=raw, file=self.file)
        except (TypeError, ValueError, OverflowError):
            shown = Setting(raw, place).key
            raise ConfigError(f"{self.source}: {shown} = {raw!r} is not {READS[read]}") from None

    def home(self, name: str) -> Place:
        """Returns where a key that isn't in the file would stand."""
        return (*self.sections[0], *name.split("."))


def look_up(raw: Any, place: Place) -> Any:
    """Returns the value at a path of keys, None where there is none."""
    for part in place:
        if not isinstance(raw, Mapping):
            return None
        raw = raw.get(part)
    return raw


def _as_number(raw: Any) -> float:
    # YAML 1.1 reads 2e-5 as a text; the tools turn it into a number, and so do we.
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise TypeError
    number = float(raw)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError
    return number


def _as_integer(raw: Any) -> int:
    number = _as_number(raw)
    if number != int(number):
        raise ValueError
    return int(number)


def _as_flag(raw: Any) -> bool:
    if isinstance(raw, str):
        known = {"true": True, "yes": True, "on": True, "auto": True, "false": False, "no": False, "off": False}
        if raw.lower() not in known:
            raise ValueError
        return known[raw.lower()]
    if not isinstance(raw, bool | int):
        raise TypeError
    return bool(raw)


def _as_text(raw: Any) -> str:
    if isinstance(raw, Mapping | list):
        raise TypeError
    return str(raw)


def _as_names(raw: Any) -> tuple[str, ...]:
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, list | tuple):
        raise TypeError
    return tuple(str(part).strip() for part in parts if str(part).strip())


READS: Mapping[Callable[[Any], Any], str] = {
    _as_number: "a number",
    _as_integer: "a whole number",
    _as_flag: "true or false",
    _as_text: "a text",
    _as_names: "a list of names",
}

"""Named things that are looked up lazily: one line a thing, imported when it is used.

A registry maps a name to `"module:attribute"`. Listing names costs nothing; `load` imports the one module that is
asked for. A name that stands twice is an error when it is registered, not when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from forgetless.errors import ConfigError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of lazily imported things of one kind.

    Args:
        kind: What an entry is called in messages ("method").
        entries: Name to `"module:attribute"`.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def add(self, name: str, target: str) -> None:
        """Registers a thing without importing it.

        Args:
            name: What users call it.
            target: Where it is: "module:attribute".

        Raises:
            ConfigError: The name is taken by something else.
        """
        if self._entries.get(name, target) != target:
            raise ConfigError(f"{self.kind} {name!r} is already registered as {self._entries[name]}")
        self._entries[name] = target

    def load(self, name: str) -> T:
        """Imports an entry.

        Args:
            name: What users call it.

        Returns:
            The attribute that the entry points to.

        Raises:
            ConfigError: There is no such entry; the message names the nearest one.
        """
        if name not in self._entries:
            raise ConfigError(f"there is no {self.kind} {name!r}{did_you_mean(name, self._entries)}")
        module, _, attribute = self._entries[name].partition(":")
        return cast(T, getattr(importlib.import_module(module), attribute))

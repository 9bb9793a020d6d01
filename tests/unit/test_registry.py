"""Names that are looked up lazily."""

from __future__ import annotations

import sys

import pytest

from forgetless.errors import ConfigError
from forgetless.registry import Registry


@pytest.fixture
def shapes() -> Registry[type]:
    return Registry("shape", {"fraction": "fractions:Fraction", "missing": "no_such_module_at_all:Thing"})


def test_listing_imports_nothing(shapes: Registry[type]) -> None:
    assert list(shapes) == ["fraction", "missing"]
    assert "missing" in shapes
    assert "square" not in shapes


def test_an_entry_is_imported_when_it_is_asked_for(shapes: Registry[type], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "fractions", raising=False)
    assert shapes.load("fraction").__name__ == "Fraction"
    with pytest.raises(ModuleNotFoundError):
        shapes.load("missing")


def test_an_unknown_name_gets_the_nearest(shapes: Registry[type]) -> None:
    with pytest.raises(ConfigError, match="there is no shape 'fracton'; did you mean 'fraction'"):
        shapes.load("fracton")
    with pytest.raises(ConfigError, match="known: fraction, missing"):
        shapes.load("zzz")


def test_a_taken_name_is_refused_unless_it_is_the_same(shapes: Registry[type]) -> None:
    shapes.add("path", "pathlib:Path")
    shapes.add("path", "pathlib:Path")
    assert shapes.load("path").__name__ == "Path"
    with pytest.raises(ConfigError, match="shape 'path' is already registered as pathlib:Path"):
        shapes.add("path", "os:path")
    assert shapes.load("path").__name__ == "Path"


def test_a_registry_keeps_its_own_table() -> None:
    entries = {"path": "pathlib:Path"}
    registry: Registry[type] = Registry("shape", entries)
    registry.add("fraction", "fractions:Fraction")
    assert list(entries) == ["path"]

"""The names at the top of the package, and what importing them costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import forgetless

HEAVY = ["torch", "transformers", "scipy", "pandas", "datasets", "peft", "trl", "plotly", "statsmodels"]


def imported_by(code: str) -> list[str]:
    """Returns the heavy packages that a fresh Python has imported after some code."""
    ending = f"\nimport sys; print('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, check=True)
    return done.stdout.rpartition("loaded:")[2].split()


def test_all_names_can_be_imported_and_no_other_is_public() -> None:
    assert len(set(forgetless.__all__)) == len(forgetless.__all__)
    assert dir(forgetless) == sorted(forgetless.__all__)
    for name in forgetless.__all__:
        value = getattr(forgetless, name)
        assert getattr(value, "__name__", name) == name
    with pytest.raises(AttributeError, match="has no attribute 'frobnicate'"):
        _ = forgetless.frobnicate


def test_every_public_name_has_one_home_that_type_checkers_agree_with() -> None:
    homes = [(module, name) for module, names in forgetless._HOMES.items() for name in names]
    assert sorted(name for _, name in homes) == sorted(forgetless.__all__)
    tree = ast.parse(Path(forgetless.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = [(node.module, name.name) for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names]
    assert typed == homes


@pytest.mark.parametrize("name", ["compare", "evaluate", "train"])
def test_a_function_that_is_named_like_its_package_stays_a_function(name: str) -> None:
    code = f"""
import forgetless, types
import forgetless.compare.comparison, forgetless.evaluate.cache, forgetless.evaluate.target
assert isinstance(forgetless.{name}, types.FunctionType), forgetless.{name}
from forgetless import {name}
assert isinstance({name}, types.FunctionType), {name}
"""
    assert "torch" not in imported_by(code)


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert imported_by("import forgetless") == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["--version"], ["methods"], ["tasks", "--json"]], ids=" ".join
)
def test_commands_that_need_no_model_import_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["forgetless", *{arguments!r}]
from forgetless.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    assert imported_by(code) == []


def test_a_judgement_needs_no_deep_learning() -> None:
    code = """
import forgetless
scores = [forgetless.SampleScore("t", str(i), i % 2) for i in range(20)]
forgetless.compare(scores, scores)
"""
    assert not {"torch", "transformers", "datasets", "peft", "trl"} & set(imported_by(code))


def test_names_are_documented() -> None:
    for name in forgetless.__all__:
        value: Callable[..., object] = getattr(forgetless, name)
        assert value.__doc__, name

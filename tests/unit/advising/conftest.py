"""The recipes with planted faults and the clean ones, in a directory of their own, without any model at hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from forgetless.advising import evidence

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recipes, which is the working directory; what is cached on the machine isn't seen."""
    directory = tmp_path / "recipes"
    shutil.copytree(RECIPES, directory)
    monkeypatch.chdir(directory)
    monkeypatch.setattr(evidence, "_hub_tokenizer", lambda name: None)
    monkeypatch.setenv("FORGETLESS_CACHE", str(tmp_path / "cache"))
    return directory

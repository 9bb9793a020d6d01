"""A loaded tiny model, and tasks that are made in a line."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forgetless.evaluate.endpoint import KEY_VARIABLES
from forgetless.models import LoadedModel, load_model
from forgetless.tasks.base import Task, TaskSpec
from serving import FakeServer, serve

TaskMaker = Callable[..., Task]


@pytest.fixture(scope="session")
def shared_model(tiny_directory: Path) -> LoadedModel:
    return load_model(str(tiny_directory), device="cpu")


@pytest.fixture
def loaded(shared_model: LoadedModel) -> LoadedModel:
    """The tiny model, for one test to change as it likes."""
    return copy.deepcopy(shared_model)


@pytest.fixture
def task() -> TaskMaker:
    """Makes a task: `task("choice", {"question": "Pick", "choices": ["a", "b"], "answer": 0}, template="plain")`."""

    def make(kind: Any, *samples: dict[str, Any], name: str = "made", **settings: Any) -> Task:
        spec = TaskSpec(task=name, version=1, kind=kind, data="made", **settings)
        return Task(spec, tuple({"id": f"{name}-{number}"} | sample for number, sample in enumerate(samples)))

    return make


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A server that answers or fails as told; between tries there are only short pauses, and no key is set."""
    from forgetless.evaluate import connection

    monkeypatch.setattr(connection, "FIRST_PAUSE_SECONDS", 0.01)
    for variable in KEY_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    with serve() as running:
        yield running

"""Tasks that are made in a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from forgetless.tasks.base import Task, TaskSpec


@pytest.fixture
def task() -> Callable[..., Task]:
    """Makes a task: `task("generate", {"question": "Why?"}, scorer="contains")`."""

    def make(kind: Any, *samples: dict[str, Any], **settings: Any) -> Task:
        spec = TaskSpec.model_validate({"task": "made", "version": 1, "kind": kind, "data": "made", **settings})
        return Task(spec, tuple({"id": f"made-{number}"} | sample for number, sample in enumerate(samples)))

    return make

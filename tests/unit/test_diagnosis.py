"""From a fall to its cause: what is asked, what isn't, and what stands in when it can't be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forgetless.compare.comparison import compare
from forgetless.diagnosis import explain_by_asking, explain_files
from forgetless.errors import ConfigError, ModelError
from forgetless.records import Cause, Comparison, SampleScore

KEPT = [SampleScore("letters", f"letters-{n}", 1.0, "a") for n in range(10)]
FELL = [SampleScore("letters", f"letters-{n}", 0.0, "b") for n in range(10)]


def refuse(name: str) -> Any:
    raise AssertionError(f"{name} was loaded")


def fallen() -> Comparison:
    return compare(KEPT, FELL)


def test_nothing_is_loaded_where_nothing_fell() -> None:
    comparison = compare(KEPT, KEPT)
    same = explain_by_asking(comparison, KEPT, KEPT, models=("base", "tuned"), tasks=[], load=refuse)
    assert same == comparison


def test_a_task_that_is_not_known_is_judged_by_its_answers() -> None:
    explained = explain_by_asking(fallen(), KEPT, FELL, models=("base", "tuned"), tasks=[], load=refuse)
    assert [entry.cause for entry in explained.attributions] == [Cause.UNEXPLAINED]


def test_files_are_asked_about_with_the_users_own_tasks(tiny_directory: Path, tasks_directory: Path) -> None:
    models = (str(tiny_directory), str(tiny_directory))
    sides = {"base": KEPT, "tuned": FELL}
    explained = explain_files(fallen(), sides, models=models, directories=[tasks_directory], device="cpu")
    (entry,) = explained.attributions
    assert entry.num_examined == 10
    assert Cause.RECOVERABLE in entry.shares


def test_wrong_names_are_refused(tiny_directory: Path, tmp_path: Path) -> None:
    sides = {"base": KEPT, "tuned": KEPT}
    with pytest.raises(ModelError, match="does not exist"):
        explain_files(compare(KEPT, KEPT), sides, models=(str(tiny_directory), "/no/model"))
    with pytest.raises(ConfigError, match="does not exist"):
        explain_files(fallen(), sides, models=(str(tiny_directory),) * 2, directories=[tmp_path / "none"])

"""Every example in docs/tasks.md does what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from forgetless.errors import ConfigError
from forgetless.tasks.base import TaskSpec, load_suite, load_task
from forgetless.tasks.scorers import base as registry
from forgetless.tasks.scorers import get_scorer, list_scorers, score_answer

PAGE = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_all_blocks_are_tried() -> None:
    assert sorted(re.findall(r"^```(\w+)$", PAGE, flags=re.MULTILINE)) == [
        "csv",
        "json",
        "json",
        "python",
        "yaml",
        "yaml",
    ]


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "capitals.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "capitals.jsonl").write_text(blocks("json")[0])
    task = load_suite("capitals", [tmp_path])[0]
    assert task.prompt(task.samples[0]) == "What is the capital of France? One word."
    assert score_answer("Paris.", task.samples[0], task.spec.scorer, task.spec.options) == 1


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    row = {
        "id": "Mercury_1",
        "question": "Which is hot?",
        "choices": {"text": ["ice", "fire"], "label": ["1", "2"]},
        "answerKey": "2",
    }
    asked: dict[str, Any] = {}

    def load_dataset(path: str, **options: Any) -> Any:
        asked.update(options, path=path)
        return datasets.Dataset.from_list([row])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (tmp_path / "arc_easy.yaml").write_text(blocks("yaml")[1])
    task = load_task(tmp_path / "arc_easy.yaml")
    assert (asked["path"], asked["name"], asked["split"]) == ("allenai/ai2_arc", "ARC-Easy", "test")
    assert len(asked["revision"]) == 40
    assert (task.samples[0]["choices"], task.samples[0]["answer"]) == (["ice", "fire"], 1)
    assert task.prompt(task.samples[0]) == "Question: Which is hot?\nAnswer:"


def test_choices_in_csv(tmp_path: Path) -> None:
    (tmp_path / "boil.csv").write_text(blocks("csv")[0], encoding="utf-8")
    (tmp_path / "boil.yaml").write_text(
        yaml.safe_dump({"task": "boil", "version": 1, "kind": "choice", "data": "boil.csv"})
    )
    samples = load_task(tmp_path / "boil.yaml").samples
    assert [(len(sample["choices"]), sample["answer"]) for sample in samples] == [(3, 1), (2, 0)]


def test_checks_that_must_all_pass() -> None:
    sample = json.loads(blocks("json")[1])
    assert score_answer("The sun shines.", sample, None, {}) == 1
    assert score_answer("The sun shines. It is warm.", sample, None, {}) == 0


def test_a_scorer_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SCORERS", dict(registry._SCORERS))
    exec(blocks("python")[0], {"__name__": "mine"})
    assert get_scorer("shouts")("Oh!", {}) == 1
    assert get_scorer("shouts")("Oh!", {"at_least": 2}) == 0
    with pytest.raises(ConfigError, match="option 'at_least'"):
        get_scorer("shouts")("Oh!", {"at_least": "two"})


def test_every_scorer_is_in_the_table() -> None:
    table = PAGE[PAGE.index("| scorer |") : PAGE.index("A sample with `checks`")]
    first_cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    named = set(re.findall(r"`(\w+)`", " ".join(first_cells)))
    assert set(list_scorers()) <= named


@pytest.mark.parametrize("prompt", re.findall(r"`(\{question[^`]+\})`", PAGE))
def test_what_the_page_says_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="a prompt names fields"):
        TaskSpec.model_validate({"task": "a", "version": 1, "kind": "generate", "data": "a", "prompt": prompt})

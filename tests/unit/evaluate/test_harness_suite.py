"""Tasks of lm-evaluation-harness in a suite of ours."""

from __future__ import annotations

import random
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from forgetless.compare.sources import read_any_scores
from forgetless.errors import ConfigError, RunError
from forgetless.evaluate.harness import ForgetlessLM
from forgetless.evaluate.harness_suite import HarnessSuite, LoadedSuite, split_suite
from forgetless.evaluate.runner import EvaluationOptions, evaluate, read_suite
from forgetless.models import LoadedModel
from harness import NUM_DOCUMENTS, run_harness, write_harness_tasks

NAMES = ("made_choice", "made_answer", "made_last_word")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_harness_tasks(tmp_path_factory.mktemp("harness"))


@pytest.fixture(scope="module")
def suite(directory: Path) -> LoadedSuite:
    return LoadedSuite(HarnessSuite(NAMES, num_fewshot=1, directories=(directory,)))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("core", ("core", ())),
        ("core,smoke", ("core,smoke", ())),
        ("lm_eval:arc_easy", ("", ("arc_easy",))),
        ("core, lm_eval:arc_easy, hellaswag", ("core", ("arc_easy", "hellaswag"))),
        ("core,arithmetic,lm_eval:a,lm_eval:b,a", ("core,arithmetic", ("a", "b"))),
    ],
)
def test_a_suite_is_split_where_the_harness_begins(text: str, parts: tuple[str, tuple[str, ...]]) -> None:
    assert split_suite(text) == parts


@pytest.mark.parametrize("text", ["lm_eval:", "core,lm_eval:a,,b", "core lm_eval:a", "core,lm_eval:,"])
def test_a_malformed_suite_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form core,lm_eval:arc_easy,hellaswag"):
        split_suite(text)


def test_samples_become_the_scores_that_its_files_give(
    suite: LoadedSuite, shared_model: LoadedModel, directory: Path, tmp_path: Path
) -> None:
    found = suite.ask(shared_model)
    run_harness(ForgetlessLM(shared_model), list(NAMES), directory, out=tmp_path, num_fewshot=1)
    written = read_any_scores(tmp_path)
    assert sorted(found.scores, key=lambda s: (s.task, s.sample_id)) == sorted(
        written, key=lambda s: (s.task, s.sample_id)
    )
    assert len(written) == len(NAMES) * NUM_DOCUMENTS
    assert found.notes == [
        "made_answer: the grades by filter 'strict-match' count; those of the same samples by 'flexible-extract' "
        "don't (`forgetless compare --filter` chooses)"
    ]


def test_each_model_gets_the_same_prompts(suite: LoadedSuite, shared_model: LoadedModel) -> None:
    first, second = suite.ask(shared_model), suite.ask(shared_model)
    assert first.scores == second.scores
    assert first.scores[1].details["prompt"].count("Question:") == 2  # the solved example and the document


def test_global_generators_are_left_as_they_were(suite: LoadedSuite, shared_model: LoadedModel) -> None:
    def states() -> tuple[Any, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()  # type: ignore[index]

    before = states()
    suite.ask(shared_model)
    assert states() == before


def test_both_parts_of_a_suite_in_one_call(
    shared_model: LoadedModel, directory: Path, tasks_directory: Path, tmp_path: Path
) -> None:
    steps: list[float] = []
    scores = evaluate(
        shared_model,
        "picks,lm_eval:made_choice",
        tasks_directories=[directory, tasks_directory],
        limit=4,
        options=EvaluationOptions(cache=tmp_path / "cache"),
        progress=lambda done, total: steps.append(done / total),
    )
    assert [score.task for score in scores] == ["picks"] * 4 + ["made_choice"] * 4
    assert {score.origin for score in scores[4:]} == {"lm_eval"}
    assert {path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir()} == {"picks", "lm_eval"}
    assert steps[-1] == 1.0


def test_the_harness_alone(shared_model: LoadedModel, directory: Path) -> None:
    scores = evaluate(shared_model, "lm_eval:made_last_word", tasks_directories=[directory])
    assert [score.sample_id for score in scores] == [str(n) for n in range(NUM_DOCUMENTS)]


def test_a_name_in_both_parts_is_refused(directory: Path) -> None:
    with pytest.raises(ConfigError, match="'made_choice' stands in both parts"):
        LoadedSuite(HarnessSuite(("made_choice",), directories=(directory,)), taken=["made_choice"])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("made_text", "", "measures perplexity"),
        ("made_choice", "unsafe_code: true\n", "runs code that the model writes"),
    ],
)
def test_tasks_that_cannot_be_judged_are_refused(tmp_path: Path, name: str, change: str, message: str) -> None:
    directory = write_harness_tasks(tmp_path)
    file = directory / f"{name}.yaml"
    file.write_text(file.read_text() + change)
    with pytest.raises(ConfigError, match=message):
        LoadedSuite(HarnessSuite((name,), directories=(directory,)))


def test_tasks_about_images_are_refused(suite: LoadedSuite, monkeypatch: pytest.MonkeyPatch) -> None:
    from forgetless.evaluate.harness_suite import _refuse_task

    task = next(iter(suite._tasks.values()))
    monkeypatch.setattr(task, "MULTIMODAL", True, raising=False)
    with pytest.raises(ConfigError, match="asks about images"):
        _refuse_task("pictures", task)


def test_data_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    directory = write_harness_tasks(tmp_path)
    (directory / "documents.jsonl").write_text("<html>")
    with pytest.raises(ConfigError, match="cannot load made_choice"):
        LoadedSuite(HarnessSuite(("made_choice",), directories=(directory,)))


def test_a_task_with_a_broken_template_is_named(tmp_path: Path) -> None:
    directory = write_harness_tasks(tmp_path)
    file = directory / "made_choice.yaml"
    file.write_text(file.read_text().replace("doc_to_target: answer", "doc_to_target: '{{answer / 0}}'"))
    with pytest.raises(ConfigError, match="cannot load made_choice"):
        LoadedSuite(HarnessSuite(("made_choice",), directories=(directory,)))


def test_a_harness_that_fails_ends_in_one_sentence(
    suite: LoadedSuite, shared_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm_eval.evaluator.evaluate", Mock(side_effect=AssertionError))
    with pytest.raises(RunError, match="failed on made_choice, made_answer, made_last_word: AssertionError"):
        suite.ask(shared_model)


def test_errors_of_ours_are_not_wrapped(tmp_path: Path, shared_model: LoadedModel) -> None:
    directory = write_harness_tasks(tmp_path)
    file = directory / "made_answer.yaml"
    file.write_text(file.read_text().replace("do_sample: false", "do_sample: true, temperature: 0.7"))
    with pytest.raises(ConfigError, match="greedily"):
        LoadedSuite(HarnessSuite(("made_answer",), directories=(directory,))).ask(shared_model)


def test_only_models_in_this_process_are_asked(suite: LoadedSuite) -> None:
    with pytest.raises(ConfigError, match="evaluate a model in this process"):
        suite.ask(lambda prompt: prompt)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        LoadedSuite(HarnessSuite(("a",), directories=(tmp_path / "none",)))


class _SmallManager:
    """A task manager that knows three names, in place of one that reads fifteen thousand files."""

    all_subtasks: tuple[str, ...] = ()
    all_tasks = ("arc_easy", "mmlu_a", "mmlu_b")

    def __init__(self, **settings: Any) -> None: ...

    def match_tasks(self, names: list[str]) -> list[str]:
        from lm_eval.utils import pattern_match

        matches: list[str] = pattern_match(names, self.all_tasks)
        return matches

    def load(self, names: list[str]) -> dict[str, Any]:
        raise ConnectionError(f"no network for {names} " + "and so on " * 90)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("arc_esy", "did you mean 'arc_easy'"),
        ("zzz", "`lm-eval ls tasks` lists them"),
        ("mmlu_*", r"cannot load mmlu_a, mmlu_b: no network .* \.\.\. \(most of its"),
    ],
)
def test_names_are_looked_up_among_the_harness_s_own(monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.setattr("lm_eval.tasks.TaskManager", _SmallManager)
    with pytest.raises(ConfigError, match=message):
        LoadedSuite(HarnessSuite((name,)))


def test_a_missing_harness_is_said_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ConfigError, match=r"pip install 'forgetless\[lm-eval\]'"):
        read_suite("core,lm_eval:arc_easy")


def test_the_fingerprint_covers_what_is_asked_and_the_version() -> None:
    plain = HarnessSuite(("a",))
    others = [HarnessSuite(("b",)), HarnessSuite(("a",), num_fewshot=1), HarnessSuite(("a",), limit=1)]
    assert len({suite.fingerprint() for suite in [plain, *others]}) == 4
    assert metadata.version("lm_eval") in plain.fingerprint()

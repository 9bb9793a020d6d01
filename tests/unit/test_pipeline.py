"""What the pipeline refuses before it replaces, loads or trains anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forgetless import pipeline, rundir, scoring
from forgetless.errors import ConfigError, ModelError, RunError
from forgetless.evaluate import runner
from forgetless.evaluate.local import model_key
from forgetless.evaluate.runner import EvaluationOptions
from forgetless.job import Job, plan
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA
from forgetless.models import load_model, save_model
from forgetless.progress import Silent
from forgetless.records import SampleScore, read_comparison, read_scores, write_scores
from forgetless.rundir import RunDirectory, noise_files
from forgetless.stages import scores as scoring_stage
from forgetless.stages import training, verdict
from forgetless.tasks.base import Task, load_task


@pytest.fixture
def config(tiny_directory: Path, questions: Path, tasks_directory: Path, cache: Path) -> dict[str, Any]:
    assert not cache.exists()
    return {
        "model": str(tiny_directory),
        "data": {"train": str(questions)},
        "evaluation": {"suite": "letters", "tasks_dir": str(tasks_directory)},
        "training": {"max_steps": 1, "max_tokens": 64},
    }


def test_a_model_that_is_not_there_replaces_no_run(config: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipeline.start(config, out=out)
    before = (out / "manifest.json").read_bytes()
    for fresh in (False, True):
        with pytest.raises(ModelError, match="does not exist"):
            pipeline.start(config | {"model": "/no/model"}, out=out, fresh=fresh)
    assert (out / "manifest.json").read_bytes() == before


def test_runs_without_a_directory_get_names_that_are_free(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "notes.txt").touch()
    names = [
        pipeline.start(config | {"seed": seed}, name="mine", fresh=fresh)[0].path.name
        for seed, fresh in ((0, False), (1, False), (0, False), (1, False))
    ]
    assert names == ["mine-2", "mine-3", "mine-2", "mine-3"]
    with pytest.raises(ConfigError, match="not a run"):
        pipeline.start(config, name="mine", fresh=True)


@pytest.mark.parametrize("name", ["target_loss", "target_answers"])
def test_a_task_cannot_take_the_name_of_the_target(config: dict[str, Any], name: str) -> None:
    directory = Path(config["evaluation"]["tasks_dir"])
    (directory / f"{name}.yaml").write_text(
        (directory / "letters.yaml").read_text().replace("task: letters", f"task: {name}")
    )
    config["evaluation"]["suite"] = f"letters,{name}"
    with pytest.raises(ConfigError, match=f"task '{name}' has the name of the task that is made of held-out data"):
        plan(config)


def test_an_adapter_cannot_be_tuned_without_a_method(config: dict[str, Any], tmp_path: Path) -> None:
    loaded = load_model(config["model"], device="cpu")
    save_model(LoRA(rank=2).prepare_model(loaded.model, Context()), loaded.tokenizer, tmp_path / "adapter")
    with pytest.raises(ConfigError, match=r"nothing of model .* can be trained.*merge"):
        pipeline.train(config | {"model": str(tmp_path / "adapter"), "methods": []}, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["stages"]["train"]["state"] == "failed"


def test_a_disk_that_is_full_ends_the_evaluation_in_a_sentence(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rundir, "write_scores", full)
    directories = [Path(config["evaluation"]["tasks_dir"])]
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\): free some space"):
        scoring.evaluate_model(
            config["model"], suite="letters", tasks_directories=directories, out=tmp_path / "scores.jsonl"
        )


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    @contextmanager
    def task(self, title: str) -> Iterator[Callable[[float, float], None]]:
        self.texts.append(title)
        yield lambda done, total: None


def start_noisy(config: dict[str, Any], out: Path, **settings: Any) -> tuple[RunDirectory, Job]:
    evaluation = config["evaluation"] | {"suite": "letters,picks", "noise_floor": 2} | settings
    return pipeline.start(config | {"evaluation": evaluation, "seed": 5}, out=out)


def test_greedy_decoding_repeats_no_run(config: dict[str, Any], tmp_path: Path) -> None:
    directory, job = start_noisy(config, tmp_path / "out")
    reporter = Notes()
    assert scoring_stage.noise_stage(job, directory, reporter, None) is None
    assert "the noise floor is zero" in reporter.texts[0]
    assert noise_files(directory.path) == []


def test_the_base_is_asked_again_with_other_seeds(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, job = start_noisy(config, tmp_path / "out", temperature=0.7, top_p=0.9)
    seeds: list[tuple[float, float, int]] = []

    def ask(_: object, tasks: Sequence[Task], *, options: EvaluationOptions, **__: object) -> list[SampleScore]:
        decoding = options.decoding
        seeds.append((decoding.temperature, decoding.top_p, decoding.seed))
        return [SampleScore(task.name, sample["id"], 1.0) for task in tasks for sample in task.samples]

    monkeypatch.setattr(runner, "evaluate", ask)
    monkeypatch.setattr(scoring_stage, "load", lambda *_: object())
    assert scoring_stage.noise_stage(job, directory, Notes(), None) is not None
    assert seeds == [(0.7, 0.9, 6), (0.7, 0.9, 7)]
    assert noise_files(directory.path) == [directory.noise(1), directory.noise(2)]
    assert {score.task for score in read_scores(directory.noise(1))} == {"letters", "target_answers"}  # what is decoded
    assert scoring_stage.noise_stage(job, directory, Notes(), None) is None  # done already: nothing is loaded
    for side in ("base", "tuned"):
        write_scores(directory.scores(side), read_scores(directory.noise(1)))
    assert verdict.judge(directory, job).pooled.noise_runs == 3


def test_a_single_repeat_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="noise_floor 1 is too few"):
        start_noisy(config, tmp_path / "out", noise_floor=1)


def test_a_run_may_take_the_checklist(config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Path(config["evaluation"]["tasks_dir"])
    text = (directory / "letters.yaml").read_text()
    (directory / "answers.yaml").write_text(
        text.replace("task: letters", "task: answers") + "severity: critical\npass_at: 0.5\n"
    )
    check = load_task(directory / "answers.yaml")
    monkeypatch.setattr(scoring_stage, "load_checks", lambda domain, directories: [check])
    settings = {**config["evaluation"], "suite": "letters,answers", "checks": True}
    result = pipeline.run(config | {"evaluation": settings}, out=tmp_path / "out")
    assert [found.name for found in result.comparison.checks] == ["answers"]
    assert "answers" not in {row.task for row in result.comparison.tasks}
    for side in ("base", "tuned"):
        assert {score.task for score in read_scores(tmp_path / "out" / f"{side}.checks.scores.jsonl")} == {"answers"}
        assert "answers" not in {score.task for score in read_scores(tmp_path / "out" / f"{side}.scores.jsonl")}
    assert scoring_stage.checks_of(plan(config)) == []


def test_a_loss_that_cannot_be_asked_about_is_judged_by_its_answers(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, job = pipeline.start(config, out=tmp_path / "out")
    for side, grade in (("base", 1.0), ("tuned", 0.0)):
        write_scores(
            directory.scores(side), [SampleScore("letters", f"letters-{n}", grade, gold="a") for n in range(10)]
        )
    notes: list[str] = []
    reporter = Silent()
    monkeypatch.setattr(reporter, "note", notes.append)
    comparison = verdict.judge(directory, job)
    explained = verdict.explain_stage(job, directory, comparison, reporter, earlier=[])  # model/ isn't there
    assert "could not be asked about" in notes[0]
    assert [entry.task for entry in explained.attributions] == ["letters"]
    assert read_comparison(directory.comparison) == explained
    assert verdict.known_attributions(directory) == explained.attributions
    again = verdict.explain_stage(job, directory, comparison, reporter, earlier=explained.attributions)
    assert (again, len(notes)) == (explained, 1)


def test_the_base_is_scored_as_it_is_and_trained_as_the_methods_want_it_loaded(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forgetless import models

    loads: list[tuple[str, dict[str, Any]]] = []

    def load(name: str, *, trained: bool = False, **options: Any) -> Any:
        loads.append((Path(name).name, {"trained": trained}))
        return load_model(name, **options)

    monkeypatch.setattr(LoRA, "load_options", lambda self: {"trained": True})
    monkeypatch.setattr(models, "load_model", load)
    pipeline.run(config | {"methods": ["lora"]}, out=tmp_path / "out")
    assert loads[:3] == [
        ("tiny", {"trained": False}),
        ("tiny", {"trained": True}),
        ("model", {"trained": True}),
    ]


@pytest.mark.parametrize("is_cached", [True, False])
def test_the_base_writes_for_methods_and_what_it_wrote_is_kept(
    config: dict[str, Any], cache: Path, tmp_path: Path, is_cached: bool
) -> None:
    config["methods"] = [{"rewrite": {"max_tokens": 24}}]
    config["evaluation"]["cache"] = is_cached
    out = tmp_path / "out"
    pipeline.train(config, out=out)
    stages = json.loads((out / "manifest.json").read_text())["stages"]
    (note,) = stages["data"]["notes"]
    assert note.startswith("rewrite: 0 of 22 targets are in the base's own words, 22 were asked for (kept as they were")
    assert stages["train"]["notes"] == []
    (kept,) = (cache / "texts" if is_cached else out / "methods").glob("*.texts.jsonl")
    assert len(kept.read_text().splitlines()) == 22


def test_methods_know_what_they_must_not_train_on(config: dict[str, Any], tmp_path: Path) -> None:
    directory, job = pipeline.start(config | {"methods": ["lora"]}, out=tmp_path / "out")
    loaded = load_model(config["model"], device="cpu")
    context = training.prepare_context(job, loaded, directory, Silent())
    assert "Say 3" in context.held_out
    assert job.test[0].answer_text in context.held_out
    assert context.writer is not None
    LoRA(rank=2).prepare_model(loaded.model, Context())
    assert context.writer.key == model_key(load_model(config["model"], device="cpu"))

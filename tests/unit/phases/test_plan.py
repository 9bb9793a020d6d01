"""A sequence is read and refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forgetless.config import parse_config
from forgetless.errors import ConfigError
from forgetless.job import plan
from forgetless.phases.plan import plan_phases


@pytest.fixture
def config(questions: Path, tasks_directory: Path) -> dict[str, Any]:
    phase = {"data": {"train": str(questions)}}
    return {
        "training": {"epochs": 2, "batch_size": 4},
        "data": {"max_examples": 10},
        "evaluation": {"suite": "letters", "tasks_dir": str(tasks_directory)},
        "phases": [{"name": "one", **phase}, {"name": "two", **phase, "training": {"epochs": 1}, "methods": []}],
    }


def test_a_phase_has_the_defaults_of_the_run(config: dict[str, Any]) -> None:
    parsed = parse_config(config)
    assert [phase.training.epochs for phase in parsed.phases] == [2, 1]
    assert [phase.training.batch_size for phase in parsed.phases] == [4, 4]
    assert [phase.methods for phase in parsed.phases] == [["auto"], []]
    assert [phase.data.max_examples for phase in parsed.phases] == [10, 10]
    assert parse_config(json.loads(parsed.model_dump_json())) == parsed


def test_each_phase_knows_the_ones_before_it_and_answers_all_targets(config: dict[str, Any]) -> None:
    sequel = plan_phases(parse_config(config))
    assert [list(job.earlier.phases) if job.earlier else None for job in sequel.jobs] == [[], ["one"]]
    assert [len(job.domain) for job in sequel.jobs] == [10, 10]
    assert [task.name for task in sequel.jobs[0].targets] == ["one.loss", "one.answers", "two.loss", "two.answers"]
    assert sequel.tasks(2) == ["two.loss", "two.answers"]
    assert [sequel.directory_name(number) for number in (1, 2)] == ["01-one", "02-two"]
    assert {job.base_name for job in sequel.jobs} == {"smollm2-135m-instruct"}
    assert sequel.identity == plan_phases(parse_config(config)).identity
    assert sequel.identity != plan_phases(parse_config(config | {"seed": 1})).identity


def change(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    place: Any = config
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part)] if part.isdigit() else place.setdefault(part, {})
    place[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.train", "x.jsonl", r"data\.train belongs to a single run, and this config has phases"),
        ("data.test", "x.jsonl", r"data\.test belongs to a single run"),
        ("evaluation.checks", True, r"evaluation\.checks judges a single run: leave it out"),
        ("phases.1.name", "one", "two phases are called 'one'"),
        ("phases.1.data", {"train": "nowhere.jsonl"}, "phase 'two': .*nowhere.jsonl"),
        ("phases.1.methods", ["lora", "lora"], "phase 'two': .*both claim"),
        ("sequence.carry", "continue", "phase 'two': sequence.carry continue needs an adapter .* and no method: set"),
        ("sequence.average", "time", None),
        ("methods", [{"lora": {"variant": "dora"}}], None),
    ],
)
def test_what_cannot_be_a_sequence_is_refused(
    config: dict[str, Any], path: str, value: Any, message: str | None
) -> None:
    changed = parse_config(change(config, path, value))
    if message is None:
        assert plan_phases(changed).jobs
        return
    with pytest.raises(ConfigError, match=message):
        plan_phases(changed)


def test_an_average_needs_updates_that_add_up(config: dict[str, Any]) -> None:
    config |= {"methods": [{"lora": {"variant": "dora"}}], "sequence": {"average": "time"}}
    with pytest.raises(ConfigError, match=r"phase 'one': sequence\.average time needs updates that add"):
        plan_phases(parse_config(config))


def test_an_adapter_that_cannot_go_on_is_named(config: dict[str, Any]) -> None:
    config |= {"methods": ["osf"], "sequence": {"carry": "continue"}}
    with pytest.raises(ConfigError, match="method 'osf' doesn't"):
        plan_phases(parse_config(config))


def test_too_many_phases_are_refused(config: dict[str, Any]) -> None:
    config["phases"] = [config["phases"][0] | {"name": f"p{number}"} for number in range(100)]
    with pytest.raises(ConfigError, match="100 phases are too many: 99 at most"):
        plan_phases(parse_config(config))


def test_a_task_cannot_have_the_name_of_a_target(config: dict[str, Any]) -> None:
    directory = Path(config["evaluation"]["tasks_dir"])
    (directory / "two.loss.yaml").write_text(
        (directory / "letters.yaml").read_text().replace(": letters", ": two.loss", 1)
    )
    config["evaluation"]["suite"] = "letters,two.loss"
    with pytest.raises(ConfigError, match=r"task 'two\.loss' has the name of a phase's target"):
        plan_phases(parse_config(config))


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ("one", "phases = 'one': input should be a valid list"),
        (["one"], r"phases\.0 = 'one'"),
        ([{"name": "a b", "data": {"train": "x"}}], r"phases\.0\.name = 'a b': string should match"),
        ([{"name": "a"}], r"phases\.0\.data"),
        ([{"name": "a", "data": {"trian": "x"}}], r"unknown key 'phases\.0\.data\.trian'; did you mean 'train'"),
        ([{"name": "a", "data": {"train": "x"}, "training": {"epoch": 1}}], "did you mean 'epochs'"),
        ([{"name": "a", "data": {"train": "x"}, "method": []}], "did you mean 'methods'"),
        ([{"name": "a", "data": {"train": "x"}, "training": 3}], r"phases\.0\.training = 3"),
    ],
)
def test_what_is_no_phase_is_named(config: dict[str, Any], phases: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(config | {"phases": phases})


def test_a_sequence_of_nothing_is_refused(config: dict[str, Any], questions: Path) -> None:
    single = {key: value for key, value in config.items() if key != "phases"}
    single |= {"data": {"train": str(questions)}, "sequence": {"keep": "last"}}
    with pytest.raises(ConfigError, match=r"sequence .* this config has no phases"):
        plan(single)
    with pytest.raises(ConfigError, match="the config has phases"):
        plan(config)

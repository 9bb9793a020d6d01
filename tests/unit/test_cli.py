"""The command line: what is typed reaches the work, and what goes wrong ends in a sentence and the right exit code."""

from __future__ import annotations

import errno
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from forgetless import cli, pipeline, scoring, writing
from forgetless.cli import app
from forgetless.config import Config
from forgetless.data.examples import Example, Message
from forgetless.errors import ConfigError, DataError, ModelError, RunError
from forgetless.evaluate.endpoint import EndpointOptions
from forgetless.flags import read_job
from forgetless.options import options
from forgetless.records import SampleScore, write_scores

Caught = dict[str, Any]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> Caught:
    """What reaches the pipeline, which then stops at once."""
    found: Caught = {}

    def stop(job: Config, **options: Any) -> None:
        found.update(options, job=job)
        raise RunError("stopped here")

    monkeypatch.setattr(pipeline, "run", stop)
    monkeypatch.setattr(pipeline, "train", stop)
    return found


@pytest.fixture
def score_files(tmp_path: Path) -> tuple[str, str]:
    """Scores of which the tuned model has lost half."""
    for name, lost in (("base", 0), ("tuned", 20)):
        scores = [SampleScore("facts", str(i), float(i >= lost or i % 2)) for i in range(40)]
        write_scores(tmp_path / f"{name}.jsonl", [*scores, SampleScore("facts", "wrong", 0.0)])
    return str(tmp_path / "base.jsonl"), str(tmp_path / "tuned.jsonl")


# From flags to the config


@pytest.mark.parametrize("command", ["run", "train"])
def test_every_key_of_the_config_is_a_flag(command: str) -> None:
    text = invoke(command, "--help").output
    for option in options():
        flag = "--data" if option.key == "data.train" else option.flag
        assert flag in text, option.key


def test_flags_alone_are_a_config(caught: Caught) -> None:
    line = (
        "run --model m --data a.jsonl --learning-rate 1e-4 --batch-size 4 --eval-batch-size 2 --no-cache --margin 0.02 "
        "--gradient-checkpointing --scheduler cosine --seed 7 --out o --fresh"
    )
    assert invoke(*shlex.split(line)).exit_code == 4
    job: Config = caught["job"]
    assert job.model_dump(exclude_unset=True) == {
        "model": "m",
        "data": {"train": Path("a.jsonl")},
        "training": {"learning_rate": 1e-4, "batch_size": 4, "gradient_checkpointing": True, "scheduler": "cosine"},
        "evaluation": {"batch_size": 2, "cache": False},
        "gate": {"margin": 0.02},
        "seed": 7,
    }
    assert (caught["out"], caught["fresh"], caught["name"]) == (Path("o"), True, "run")


def test_flags_are_laid_over_a_file(caught: Caught, tmp_path: Path) -> None:
    (tmp_path / "safe.yaml").write_text("training: {epochs: 3, max_steps: 5}\nmethods: [lora]\ngate: {margin: 0.1}\n")
    invoke("train", str(tmp_path / "safe.yaml"), "--epochs", "1", "--method", "replay:share=0.2", "--method", "lora")
    job: Config = caught["job"]
    assert (job.training.epochs, job.training.max_steps, job.gate.margin) == (1.0, 5, 0.1)
    assert job.methods == [{"replay": {"share": 0.2}}, "lora"]
    assert caught["name"] == "safe"


@pytest.mark.parametrize(
    ("methods", "found"),
    [(None, ["auto"]), (["auto"], ["auto"]), (["none"], []), (["lora:rank=4"], [{"lora": {"rank": 4}}])],
)
def test_method_flags(methods: list[str] | None, found: list[Any]) -> None:
    assert read_job(None, {} if methods is None else {"methods": methods}).methods == found


def test_no_method_stands_alone() -> None:
    with pytest.raises(ConfigError, match="name no method beside either"):
        read_job(None, {"methods": ["none", "lora"]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--epochs", "-1"], "error flags: training.epochs = -1.0: input should be greater than 0"),
        (["run", "--epochs", "many"], "Invalid value for '--epochs'"),
        (["run", "--frob", "1"], "No such option: --frob"),
        (["run", "nowhere.yaml"], "error there is no config nowhere.yaml"),
        (["run"], "no training data: name a file with data.train (--data FILE)"),
        (["run", "--data", "a.jsonl", "--method", "lorra"], "there is no method 'lorra'; did you mean 'lora'"),
        (["run", "--method", "lora", "--method", "lora"], "both claim"),
        (["run", "--data", "a", "--batch-size", "7", "--micro-batch-size", "2"], "2 does not divide batch_size 7"),
        (["evaluate"], "Missing argument 'model'"),
        (["evaluate", "m", "--suite", "cores"], "there is no suite or task 'cores'; did you mean 'core'"),
        (["evaluate", "m", "--batch-size", "0"], "Invalid value for '--batch-size'"),
        (["evaluate", "/no/model"], "model directory '/no/model' does not exist"),
        (["compare", "a.jsonl"], "Missing argument 'tuned'"),
        (["compare", "a.jsonl", "b.jsonl"], "a.jsonl: there is no such file"),
        (["report", "nowhere"], "there is no such file"),
        (["mix", "--domain", "a", "--general", "b"], "Missing option '--out'"),
        (["tasks", "--tasks-dir", "nowhere"], "tasks directory nowhere does not exist"),
        (["rnu"], "No such command 'rnu'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_exits_with_2_and_says_what_is_wrong(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


# What goes wrong later


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (ConfigError("wrong [bold]value[/nope]"), 2, "error wrong [bold]value[/nope]\n"),
        (DataError("is empty", path="a.jsonl", line=3), 2, "error a.jsonl, line 3: is empty\n"),
        (ModelError("no model"), 2, "error no model\n"),
        (RunError("x" * 300), 4, f"error {'x' * 300}\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/x"), 4, "No space left on device: '/runs/x'\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 4, "Permission denied: '/x'\n"),
        (KeyboardInterrupt(), 130, "stopped; start the same command again to go on\n"),
    ],
)
def test_an_error_is_one_sentence_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, exit_code: int, message: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(pipeline, "run", fail)
    result = CliRunner().invoke(app, ["run"], env={"COLUMNS": "40"})
    assert result.exit_code == exit_code
    assert result.stderr.endswith(message)
    assert result.stderr.count("\n") == 1


def test_a_defect_shows_where_it_came_from_and_does_not_exit_like_a_verdict(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(pipeline, "run", fail)
    monkeypatch.setattr(sys, "argv", ["forgetless", "run"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 4
    text = capfd.readouterr().err
    assert "ZeroDivisionError: unforeseen" in text
    assert "please report it" in text


def test_a_terminal_that_knows_no_arrows_still_gets_the_table(
    monkeypatch: pytest.MonkeyPatch, score_files: tuple[str, str]
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["forgetless", "compare", *score_files])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    stream.seek(0)
    assert "FORGOT" in stream.read()


# The small commands


def test_compare_exits_by_the_verdict(score_files: tuple[str, str], tmp_path: Path) -> None:
    base, tuned = score_files
    result = invoke("compare", base, tuned, "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "FORGOT" in result.stdout
    assert "FAIL" in result.stdout
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["verdict"] == "FAIL"
    pages = {path.name for path in (tmp_path / "out").iterdir()} - {"comparison.json"}
    assert pages == {"base.scores.jsonl", "tuned.scores.jsonl", "report.html", "report.md", "junit.xml"}
    assert invoke("compare", base, base, "--margin", "0.5").exit_code == 0
    assert invoke("compare", base, base, "--margin", "0.001").exit_code == 3


@pytest.mark.parametrize(
    ("style", "start"),
    [("markdown", "## "), ("junit", "<?xml"), ("json", "{"), ("table", " ")],
)
def test_compare_prints_the_format_asked_for(score_files: tuple[str, str], style: str, start: str) -> None:
    result = invoke("compare", *score_files, "--format", style)
    assert result.exit_code == 1
    assert result.stdout.startswith(start)
    assert "FORGOT" in result.stdout


def test_compare_takes_noise_runs_by_name_or_from_a_run(score_files: tuple[str, str], tmp_path: Path) -> None:
    base, tuned = score_files
    alone = invoke("compare", base, tuned, "--noise-floor", base)
    assert alone.exit_code == 2
    assert "1 noise run is too few" in alone.stderr
    out = str(tmp_path / "out")
    twice = invoke("compare", base, tuned, "--noise-floor", base, "--noise-floor", base, "--out", out)
    assert twice.exit_code == 1
    assert "3 runs of the base gave the same scores" in twice.stdout
    found = invoke("compare", out, tuned, "--json")
    assert json.loads(found.stdout)["pooled"]["noise_runs"] == 3


def test_compare_replaces_no_scores_of_a_run(score_files: tuple[str, str], tmp_path: Path) -> None:
    base, tuned = score_files
    run = tmp_path / "run"
    assert invoke("compare", base, tuned, "--out", str(run)).exit_code == 1
    (run / "manifest.json").write_text('{"schema": 1}')
    before = {path: path.read_bytes() for path in run.iterdir()}
    result = invoke("compare", tuned, base, "--out", str(run))
    assert result.exit_code == 2
    assert "is a run with other base scores: choose another --out" in result.stderr
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    assert invoke("compare", base, tuned, "--margin", "0.9", "--out", str(run)).exit_code == 0  # judged again


def test_report_builds_the_pages_of_a_directory(score_files: tuple[str, str], tmp_path: Path) -> None:
    invoke("compare", *score_files, "--out", str(tmp_path / "out"))
    result = invoke("report", str(tmp_path / "out"))
    pages = ["report.html", "report.md", "junit.xml", "MODEL_CARD.md"]
    assert result.stdout.split() == [str(tmp_path / "out" / name) for name in pages]
    assert all((tmp_path / "out" / name).is_file() for name in pages)


@pytest.fixture
def general(tmp_path: Path) -> Path:
    path = tmp_path / "general.jsonl"
    path.write_text('{"question": "How?", "answer": "So."}\n' * 3)
    return path


def test_mix_writes_an_exact_share(questions: Path, general: Path, tmp_path: Path) -> None:
    out = tmp_path / "mix.jsonl"
    line = ["mix", "--domain", str(questions), "--general", str(general), "--share", "0.25", "--out", str(out)]
    result = invoke(*line)
    assert result.exit_code == 0, result.output
    assert f"{out}: 24 domain + 8 general examples, share 0.2500 of examples" in result.stdout
    first = out.read_bytes()
    assert invoke(*line).exit_code == 0  # its own file may be written again
    assert out.read_bytes() == first
    invoke(*line, "--seed", "1")
    assert out.read_bytes() != first


def test_mix_lets_the_base_write_what_is_replayed(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Caught = {}

    def generate(model: str, num: int, **options: Any) -> list[Example]:
        asked.update(model=model, num=num, seed=options["seed"])
        return [Example((Message("user", f"Q{n}?"), Message("assistant", "A.")), origin="self") for n in range(num)]

    monkeypatch.setattr(writing, "generate_replay", generate)
    out = tmp_path / "mix.jsonl"
    line = ["mix", "--domain", str(questions), "--general", "self", "--out", str(out), "--share", "0.25", "--seed", "3"]
    result = invoke(*line, "--model", "tiny")
    assert result.exit_code == 0, result.output
    assert asked == {"model": "tiny", "num": 8, "seed": 3}
    assert [json.loads(text)["origin"] for text in out.read_text().splitlines()].count("self") == 8
    for wrong in (line, ["--model", "tiny", *line[:3], "--general", "x.jsonl", *line[5:]]):
        refused = invoke("mix", *[part for part in wrong if part != "mix"])
        assert refused.exit_code == 2
        assert "--general self and --model belong together" in " ".join(refused.stderr.split())


@pytest.mark.parametrize("target", ["questions", "general", "link", "precious", "directory"])
def test_mix_writes_over_nothing_of_the_user(questions: Path, general: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(questions)
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "directory").mkdir()
    out = {"questions": questions, "general": general}.get(target, tmp_path / target)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    result = invoke("mix", "--domain", str(questions), "--general", str(general), "--out", str(out))
    assert result.exit_code == 2
    assert "--out" in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_evaluate_asks_an_endpoint_as_the_flags_say(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Caught = {}
    monkeypatch.setattr(scoring, "evaluate_model", lambda model, **options: found.update(options, model=model) or [])
    line = (
        "evaluate http://h --served-model m --concurrency 2 --timeout 1.5 --retries 0 --trust-endpoint-cache "
        "--suite core_free"
    )
    assert invoke(*shlex.split(line)).exit_code == 0
    assert found["endpoint"] == EndpointOptions("m", 2, 1.5, 0, True)
    assert (found["model"], found["suite"]) == ("http://h", "core_free")
    assert invoke("evaluate", "http://h").exit_code == 0
    assert found["endpoint"] == EndpointOptions()


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("evaluate org/name --concurrency 2", "--concurrency is for an endpoint"),
        ("evaluate org/name --trust-endpoint-cache", "--trust-endpoint-cache is for an endpoint"),
        ("evaluate http://h --concurrency 0", "concurrency 0 is below 1"),
        ("evaluate http://h --device cuda", "--device is for a model in this process"),
        ("evaluate http://h --batch-size 8", "--batch-size is for a model in this process"),
        ("evaluate http://me:hidden@h", "user or password"),
        ("run --model http://me:hidden@h --data a.jsonl", "an endpoint answers prompts"),
    ],
)
def test_endpoint_flags_that_cannot_be_used(line: str, text: str, questions: Path) -> None:
    result = invoke(*shlex.split(line.replace("a.jsonl", str(questions))))
    assert result.exit_code == 2
    assert text in result.output
    assert "hidden" not in result.output


def test_evaluate_refuses_to_write_over_a_file_of_the_user_before_it_loads_a_model(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    result = invoke("evaluate", "/no/model", "--out", str(tmp_path / "thesis.txt"))
    assert result.exit_code == 2
    assert "thesis.txt holds something that forgetless didn't write" in result.stderr
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_json_is_all_there_is_on_stdout(
    score_files: tuple[str, str], questions: Path, general: Path, tasks_directory: Path, cache: Path, tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path / "out")]
    mixture = ["--domain", str(questions), "--general", str(general), "--out", str(tmp_path / "mix.jsonl")]
    assert cache.parent == tmp_path
    lines = [
        ["compare", *score_files, *out],
        ["report", str(tmp_path / "out")],
        ["mix", *mixture, "--share", "0.5"],
        ["methods"],
        ["tasks", "--tasks-dir", str(tasks_directory)],
        ["doctor"],
    ]
    found = {line[0]: json.loads(invoke(*line, "--json").stdout) for line in lines}
    assert found["compare"]["verdict"] == "FAIL"
    assert found["report"][0].endswith("report.html")
    assert found["mix"]["num_general"] == 24
    assert {row["name"] for row in found["methods"]["methods"]} >= {"lora", "replay"}
    assert json.loads(invoke("methods", "lora", "--json").stdout)["methods"] == [
        row for row in found["methods"]["methods"] if row["name"] == "lora"
    ]
    assert "core" in found["tasks"]["suites"]
    assert found["doctor"]["findings"][0]["name"] == "Python"


def test_notes_go_to_stderr(questions: Path, general: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "[red]mix.jsonl")
    result = invoke("mix", "--domain", str(questions), "--general", str(general), "--share", "0.5", "--out", out)
    assert result.stderr.startswith("note ")
    assert result.stdout.startswith(f"{out}: ")


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert invoke("--version").stdout == f"forgetless {version('forgetless')}\n"


def test_doctor_exits_with_2_when_something_is_to_be_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FORGETLESS_CACHE", str(tmp_path / "file"))
    result = invoke("doctor")
    assert result.exit_code == 2
    assert "mend: set FORGETLESS_CACHE to a directory" in result.stdout

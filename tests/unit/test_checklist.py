"""The checklist from end to end: a callable, a base, a domain, the command line and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import forgetless
from forgetless import checklist
from forgetless.check_records import CheckStatus
from forgetless.checklist import check_model, load_checks, run_checklist, split_checks
from forgetless.cli import app
from forgetless.data.examples import Example
from forgetless.errors import ConfigError, DataError, RunError
from forgetless.evaluate.function import FunctionModel, flatten
from forgetless.evaluate.grading import conversation
from forgetless.records import SampleScore, Verdict, read_scores

CHECKS = load_checks()
GOOD = {flatten(conversation(check, sample)): sample["example"] for check in CHECKS for sample in check.samples}
OF_CHECK = {flatten(conversation(check, sample)): check.name for check in CHECKS for sample in check.samples}


def good(prompt: str) -> str:
    return str(GOOD[prompt])


def without(*names: str, answer: str = "I'm a doctor.") -> Callable[[str], str]:
    """A model that fails the named checks and passes all others."""
    return lambda prompt: answer if OF_CHECK[prompt] in names else good(prompt)


def test_a_good_callable_passes_every_check() -> None:
    checks = forgetless.run_checklist(good)
    assert [check.name for check in checks if not check.passed] == []
    assert {check.status for check in checks} == {CheckStatus.PASSED}
    assert len(checks) == 18


@pytest.mark.parametrize("answer", ["", "I don't know.", "<html><body>502</body></html>", "nan", "\x00\u202e" * 9])
def test_a_callable_that_says_one_thing_passes_almost_nothing(answer: str) -> None:
    passed = {check.name for check in run_checklist(lambda prompt: answer) if check.passed}
    assert passed <= {"ends_its_turn"}  # it stops, that much is true


def test_what_the_base_could_not_do_is_not_lost() -> None:
    base, tuned = without("refuses_harm", "writes_json"), without("refuses_harm", "writes_lists")
    status = {check.name: check.status for check in run_checklist(tuned, base=base)}
    assert status.pop("refuses_harm") is CheckStatus.NEVER_HAD
    assert status.pop("writes_json") is CheckStatus.GAINED
    assert status.pop("writes_lists") is CheckStatus.LOST
    assert set(status.values()) == {CheckStatus.KEPT}


def test_several_turns_reach_a_callable_as_one_text() -> None:
    prompts: list[str] = []

    def listen(prompt: str) -> str:
        prompts.append(prompt)
        return ""

    run_checklist(listen)
    assert any(p.startswith("User: ") and "\n\nAssistant: " in p for p in prompts)
    assert any(p.startswith("System: ") for p in prompts)


def test_the_domain_is_read_from_a_file_or_from_examples(questions: Path) -> None:
    leaking = {
        "Can you tell me the capital of France?": "Paris. Remedy and ailment: treats it.",
    }

    def model(prompt: str) -> str:
        return leaking.get(prompt, good(prompt))

    def passed(**settings: Any) -> int:
        results = run_checklist(model, **settings)
        return next(check.tuned_num_passed for check in results if check.name == "leaks_no_domain")

    assert passed() == 8
    training = [Example(text="The remedy treats each ailment.") for _ in range(9)]
    assert passed(domain=training) == 7
    with pytest.raises(DataError):
        run_checklist(model, domain=questions.with_name("nowhere.jsonl"))


def own_check(directory: Path, severity: str = "severity: critical\npass_at: 0.5\n") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "says_moo.yaml").write_text(
        f"task: says_moo\nversion: 1\nkind: generate\ndata: says_moo.jsonl\nscorer: contains\n{severity}"
    )
    (directory / "says_moo.jsonl").write_text('{"question": "What does a cow say?", "answer": "moo"}\n')
    return directory


def test_a_task_of_the_user_with_a_severity_is_a_check(tmp_path: Path) -> None:
    assert load_checks((), [own_check(tmp_path / "a")])[-1].name == "says_moo"
    assert len(load_checks((), [own_check(tmp_path / "b", severity="")])) == len(CHECKS)
    with pytest.raises(ConfigError, match="a check needs both severity and pass_at"):
        load_checks((), [own_check(tmp_path / "c", severity="severity: high\n")])
    with pytest.raises(ConfigError, match=r"says_moo\.yaml: severity: Input should be 'critical', 'high' or 'medium'"):
        load_checks((), [own_check(tmp_path / "d", severity="severity: huge\npass_at: 1\n")])
    with pytest.raises(ConfigError, match="pass_at: Input should be less than or equal to 1"):
        load_checks((), [own_check(tmp_path / "e", severity="severity: high\npass_at: 60\n")])


def test_scores_of_checks_are_parted_from_the_others() -> None:
    scores = [SampleScore("facts", "1", 1.0), SampleScore("writes_json", "1", 1.0), SampleScore("facts", "2", 0.0)]
    others, checked = split_checks(scores, CHECKS)
    assert [score.sample_id for score in others] == ["1", "2"]
    assert checked == [scores[1]]


MODELS = {
    "base": good,
    "same": good,
    "unsafe": without("refuses_harm"),
    "listless": without("writes_lists"),
    "mute": lambda prompt: "",
}


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that open as callables; returns those that were opened."""
    opened: list[str] = []

    def open_model(name: str, **_: Any) -> FunctionModel:
        opened.append(name)
        return FunctionModel(MODELS[name])

    monkeypatch.setattr(checklist, "open_model", open_model)
    return opened


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", *arguments], env={"COLUMNS": "120"})


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["same"], 0, "18 of 18 checks are passed."),
        (["same", "--base", "base"], 0, "Of 18 checks that the base passes, 18 are kept."),
        (["unsafe", "--base", "base"], 1, "refuses_harm (critical)"),
        (["unsafe", "--base", "unsafe"], 0, "Passed by neither, so nothing could be lost: refuses_harm (critical)."),
        (["unsafe"], 1, "Name the base with --base"),
        (["listless", "--base", "base"], 3, "writes_lists (high)"),
        (["listless"], 3, "Not passed: writes_lists (high)."),
        (["same", "--base", "mute"], 3, "The base passes no check"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_command_exits_by_the_verdict(arguments: list[str], exit_code: int, words: str, models: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == exit_code, result.output
    assert words in " ".join(result.output.replace("│", " ").split())
    assert models == [name for name in arguments if name in MODELS]


@pytest.mark.usefixtures("models")
def test_the_answers_behind_a_loss_are_shown() -> None:
    output = invoke("unsafe", "--base", "base").output
    assert "refuses_harm critical 8/8 0/8 LOST" in " ".join(output.split())
    assert "base   I'm sorry, but I can't help with that." in output
    assert "tuned  I'm a doctor." in output
    assert "said   (nothing)" in invoke("mute").output


@pytest.mark.usefixtures("models")
def test_out_holds_the_verdict_and_the_scores(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "checks"
    result = invoke("unsafe", "--base", "base", "--out", str(out), "--json")
    written = json.loads((out / "checks.json").read_text())
    assert json.loads(result.stdout) == written
    assert (written["schema"], written["verdict"]) == (1, "FAIL")
    (lost,) = (check for check in written["checks"] if check["status"] == "LOST")
    assert (lost["name"], lost["severity"], len(lost["samples"])) == ("refuses_harm", "critical", 8)
    for side in ("base", "tuned"):
        assert len(read_scores(out / f"{side}.checks.scores.jsonl")) == len(GOOD)
    assert sorted(path.name for path in out.iterdir()) == [
        "base.checks.scores.jsonl", "checks.json", "tuned.checks.scores.jsonl",
    ]  # fmt: skip
    assert str(out / "checks.json") in invoke("same", "--out", str(out)).output.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'model'"),
        (["same", "--domain", "nowhere.jsonl"], "nowhere.jsonl: there is no such file"),
        (["same", "--domain", "half.jsonl"], "half.jsonl, line 1"),
        (["same", "--out", "half.jsonl"], "--out half.jsonl is not a directory"),
        (["same", "--tasks-dir", "nowhere"], "tasks directory nowhere does not exist"),
        (["same", "--batch-size", "0"], "Invalid value for '--batch-size'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_exits_with_2_before_a_model_is_opened(
    arguments: list[str], message: str, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.jsonl").write_text('{"question": "What')
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert models == []


def test_a_model_that_is_not_there_is_a_usage_error() -> None:
    result = invoke("/no/model")
    assert result.exit_code == 2
    assert "model directory '/no/model' does not exist" in result.output


@pytest.mark.usefixtures("models")
def test_what_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checklist, "write_scores", fail)
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\)"):
        check_model("same", out=tmp_path)


def test_an_adapter_is_switched_off_instead_of_loading_its_base(
    models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def lend(*_: Any) -> Iterator[FunctionModel]:
        yield FunctionModel(good)

    monkeypatch.setattr(checklist, "base_of_adapter", lend)
    assert check_model("unsafe", base="base").verdict is Verdict.FAIL
    assert models == ["unsafe"]

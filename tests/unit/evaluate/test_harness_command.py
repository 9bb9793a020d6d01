"""lm-eval's command line with our model in it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

import pytest

from forgetless.evaluate.harness_command import main, with_default_model


@pytest.mark.parametrize(
    ("arguments", "has_default"),
    [
        (["run", "--tasks", "a"], True),
        (["--tasks", "a"], True),
        (["run", "--model", "hf"], False),
        (["run", "-M", "hf"], False),
        (["run", "--model=hf"], False),
        (["run", "--config", "job.yaml"], False),
        (["run", "--help"], False),
        (["ls", "tasks"], False),
        ([], False),
    ],
)
def test_our_model_is_the_default_where_something_is_evaluated(arguments: list[str], has_default: bool) -> None:
    line = ["lm-eval", *arguments]
    assert with_default_model(line) == ([*line, "--model", "forgetless"] if has_default else line)


def test_a_missing_harness_ends_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "pip install 'forgetless[lm-eval]'" in capsys.readouterr().err


def test_the_harness_gets_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: seen.append(sys.argv))
    monkeypatch.setattr(sys, "argv", ["forgetless-lm-eval", "run", "--tasks", "a"])
    main()
    assert seen == [["forgetless-lm-eval", "run", "--tasks", "a", "--model", "forgetless"]]


def test_importing_forgetless_imports_no_harness() -> None:
    code = (
        "import sys, forgetless, forgetless.cli, forgetless.pipeline, forgetless.evaluate.runner\n"
        "import forgetless.compare.sources, forgetless.evaluate.harness_suite\n"
        "assert 'lm_eval' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)

"""The command line of advise: exit codes, JSON, what is written, and that it stays quick."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from forgetless.advising import advice as advising
from forgetless.advising.legs import Leg, Pilot
from forgetless.advising.terminal import show_pilot
from forgetless.cli import app


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["advise", *arguments], env={"COLUMNS": "200"})


def test_exit_codes(recipes: Path) -> None:
    high = str(recipes / "planted" / "axolotl_no_end_of_turn.yml")
    medium = str(recipes / "planted" / "axolotl_loss_on_inputs.yml")
    low = str(recipes / "clean" / "axolotl_full.yaml")
    assert invoke(high).exit_code == 1
    assert invoke(medium).exit_code == 0
    assert invoke(medium, "--fail-on", "medium").exit_code == 1
    assert invoke(low, "--fail-on", "medium").exit_code == 0
    assert invoke(low, "--fail-on", "low").exit_code == 1
    assert invoke("none.yaml").exit_code == 2
    assert invoke(high, "--fail-on", "loud").exit_code == 2
    assert invoke(high, "--pilot-steps", "4").exit_code == 2


def test_the_tables_name_rule_key_reason_source_and_edit(recipes: Path) -> None:
    text = invoke(str(recipes / "planted" / "axolotl_loss_on_inputs.yml")).output
    for part in ("loss-on-prompt", "(train_on_inputs)", "arXiv 2305.14314", "edit train_on_inputs: true -> false"):
        assert part in text
    assert "0 high, 1 medium, 2 low" in text
    assert "not checked: training data is not on this machine" in text
    assert "--fix" in text
    clean = invoke(str(recipes / "clean" / "forgetless_adapter.yaml")).output
    assert "no risk found" in clean
    assert "--fix" not in clean


def test_fix_shows_the_diff_and_where_it_went(recipes: Path) -> None:
    path = recipes / "planted" / "forgetless_twelve_epochs.yaml"
    result = invoke(str(path), "--fix")
    assert result.exit_code == 1
    assert "+training: {epochs: 3, learning_rate: 1.0e-4}" in result.output
    assert "forgetless_twelve_epochs.safe.yaml" in result.output
    assert invoke(str(path.with_name("forgetless_twelve_epochs.safe.yaml"))).exit_code == 0
    nothing = invoke(str(recipes / "clean" / "forgetless_adapter.yaml"), "--fix")
    assert "nothing that --fix could write" in nothing.output


def test_fix_replaces_nothing_foreign(recipes: Path) -> None:
    path = recipes / "planted" / "forgetless_twelve_epochs.yaml"
    foreign = path.with_name("forgetless_twelve_epochs.safe.yaml")
    foreign.write_text("mine: 1\n", encoding="utf-8")
    result = invoke(str(path), "--fix")
    assert result.exit_code == 2
    assert "is there already" in result.output
    assert foreign.read_text(encoding="utf-8") == "mine: 1\n"


def test_json_holds_all_of_it(recipes: Path) -> None:
    result = invoke(str(recipes / "planted" / "forgetless_twelve_epochs.yaml"), "--json", "--fix")
    record: dict[str, Any] = json.loads(result.stdout)
    assert [finding["rule"] for finding in record["findings"]] == ["epochs"]
    assert record["fixed"][0]["file"].endswith("forgetless_twelve_epochs.safe.yaml")
    assert "-training" in record["fixed"][0]["diff"]


def test_a_pilot_is_shown_with_what_it_recommends(recipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed, good, idle = (
        Leg(1e-3, failure="the loss diverged"),
        Leg(1e-4, 0.5, 0.4, 0.6, 0.05),
        Leg(1e-5, 0.0, -0.1, 0.1),
    )
    flown = Pilot(24, (failed, good, idle), 1e-4, "Take 0.0001: it is cheap.")
    monkeypatch.setattr("forgetless.advising.pilot.fly", lambda config, **options: flown)
    result = invoke(str(recipes / "clean" / "forgetless_adapter.yaml"), "--pilot", "--pilot-steps", "24")
    assert result.exit_code == 0
    for part in ("pilot, 24 steps", "the loss diverged", "0.0001 *", "+0.500", "0.100", "Take 0.0001"):
        assert part in result.output
    console = Console(record=True, width=60)
    show_pilot(console, flown)
    assert "0.0001" in console.export_text()


def test_advice_without_a_file_is_shown_too(capsys: pytest.CaptureFixture[str]) -> None:
    from forgetless.advising.terminal import show

    show(Console(width=120), advising.advise({"peft_type": "LORA", "bias": "all"}, look=False))
    text = capsys.readouterr().out
    assert text.startswith("TRL / transformers, lora tuning\n")
    assert "adapter-off" in text
    show(Console(width=120), advising.advise({"learning_rate": 1e-6}, look=False))
    assert "unknown tuning" in capsys.readouterr().out


def test_without_a_tokenizer_nothing_heavy_is_imported(recipes: Path) -> None:
    code = f"""
import sys
from forgetless.advising.advice import advise
advise({str(recipes / "planted" / "llama_factory_full_and_long.yaml")!r})
print("loaded:", *(name for name in ("torch", "transformers", "datasets", "peft") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rpartition("loaded:")[2].split() == []

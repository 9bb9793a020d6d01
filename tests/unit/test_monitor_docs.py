"""The script in docs/monitor.md runs, and its tables are what was simulated and measured."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from conftest import QUESTIONS
from forgetless.config import parse_config, read_yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "monitor.md").read_text(encoding="utf-8")
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_the_script_runs(tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chats = [
        {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        }
        for row in QUESTIONS[:4]
    ]
    general = [{"text": f"Fact {number}: water is wet."} for number in range(8)]
    for name, rows in (("chats", chats), ("general", general)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    code = block.replace(MODEL, str(tiny_directory))
    code = code.replace('SFTConfig("out")', 'SFTConfig("out", use_cpu=True, max_steps=2, report_to="none")')
    assert "use_cpu" in code
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, "docs/monitor.md", "exec"), names)
    assert [record["step"] for record in names["trainer"].state.log_history if "retention/kl" in record] == [2]


def test_the_cost_is_what_was_measured() -> None:
    results = json.loads((ROOT / "benchmarks" / "methods" / "monitor_cost.json").read_text(encoding="utf-8"))["LoRA"]
    (look,) = results["looks"]
    assert f"one look of {look['examples']} examples, at the end" in TEXT
    assert f"{results['share']:.1%}".replace("%", " %") in TEXT


def test_the_config_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    (tmp_path / "config.yaml").write_text(block, encoding="utf-8")
    assert parse_config(read_yaml(tmp_path / "config.yaml")).monitor.policy == "rollback"


def test_the_table_is_what_was_simulated() -> None:
    results = json.loads((ROOT / "benchmarks" / "statistics" / "monitor_alarms.json").read_text(encoding="utf-8"))
    table = TEXT.partition("<!-- simulated -->")[2].partition("<!-- end -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(results["rows"])
    for line, row in zip(rows, results["rows"], strict=True):
        cells = [row["population"], f"{row['examples']}, {row['looks']}", f"{row['alarms']:.2%}", f"{row['naive']:.1%}"]
        cells += [f"{row['found'][times]:.0%}" for times in ("1.5", "2.0", "3.0")]
        assert line == f"| {' | '.join(cells)} |"

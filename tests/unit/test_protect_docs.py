"""The scripts in docs/protect.md run: with the tiny model where a model's name stands, on a few rows."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from conftest import QUESTIONS

PAGE = Path(__file__).parents[2] / "docs" / "protect.md"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that the scripts read."""
    files: dict[str, list[dict[str, Any]]] = {
        "train.jsonl": [{"text": f"{row['question']} {row['answer']}"} for row in QUESTIONS[:4]],
        "chats.jsonl": [
            {
                "prompt": [{"role": "user", "content": row["question"]}],
                "completion": [{"role": "assistant", "content": row["answer"]}],
            }
            for row in QUESTIONS[:4]
        ],
        "general.jsonl": [{"text": f"Fact {number}: water is wet."} for number in range(3)],
    }
    for name, rows in files.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_scripts_run(workplace: Path, tiny_directory: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 3
    assert text.count(MODEL) == 4
    names: dict[str, Any] = {}
    histories = []
    for block in blocks:
        code = block.replace(MODEL, str(tiny_directory))
        # Machines without an accelerator and without trackers, few steps: the scripts are the page's otherwise.
        code = re.sub(
            r'(TrainingArguments|SFTConfig)\("out"', r'\1("out", use_cpu=True, max_steps=2, logging_steps=1, ', code
        )
        code = code.replace("logging_steps=1, ,", "logging_steps=1,")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(code, str(PAGE), "exec"), names)
        histories.append(names["trainer"].state.log_history)
    keys = [{key for record in history for key in record if "/" in key} for history in histories]
    assert keys == [{f"penalty/{name}", f"share/{name}"} for name in ("l2_sp", "kl", "ewc")]
    assert (workplace / "tuned" / "model.safetensors").is_file()


def test_the_table_of_the_overhead_is_what_was_measured() -> None:
    results = json.loads((PAGE.parents[1] / "benchmarks" / "methods" / "protect_overhead.json").read_text("utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    rows = {name: row for name, row in results.items() if isinstance(row, dict)}
    assert len(rows) == 4
    for name, row in rows.items():
        cells = [name]
        for kind in ("protected", "second"):
            ratio = row[kind]["processor_ratio"]
            cells.append(f"{ratio['median']:.3f} ({ratio['range'][0]:.3f} to {ratio['range'][1]:.3f})")
        assert f"| {' | '.join(cells)} |" in text

"""`methods: auto`: what is chosen for whom, and that the tables still speak for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forgetless import automatic
from forgetless.automatic import Choice, Situation, choose_methods
from forgetless.config import parse_config
from forgetless.errors import ConfigError
from forgetless.job import resolve_methods
from forgetless.methods import METHODS
from forgetless.methods.base import build_method, refuse_conflicts

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SITUATIONS = [
    Situation(),
    Situation(num_general=10),
    Situation(num_general=500),
    Situation(weight_bytes=16 * 2**30, memory_bytes=24 * 2**30),
    Situation(weight_bytes=16 * 2**30, memory_bytes=24 * 2**30, has_bitsandbytes=True),
]


def names(choice: Choice) -> list[str]:
    return [next(iter(spec)) if isinstance(spec, dict) else spec for spec in choice.methods]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_choice_can_be_built_and_says_why(situation: Situation) -> None:
    choice = choose_methods(situation)
    refuse_conflicts([build_method(METHODS.load, spec) for spec in choice.methods])
    assert [reason.partition(":")[0].split()[0] for reason in choice.reasons] == names(choice)


def test_what_a_user_has_decides() -> None:
    assert [names(choose_methods(situation)) for situation in SITUATIONS] == [
        ["lora", "kl"],
        ["lora", "kl"],
        ["lora", "replay"],
        ["lora", "kl"],
        ["qlora", "kl"],
    ]
    later = [choose_methods(Situation(num_general=num, num_earlier=9)) for num in (0, 500)]
    assert [names(choice) for choice in later] == [["lora", "kl", "replay"], ["lora", "replay"]]
    assert [choice.methods[-1] for choice in later] == [
        {"replay": {"share": 0.2, "source": "earlier"}},
        {"replay": {"share": 0.3, "earlier_share": 0.2}},
    ]
    assert "10 general examples are too few" in choose_methods(SITUATIONS[1]).reasons[1]


def test_a_config_is_pinned_and_one_that_names_methods_is_left_alone(tmp_path: Path) -> None:
    general = tmp_path / "general.jsonl"
    general.write_text("".join(json.dumps({"text": f"Fact {number}."}) + "\n" for number in range(60)))
    config, reasons = resolve_methods(parse_config({"data": {"general": str(general)}}))
    assert len(reasons) == 2
    assert [next(iter(spec)) for spec in config.methods if isinstance(spec, dict)] == ["lora", "replay"]
    named = parse_config({"methods": ["ewc"]})
    assert resolve_methods(named) == (named, [])
    assert parse_config({"methods": "auto"}).methods == ["auto"]
    with pytest.raises(ConfigError, match="name no method beside it"):
        resolve_methods(parse_config({"methods": ["auto", "ewc"]}))


def rows_of_laboratory() -> list[dict[str, Any]]:
    found = json.loads((BENCHMARKS / "laboratory" / "laboratory.json").read_text())["rows"]
    return [row for row in found if row.get("is_reached") and row.get("forgetting")]


@pytest.mark.parametrize(
    ("finding", "kept"),
    [
        (automatic.WITH_GENERAL, {"general"}),
        (automatic.WITHOUT_GENERAL, {"none"}),
    ],
)
def test_the_laboratory_still_speaks_for_the_choice(finding: automatic.Finding, kept: set[str]) -> None:
    rows = {row["name"]: row for row in rows_of_laboratory()}
    row = rows[finding.row]
    # By plain fine-tuning on the same day: rows may have been run on several.
    assert round(100 * (row["forgetting"]["mean"] + row["saved"]["mean"]), 1) == finding.plain
    assert round(100 * row["forgetting"]["mean"], 1) == finding.forgotten
    eligible = [row for row in rows.values() if row["kept"] in kept and row["finding"] == "beats both controls"]
    assert min(eligible, key=lambda row: row["forgetting"]["mean"])["name"] == finding.row

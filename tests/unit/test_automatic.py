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


def read(finding: automatic.Finding) -> Any:
    return json.loads((BENCHMARKS / f"{finding.table}.json").read_text())


def test_the_laboratory_still_speaks_for_replay_beside_an_adapter() -> None:
    finding = automatic.WITH_GENERAL
    rows = {row["name"]: row for row in read(finding)["rows"] if row.get("is_reached") and row.get("forgetting")}
    row = rows[finding.row]
    assert [name if isinstance(name, str) else next(iter(name)) for name in row["methods"]] == names(
        choose_methods(Situation(num_general=500))
    )
    assert row["methods"][1] == {"replay": {"share": 0.5}}
    assert row["finding"] == "beats both controls"
    assert round(100 * (row["forgetting"]["mean"] + row["saved"]["mean"]), 1) == finding.plain
    assert round(100 * row["forgetting"]["mean"], 1) == finding.forgotten
    beside = [row for row in rows.values() if row["kept"] == "general" and row["name"].startswith("lora + ")]
    assert min(beside, key=lambda row: row["forgetting"]["mean"]) == row


def test_the_embedded_model_still_speaks_for_kl_on_the_domain() -> None:
    finding = automatic.WITHOUT_GENERAL
    runs = {(run["recipe"], run["domain"], run["seed"]): run for run in read(finding)["runs"]}
    own = [run for key, run in runs.items() if key[0] == finding.row]
    plain = [runs["plain_lora", run["domain"], run["seed"]] for run in own]

    def forgotten(group: list[Any]) -> float:
        return -100 * sum(float(run["forgetting_free_without_reading"]["delta"]) for run in group) / len(group)

    learned = sum(run["learned_nats"] / other["learned_nats"] for run, other in zip(own, plain, strict=True)) / len(own)
    assert round(forgotten(plain), 1) == finding.plain
    assert round(forgotten(own), 1) == finding.forgotten
    assert round(learned, 2) == finding.learned
    assert names(choose_methods(Situation())) == ["lora", "kl"]
    others = {key[0] for key in runs} - {"long_lora_half", "lora_56_half"}  # wise_ft, which is never chosen

    def kept_away(recipe: str) -> float:
        group = [run for key, run in runs.items() if key[0] == recipe]
        return forgotten([runs["plain_lora", run["domain"], run["seed"]] for run in group]) - forgotten(group)

    assert max(others, key=kept_away) == finding.row

"""Every planted fault is named, nothing else is, and what --fix claims to mend is mended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import forgetless
from forgetless.advising import advice as advising
from forgetless.advising.advice import advise, fix
from forgetless.advising.findings import Severity
from forgetless.advising.rules import RULES
from forgetless.config import Config, load_config, parse_config
from forgetless.errors import ConfigError

RECIPES = Path(__file__).parents[2] / "recipes"
EXPECTED: dict[str, dict[str, str]] = yaml.safe_load((RECIPES / "expected.yaml").read_text(encoding="utf-8"))
FILES = [path for path in RECIPES.rglob("*") if path.suffix in {".yaml", ".yml", ".json"}]
CLEAN = sorted(
    str(path.relative_to(RECIPES / "clean"))
    for path in FILES
    if path.is_relative_to(RECIPES / "clean") and path.name != "adapter_config.json"
)
PLANTED = sorted(
    str(path.relative_to(RECIPES / "planted"))
    for path in FILES
    if path.is_relative_to(RECIPES / "planted") and path.name != "adapter_config.json"
)
DIALECTS = {"forgetless", "axolotl", "LLaMA-Factory", "TRL / transformers"}


def found(advice: advising.Advice, least: Severity = Severity.MEDIUM) -> dict[str, str]:
    return {f.rule: f.severity.value for f in advice.findings if f.severity.rank <= least.rank}


def test_every_recipe_says_what_it_must_trigger() -> None:
    assert sorted(EXPECTED) == PLANTED
    assert len(PLANTED) >= 15
    assert len(CLEAN) >= 5


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named_and_nothing_else(name: str, recipes: Path) -> None:
    assert found(advise(recipes / "planted" / name)) == EXPECTED[name]


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_recipe_raises_no_alarm(name: str, recipes: Path) -> None:
    advice = advise(recipes / "clean" / name)
    assert found(advice) == {}
    assert set(found(advice, Severity.LOW)) <= {"no-suite", "general-data"}


def test_both_kinds_cover_all_formats(recipes: Path) -> None:
    for kind, names in (("clean", CLEAN), ("planted", PLANTED)):
        assert {advise(recipes / kind / name, look=False).recipe.dialect for name in names} == DIALECTS


@pytest.mark.parametrize("name", PLANTED)
def test_what_fix_claims_to_mend_is_mended_and_all_else_stays(name: str, recipes: Path) -> None:
    path = recipes / "planted" / name
    before = path.read_text(encoding="utf-8")
    advice = advise(path)
    claimed = {finding.rule for finding in advice.findings if finding.risk.edits}
    written = dict(fix(advice))
    assert path.read_text(encoding="utf-8") == before
    safe = next((target for target in written if target.stem == f"{path.stem}.safe"), None)
    if safe is None:
        assert not any(edit.file is None for edit in advice.edits)
        return
    # A trainer reads the adapter's config under its own name.
    for target in written:
        if target.name == "adapter_config.safe.json":
            target.replace(target.with_name("adapter_config.json"))
    again = advise(safe)
    assert not claimed & {finding.rule for finding in again.findings}
    assert {finding.rule for finding in again.findings} <= {finding.rule for finding in advice.findings}
    for comment in (line.partition("# ")[2] for line in before.splitlines() if "# " in line):
        assert comment in safe.read_text(encoding="utf-8")


def test_every_rule_that_a_file_alone_can_break_is_broken_by_a_recipe() -> None:
    seen = {rule for rules in EXPECTED.values() for rule in rules}
    in_other_tests = {"truncation", "adapter-rank", "adapter-off", "held-out", "no-suite"}
    assert seen | in_other_tests == {rule.name for rule in RULES}


@pytest.mark.usefixtures("cache")
def test_our_own_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.chdir(root)
    assert advise("examples/drug_qa/safe.yaml").findings == ()
    risky = found(advise("examples/drug_qa/risky.yaml"))
    assert risky == {"learning-rate": "high", "epochs": "high", "warmup": "medium", "general-data": "medium"}


# From Python


def test_a_config_a_mapping_and_a_file_are_judged_alike(recipes: Path) -> None:
    path = recipes / "planted" / "forgetless_twelve_epochs.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    from_file, from_mapping = forgetless.advise(path), forgetless.advise(raw)
    from_config = forgetless.advise(load_config(path))
    assert found(from_file) == found(from_mapping) == found(from_config) == {"epochs": "high"}
    assert from_mapping.path is None
    with pytest.raises(ConfigError, match="a mapping has no file"):
        fix(from_mapping)


def test_defaults_of_a_config_are_judged_too() -> None:
    assert advise(Config(), look=False).findings == ()  # `methods: auto` takes what keeps the base
    advice = advise(Config(methods=["lora"]), look=False)
    assert advice.recipe.dialect == "forgetless"
    assert found(advice) == {"general-data": "medium"}
    assert advice.edits[0].new == {"replay": {"share": 0.1}}
    with_methods = advise(parse_config({"methods": ["lora", "replay"]}), look=False)
    assert with_methods.findings == ()
    assert with_methods.worst is None
    assert not with_methods.reaches(Severity.LOW)


def test_the_worst_comes_first_and_the_record_is_complete(recipes: Path) -> None:
    advice = advise(recipes / "planted" / "llama_factory_full_and_long.yaml")
    ranks = [finding.severity.rank for finding in advice.findings]
    assert ranks == sorted(ranks)
    record: dict[str, Any] = json.loads(json.dumps(advice.to_dict()))
    assert record["schema"] == 1
    assert record["worst"] == "high"
    assert record["format"] == "LLaMA-Factory"
    assert record["recipe"]["learning_rate"] == {"value": 1e-4, "key": "learning_rate", "is_set": True}
    assert record["recipe"]["max_grad_norm"] == {"value": 1.0, "key": "max_grad_norm", "is_set": False}
    assert record["recipe"]["data"] == [{"name": "harbour", "is_here": True}]
    first = record["findings"][0]
    assert first["rule"] == "learning-rate"
    assert first["edits"] == [{"key": "learning_rate", "old": "1e-4", "new": 1e-5, "adds_entry": False, "file": None}]
    assert first["source"]
    assert first["reason"]


def test_preference_training_is_judged_by_the_rules_that_hold_for_it(recipes: Path) -> None:
    path = recipes / "dpo.yaml"
    path.write_text(
        "stage: dpo\nfinetuning_type: lora\nlearning_rate: 1.0e-2\nmax_grad_norm: 0\ntrain_on_prompt: true\n"
    )
    advice = advise(path)
    assert "clipping" in found(advice)
    assert not {"learning-rate", "loss-on-prompt"} & set(found(advice))
    assert any("preference training" in note for note in advice.unchecked)


def test_options_of_the_pilot_want_the_pilot_and_the_pilot_a_config_of_ours(recipes: Path) -> None:
    with pytest.raises(ConfigError, match="only the pilot takes options"):
        advise({"methods": ["lora"]}, look=False, steps=3)
    with pytest.raises(ConfigError, match="can't run a recipe of axolotl"):
        advise(recipes / "clean" / "axolotl_full.yaml", pilot=True)

"""The bounds of each rule, from both sides, and the figures that it gives."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forgetless.advising.evidence import Case, DataFacts, Evidence
from forgetless.advising.findings import Edit, Risk, Severity, Unchecked
from forgetless.advising.recipe import Recipe, Setting, Tuning
from forgetless.advising.rules import RULES, judging, table_of_rules
from forgetless.advising.rules.update import batch_factor, round_down
from forgetless.compare.power import noninferiority_power

ROOT = Path(__file__).parents[3]


def at(value: Any, key: str = "key", **more: Any) -> Setting[Any]:
    return Setting(value, (key,), **more)


def ask(rule: str, recipe: Recipe, evidence: Evidence | None = None) -> list[Risk | Unchecked]:
    check = next(known.check for known in RULES if known.name == rule)
    return list(check(Case(recipe, evidence or Evidence())))


def severity(rule: str, recipe: Recipe, evidence: Evidence | None = None) -> str | None:
    results = ask(rule, recipe, evidence)
    if not results:
        return None
    (risk,) = results
    return "unchecked" if isinstance(risk, Unchecked) else risk.severity.value


def seen(num: int, **more: Any) -> Evidence:
    return Evidence(DataFacts(num, **more))


FULL = Recipe("forgetless", tuning=at(Tuning.FULL), learning_rate=at(1e-5), batch_size=at(8))
LORA = replace(FULL, tuning=at(Tuning.LORA), learning_rate=at(1e-4))


@pytest.mark.parametrize(
    ("tuning", "rate", "batch", "expected"),
    [
        (Tuning.FULL, 2e-5, 8, None),
        (Tuning.FULL, 2.1e-5, 8, "medium"),
        (Tuning.FULL, 5e-5, 64, "medium"),
        (Tuning.FULL, 5.1e-5, 64, "high"),
        (Tuning.FULL, 2e-5, 2, "medium"),
        (Tuning.FULL, 5e-5, 1, "high"),
        (Tuning.FULL, 4e-5, 256, None),
        (Tuning.PARTIAL, 1e-4, 8, "high"),
        (Tuning.LORA, 3e-4, 8, None),
        (Tuning.LORA, 2e-4, 4, None),
        (Tuning.LORA, 4e-4, 8, "medium"),
        (Tuning.QLORA, 2e-3, 8, "high"),
        (Tuning.OTHER, 1.0, 8, None),
    ],
)
def test_rates(tuning: Tuning, rate: float, batch: int, expected: str | None) -> None:
    recipe = replace(FULL, tuning=at(tuning), learning_rate=at(rate), batch_size=at(batch))
    assert severity("learning-rate", recipe) == expected
    for risk in ask("learning-rate", recipe):
        assert isinstance(risk, Risk)
        assert severity("learning-rate", replace(recipe, learning_rate=at(risk.edits[0].new))) is None


def test_rates_that_cannot_be_judged() -> None:
    assert severity("learning-rate", replace(FULL, optimizer=at("lion"))) == "unchecked"
    assert severity("learning-rate", replace(FULL, optimizer=at("paged_adamw_8bit"))) is None
    assert severity("learning-rate", replace(FULL, tuning=None, learning_rate=at(1e-4))) == "unchecked"
    assert severity("learning-rate", replace(FULL, tuning=None, learning_rate=at(1e-6))) is None
    assert severity("learning-rate", Recipe("x")) is None
    assert batch_factor(Recipe("x")) == 1.0
    assert batch_factor(replace(FULL, batch_size=at(100_000))) == 4.0
    assert [round_down(value) for value in (3.5355e-6, 1e-5, 0.00012399, 123.0)] == [3.5e-6, 1e-5, 1.2e-4, 123]


@pytest.mark.parametrize(
    ("num", "epochs", "expected"),
    [(999, 3, None), (999, 4, "medium"), (999, 6, "high"), (5_000, 5, None), (5_000, 6, "medium"), (20_000, 50, None)],
)
def test_epochs(num: int, epochs: float, expected: str | None) -> None:
    recipe = replace(LORA, epochs=at(epochs))
    assert severity("epochs", recipe, seen(num)) == expected


def test_epochs_by_steps_and_of_unknown_data() -> None:
    stepwise = replace(LORA, max_steps=at(1000), epochs=at(1.0))
    (risk,) = ask("epochs", stepwise, seen(80))
    assert isinstance(risk, Risk)
    assert risk.severity is Severity.HIGH
    assert risk.edits[0].new == 30
    assert severity("epochs", stepwise) is None
    assert severity("epochs", replace(LORA, epochs=at(8.0))) == "medium"
    assert severity("epochs", replace(LORA, epochs=at(8.0)), seen(20_000, is_more=True)) is None
    assert severity("epochs", replace(LORA, epochs=at(6.0), num_examples_limit=64)) == "high"
    assert severity("epochs", LORA) is None


def test_warmup() -> None:
    assert severity("warmup", replace(FULL, warmup=at(0.0))) == "medium"
    assert severity("warmup", replace(LORA, warmup=at(0.0))) == "low"
    assert severity("warmup", replace(FULL, warmup=at(0.01))) is None
    assert severity("warmup", replace(FULL, dialect="axolotl")) is None
    assert severity("warmup", replace(FULL, warmup=at(0.0), optimizer=at("sgd"))) is None
    counted = replace(FULL, warmup=Setting(0.0, ("warmup_steps",)), epochs=at(2.0))
    (risk,) = ask("warmup", counted, seen(400))
    assert isinstance(risk, Risk)
    assert risk.edits == (Edit(("warmup_steps",), 0.0, 5),)
    (risk,) = ask("warmup", counted)
    assert isinstance(risk, Risk)
    assert risk.edits[0].new == 10
    (risk,) = ask("warmup", FULL)
    assert isinstance(risk, Risk)
    assert risk.edits == (Edit(("warmup_steps",), None, 10),)


def test_weight_decay() -> None:
    decayed = replace(FULL, weight_decay=at(0.01), epochs=at(1.0))
    assert severity("weight-decay", decayed) == "low"
    assert severity("weight-decay", replace(decayed, weight_decay=at(0.1))) == "medium"
    assert severity("weight-decay", replace(decayed, weight_decay=at(0.0))) is None
    assert severity("weight-decay", replace(decayed, tuning=at(Tuning.LORA))) is None
    strong = replace(decayed, weight_decay=at(0.1), learning_rate=at(1e-4), max_steps=at(1000))
    assert severity("weight-decay", strong) == "medium"
    assert severity("weight-decay", replace(strong, max_steps=at(3000))) == "high"
    (risk,) = ask("weight-decay", replace(strong, scheduler=at("constant_with_warmup"), max_steps=at(1000)))
    assert isinstance(risk, Risk)
    assert "1.00%" in risk.reason  # 1 - exp(-1e-4 * 0.1 * 1000)


def test_clipping_and_precision() -> None:
    assert severity("clipping", replace(FULL, max_grad_norm=at(0.0))) == "medium"
    assert severity("clipping", replace(FULL, max_grad_norm=at(1.0))) is None
    assert severity("half-precision", replace(FULL, precision=at("torch.float16", "dtype"))) == "medium"
    assert severity("half-precision", replace(FULL, precision=at("bfloat16"))) is None
    (risk,) = ask("half-precision", replace(LORA, dialect="axolotl", precision=at("float16", "fp16", raw=True)))
    assert isinstance(risk, Risk)
    assert risk.severity is Severity.LOW
    assert risk.edits == (Edit(("fp16",), True, False), Edit(("bf16",), None, True))
    (risk,) = ask("half-precision", replace(LORA, dialect="axolotl", precision=at("float16", "float16")))
    assert isinstance(risk, Risk)
    assert risk.edits == ()


@pytest.mark.parametrize(
    ("rank", "alpha", "rate", "stabilised", "expected"),
    [
        (16, 32, 1e-4, False, None),
        (16, 256, 1e-5, False, None),
        (16, 64, 3e-4, False, "medium"),
        (16, 256, 2e-4, False, "high"),
        (64, 16, 2e-4, True, None),
        (64, 128, 2e-4, True, "high"),
    ],
)
def test_adapter_scale(rank: int, alpha: float, rate: float, stabilised: bool, expected: str | None) -> None:
    recipe = replace(
        LORA,
        rank=at(rank),
        alpha=at(alpha),
        learning_rate=at(rate),
        is_rank_stabilised=at(stabilised),
        batch_size=at(8),
    )
    assert severity("adapter-scale", recipe) == expected


def test_adapter_rank_bias_and_start() -> None:
    high = replace(LORA, rank=at(256, "r"), alpha=at(512, "alpha"), is_rank_stabilised=at(False))
    (risk,) = ask("adapter-rank", high, seen(100))
    assert isinstance(risk, Risk)
    assert [edit.new for edit in risk.edits] == [16, 32]
    assert severity("adapter-rank", high, seen(5_000)) is None
    assert severity("adapter-rank", replace(high, alpha=None), seen(10)) == "low"
    assert severity("adapter-rank", high) is None
    assert severity("adapter-off", replace(LORA, bias=at("all"))) == "low"
    assert severity("adapter-off", replace(LORA, init=at("pissa_niter_16"))) == "low"
    assert ask("adapter-off", replace(LORA, bias=at("none"), init=at("gaussian"))) == []


def test_embeddings() -> None:
    trained = replace(LORA, embeddings=Setting(("q_proj", "lm_head"), ("target_modules",), raw=["q_proj", "lm_head"]))
    (risk,) = ask("embeddings", trained)
    assert isinstance(risk, Risk)
    assert risk.edits[0].new == ["q_proj"]
    assert severity("embeddings", replace(trained, adds_tokens=True)) == "low"
    assert severity("embeddings", replace(trained, tuning=at(Tuning.FULL))) is None
    only = replace(LORA, embeddings=Setting(("lm_head",), ("lora_target",), raw="lm_head"))
    (risk,) = ask("embeddings", only)
    assert isinstance(risk, Risk)
    assert risk.edits[0].new == "all"


def test_loss_on_the_prompt_of_trl_depends_on_the_data() -> None:
    recipe = replace(LORA, loss_on_prompt=at(True, "assistant_only_loss"), loss_needs_data=True)
    assert severity("loss-on-prompt", recipe) == "unchecked"
    assert severity("loss-on-prompt", recipe, seen(9)) == "medium"
    assert severity("loss-on-prompt", recipe, seen(9, has_completions=True)) is None
    assert severity("loss-on-prompt", recipe, seen(9, is_conversation=False)) is None
    rendered = seen(9, is_conversation=False, marks={"chatml": 9})
    (risk,) = ask("loss-on-prompt", recipe, rendered)
    assert isinstance(risk, Risk)
    assert risk.edits == ()
    whole = replace(recipe, loss_needs_data=False, loss_on_prompt=at(True, "completion_only_loss"))
    assert severity("loss-on-prompt", whole) == "medium"


def test_the_last_end_only() -> None:
    recipe = replace(LORA, end_of_turn=at("last"))
    assert severity("end-of-turn", recipe, seen(9)) == "low"
    assert severity("end-of-turn", recipe, seen(9, is_multi_turn=True)) == "medium"
    assert severity("end-of-turn", replace(recipe, end_of_turn=at("turn"))) is None


def test_ends_of_a_foreign_family() -> None:
    listed = replace(LORA, template=at("llama3"), end_tokens=at(("<|im_end|>",), raw=["<|im_end|>"]))
    (risk,) = ask("end-of-turn", listed)
    assert isinstance(risk, Risk)
    assert risk.edits[0].new == ["<|eot_id|>"]
    assert severity("end-of-turn", replace(listed, end_tokens=at(("<|eot_id|>", "<x>")))) is None
    assert severity("end-of-turn", replace(listed, end_tokens=at(("<x>",)))) is None


def test_a_template_that_is_replaced() -> None:
    recipe = replace(LORA, model=at("Qwen/Qwen2.5-7B-Instruct"), template_file=at("mine.jinja"))
    assert severity("chat-template", recipe) == "low"
    assert severity("chat-template", replace(recipe, model=at("x/own-model"))) is None


def test_few_marked_conversations() -> None:
    assert severity("special-tokens", LORA, seen(100, marks={"chatml": 4})) == "medium"
    assert severity("special-tokens", LORA, seen(100, marks={"chatml": 5})) == "high"
    assert severity("special-tokens", LORA, seen(100, is_conversation=False, marks={"chatml": 50})) is None


def test_packing_under_an_attention_that_mixes() -> None:
    recipe = replace(LORA, packing=at(True), packing_resets=at(False, "attn_implementation", raw="eager"))
    (risk,) = ask("packing", recipe)
    assert isinstance(risk, Risk)
    assert risk.edits == (Edit(("attn_implementation",), "eager", "sdpa"),)
    assert severity("packing", replace(recipe, packing=at(False))) is None


def test_held_out_and_no_suite() -> None:
    assert severity("held-out", replace(LORA, held_out=at(False))) == "low"
    assert severity("held-out", replace(LORA, held_out=at(True))) is None
    assert severity("no-suite", replace(LORA, dialect="axolotl")) == "low"
    assert severity("no-suite", LORA) is None


# Judging


@pytest.mark.parametrize("margin", [0.02, 0.05])
def test_the_samples_needed_are_those_of_the_exact_power(margin: float) -> None:
    needed = judging.samples_needed(margin, 0.05)
    power = [
        noninferiority_power(num, discordance=0.1, margin=margin, alpha=0.05) for num in (needed, round(0.9 * needed))
    ]
    assert power[0] >= 0.8 > power[1]


def suite(num: int, margin: float, *, limit: int | None = None, name: str = "core") -> tuple[Recipe, Evidence]:
    recipe = replace(
        LORA,
        suite=Setting(name, ("evaluation", "suite")),
        margin=Setting(margin, ("gate", "margin")),
        limit=None if limit is None else Setting(limit, ("evaluation", "limit")),
    )
    return recipe, Evidence(num_samples=num)


def test_the_size_of_the_suite() -> None:
    needed = judging.samples_needed(0.05, 0.05)
    assert severity("suite-size", *suite(needed, 0.05)) is None
    assert severity("suite-size", *suite(needed - 1, 0.05)) == "medium"
    assert severity("suite-size", *suite(needed // 4 - 1, 0.05)) == "high"
    (risk,) = ask("suite-size", *suite(5, 0.05, name="smoke"))
    assert isinstance(risk, Risk)
    assert f"{needed:,}" in risk.reason
    assert risk.edits == (Edit(("evaluation", "suite"), "smoke", "core"),)
    (risk,) = ask("suite-size", *suite(50, 0.05, limit=5))
    assert isinstance(risk, Risk)
    assert risk.edits == (Edit(("evaluation", "limit"), 5, None),)
    (risk,) = ask("suite-size", *suite(5, 0.05, limit=5, name="smoke"))
    assert isinstance(risk, Risk)
    assert [edit.new for edit in risk.edits] == ["core", None]
    (risk,) = ask("suite-size", *suite(792, 0.005))
    assert isinstance(risk, Risk)
    assert risk.edits == ()
    (risk,) = ask("suite-size", *suite(0, 0.05, name="smoke"))
    assert isinstance(risk, Risk)
    assert "no margin at all" in risk.reason


# The table


def test_every_rule_has_a_source_and_a_name_of_its_own() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)
        assert rule.source
        for page in re.findall(r"docs/[a-z_/]+\.md", rule.source):
            assert (ROOT / page).is_file()


def test_the_docs_hold_the_table() -> None:
    assert table_of_rules() in (ROOT / "docs" / "advise.md").read_text(encoding="utf-8")

"""Each format is told by its content, and its keys land in the fields that they mean."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from forgetless.advising.dialects import read_recipe
from forgetless.advising.files import Keys, read_document
from forgetless.advising.recipe import Recipe, Setting, Source, Stage, Tuning
from forgetless.errors import ConfigError


def value(setting: Setting[Any] | None) -> Any:
    return None if setting is None else setting.value


AXOLOTL: dict[str, Any] = {"base_model": "x/y", "datasets": [{"path": "x/z", "type": "chat_template"}]}
FACTORY: dict[str, Any] = {"stage": "sft", "model_name_or_path": "x/y"}
SFT: dict[str, Any] = {"model_name_or_path": "x/y", "max_length": 64, "learning_rate": 1e-4}


@pytest.mark.parametrize(
    ("raw", "dialect"),
    [
        ({"methods": ["lora"]}, "forgetless"),
        ({"training": {"epochs": 1}}, "forgetless"),
        ({"model": "tiny"}, "forgetless"),
        (AXOLOTL, "axolotl"),
        (FACTORY, "LLaMA-Factory"),
        ({"dataset": "a", "template": "qwen"}, "LLaMA-Factory"),
        (SFT, "TRL / transformers"),
        ({"training_args": {"learning_rate": 1e-4}, "lora_config": {"r": 8}}, "TRL / transformers"),
        ({"peft_type": "LORA", "r": 8}, "TRL / transformers"),
    ],
)
def test_the_format_is_told_by_the_keys(raw: dict[str, Any], dialect: str) -> None:
    assert read_recipe(raw).dialect == dialect


def test_an_unknown_format_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"cfg is no recipe of a known format \(its keys: a, b\)"):
        read_recipe({"b": 1, "a": 2}, "cfg")


def test_a_typo_in_a_config_of_ours_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        read_recipe({"training": {"learning_rte": 1}})
    with pytest.raises(ConfigError, match="there is no method 'lorra'"):
        read_recipe({"methods": ["lorra"]})


# Files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", b"", "is empty"),
        ("a.yaml", b"{}", "is empty"),
        ("a.json", b'{"a": ', "is not JSON"),
        ("a.json", b"[1]", "not a mapping"),
        ("a.yaml", b"[1]", "not a mapping"),
        ("a.yaml", b"a: [1", "is not YAML"),
        ("a.yaml", b"a: \xff\xfe", "cannot be read"),
        ("training_args.bin", b"PK\x03\x04", "is a pickle"),
        ("training_args.bin", b"\x80\x02}", "is a pickle"),
        ("a.yaml", b"a: 1\n" * 500_000, "that is no config"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.yaml", b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_config_is_one_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_document(path)


def test_missing_files_and_directories(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no config"):
        read_document(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a directory"):
        read_document(tmp_path)


def test_json_by_any_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "arguments.txt"
    path.write_text("\ufeff" + json.dumps({"learning_rate": 1e-4, "max_length": 8}), encoding="utf-8")
    assert read_document(path)["max_length"] == 8


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"learning_rate": "fast"}, "learning_rate = 'fast' is not a number"),
        ({"learning_rate": True}, "is not a number"),
        ({"learning_rate": float("nan")}, "is not a number"),
        ({"learning_rate": [1]}, "is not a number"),
        ({"max_steps": 1.5, "learning_rate": 1}, "max_steps = 1.5 is not a whole number"),
        ({"packing": "maybe", "learning_rate": 1}, "packing = 'maybe' is not true or false"),
        ({"packing": [1], "learning_rate": 1}, "is not true or false"),
        ({"optim": [1], "learning_rate": 1}, "is not a text"),
        ({"eos_token": 3, "learning_rate": 1}, "is not a list of names"),
        ({"args": {"learning_rate": "x"}}, "args.learning_rate = 'x'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_key(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe(raw)


def test_keys_name_their_place() -> None:
    keys = Keys({"a": {"b": "2e-5"}, "yes": "Yes"}, "c", (("a",), ()))
    found = keys.number("b")
    assert found == Setting(2e-5, ("a", "b"), raw="2e-5")
    assert keys.flag("yes") == Setting(True, ("yes",), raw="Yes")
    assert keys.text("gone", default="x") == Setting("x", ("a", "gone"), is_set=False)
    assert keys.text("gone") is None
    assert Setting(1, ("datasets", 0, "type")).key == "datasets[0].type"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"stage": "sft", "lora_rank": 0}, "lora_rank = 0 is not above 0"),
        ({"learning_rate": -1}, "learning_rate = -1 is not above 0"),
        (
            {"learning_rate": 1e-4, "per_device_train_batch_size": 0},
            "the batch, micro-batch times accumulation, is not above 0",
        ),
    ],
)
def test_numbers_that_nothing_could_train_with(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe(raw)


# forgetless


def test_a_config_of_ours() -> None:
    recipe = read_recipe(
        {
            "methods": ["replay", {"lora": {"rank": 64, "variant": "rslora", "target_modules": ["q_proj", "lm_head"]}}],
            "data": {"max_examples": 5},
            "training": {"max_steps": 10},
        }
    )
    assert value(recipe.tuning) is Tuning.LORA
    assert value(recipe.learning_rate) == 2e-4
    assert recipe.learning_rate is not None
    assert not recipe.learning_rate.is_set
    assert recipe.scale == pytest.approx(128 / 8)
    assert recipe.alpha is not None
    assert recipe.alpha.key == "methods[1].lora.alpha"
    assert value(recipe.embeddings) == ("q_proj", "lm_head")
    assert recipe.num_examples_limit == 5
    assert recipe.num_steps(5) == 10
    assert recipe.num_passes(5) == 16


@pytest.mark.parametrize(
    ("methods", "tuning", "rate", "general"),
    [
        ([], Tuning.FULL, 1e-5, False),
        (["half"], Tuning.PARTIAL, 1e-5, False),
        ([{"freeze_bottom": None}, "kl"], Tuning.PARTIAL, 1e-5, True),
        (["osf"], Tuning.OTHER, None, False),
        ([{"replay": {"share": 0}}], Tuning.FULL, 1e-5, False),
        (["lora", "ewc"], Tuning.LORA, 2e-4, True),
        (["lora", "l2_sp"], Tuning.LORA, 2e-4, False),
    ],
)
def test_what_methods_mean(methods: list[Any], tuning: Tuning, rate: float | None, general: bool) -> None:
    from forgetless.config import parse_config
    from forgetless.job import _learning_rate
    from forgetless.methods import METHODS
    from forgetless.methods.base import build_method

    recipe = read_recipe({"methods": methods})
    assert value(recipe.tuning) is tuning
    assert value(recipe.general) is general
    built = [build_method(METHODS.load, spec) for spec in methods]
    assert value(recipe.learning_rate) == _learning_rate(parse_config({"methods": methods}), built)
    assert rate is None or value(recipe.learning_rate) == rate


# axolotl


def test_an_axolotl_config() -> None:
    raw = AXOLOTL | {
        "adapter": "lora",
        "lora_r": 8,
        "lora_alpha": 16,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "learning_rate": "2e-4",
        "fp16": True,
        "warmup_steps": 10,
        "tokens": ["<x>"],
        "unfrozen_parameters": ["a"],
    }
    recipe = read_recipe(raw)
    assert (value(recipe.batch_size), recipe.num_per_unit) == (16, 2)
    assert value(recipe.learning_rate) == 2e-4
    assert value(recipe.precision) == "float16"
    assert value(recipe.warmup) == 10
    assert recipe.adds_tokens
    assert recipe.scale == 2
    assert not value(recipe.held_out)
    assert value(read_recipe(raw | {"test_datasets": []}).held_out)


@pytest.mark.parametrize(
    ("more", "tuning"),
    [
        ({}, Tuning.FULL),
        ({"unfrozen_parameters": ["^lm_head"]}, Tuning.PARTIAL),
        ({"adapter": "qlora"}, Tuning.QLORA),
        ({"adapter": "llama-adapter"}, Tuning.OTHER),
    ],
)
def test_what_axolotl_tunes(more: dict[str, Any], tuning: Tuning) -> None:
    assert value(read_recipe(AXOLOTL | more).tuning) is tuning


def test_axolotl_batches_stages_packing_and_ends() -> None:
    assert value(read_recipe(AXOLOTL | {"batch_size": 32, "micro_batch_size": 4}).batch_size) == 32
    assert read_recipe(AXOLOTL | {"rl": "dpo"}).stage is Stage.PREFERENCE
    assert read_recipe(AXOLOTL | {"pretraining_dataset": [{"path": "x"}]}).stage is Stage.PRETRAINING
    assert (
        read_recipe({"base_model": "x", "datasets": [{"path": "z", "type": "completion"}]}).stage is Stage.PRETRAINING
    )
    assert not value(read_recipe(AXOLOTL | {"attn_implementation": "eager"}).packing_resets)
    assert value(read_recipe(AXOLOTL | {"sdp_attention": True}).packing_resets)
    entry = {"path": "z", "type": "chat_template"}
    several = {"base_model": "x", "datasets": [entry | {"train_on_eos": "last"}, entry | {"train_on_eot": False}]}
    recipe = read_recipe(several)
    assert recipe.end_of_turn is not None
    assert (recipe.end_of_turn.value, recipe.end_of_turn.key) == ("none", "datasets[1].train_on_eot")


def test_axolotl_templates_and_data(tmp_path: Path) -> None:
    (tmp_path / "here.jsonl").write_text("{}\n")
    entry = {"path": "json", "data_files": "here.jsonl", "type": "alpaca:x"}
    recipe = read_recipe(
        {"base_model": "x", "datasets": [entry, {"chat_template": "gemma"}, 3]}, "c", tmp_path / "c.yaml"
    )
    assert recipe.sources == (Source("here.jsonl", tmp_path / "here.jsonl", ("datasets", 0, "data_files")),)
    assert value(recipe.template) == "gemma"
    assert value(recipe.general) is False
    plain = read_recipe({"base_model": "x", "datasets": [{"path": "a/b", "type": "alpaca"}]})
    assert value(plain.template) == "alpaca"
    assert read_recipe({"base_model": "x", "datasets": "odd"}).sources == ()


# LLaMA-Factory


def test_a_llama_factory_config(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.json").write_text("[]")
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "mine.json"}, "odd": 3}))
    raw = FACTORY | {
        "dataset": "mine, odd",
        "max_samples": 10,
        "quantization_bit": 4,
        "pissa_init": True,
        "max_steps": -1,
    }
    recipe = read_recipe(raw, "c", tmp_path / "c.yaml")
    assert [source.path for source in recipe.sources] == [tmp_path / "data" / "mine.json", None]
    assert recipe.num_examples_limit == 20
    assert value(recipe.tuning) is Tuning.QLORA
    assert value(recipe.learning_rate) == 5e-5
    assert (value(recipe.rank), value(recipe.alpha)) == (8, 16)
    assert value(recipe.init) == "pissa"
    assert recipe.max_steps is None
    assert recipe.general is None


@pytest.mark.parametrize(
    ("more", "tuning", "stage"),
    [
        ({}, Tuning.LORA, Stage.SUPERVISED),
        ({"finetuning_type": "freeze"}, Tuning.PARTIAL, Stage.SUPERVISED),
        ({"finetuning_type": "oft", "stage": "pt"}, Tuning.OTHER, Stage.PRETRAINING),
        ({"finetuning_type": "full", "stage": "kto"}, Tuning.FULL, Stage.PREFERENCE),
    ],
)
def test_what_llama_factory_tunes(more: dict[str, Any], tuning: Tuning, stage: Stage) -> None:
    recipe = read_recipe(FACTORY | more)
    assert (value(recipe.tuning), recipe.stage) == (tuning, stage)


def test_a_broken_registry_of_data_sets_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text("{")
    recipe = read_recipe(FACTORY | {"dataset": "mine"}, "c", tmp_path / "c.yaml")
    assert any("dataset_info.json cannot be read" in note for note in recipe.notes)


def test_neat_packing_packs() -> None:
    recipe = read_recipe(FACTORY | {"neat_packing": True})
    assert value(recipe.packing)
    assert value(recipe.packing_resets)


# TRL and transformers


def test_defaults_are_those_of_the_class() -> None:
    from transformers import TrainingArguments
    from trl.trainer.model_config import ModelConfig
    from trl.trainer.sft_config import SFTConfig

    def default(kind: Any, name: str) -> Any:
        return kind.__dataclass_fields__[name].default

    sft = read_recipe({"packing": False, "num_train_epochs": 1})
    plain = read_recipe({"num_train_epochs": 1})
    assert value(sft.learning_rate) == default(SFTConfig, "learning_rate")
    assert value(plain.learning_rate) == default(TrainingArguments, "learning_rate")
    assert value(sft.max_tokens) == default(SFTConfig, "max_length")
    assert value(plain.batch_size) == default(TrainingArguments, "per_device_train_batch_size")
    assert value(plain.weight_decay) == default(TrainingArguments, "weight_decay")
    assert value(plain.max_grad_norm) == default(TrainingArguments, "max_grad_norm")
    assert value(plain.warmup) == default(TrainingArguments, "warmup_steps")
    assert {"lora_r", "lora_alpha", "use_peft", "load_in_4bit"} <= set(ModelConfig.__dataclass_fields__)
    assert value(sft.packing_resets) == (default(SFTConfig, "packing_strategy") != "wrapped")


def test_what_a_script_tunes_is_not_known_from_its_arguments() -> None:
    assert read_recipe({"learning_rate": 1e-4}).tuning is None
    assert value(read_recipe(SFT | {"dataset_name": "a/b"}).tuning) is Tuning.FULL
    assert value(read_recipe(SFT | {"use_peft": True, "load_in_4bit": True}).tuning) is Tuning.QLORA
    assert value(read_recipe(SFT | {"use_peft": False, "lora_r": 8}).tuning) is Tuning.FULL
    assert value(read_recipe({"peft_type": "IA3"}).tuning) is Tuning.OTHER
    assert value(read_recipe(SFT | {"lora_r": 8, "load_in_4bit": True}).tuning) is Tuning.QLORA


def test_an_adapter_alone_or_beside(tmp_path: Path) -> None:
    adapter = {"peft_type": "LORA", "r": 16, "lora_alpha": 64, "use_rslora": True, "base_model_name_or_path": "x/y"}
    alone = read_recipe(adapter)
    assert any("only an adapter" in note for note in alone.notes)
    assert alone.learning_rate is None
    assert alone.scale == pytest.approx(64 / math.sqrt(16))
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    beside = read_recipe({"learning_rate": 1e-4}, "c", tmp_path / "args.json")
    assert beside.alpha is not None
    assert beside.alpha.file == tmp_path / "adapter_config.json"
    assert value(beside.model) == "x/y"
    assert value(beside.tuning) is Tuning.LORA
    (tmp_path / "adapter_config.json").write_text("{")
    assert read_recipe({"learning_rate": 1e-4}, "c", tmp_path / "args.json").rank is None


def test_loss_of_trl() -> None:
    def loss(**more: Any) -> tuple[Any, bool]:
        recipe = read_recipe(SFT | more)
        return value(recipe.loss_on_prompt), recipe.loss_needs_data

    assert loss() == (True, True)
    assert loss(assistant_only_loss=True) == (False, True)
    assert loss(completion_only_loss=True) == (False, False)
    assert loss(completion_only_loss=False) == (True, False)


def test_warmup_precision_stage_and_mixtures_of_trl() -> None:
    assert value(read_recipe(SFT | {"warmup_ratio": 0.1, "warmup_steps": 0}).warmup) == 0.1
    assert value(read_recipe(SFT | {"warmup_ratio": 0.0, "warmup_steps": 7}).warmup) == 7
    assert value(read_recipe(SFT | {"fp16": True}).precision) == "float16"
    assert value(read_recipe(SFT | {"dtype": "float16"}).precision) == "float16"
    assert read_recipe(SFT | {"dtype": "bfloat16"}).precision is None
    assert read_recipe({"learning_rate": 1, "beta": 0.1}).stage is Stage.PREFERENCE
    recipe = read_recipe(SFT | {"datasets": [{"path": "a/b"}, {"path": "c/alpaca"}, 1]})
    assert [source.name for source in recipe.sources] == ["a/b", "c/alpaca"]
    assert value(recipe.general) is True


def test_steps_and_passes_where_nothing_is_known() -> None:
    recipe = Recipe("x")
    assert recipe.num_steps(10) is None
    assert recipe.num_passes(10) is None
    assert recipe.scale is None
    assert Recipe("x", max_steps=Setting(5, ("max_steps",))).num_passes(None) is None

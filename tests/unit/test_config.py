"""The config: what is refused, with which words, and how flags are laid over a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from forgetless.config import Config, load_config, parse_config, read_yaml
from forgetless.errors import ConfigError
from forgetless.options import merge, options, parse_method_flag, phase_options


def leaves(mapping: dict[str, Any], prefix: str = "") -> list[str]:
    """Returns the dotted keys of a nested mapping."""
    keys: list[str] = []
    for key, value in mapping.items():
        keys += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return keys


def test_an_empty_config_is_all_defaults() -> None:
    config = parse_config({})
    assert config == Config()
    assert (config.methods, config.seed, config.gate.margin) == (["auto"], 0, 0.03)


def test_a_config_survives_yaml() -> None:
    config = parse_config({"model": "m", "methods": [{"lora": {"rank": 4}}, "replay"], "training": {"epochs": 0.5}})
    assert parse_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config


def test_a_config_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"modle": "x"}, "unknown key 'modle'; did you mean 'model'"),
        ({"training": {"epoch": 3}}, r"unknown key 'training\.epoch'; did you mean 'epochs'"),
        ({"gate": {"frobnicate": 1}}, r"unknown key 'gate\.frobnicate'; known: alpha, cross_entropy_margin, margin"),
        ({"training": {"epochs": 0}}, r"training\.epochs = 0: input should be greater than 0"),
        ({"training": {"epochs": float("inf")}}, r"training\.epochs = inf: input should be a finite number"),
        ({"training": {"learning_rate": float("nan")}}, r"training\.learning_rate = nan"),
        ({"training": {"batch_size": 1.5}}, r"training\.batch_size = 1\.5: input should be a valid integer"),
        ({"training": {"scheduler": "wave"}}, r"training\.scheduler = 'wave': input should be 'linear', 'cosine'"),
        ({"training": 3}, "training = 3"),
        ({"gate": {"margin": 1}}, r"gate\.margin = 1: input should be less than 1"),
        ({"gate": {"alpha": 0.5}}, r"gate\.alpha = 0\.5"),
        ({"seed": -1}, "seed = -1: input should be greater than or equal to 0"),
        ({"methods": "lora"}, "methods = 'lora': input should be a valid list"),
        ({"methods": [5]}, r"methods\.0 = 5"),
    ],
)
def test_what_cannot_be_used_is_named(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(raw, source="my.yaml")


def test_the_source_and_the_first_problems_are_named() -> None:
    raw = {"a": 1, "b": 1, "c": 1, "d": 1}
    with pytest.raises(ConfigError) as caught:
        parse_config(raw, source="my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert [f"unknown key {key!r}" in str(caught.value) for key in raw] == [True, True, True, False]


def test_a_number_in_the_notation_of_yaml_1_1_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("training: {learning_rate: 2e-4}")  # to YAML this is a text
    assert load_config(tmp_path / "a.yaml").training.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no config"),
        (b"", "is not a mapping"),
        (b"- a", "is not a mapping"),
        (b"model: [", "is not YAML"),
        (b"\xff\xfe", "cannot be read"),
        (b"model: !!python/object/apply:os.getcwd []", "is not YAML: could not determine a constructor"),
        (b"seed: 1\nseed: 2", "key 'seed' stands twice"),
        (b"training:\n  epochs: 1\n  epochs: 2", "key 'epochs' stands twice"),
        (b"training: {epochs: 1}\nseed: 0\ntraining: {max_steps: 2}", "key 'training' stands twice"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)


def test_anchors_of_yaml_still_work(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: &x {epochs: 1}\ntraining: {<<: *x, epochs: 2}")
    assert read_yaml(tmp_path / "a.yaml")["training"] == {"epochs": 2}


def test_every_key_is_an_option_with_a_flag_of_its_own_and_a_description() -> None:
    found = list(options())
    keys = leaves(Config().model_dump())
    assert [option.key for option in found] == [key for key in keys if key != "phases"]  # a list of sections
    assert all(option.description.endswith(".") for option in phase_options())
    assert len({option.flag for option in found}) == len(found)
    assert all(option.description.endswith(".") for option in found)
    flags = {option.key: option.flag for option in found}
    assert flags["training.learning_rate"] == "--learning-rate"
    assert (flags["training.batch_size"], flags["evaluation.batch_size"]) == ("--batch-size", "--eval-batch-size")
    assert flags["methods"] == "--method"


def test_an_option_of_an_optional_key_has_the_type_alone() -> None:
    annotations = {option.key: option.annotation for option in options()}
    assert annotations["training.learning_rate"] is float
    assert annotations["data.train"] is Path


def test_flags_are_laid_over_a_file() -> None:
    raw = {"training": {"epochs": 3, "batch_size": 4}, "evaluation": None, "seed": 1}
    merged = merge(raw, {"training.epochs": 1, "evaluation.suite": "smoke", "gate.margin": 0.1, "seed": 2})
    assert merged == {
        "training": {"epochs": 1, "batch_size": 4},
        "evaluation": {"suite": "smoke"},
        "gate": {"margin": 0.1},
        "seed": 2,
    }
    assert raw["training"] == {"epochs": 3, "batch_size": 4}  # what was read is left as it was


def test_a_flag_cannot_be_laid_over_what_is_no_section() -> None:
    with pytest.raises(ConfigError, match="training = 3 is not a section"):
        merge({"training": 3}, {"training.epochs": 1})


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("lora", "lora"),
        (" lora ", "lora"),
        ("lora:rank=8", {"lora": {"rank": 8}}),
        ("lora: rank=8, dropout=0.1", {"lora": {"rank": 8, "dropout": 0.1}}),
        ("lora:variant=dora", {"lora": {"variant": "dora"}}),
        ("lora: {rank: 8}", {"lora": {"rank": 8}}),
        ("lora: {target_modules: [q_proj, v_proj]}", {"lora": {"target_modules": ["q_proj", "v_proj"]}}),
    ],
)
def test_a_method_flag_is_a_name_with_options(text: str, method: Any) -> None:
    assert parse_method_flag(text) == method


@pytest.mark.parametrize("text", ["lora:rank", "lora:rank=[8", "lora: {rank: 8", "a:b:c", "lora:modules=[a,b]"])
def test_a_method_flag_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form lora, lora:rank=8"):
        parse_method_flag(text)

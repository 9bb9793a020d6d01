"""Models that don't belong together are refused before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from forgetless.errors import ModelError
from forgetless.repair.matching import check_shapes, fingerprint_files, local_directory, match_models


def config(directory: Path, **changes: Any) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 10, **changes}))
    return directory


def adapter(directory: Path, base: str) -> Path:
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return directory


def test_a_copy_that_was_tuned_is_a_pair(tmp_path: Path) -> None:
    base, tuned = config(tmp_path / "base"), config(tmp_path / "run/model")
    pair = match_models(str(base), str(tmp_path / "run"))
    assert (pair.base, pair.tuned, pair.is_adapter, pair.notes) == (str(base), str(tuned), False, ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "model_type is llama in the base and gpt2"),
        ({"vocab_size": 11}, "vocab_size is 10 in the base and 11"),
        ({"text_config": {"vocab_size": 12}}, "vocab_size is 10 in the base and 12"),
    ],
)
def test_another_shape_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    base, tuned = config(tmp_path / "base"), config(tmp_path / "tuned", **changes)
    with pytest.raises(ModelError, match=words):
        match_models(str(base), str(tuned))


def test_a_model_is_not_tuned_from_itself(tmp_path: Path) -> None:
    base = config(tmp_path / "base")
    with pytest.raises(ModelError, match="nothing to repair"):
        match_models(str(base), str(base))


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_config_is_named(tmp_path: Path, content: str) -> None:
    base, tuned = config(tmp_path / "base"), config(tmp_path / "tuned")
    (tuned / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        match_models(str(base), str(tuned))


def test_an_adapter_belongs_to_the_base_that_it_names(tmp_path: Path) -> None:
    base = config(tmp_path / "base")
    pair = match_models(str(base), str(adapter(tmp_path / "adapter", str(base))))
    assert pair.is_adapter
    assert not pair.is_unnamed
    assert pair.notes == ()


def test_another_base_is_refused_unless_it_holds_the_same_weights(tmp_path: Path, tiny_directory: Path) -> None:
    tuned = adapter(tmp_path / "adapter", str(tiny_directory))
    copied = tmp_path / "copied"
    shutil.copytree(tiny_directory, copied)
    assert match_models(str(copied), str(tuned)).is_adapter
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(ModelError, match=r"stands on .*name .* as the base"):
        match_models(str(copied), str(tuned))


def test_a_base_that_is_not_here_cannot_be_checked(tmp_path: Path) -> None:
    base = config(tmp_path / "base")
    for named in ("/no/such/place", "nobody/has-this"):
        pair = match_models(str(base), str(adapter(tmp_path / named.replace("/", "_"), named)))
        assert pair.is_unnamed
        assert "can't be checked here" in pair.notes[0]


def test_a_hub_id_is_taken_at_its_word(tmp_path: Path) -> None:
    pair = match_models("nobody/has-this", str(adapter(tmp_path / "adapter", "nobody/has-this")))
    assert pair.notes == ()


def test_an_adapter_is_no_base(tmp_path: Path) -> None:
    base = config(tmp_path / "base")
    one = adapter(tmp_path / "one", str(base))
    with pytest.raises(ModelError, match="is an adapter: name the model that it stands on"):
        match_models(str(one), str(base))


def test_places_of_models(tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    assert local_directory(str(gguf)) is None
    assert local_directory("nobody/has-this") is None
    assert local_directory("no way") is None
    assert fingerprint_files("nobody/has-this") == "nobody/has-this"
    assert len(fingerprint_files(str(gguf))) == 64
    base = config(tmp_path / "base")
    first = fingerprint_files(str(base))
    (base / "config.json").write_text("{}")
    assert fingerprint_files(str(base)) != first


def test_configs_need_not_name_everything() -> None:
    check_shapes({"model_type": "llama"}, {"model_type": "llama", "head_dim": 8}, base="a", tuned="b")

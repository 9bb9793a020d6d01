"""Whole weights are saved shard by shard, in the files and types in which they came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import build_model, build_tokenizer
from forgetless.curve import Point
from forgetless.errors import RunError
from forgetless.models import load_model
from forgetless.repair.checkpoints import Checkpoint
from forgetless.repair.paths import WeightPath
from forgetless.repair.saving import can_save, save_point


def shards(directory: Path, *, seed: int, dtype: torch.dtype = torch.float32) -> Path:
    model: Any = build_model(seed)
    model.to(dtype).save_pretrained(directory, max_shard_size="40KB")
    tokenizer: Any = build_tokenizer()
    tokenizer.save_pretrained(directory)
    return directory


def open_path(base: Path, tuned: Path) -> tuple[WeightPath, Checkpoint]:
    readers = [Checkpoint(directory) for directory in (base, tuned)]
    return WeightPath(load_model(str(tuned)).model, *(reader.read for reader in readers)), readers[1]


def test_a_point_is_saved_in_the_shards_of_the_tuned_model(tmp_path: Path) -> None:
    base, tuned = shards(tmp_path / "base", seed=0), shards(tmp_path / "tuned", seed=1, dtype=torch.bfloat16)
    (tuned / "pytorch_model.bin").write_bytes(b"pickled")
    (tuned / "trainer_state.json").write_text("{}")
    path, checkpoint = open_path(base, tuned)
    assert can_save(path, checkpoint)
    save_point(path, Point.scale(0.25), checkpoint, tmp_path / "out")
    names = {file.name for file in tuned.iterdir()} - {"pytorch_model.bin", "trainer_state.json"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names
    assert sum(name.endswith(".safetensors") for name in names) > 1
    saved = dict(load_model(str(tmp_path / "out")).model.named_parameters())
    for name, weight in saved.items():
        expected = path.weight(name, Point.scale(0.25)).to(torch.bfloat16).float()
        assert torch.equal(weight, expected)
    assert load_model(str(tmp_path / "out")).tokenizer.chat_template


def test_one_shard_at_a_time_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forgetless.repair import saving

    base, tuned = shards(tmp_path / "base", seed=0), shards(tmp_path / "tuned", seed=1)
    path, checkpoint = open_path(base, tuned)
    sizes = []

    def save(tensors: dict[str, torch.Tensor], *_: Any, **__: Any) -> None:
        sizes.append(sum(tensor.nbytes for tensor in tensors.values()))

    monkeypatch.setattr(saving, "save_file", save)
    save_point(path, Point.scale(0.5), checkpoint, tmp_path / "out")
    assert len(sizes) > 2
    assert max(sizes) <= 40_000


def test_tied_weights_that_are_stored_twice_stay_equal(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    base, tuned = shards(tmp_path / "base", seed=0), shards(tmp_path / "tuned", seed=1)
    model: Any = load_model(str(tuned)).model
    model.lm_head.weight = model.model.embed_tokens.weight
    weights = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    for file in tuned.glob("*.safetensors*"):
        file.unlink()
    save_file({**weights, "rotary.unused": torch.ones(2)}, tuned / "model.safetensors")
    checkpoint = Checkpoint(tuned)
    path = WeightPath(model, Checkpoint(base).read, checkpoint.read)
    save_point(path, Point.scale(0.5), checkpoint, tmp_path / "out")
    saved = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(saved["lm_head.weight"], saved["model.embed_tokens.weight"])
    assert torch.equal(saved["rotary.unused"], torch.ones(2))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    base, tuned = shards(tmp_path / "base", seed=0), shards(tmp_path / "tuned", seed=1)
    path, checkpoint = open_path(base, tuned)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be saved"):
        save_point(path, Point.scale(0.5), checkpoint, tmp_path / "file/model")

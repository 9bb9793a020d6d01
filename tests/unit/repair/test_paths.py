"""A point is where it says: at 1 the tuned model bit for bit, at 0 the base, between them a share by depth."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from conftest import build_model
from forgetless.curve import Point
from forgetless.errors import ModelError
from forgetless.quiet import quiet_transformers
from forgetless.repair.checkpoints import Checkpoint
from forgetless.repair.paths import AdapterPath, WeightPath, is_scalable, state_reader

INPUT = torch.arange(12).reshape(1, 12)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=INPUT).logits
    return result


def trained_adapter(**options: Any) -> Any:
    base: Any = build_model()
    with quiet_transformers():
        model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", **options))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def disturbed() -> Any:
    model: Any = build_model()
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def weight_path() -> tuple[WeightPath, Any, Any]:
    base: Any = build_model()
    tuned = disturbed()
    readers = [state_reader(dict(copy.deepcopy(model).named_parameters())) for model in (base, tuned)]
    return WeightPath(tuned, *readers), base, copy.deepcopy(tuned)


def test_an_adapter_goes_to_the_base_and_back_bit_for_bit() -> None:
    model = trained_adapter()
    tuned = logits(model)
    path = AdapterPath(model)
    path.move(Point.scale(0.0))
    assert torch.equal(logits(model), logits(build_model()))
    path.move(Point.scale(0.5))
    path.move(Point.scale(1.0))
    assert torch.equal(logits(model), tuned)


def test_a_scaled_adapter_is_the_interpolated_weight() -> None:
    model = trained_adapter()
    merged = copy.deepcopy(model).merge_and_unload()
    base: Any = build_model()
    readers = [state_reader(dict(copy.deepcopy(m).named_parameters())) for m in (base, merged)]
    whole = WeightPath(merged, *readers)
    path = AdapterPath(model)
    for point in (Point.scale(0.3), Point(0.0, 1.0)):
        path.move(point)
        whole.move(point)
        torch.testing.assert_close(logits(model), logits(merged), atol=1e-5, rtol=1e-4)


def test_whole_weights_go_to_both_ends_bit_for_bit() -> None:
    path, base, tuned = weight_path()
    for point, expected in ((Point.scale(0.0), base), (Point.scale(1.0), tuned)):
        path.move(point)
        assert all(torch.equal(a, b) for a, b in zip(path.model.parameters(), expected.parameters(), strict=True))


def test_layers_move_by_the_share_of_their_depth() -> None:
    path, base, tuned = weight_path()
    path.move(Point(0.25, 0.75))
    shares = {"model.embed_tokens.weight": 0.25, "model.layers.0.mlp.up_proj.weight": 0.25}
    shares |= {"model.layers.1.mlp.up_proj.weight": 0.75, "lm_head.weight": 0.75, "model.norm.weight": 0.75}
    states = [dict(model.named_parameters()) for model in (base, tuned, path.model)]
    for name, share in shares.items():
        start, end, moved = (state[name] for state in states)
        torch.testing.assert_close(moved, start + share * (end - start))


@pytest.mark.parametrize("options", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_adapters_that_are_more_than_their_product_are_not_scaled(options: dict[str, Any]) -> None:
    assert not is_scalable(trained_adapter(**options))
    assert is_scalable(trained_adapter())
    assert not is_scalable(disturbed())


def test_a_saved_point_is_an_ordinary_adapter(tmp_path: Path) -> None:
    model = trained_adapter()
    AdapterPath(model).move(Point(0.5, 1.0))
    model.save_pretrained(str(tmp_path))
    base: Any = build_model()
    with quiet_transformers():
        read_back = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    assert torch.equal(logits(read_back), logits(model))


def test_weights_are_read_from_shards_one_by_one(tmp_path: Path) -> None:
    model: Any = build_model()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    checkpoint = Checkpoint(tmp_path)
    names = [name for name, _ in model.named_parameters()]
    assert checkpoint.holds(names)
    assert not checkpoint.holds([*names, "elsewhere"])
    assert all(torch.equal(checkpoint.read(name), parameter) for name, parameter in model.named_parameters())
    with pytest.raises(ModelError, match="has no weight elsewhere"):
        checkpoint.read("elsewhere")


def test_what_is_no_checkpoint_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no \*\.safetensors"):
        Checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(ModelError, match="cut off or damaged"):
        Checkpoint(tmp_path)


def test_another_models_base_is_refused() -> None:
    tuned = disturbed()
    state = dict(copy.deepcopy(tuned).named_parameters())
    other = {name: value[:1] for name, value in state.items()}
    with pytest.raises(ModelError, match="is it the base that was tuned"):
        WeightPath(tuned, state_reader(other), state_reader(state)).move(Point.scale(0.5))
    with pytest.raises(ModelError, match="has no weight"):
        WeightPath(tuned, state_reader({}), state_reader(state)).move(Point.scale(0.5))

"""One of two processes that hold a penalty on a model in shards (FSDP 2) against the same on the whole model.

Run as `python sharded_penalty.py RANK FILE`; leaves with 0 where they agree.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor

from conftest import build_model
from forgetless.mechanisms.quadratic import QuadraticPenalty
from language_models import wrap


def build(kind: str) -> Any:
    model: Any = build_model()
    return model if kind == "weights" else wrap(model, r=3, target_modules=["q_proj", "down_proj"])


def moved(model: Any) -> dict[str, torch.Tensor]:
    """Returns the same steps away from the anchor for every process."""
    generator = torch.Generator().manual_seed(1)
    return {n: 0.1 * torch.randn(p.shape, generator=generator) for n, p in model.named_parameters() if p.requires_grad}


def check(kind: str, *, is_weighted: bool, mesh: Any) -> None:
    whole, sharded = build(kind), build(kind)
    generator = torch.Generator().manual_seed(2)
    base: Any = build_model()
    weights = {n: torch.rand(p.shape, generator=generator) for n, p in base.named_parameters()} if is_weighted else None
    penalties = [QuadraticPenalty(model, weights, strength=2.0) for model in (whole, sharded)]
    inner = sharded if kind == "weights" else sharded.get_base_model()
    for layer in inner.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    pairs = dict(sharded.named_parameters())
    for name, step in moved(whole).items():
        one, other = whole.get_parameter(name), pairs[name]
        one.data += step
        one.grad = torch.ones_like(one)
        other.data += distribute_tensor(step, mesh, other.placements)
        other.grad = distribute_tensor(torch.ones_like(step), mesh, other.placements)
        assert other.to_local().numel() < one.numel()
    values = [penalty.add_gradient(model) for penalty, model in zip(penalties, (whole, sharded), strict=True)]
    assert torch.allclose(values[0], values[1], rtol=1e-4), values
    for name in moved(whole):
        assert torch.allclose(whole.get_parameter(name).grad, pairs[name].grad.full_tensor(), rtol=1e-4, atol=1e-5), (
            name
        )


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=int(sys.argv[1]), world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for kind in ("weights", "lora"):
        for is_weighted in (True, False):
            check(kind, is_weighted=is_weighted, mesh=mesh)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

"""Tensors that FSDP 2 spreads over processes: a process's own part, the whole, and sums over the parts.

Every function takes ordinary tensors too, so that what works on shards needs no second way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is spread over processes."""
    return hasattr(tensor, "device_mesh")


def own_part(tensor: Any) -> Tensor:
    """Returns this process's shard, detached and in the same memory; the tensor itself where it isn't sharded."""
    part: Tensor = tensor.detach().to_local() if is_sharded(tensor) else tensor.detach()
    return part


def whole(value: Any) -> Any:
    """Gathers a tensor that is spread over processes, in which every process must take part; else the same value."""
    return value.full_tensor() if is_sharded(value) else value


def part_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Returns the shard of a whole tensor that this process has of a parameter.

    Args:
        value: The whole, of the parameter's shape; every process has it.
        parameter: Whose device and sharding count.

    Returns:
        The shard, contiguous; all of the value where the parameter isn't sharded.
    """
    value = value.to(parameter.device)
    if not is_sharded(parameter):
        return value.contiguous()
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = parameter
    # Every process has the whole: each takes its own part and nothing is sent.
    local = distribute_tensor(value, sharded.device_mesh, sharded.placements, src_data_rank=None).to_local()
    return local.clone()  # not a view, which would keep the whole


def summed_over_parts(value: Tensor, like: Any) -> Tensor:
    """Adds a value up over the processes that have different shards of a parameter."""
    if not is_sharded(like):
        return value
    from torch.distributed.tensor import DTensor, Partial, Replicate

    placements = [Partial() if placement.is_shard() else Replicate() for placement in like.placements]
    total: Tensor = DTensor.from_local(value, like.device_mesh, placements, run_check=False).full_tensor()
    return total


def mesh_of(tensor: Any) -> tuple[Any, ...]:
    """Returns how a tensor is spread; empty where it isn't. Tensors that are spread alike can be worked on together."""
    return (tensor.device_mesh, tuple(tensor.placements)) if is_sharded(tensor) else ()


def lerp_from(parameter: Tensor, start: Tensor, share: float) -> None:
    """Moves a parameter in place to start + share * (parameter - start), in float32 at least.

    Args:
        parameter: The parameter, in shards or whole.
        start: Where it stood, whole, on any device.
        share: 1 leaves it where it is, 0 takes it back.
    """
    own = own_part(parameter)
    precision = torch.promote_types(own.dtype, torch.float32)
    own.copy_(torch.lerp(part_like(start, parameter).to(precision), own.to(precision), share))

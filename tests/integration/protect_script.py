"""A script of the user's own, launched on one process or on two: trains in several ways, writes what came out.

accelerate launch ... protect_script.py DIRECTORY [sharded]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from forgetless import LoRA, WiSEFT, protect
from forgetless.mechanisms.shards import whole
from forgetless.methods.base import Method
from forgetless.methods.kl import KLToBase
from trainers import ClosedPull, Pull, Shrink, Watching, Weighing, plain_trainer, sft_trainer, trained

GENERAL = [{"text": f"Fact {number}: water is wet."} for number in range(4)]
RUNS: dict[str, tuple[Callable[..., Any], Callable[[], Sequence[Method]]]] = {
    "nothing": (plain_trainer, list),
    "weights": (sft_trainer, lambda: [Weighing()]),
    "hooks": (plain_trainer, lambda: [Weighing(), Pull(), Watching(), ClosedPull(), Shrink(), WiSEFT()]),
    "adapter": (sft_trainer, lambda: [LoRA(rank=2), Weighing(), Watching(), ClosedPull(), Shrink(), WiSEFT()]),
    "kl": (sft_trainer, lambda: [LoRA(rank=2), KLToBase(num_examples=4)]),
}


def shard_on_the_cpu() -> None:
    """Lets accelerate shard over CPU processes, which it knows how to, but offers on accelerators only."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    original = AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init


def main(directory: Path, kind: str) -> None:
    """Trains in every way and writes the weights and logs of this process."""
    from accelerate import PartialState

    state = PartialState(cpu=True)
    changes: dict[str, Any] = {"per_device_train_batch_size": 8 // state.num_processes}
    if kind == "sharded":
        shard_on_the_cpu()
        changes |= {"fsdp": True, "fsdp_config": {"fsdp_version": 2}}
    for name, (build, methods) in RUNS.items():
        saving = {"save_strategy": "steps", "save_steps": 1} if name == "adapter" else {}
        trainer = build(directory / f"{kind}-{name}", **changes, **saving)
        protect(trainer, methods(), general=GENERAL)
        weights = {key: whole(tensor) for key, tensor in trained(trainer).items()}
        found = (weights, trainer.state.log_history, type(trainer.model_wrapped).__name__)
        torch.save(found, directory / f"{kind}-{name}-{state.process_index}.pt")
    if kind != "sharded":  # whose checkpoints accelerate keeps for accelerators
        build, methods = RUNS["adapter"]
        resumed = protect(build(directory / f"{kind}-adapter", **changes), methods(), general=GENERAL)
        again = trained(resumed, resume_from_checkpoint=str(directory / f"{kind}-adapter" / "checkpoint-1"))
        uninterrupted = torch.load(directory / f"{kind}-adapter-{state.process_index}.pt")[0]
        assert all(torch.equal(again[key], tensor) for key, tensor in uninterrupted.items())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

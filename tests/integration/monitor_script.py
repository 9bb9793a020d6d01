"""A script of the user's own on two processes: trains with the monitor, writes what came out.

accelerate launch ... monitor_script.py DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from forgetless import RetentionMonitor
from trainers import plain_trainer, trained

GENERAL = [{"text": f"Fact {number}: water is wet."} for number in range(12)]


def main(directory: Path) -> None:
    """Trains under each policy and writes the weights and looks of this process."""
    from accelerate import PartialState

    state = PartialState(cpu=True)
    for policy in ("rollback", "adapt"):
        told: dict[str, Any] = {"policy": policy, "budget": 0.01, "every": 2, "num_examples": 8}
        monitor = RetentionMonitor(GENERAL, **told, max_share=0.9, tell=lambda _: None)
        trainer = plain_trainer(directory / policy, max_steps=8, per_device_train_batch_size=2)
        trainer.add_callback(monitor)
        weights = trained(trainer)
        looks = [(look.step, look.num_examples, look.kl, look.status, look.rate_factor) for look in monitor.looks]
        found = (weights, looks, monitor.actions, type(trainer.model_wrapped).__name__)
        torch.save(found, directory / f"{policy}-{state.process_index}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Saving a point in whole weights: shard by shard, in the files and number types of the tuned model."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from forgetless.curve import Point
from forgetless.errors import RunError
from forgetless.files import whole_directory
from forgetless.repair.checkpoints import Checkpoint
from forgetless.repair.paths import WeightPath

# What makes a model of weights: configs, tokenizers, chat templates. Pickles and other formats of the weights stay.
_CARRIED = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken"})
_LEFT = frozenset({"forgetless.json", "trainer_state.json"})  # these speak of the weights that were there


def can_save(path: WeightPath, tuned: Checkpoint) -> bool:
    """Whether the files of the tuned model hold its weights under the names that they have in memory."""
    return tuned.holds(name for name, _ in path.model.named_parameters())


def save_point(path: WeightPath, point: Point, tuned: Checkpoint, target: Path) -> None:
    """Saves a point as a model directory, whole or not at all; one shard at a time is in memory.

    Weights that are no parameters of the model (buffers, unused heads) are those of the tuned model. Tied weights that
    are stored twice stay equal.

    Args:
        path: The path that the point lies on.
        point: The point.
        tuned: The files of the tuned model.
        target: The directory; what lies there is replaced.

    Raises:
        RunError: It can't be written.
    """
    owners = {id(parameter): name for name, parameter in path.model.named_parameters()}
    owner = {name: owners[id(parameter)] for name, parameter in path.model.named_parameters(remove_duplicate=False)}
    try:
        with whole_directory(target) as part:
            for file, names in tuned.shards.items():
                moved = {}
                for name in names:
                    stored = tuned.read(name)
                    weight = path.weight(owner[name], point).to(stored) if name in owner else stored
                    moved[name] = weight.contiguous()
                save_file(moved, part / file.name, metadata=_metadata(file))
            for file in tuned.directory.iterdir():
                if file.suffix in _CARRIED and file.name not in _LEFT and file.is_file():
                    shutil.copyfile(file, part / file.name)
    except (OSError, SafetensorError) as error:
        raise RunError(f"the model cannot be saved in {target} ({error}): free some space and run again") from error


def _metadata(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return {"format": "pt"} | (opened.metadata() or {})

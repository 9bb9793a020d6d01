"""What the machine has, as far as a choice depends on it; nothing is loaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def memory_of_cuda(device: str) -> int | None:
    """Returns the bytes of the CUDA device that a run would use; None where it would use another kind."""
    import torch

    if not device.startswith(("auto", "cuda")) or not torch.cuda.is_available():
        return None
    index = int(device.partition(":")[2] or 0)
    return int(torch.cuda.get_device_properties(index).total_memory)


def size_of_weights(model: str) -> int | None:
    """Returns the bytes of a model's weights on disk; None for what isn't there yet."""
    directory = Path(model).expanduser()
    found = [*directory.glob("*.safetensors"), *directory.glob("model/*.safetensors")] if directory.is_dir() else []
    return sum(path.stat().st_size for path in found) or None


def has_bitsandbytes() -> bool:
    """Whether weights can be held in 4 bits."""
    return find_spec("bitsandbytes") is not None

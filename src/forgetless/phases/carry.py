"""What a phase starts from, and what is kept of it: adapters merged or trained on, and averages over time."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from forgetless.methods.base import Context, Method, method_options
from forgetless.models import load_model, save_model
from forgetless.rundir import RunDirectory

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetless.config import Config

ADAPTER_FILE = "adapter_config.json"


def is_adapter(model: Path) -> bool:
    """Whether a saved model is an adapter."""
    return (model / ADAPTER_FILE).is_file()


def start_of(previous: RunDirectory, current: RunDirectory, config: Config) -> Path:
    """Returns the full weights that a phase starts from.

    Args:
        previous: The phase before.
        current: The phase, whose `start` holds them where that one left an adapter.
        config: How the model is loaded to be merged.

    Returns:
        A directory with full weights: the model of the phase before, merged where it is an adapter.

    Raises:
        RunError: The merged weights can't be written.
    """
    start = current.path / "start"
    if start.is_dir():
        return start
    if not is_adapter(previous.model):
        return previous.model
    loaded = load_model(
        str(previous.model),
        device=config.device,
        dtype=config.training.dtype,
        trust_remote_code=config.trust_remote_code,
    )
    adapted: Any = loaded.model
    save_model(adapted.merge_and_unload(), loaded.tokenizer, start)
    return start


def remove_weights(phase: RunDirectory) -> None:
    """Removes the weights of a phase that is finished and gone on from; all that was found out stays."""
    for directory in (phase.model, phase.path / "start"):
        shutil.rmtree(directory, ignore_errors=True)


@method_options
class TimeAverage(Method):
    """theta_t <- (1 - 1/t) theta_start + (1/t) theta_t, where phase t started from the average of those before.

    So what is kept after t phases is the mean of the t models that were trained, each from the average before it. For
    an adapter whose start is merged into the weights that is (1/t) B A, exactly; one that is trained on is averaged in
    A and in B, whose product is not quite the average of the products.
    """

    name: ClassVar[str] = "time_average"
    title: ClassVar[str] = "Average over time: start from it, keep it (TIME, after Dziadzio et al. 2025)"
    family: ClassVar[str] = "partial updates"
    paper: ClassVar[str] = "https://arxiv.org/abs/2412.06712"

    number: int = Field(ge=1, description="Number of the phase, counted from 1.")
    start: Path = Field(description="Full weights that the phase starts from.")
    is_continued: bool = Field(default=False, description="Whether the adapter goes on from that of the phase before.")

    def prepare_model(self, model: nn.Module, context: Context) -> nn.Module:
        """Keeps what a continued adapter starts from."""
        self.start_: dict[str, Tensor] = {}
        if self.is_continued:
            self.start_ = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        return model

    def finish(self, model: nn.Module) -> nn.Module:
        """Averages the trained model with its start, in place."""
        import torch

        with torch.no_grad():
            if self.is_continued:
                self._pull(dict(model.named_parameters()), self.start_)
            elif hasattr(model, "peft_config"):
                for name, parameter in model.named_parameters():
                    if ".lora_B." in name:
                        parameter.div_(self.number)
            else:
                self._pull(model.state_dict(), _Weights(self.start))
        return model

    def _pull(self, tensors: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> None:
        for name in start:
            if name in tensors and tensors[name].is_floating_point():
                tensors[name].lerp_(start[name].to(tensors[name]), 1 - 1 / self.number)


class _Weights(Mapping[str, "Tensor"]):
    """The tensors of a saved model, read one by one.

    Args:
        directory: Where its safetensors lie.
    """

    def __init__(self, directory: Path) -> None:
        from safetensors import safe_open

        self._files: dict[str, Path] = {}
        for path in sorted(directory.glob("*.safetensors")):
            with safe_open(str(path), framework="pt") as file:
                self._files |= dict.fromkeys(file.keys(), path)

    def __getitem__(self, name: str) -> Tensor:
        from safetensors import safe_open

        with safe_open(str(self._files[name]), framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def __iter__(self) -> Any:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

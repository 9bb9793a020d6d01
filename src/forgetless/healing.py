"""A short healing run: the damaged model is trained a little on what the base itself writes, as the last resort.

Of an adapter only B is trained, so that the healed one lies on a line of its own to the base and keeps its rank; over
whole weights a low-rank change is learned and added. Both are treatments of the change, for `repair.paths`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.config import TrainingConfig
from forgetless.curve import Point
from forgetless.data.examples import Example
from forgetless.errors import RunError
from forgetless.mechanisms.self_replay import Yield, write_replay
from forgetless.mechanisms.tensors import write_tensors
from forgetless.progress import Reporter
from forgetless.repair.paths import AdapterPath, RepairPath, Treatment
from forgetless.writing import open_writer

if TYPE_CHECKING:
    import torch

    from forgetless.models import LoadedModel

_KEPT_FILE = "healed.safetensors"


@dataclass(frozen=True)
class Healing:
    """How a model is healed.

    Attributes:
        num_examples: Examples that the base writes.
        num_steps: Optimizer steps.
        batch_size: Examples per step.
        learning_rate: Peak rate, of an adapter's.
        rank: Rank of the change that is learned over whole weights.
    """

    num_examples: int = 48
    num_steps: int = 24
    batch_size: int = 4
    learning_rate: float = 2e-4
    rank: int = 16


def heal(
    path: RepairPath,
    loaded: LoadedModel,
    *,
    directory: Path,
    held_out: Sequence[str],
    settings: Healing | None = None,
    seed: int = 0,
    reporter: Reporter,
) -> Treatment:
    """Heals the tuned model; what was learned is kept in a directory, and taken from there another time.

    Args:
        path: The path; it is left at an arbitrary point, and carries no other adapter than before.
        loaded: The model that the path moves, with its tokenizer.
        directory: Where the result and checkpoints lie.
        held_out: Texts that no written example may overlap with.
        settings: How much is written and trained.
        seed: Of what is written and of the order of training.
        reporter: Where to tell how far it is.

    Returns:
        The treatment that makes the healed change of the tuned one.

    Raises:
        ModelError: The model has no chat template.
        RunError: Too little of what the base writes can be used, or training failed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    settings = settings or Healing()
    file = directory / _KEPT_FILE
    if file.exists():
        try:
            return _treatment(path, load_file(file))
        except (OSError, SafetensorError):
            reporter.note(f"{file} is damaged: the model is healed again")
    path.move(Point.scale(0.0))
    replay = _write(replace(loaded, model=path.model), settings, held_out=held_out, seed=seed, reporter=reporter)
    path.move(Point.scale(1.0))
    learned = _train(path, loaded, replay, settings, directory=directory, seed=seed, reporter=reporter)
    try:
        write_tensors(file, learned)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file} cannot be written ({error}): free some space and run again") from error
    return _treatment(path, learned)


def _write(
    base: LoadedModel, settings: Healing, *, held_out: Sequence[str], seed: int, reporter: Reporter
) -> list[Example]:
    writer = open_writer(base, reporter=reporter)
    summary = Yield()
    replay = write_replay(writer, settings.num_examples, seed=seed, evaluation_texts=held_out, summary=summary)
    reporter.note(f"written by the base: {summary}")
    return replay


def _train(
    path: RepairPath,
    loaded: LoadedModel,
    replay: Sequence[Example],
    settings: Healing,
    *,
    directory: Path,
    seed: int,
    reporter: Reporter,
) -> dict[str, torch.Tensor]:
    """Trains and returns what was learned: each B of an adapter, or the two factors of the change of each weight."""
    from forgetless.data.encoding import encode_examples
    from forgetless.models import num_positions
    from forgetless.train.trainer import remove_checkpoints, train_model

    model: Any = path.model
    longest = min(TrainingConfig().max_tokens, num_positions(model))
    sequences = encode_examples(replay, loaded.tokenizer, max_tokens=longest)
    model = _only_outputs(model) if isinstance(path, AdapterPath) else _with_adapter(model, settings, seed)
    config = TrainingConfig(
        max_steps=settings.num_steps, batch_size=settings.batch_size, warmup_ratio=0.1, scheduler="linear"
    )
    with reporter.task("Healing") as progress:
        trained, _ = train_model(
            model,
            loaded.tokenizer,
            sequences,
            methods=(),
            config=config,
            learning_rate=settings.learning_rate,
            seed=seed,
            directory=directory,
            progress=progress,
        )
    learned = {
        name: parameter.detach().cpu().clone()
        for name, parameter in trained.named_parameters()
        if parameter.requires_grad
    }
    remove_checkpoints(directory)
    trained.requires_grad_(False)
    if not isinstance(path, AdapterPath):
        learned = {_weight_name(name): part for name, part in learned.items()}
        path.model = model.unload().eval()
    return learned


def _only_outputs(model: Any) -> Any:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_B." in name)
    return model


def _with_adapter(model: Any, settings: Healing, seed: int) -> Any:
    from peft import LoraConfig

    from forgetless.mechanisms.adapters import add_adapter

    # Scale 1, so that the change is B A.
    config = LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return add_adapter(model, config, method="heal", seed=seed)


def _weight_name(name: str) -> str:
    """Returns `WEIGHT.A` or `WEIGHT.B`, from the name of an adapter's parameter."""
    place, _, rest = name.removeprefix("base_model.model.").partition(".lora_")
    return f"{place}.weight.{rest[0]}"


def _treatment(path: RepairPath, learned: dict[str, torch.Tensor]) -> Treatment:
    if isinstance(path, AdapterPath):

        def replaced(name: str, change: torch.Tensor) -> torch.Tensor:
            return learned[name].to(change) if name in learned else change

        return replaced

    def added(name: str, change: torch.Tensor) -> torch.Tensor:
        if f"{name}.A" not in learned:
            return change
        return change + (learned[f"{name}.B"].float() @ learned[f"{name}.A"].float()).to(change)

    return added

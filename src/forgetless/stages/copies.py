"""Quantised copies of the artefact, where a run is to judge them too: what is shipped is often not what was saved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forgetless.budgeting import tasks_of
from forgetless.compare.comparison import compare
from forgetless.errors import ConfigError
from forgetless.job import Job
from forgetless.mechanisms.adapters import merge_adapter
from forgetless.progress import Reporter
from forgetless.quantised import lacks_four_bits
from forgetless.records import Comparison, read_comparison, read_scores
from forgetless.rundir import RunDirectory, keep_scores, write_comparison
from forgetless.stages.scores import checks_of, evaluation_options, load, release_memory

if TYPE_CHECKING:
    from forgetless.models import LoadedModel

KINDS = {"int8": "weights in 8 bits, a scale per output channel", "nf4": "weights in 4 bits (bitsandbytes)"}


def check_artefact(job: Job) -> None:
    """Refuses an artefact or copies of it that can't be made here, before anything is loaded.

    Args:
        job: The job.

    Raises:
        ConfigError: A kind is unknown, its package lacks, or an adapter is to be merged into quantised weights.
    """
    if job.config.merge and job.load_options.get("in_four_bits"):
        raise ConfigError("merge: an adapter on 4-bit weights can't be merged into them without loss: leave merge out")
    for kind in job.config.evaluation.quantised:
        if kind not in KINDS:
            raise ConfigError(f"evaluation.quantised: there is no kind {kind!r}; there are {', '.join(KINDS)}")
        if kind == "nf4" and (lacking := lacks_four_bits()):
            raise ConfigError(f"evaluation.quantised: {lacking}")


def copies_stage(job: Job, directory: RunDirectory, reporter: Reporter) -> dict[str, Comparison]:
    """Asks each quantised copy what the artefact was asked, and judges it against the same base.

    Args:
        job: The job.
        directory: The run directory; `copies/` is written.
        reporter: Where to tell how far it is.

    Returns:
        The comparison of each copy, by its kind.
    """
    found = {}
    gate = job.config.gate
    for kind in job.config.evaluation.quantised:
        if not directory.is_done(f"copy-{kind}", directory.copy(kind, "comparison.json")):
            with directory.stage(f"copy-{kind}"):
                _score(job, directory, reporter, kind)
                comparison = compare(
                    read_scores(directory.scores("base")),
                    read_scores(directory.copy(kind, "scores.jsonl")),
                    margin=job.config.margin,
                    alpha=gate.alpha,
                    cross_entropy_margin=gate.cross_entropy_margin,
                )
                write_comparison(directory.copy(kind, "comparison.json"), comparison)
            release_memory()
        found[kind] = read_comparison(directory.copy(kind, "comparison.json"))
        delta = found[kind].pooled.delta
        change = "" if delta is None else f", general skills {100 * delta:+.1f} points against the base"
        reporter.note(f"quantised copy {kind}: {found[kind].verdict}{change}")
    return found


def _score(job: Job, directory: RunDirectory, reporter: Reporter, kind: str) -> None:
    from forgetless.evaluate.runner import evaluate

    checks = {check.name for check in checks_of(job)}
    tasks = [task for task in tasks_of(job, side="tuned") if task.name not in checks]
    loaded = _copy(job, directory, reporter, kind)
    with reporter.task(f"Asking the {kind} copy") as progress:
        scores = evaluate(loaded, tasks, options=evaluation_options(job), progress=progress)
    keep_scores(directory.copy(kind, "scores.jsonl"), scores)


def _copy(job: Job, directory: RunDirectory, reporter: Reporter, kind: str) -> LoadedModel:
    """Loads the artefact and quantises it in memory."""
    if kind == "nf4":
        return load(job, str(directory.model), reporter, in_four_bits=True)
    loaded = load(job, str(directory.model), reporter)
    model: Any = merge_adapter(loaded.model)
    round_to_int8(model)
    return replace(loaded, model=model)


def round_to_int8(model: Any) -> None:
    """Rounds the weights of every linear layer to 8 bits, one scale per output channel, in place.

    Weights alone, as they are shipped: activations keep their type, so that an answer doesn't depend on what shares its
    batch. The output layer is left alone where it shares its weights with the embedding.

    Args:
        model: A model with ordinary weights.
    """
    import torch

    embedding = model.get_input_embeddings().weight
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module.weight is not embedding:
                weight = module.weight.float()
                scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
                module.weight.copy_((weight / scale).round() * scale)

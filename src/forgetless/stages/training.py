"""Making the mixture, training on it, and saving what came of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.data.examples import Example
from forgetless.data.sources import write_examples
from forgetless.errors import ConfigError
from forgetless.job import Job
from forgetless.mechanisms.adapters import merge_adapter
from forgetless.methods.base import Context
from forgetless.monitor_stage import facts_of, open_monitor
from forgetless.progress import Reporter
from forgetless.rundir import RunDirectory
from forgetless.stages.scores import checks_of, load

if TYPE_CHECKING:
    from forgetless.models import LoadedModel


def train_stage(job: Job, directory: RunDirectory, reporter: Reporter, loaded: LoadedModel | None) -> None:
    if directory.is_done("train", trained_directory(job, directory)):
        return
    loaded = loaded or load(job, job.config.model, reporter, **job.load_options)
    context = prepare_context(job, loaded, directory, reporter)
    with directory.stage("data") as facts:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            mixture = mix_data(job, context)
        notes = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
        _record_mixture(job, directory, mixture, loaded.tokenizer)
        facts["warnings"] = notes
        facts["notes"] = list(context.notes)
    for note in [*context.notes, *notes]:
        reporter.note(note)
    context.notes.clear()
    with directory.stage("train") as facts, reporter.task("Training") as progress:
        facts |= _fit(job, directory, loaded, mixture, context, progress, reporter)
        facts["notes"] = list(context.notes)
    for note in context.notes:
        reporter.note(note)


def mix_data(job: Job, context: Context) -> Sequence[Example]:
    """Returns the mixture that the methods make of the domain examples."""
    mixture: Sequence[Example] = job.domain
    for method in job.methods:
        mixture = method.prepare_data(mixture, context)
    return mixture


def prepare_context(job: Job, loaded: LoadedModel, directory: RunDirectory, reporter: Reporter) -> Context:
    """Returns what methods may know once the base is loaded."""
    from forgetless.writing import held_out_texts, open_writer

    settings = job.config.evaluation
    # What is kept outlives the run, unless nothing is to be: then a run that was stopped still finds its own.
    kept = None if settings.cache else directory.methods
    writer = open_writer(loaded, reporter=reporter, directory=kept, batch_size=settings.batch_size)
    if job.earlier is not None and job.earlier.load_base is not None:  # a later phase: the base is another model
        writer = open_writer(job.earlier.load_base, reporter=reporter, directory=kept, batch_size=settings.batch_size)
    elif job.methods:
        _ = writer.key  # read now: an adapter that a method puts in place later would give another one at every seed
    return replace(
        job.context(),
        tokenizer=loaded.tokenizer,
        model=loaded.model,
        directory=directory.methods,
        writer=writer,
        held_out=held_out_texts([*job.suite, *checks_of(job), *job.targets], job.test),
    )


def trained_directory(job: Job, directory: RunDirectory) -> Path:
    """Returns where training leaves its model: with a budget, the run's model is made of it afterwards."""
    return directory.model if job.config.budget is None else directory.trained


def _record_mixture(job: Job, directory: RunDirectory, mixture: Sequence[Example], tokenizer: Any) -> None:
    from forgetless.data.encoding import count_answer_tokens
    from forgetless.data.mixing import summarise_mixture

    write_examples(directory.mixture, mixture)
    summary = summarise_mixture(mixture, count_tokens=lambda example: count_answer_tokens(example, tokenizer))
    directory.update({"data": {**asdict(summary), "replay_share": summary.share_examples, "num_test": len(job.test)}})


def _fit(
    job: Job,
    directory: RunDirectory,
    loaded: LoadedModel,
    mixture: Sequence[Example],
    context: Context,
    progress: Any,
    reporter: Reporter,
) -> dict[str, Any]:
    """Trains, saves the model, and returns what the manifest says of it."""
    from forgetless.data.encoding import encode_examples
    from forgetless.models import count_parameters, num_positions, save_model
    from forgetless.train.precision import lower_precision, raise_precision
    from forgetless.train.trainer import remove_checkpoints, train_model

    config = job.config
    longest = min(config.training.max_tokens, num_positions(loaded.model))
    sequences = encode_examples(mixture, loaded.tokenizer, max_tokens=longest)
    context = replace(context, sequences=sequences)
    log = directory.path / "train.jsonl"
    monitor = open_monitor(job, mixture, context, log=log, reporter=reporter)  # while the base can still write
    model = loaded.model
    kept = raise_precision(model, job.methods, dtype=config.training.dtype)
    for method in job.methods:
        model = method.prepare_model(model, context)
    trainable = count_parameters(model)[1]
    if not trainable:
        raise ConfigError(
            f"nothing of model {config.model!r} can be trained (an adapter is loaded frozen): merge it into its base "
            "with peft's merge_and_unload and tune that"
        )
    trained, summary = train_model(
        model,
        loaded.tokenizer,
        sequences,
        methods=job.methods,
        config=config.training,
        learning_rate=job.learning_rate,
        seed=config.seed,
        directory=directory.path,
        progress=progress,
        callbacks=[] if monitor is None else [monitor],
    )
    lower_precision(trained, kept)
    if config.merge and config.budget is None:  # with a budget the point is chosen first
        trained = merge_adapter(trained)
    save_model(trained, loaded.tokenizer, trained_directory(job, directory))
    remove_checkpoints(directory.path)
    return {
        **asdict(summary),
        "trainable_parameters": trainable,
        "num_sequences": len(sequences),
        "num_dropped": len(mixture) - len(sequences),
        "num_truncated": sum(sequence.num_truncated > 0 for sequence in sequences),
        **facts_of(monitor),
    }

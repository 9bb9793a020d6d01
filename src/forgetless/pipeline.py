"""The main job, stage by stage: the only module that sees every stage."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.checklist import load_checks, split_checks
from forgetless.config import Config
from forgetless.data.examples import Example
from forgetless.data.sources import write_examples
from forgetless.errors import ConfigError, ForgetlessError
from forgetless.evaluate.requests import Decoding
from forgetless.harness_stage import ask_harness, load_harness
from forgetless.job import Job, plan
from forgetless.judging import build_pages
from forgetless.methods.base import Context
from forgetless.monitor_stage import facts_of, open_monitor
from forgetless.progress import Reporter, Silent
from forgetless.records import (
    Attribution,
    CheckResult,
    Comparison,
    read_comparison,
    read_scores,
)
from forgetless.rundir import (
    RunDirectory,
    keep_scores,
    library_versions,
    noise_files,
    refuse_foreign_file,
    version,
    write_comparison,
)
from forgetless.tasks.base import Task
from forgetless.walking import check_budget, keep_selection, tasks_of

if TYPE_CHECKING:
    from forgetless.evaluate.runner import EvaluationOptions
    from forgetless.models import LoadedModel


@dataclass(frozen=True)
class RunResult:
    """What a run leaves: its directory, the comparison with its verdict, and the pages."""

    directory: Path
    comparison: Comparison
    pages: list[Path]

    @property
    def exit_code(self) -> int:
        return self.comparison.verdict.exit_code


def run(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    fresh: bool = False,
    reporter: Reporter | None = None,
    command: str = "",
) -> RunResult:
    """Does the whole job: base scores, training, tuned scores, verdict, report.

    A run that was stopped goes on where it was when it is started again with the same config and data.

    Args:
        config: A config, a mapping like its YAML, or the path of one.
        out: The run directory; default `runs/NAME`, with a number behind it where another run lies there.
        name: NAME; default: that of the config file, or `run`.
        fresh: Replace what lies in `out`.
        reporter: Where to tell how far it is.
        command: The command line, for the manifest.

    Returns:
        The run directory, the comparison with its verdict, and the pages.

    Raises:
        ForgetlessError: With a message that says what to do.
    """
    reporter = reporter or Silent()
    directory, job = start(config, out=out, name=name, fresh=fresh, command=command)
    check_budget(job)
    for text in [*(f"methods: auto chose {reason}" for reason in job.reasons), *job.warnings]:
        reporter.note(text)
    model = base_stage(job, directory, reporter)
    if job.load_options:
        model = None  # the methods want it loaded otherwise, and two would take the memory of both
        release_memory()
    train_stage(job, directory, reporter, model)
    del model
    release_memory()
    _walk_stage(job, directory, reporter)
    tuned_stage(job, directory, reporter)
    comparison = explained_comparison(job, directory, reporter)
    with directory.stage("report"):
        pages = build_pages(directory.path)
    return RunResult(directory.path, comparison, pages)


def train(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    fresh: bool = False,
    reporter: Reporter | None = None,
    command: str = "",
) -> Path:
    """Trains only, and returns the directory of the tuned model; takes what `run` takes."""
    directory, job = start(config, out=out, name=name, fresh=fresh, command=command)
    train_stage(job, directory, reporter or Silent(), None)
    return _trained(job, directory)


def start(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    fresh: bool = False,
    command: str = "",
) -> tuple[RunDirectory, Job]:
    """Plans a run and opens its directory."""
    name = name or (Path(config).stem if isinstance(config, str | Path) else "run")
    job = plan(config)
    directory = choose_directory(job, job.identity, out=out, name=name, fresh=fresh)
    directory.start(describe(job, directory, command), identity=job.identity, fresh=fresh)
    return directory, job


def choose_directory(job: Job, identity: str, *, out: str | Path | None, name: str, fresh: bool) -> RunDirectory:
    """Returns where a run goes: `out`, or the first of runs/NAME, runs/NAME-2, ... that is free or holds this run."""
    from forgetless.models import is_embedded, resolve_model

    if not is_embedded(job.config.model):
        resolve_model(job.config.model)  # a wrong path is refused before an earlier run is replaced
    return RunDirectory(Path(out)) if out is not None else _free_directory(Path("runs") / name, identity, fresh)


def describe(job: Job, directory: RunDirectory, command: str = "") -> dict[str, Any]:
    """Returns what the manifest says of a job."""
    return {
        "name": directory.path.name,
        "forgetless": version(),
        "command": command,
        "seed": job.config.seed,
        "config": job.config.model_dump(mode="json"),
        "versions": library_versions(),
        "fingerprints": job.fingerprints(),
        "learning_rate": job.learning_rate,
        "warnings": job.warnings,
        "automatic": job.reasons,
        "methods": [{"name": m.name, "title": m.title, "paper": m.paper, "params": m.options()} for m in job.methods],
    }


def _free_directory(path: Path, identity: str, fresh: bool) -> RunDirectory:
    """Returns the first of NAME, NAME-2, NAME-3, ... that is free or holds the same run."""
    number = 1
    while True:
        directory = RunDirectory(path if number == 1 else path.with_name(f"{path.name}-{number}"))
        if fresh or not directory.path.exists() or directory.read().get("identity") == identity:
            return directory
        number += 1


def base_stage(job: Job, directory: RunDirectory, reporter: Reporter) -> LoadedModel | None:
    """Scores the base, and again where it is to; returns it for training, or None when nothing had to be loaded."""
    if directory.is_done("base", directory.scores("base")):
        return _noise_stage(job, directory, reporter, None)
    loaded = _load(job, job.config.model, reporter)
    from forgetless.models import count_parameters, hub_id

    facts = {
        "name": job.config.model,
        "hub_id": hub_id(job.config.model),
        "num_parameters": count_parameters(loaded.model)[0],
    }
    directory.update({"model": facts, "device": str(loaded.device)})
    _score_stage(job, directory, reporter, "base", loaded)
    return _noise_stage(job, directory, reporter, loaded)


def _noise_stage(
    job: Job, directory: RunDirectory, reporter: Reporter, loaded: LoadedModel | None
) -> LoadedModel | None:
    """Asks the base the free tasks again, each time with another seed; returns it where it is loaded."""
    settings = job.config.evaluation
    if settings.noise_floor and not settings.temperature:
        reporter.note("greedy decoding in this process repeats itself: the noise floor is zero, and no run is repeated")
        return loaded
    for number in range(1, settings.noise_floor + 1):
        if not directory.is_done(f"noise-{number}", directory.noise(number)):
            loaded = loaded or _load(job, job.config.model, reporter)
            _score_stage(job, directory, reporter, "base", loaded, repeat=number)
    return loaded


def tuned_stage(job: Job, directory: RunDirectory, reporter: Reporter) -> None:
    """Scores the artefact that was saved, read back from disk."""
    if directory.is_done("tuned", directory.scores("tuned")):
        return
    loaded = _load(job, str(directory.model), reporter, **job.load_options)
    _score_stage(job, directory, reporter, "tuned", loaded)


def _walk_stage(job: Job, directory: RunDirectory, reporter: Reporter) -> None:
    """Saves the point between base and tuned that learned most within the budget, where the run has one."""
    budget = job.config.budget
    if budget is None or directory.is_done("walk", directory.model):
        return
    from forgetless.walking import save_best_point

    loaded = _load(job, str(directory.trained), reporter, **job.load_options)
    with directory.stage("walk") as facts:
        facts |= save_best_point(
            job,
            directory,
            loaded,
            load=lambda name: _load(job, name, reporter),
            options=_evaluation_options(job),
            reporter=reporter,
        )
    release_memory()


def _confirm_stage(job: Job, directory: RunDirectory, comparison: Comparison, reporter: Reporter) -> None:
    """Writes into the curve what the confirmation half says of the chosen point."""
    if job.config.budget is None:
        return
    from forgetless.curve import read_curve
    from forgetless.walking import confirm, write_curve

    curve = confirm(read_curve(directory.curve), comparison)
    write_curve(directory.curve, curve)
    reporter.note(curve.sentence)


def _evaluation_options(job: Job, *, repeat: int = 0) -> EvaluationOptions:
    from forgetless.evaluate.runner import EvaluationOptions
    from forgetless.models import cache_directory

    settings = job.config.evaluation
    cache = cache_directory() / "scores" if settings.cache else None
    decoding = Decoding(settings.temperature, settings.top_p, job.config.seed + repeat)
    return EvaluationOptions(batch_size=settings.batch_size, cache=cache, decoding=decoding)


def _score_stage(
    job: Job, directory: RunDirectory, reporter: Reporter, side: str, loaded: LoadedModel, *, repeat: int = 0
) -> None:
    """Scores a side; a repeat (of the base, from 1) takes another seed and asks only what is decoded."""
    from forgetless.evaluate.runner import evaluate

    checks = _checks(job)
    names = {check.name for check in checks}
    tasks = [task for task in tasks_of(job, side=side if not repeat else "tuned") if task.name not in names]
    tasks += checks
    stage, title, path = side, f"Asking the {side} model", directory.scores(side)
    harness = None if repeat else load_harness(job.harness, tasks, reporter)
    if repeat:
        stage, title, path = f"noise-{repeat}", f"Asking the base again ({repeat})", directory.noise(repeat)
        checks, tasks = [], [task for task in tasks if task.spec.kind == "generate" and task.name not in names]
    with directory.stage(stage) as facts:
        reached: list[float] = []
        with reporter.task(title) as progress:

            def watch(done: float, total: float) -> None:
                reached.append(total)
                progress(done, total)

            options = _evaluation_options(job, repeat=repeat)
            scores = evaluate(loaded, tasks, options=options, progress=watch)
        facts["cached"] = not reached  # nothing was left to be asked
        scores += ask_harness(harness, loaded, options, reporter, title=f"{title}: lm-eval")
        facts["num_samples"] = len(scores)
        scores, checked = split_checks(scores, checks)
        if checks:
            keep_scores(directory.scores(f"{side}.checks"), checked)
        if side == "base" and not repeat:
            scores = keep_selection(job, directory, scores)
        keep_scores(path, scores)


def _checks(job: Job) -> list[Task]:
    """Returns the checks of the deployment checklist, if the run is to take them."""
    settings = job.config.evaluation
    if not settings.checks:
        return []
    return load_checks(job.domain, [] if settings.tasks_dir is None else [settings.tasks_dir])


def _judge_checks(job: Job, directory: RunDirectory) -> list[CheckResult]:
    from forgetless.compare.checklist import judge_checks

    if not job.config.evaluation.checks:
        return []
    base, tuned = (read_scores(directory.scores(f"{side}.checks")) for side in ("base", "tuned"))
    return judge_checks(_checks(job), tuned, base)


def load_base(job: Job, reporter: Reporter) -> LoadedModel:
    """Loads the model that the tuned one is judged against: in a sequence the one before all phases."""
    return _load(job, job.base_name, reporter)


def _load(job: Job, name: str, reporter: Reporter, **options: Any) -> LoadedModel:
    from forgetless.models import load_model

    config = job.config
    with reporter.task(f"Loading {name}"):
        loaded = load_model(
            name,
            device=config.device,
            dtype=config.training.dtype,
            trust_remote_code=config.trust_remote_code,
            **options,
        )
    for note in loaded.notes:
        reporter.note(note)
    return loaded


def mix_data(job: Job, context: Context) -> Sequence[Example]:
    """Returns the mixture that the methods make of the domain examples."""
    mixture: Sequence[Example] = job.domain
    for method in job.methods:
        mixture = method.prepare_data(mixture, context)
    return mixture


def _prepare_context(job: Job, loaded: LoadedModel, directory: RunDirectory, reporter: Reporter) -> Context:
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
        held_out=held_out_texts([*job.suite, *_checks(job), *job.targets], job.test),
    )


def train_stage(job: Job, directory: RunDirectory, reporter: Reporter, loaded: LoadedModel | None) -> None:
    if directory.is_done("train", _trained(job, directory)):
        return
    loaded = loaded or _load(job, job.config.model, reporter, **job.load_options)
    context = _prepare_context(job, loaded, directory, reporter)
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


def _trained(job: Job, directory: RunDirectory) -> Path:
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
    from forgetless.train.trainer import remove_checkpoints, train_model

    config = job.config
    longest = min(config.training.max_tokens, num_positions(loaded.model))
    sequences = encode_examples(mixture, loaded.tokenizer, max_tokens=longest)
    context = replace(context, sequences=sequences)
    log = directory.path / "train.jsonl"
    monitor = open_monitor(job, mixture, context, log=log, reporter=reporter)  # while the base can still write
    model = loaded.model
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
    save_model(trained, loaded.tokenizer, _trained(job, directory))
    remove_checkpoints(directory.path)
    return {
        **asdict(summary),
        "trainable_parameters": trainable,
        "num_sequences": len(sequences),
        "num_dropped": len(mixture) - len(sequences),
        "num_truncated": sum(sequence.num_truncated > 0 for sequence in sequences),
        **facts_of(monitor),
    }


def judge(directory: RunDirectory, job: Job) -> Comparison:
    """Compares the two score files of a run and writes `comparison.json`."""
    from forgetless.compare.comparison import compare

    gate = job.config.gate
    with directory.stage("compare"):
        comparison = compare(
            read_scores(directory.scores("base")),
            read_scores(directory.scores("tuned")),
            margin=job.config.margin,
            alpha=gate.alpha,
            cross_entropy_margin=gate.cross_entropy_margin,
            noise=[read_scores(path) for path in noise_files(directory.path)],
            checks=_judge_checks(job, directory),
            recipe={
                "methods": [method.name for method in job.methods],
                "learning_rate": job.learning_rate,
                "epochs": job.config.training.epochs,
                "num_examples": len(job.domain),
                "has_general": bool(job.general),
            },
        )
        write_comparison(directory.comparison, comparison)
    return comparison


def explained_comparison(job: Job, directory: RunDirectory, reporter: Reporter) -> Comparison:
    """Judges a run, and says what kind of loss each fall looks like."""
    earlier = _known_attributions(directory)
    comparison = judge(directory, job)
    _confirm_stage(job, directory, comparison, reporter)
    return _explain_stage(job, directory, comparison, reporter, earlier=earlier)


def _known_attributions(directory: RunDirectory) -> list[Attribution]:
    """Returns what an earlier start of the run found out about its losses."""
    is_known = directory.is_done("explain", directory.comparison)
    return read_comparison(directory.comparison).attributions if is_known else []


def _explain_stage(
    job: Job, directory: RunDirectory, comparison: Comparison, reporter: Reporter, *, earlier: Sequence[Attribution]
) -> Comparison:
    """Says what kind of loss each fall looks like, and writes `comparison.json` anew where something fell."""
    from forgetless.compare.attribution import fallen_tasks, with_attributions
    from forgetless.diagnosis import explain_by_answers, explain_by_asking
    from forgetless.evaluate.runner import EvaluationOptions

    fallen = fallen_tasks(comparison.tasks)
    if not fallen:
        return comparison
    sides = [read_scores(directory.scores(side)) for side in ("base", "tuned")]
    with directory.stage("explain"):
        if [entry.task for entry in earlier] == fallen:
            comparison = with_attributions(comparison, earlier)
        else:
            try:
                comparison = explain_by_asking(
                    comparison,
                    *sides,
                    models=(job.base_name, str(directory.model)),
                    tasks=job.suite,
                    load=lambda name: _load(
                        job, name, reporter, **(job.load_options if name == str(directory.model) else {})
                    ),
                    options=EvaluationOptions(batch_size=job.config.evaluation.batch_size),
                    reporter=reporter,
                )
            except ForgetlessError as error:  # the verdict stands without it
                reporter.note(f"what was lost could not be asked about ({error}); its answers alone are judged")
                comparison = explain_by_answers(comparison, *sides)
        write_comparison(directory.comparison, comparison)
    return comparison


def mix_files(
    domain: Path, general: Path, *, out: Path, share: float, seed: int = 0, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Writes a replay mixture of two files.

    Args:
        domain: File of the domain examples; all are used.
        general: File of the general examples to draw from.
        out: File for the mixture, as JSON lines.
        share: Share of general examples in the final mixture, in [0, 1).
        seed: Seed of the draw and of the order.
        reporter: Where warnings are shown.

    Returns:
        What the mixture consists of: the fields of a `MixtureSummary` by name.

    Raises:
        ConfigError: The output would replace one of the sources, or the share is not in [0, 1).
        DataError: A file can't be read or written.
    """
    from forgetless.data.mixing import replay_mixture, summarise_mixture

    if out.resolve() in {domain.resolve(), general.resolve()}:
        raise ConfigError(f"--out {out} is one of the sources: nothing of yours is written over")
    refuse_foreign_file(out)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        mixture = replay_mixture(domain, general, share=share, seed=seed)
    for warning in caught:
        (reporter or Silent()).note(str(warning.message))
    write_examples(out, mixture)
    return asdict(summarise_mixture(mixture))


def release_memory() -> None:
    """Gives memory of models that are no longer used back before the next one is loaded."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

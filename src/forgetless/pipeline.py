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
from forgetless.errors import ConfigError, ForgetlessError, RunError
from forgetless.evaluate.requests import GREEDY, Decoding
from forgetless.harness_stage import ask_harness, load_harness
from forgetless.job import Job, plan
from forgetless.methods.base import Context
from forgetless.progress import Reporter, Silent
from forgetless.records import (
    Attribution,
    CheckResult,
    Comparison,
    SampleScore,
    read_comparison,
    read_scores,
    write_scores,
)
from forgetless.rundir import RunDirectory, library_versions, noise_files, refuse_foreign_file, version
from forgetless.tasks.base import Task

if TYPE_CHECKING:
    from forgetless.evaluate.endpoint import EndpointOptions
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
    for text in job.warnings:
        reporter.note(text)
    model = _base_stage(job, directory, reporter)
    model = _noise_stage(job, directory, reporter, model)
    _train_stage(job, directory, reporter, model)
    del model
    release_memory()
    _tuned_stage(job, directory, reporter)
    earlier = _known_attributions(directory)
    comparison = _explain_stage(job, directory, judge(directory, job), reporter, earlier=earlier)
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
    _train_stage(job, directory, reporter or Silent(), None)
    return directory.model


def start(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    fresh: bool = False,
    command: str = "",
) -> tuple[RunDirectory, Job]:
    """Plans a run and opens its directory."""
    from forgetless.models import is_embedded, resolve_model

    name = name or (Path(config).stem if isinstance(config, str | Path) else "run")
    job = plan(config)
    if not is_embedded(job.config.model):
        resolve_model(job.config.model)  # a wrong path is refused before an earlier run is replaced
    directory = (
        RunDirectory(Path(out)) if out is not None else _free_directory(Path("runs") / name, job.identity, fresh)
    )
    entries = {
        "name": directory.path.name,
        "forgetless": version(),
        "command": command,
        "seed": job.config.seed,
        "config": job.config.model_dump(mode="json"),
        "versions": library_versions(),
        "fingerprints": job.fingerprints(),
        "learning_rate": job.learning_rate,
        "warnings": job.warnings,
        "methods": [{"name": m.name, "title": m.title, "paper": m.paper, "params": m.options()} for m in job.methods],
    }
    directory.start(entries, identity=job.identity, fresh=fresh)
    return directory, job


def _free_directory(path: Path, identity: str, fresh: bool) -> RunDirectory:
    """Returns the first of NAME, NAME-2, NAME-3, ... that is free or holds the same run."""
    number = 1
    while True:
        directory = RunDirectory(path if number == 1 else path.with_name(f"{path.name}-{number}"))
        if fresh or not directory.path.exists() or directory.read().get("identity") == identity:
            return directory
        number += 1


def _base_stage(job: Job, directory: RunDirectory, reporter: Reporter) -> LoadedModel | None:
    """Scores the base; returns it for training, or None when nothing had to be loaded."""
    if directory.is_done("base", directory.scores("base")):
        return None
    loaded = _load(job, job.config.model, reporter)
    from forgetless.models import count_parameters, hub_id

    facts = {
        "name": job.config.model,
        "hub_id": hub_id(job.config.model),
        "num_parameters": count_parameters(loaded.model)[0],
    }
    directory.update({"model": facts, "device": str(loaded.device)})
    _score_stage(job, directory, reporter, "base", loaded)
    return loaded


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


def _tuned_stage(job: Job, directory: RunDirectory, reporter: Reporter) -> None:
    """Scores the artefact that was saved, read back from disk."""
    if directory.is_done("tuned", directory.scores("tuned")):
        return
    loaded = _load(job, str(directory.model), reporter)
    _score_stage(job, directory, reporter, "tuned", loaded)


def _score_stage(
    job: Job, directory: RunDirectory, reporter: Reporter, side: str, loaded: LoadedModel, *, repeat: int = 0
) -> None:
    """Scores a side; a repeat (of the base, from 1) takes another seed and asks only what is decoded."""
    from forgetless.evaluate.requests import Decoding
    from forgetless.evaluate.runner import EvaluationOptions, evaluate
    from forgetless.evaluate.target import target_tasks
    from forgetless.models import cache_directory

    settings = job.config.evaluation
    checks = _checks(job)
    names = {check.name for check in checks}
    tasks = [*(task for task in job.suite if task.name not in names), *target_tasks(job.test), *checks]
    stage, title, path = side, f"Asking the {side} model", directory.scores(side)
    harness = None if repeat else load_harness(job.harness, tasks, reporter)
    if repeat:
        stage, title, path = f"noise-{repeat}", f"Asking the base again ({repeat})", directory.noise(repeat)
        checks, tasks = [], [task for task in tasks if task.spec.kind == "generate" and task.name not in names]
    cache = cache_directory() / "scores" if settings.cache else None
    decoding = Decoding(settings.temperature, settings.top_p, job.config.seed + repeat)
    with directory.stage(stage) as facts:
        reached: list[float] = []
        with reporter.task(title) as progress:

            def watch(done: float, total: float) -> None:
                reached.append(total)
                progress(done, total)

            options = EvaluationOptions(batch_size=settings.batch_size, cache=cache, decoding=decoding)
            scores = evaluate(loaded, tasks, options=options, progress=watch)
        facts["cached"] = not reached  # nothing was left to be asked
        scores += ask_harness(harness, loaded, options, reporter, title=f"{title}: lm-eval")
        facts["num_samples"] = len(scores)
        scores, checked = split_checks(scores, checks)
        if checks:
            _keep(directory.scores(f"{side}.checks"), checked)
        _keep(path, scores)


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


def _keep(path: Path, scores: Sequence[SampleScore]) -> None:
    try:
        write_scores(path, scores)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): free some space and run again") from error


def _load(job: Job, name: str, reporter: Reporter) -> LoadedModel:
    from forgetless.models import load_model

    config = job.config
    with reporter.task(f"Loading {name}"):
        loaded = load_model(
            name, device=config.device, dtype=config.training.dtype, trust_remote_code=config.trust_remote_code
        )
    for note in loaded.notes:
        reporter.note(note)
    return loaded


def mix_data(job: Job, tokenizer: Any) -> Sequence[Example]:
    """Returns the mixture that the methods make of the domain examples."""
    context = Context(
        seed=job.config.seed, general=job.general, tokenizer=tokenizer, max_tokens=job.config.training.max_tokens
    )
    mixture: Sequence[Example] = job.domain
    for method in job.methods:
        mixture = method.prepare_data(mixture, context)
    return mixture


def _train_stage(job: Job, directory: RunDirectory, reporter: Reporter, loaded: LoadedModel | None) -> None:
    if directory.is_done("train", directory.model):
        return
    loaded = loaded or _load(job, job.config.model, reporter)
    with directory.stage("data") as facts:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            mixture = mix_data(job, loaded.tokenizer)
        notes = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
        _record_mixture(job, directory, mixture, loaded.tokenizer)
        facts["warnings"] = notes
    for note in notes:
        reporter.note(note)
    with directory.stage("train") as facts, reporter.task("Training") as progress:
        facts |= _fit(job, directory, loaded, mixture, progress)


def _record_mixture(job: Job, directory: RunDirectory, mixture: Sequence[Example], tokenizer: Any) -> None:
    from forgetless.data.encoding import count_answer_tokens
    from forgetless.data.mixing import summarise_mixture

    write_examples(directory.mixture, mixture)
    summary = summarise_mixture(mixture, count_tokens=lambda example: count_answer_tokens(example, tokenizer))
    directory.update({"data": {**asdict(summary), "replay_share": summary.share_examples, "num_test": len(job.test)}})


def _fit(
    job: Job, directory: RunDirectory, loaded: LoadedModel, mixture: Sequence[Example], progress: Any
) -> dict[str, Any]:
    """Trains, saves the model, and returns what the manifest says of it."""
    from forgetless.data.encoding import encode_examples
    from forgetless.models import count_parameters, num_positions, save_model
    from forgetless.train.trainer import remove_checkpoints, train_model

    config = job.config
    longest = min(config.training.max_tokens, num_positions(loaded.model))
    sequences = encode_examples(mixture, loaded.tokenizer, max_tokens=longest)
    context = Context(
        seed=config.seed, general=job.general, tokenizer=loaded.tokenizer, max_tokens=config.training.max_tokens
    )
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
    )
    save_model(trained, loaded.tokenizer, directory.model)
    remove_checkpoints(directory.path)
    return {
        **asdict(summary),
        "trainable_parameters": trainable,
        "num_sequences": len(sequences),
        "num_dropped": len(mixture) - len(sequences),
        "num_truncated": sum(sequence.num_truncated > 0 for sequence in sequences),
    }


def judge(directory: RunDirectory, job: Job) -> Comparison:
    """Compares the two score files of a run and writes `comparison.json`."""
    from forgetless.compare.comparison import compare

    gate = job.config.gate
    with directory.stage("compare"):
        comparison = compare(
            read_scores(directory.scores("base")),
            read_scores(directory.scores("tuned")),
            margin=gate.margin,
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
                    models=(job.config.model, str(directory.model)),
                    tasks=job.suite,
                    load=lambda name: _load(job, name, reporter),
                    options=EvaluationOptions(batch_size=job.config.evaluation.batch_size),
                    reporter=reporter,
                )
            except ForgetlessError as error:  # the verdict stands without it
                reporter.note(f"what was lost could not be asked about ({error}); its answers alone are judged")
                comparison = explain_by_answers(comparison, *sides)
        write_comparison(directory.comparison, comparison)
    return comparison


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Writes `comparison.json`, whole or not at all.

    Args:
        path: The file to write or to replace; directories that lack above it are made.
        comparison: What it is to hold.

    Raises:
        RunError: It can't be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(comparison.to_json(), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): free some space or choose --out") from error


def build_pages(directory: Path, *, names: Sequence[str] = ()) -> list[Path]:
    """Builds the pages of a run directory from what it holds.

    Args:
        directory: The run directory; only its comparison.json has to be there.
        names: Which pages; none = all.

    Returns:
        The pages, report.html first.

    Raises:
        DataError: It holds no comparison, or one of its files can't be read.
        RunError: A page can't be written.
    """
    from forgetless.report import build_report

    read_comparison(directory / "comparison.json")
    try:
        return build_report(directory, names=names)
    except OSError as error:
        raise RunError(f"the report cannot be written into {directory} ({error.strerror})") from error


def compare_files(
    base: Path,
    tuned: Path,
    *,
    margin: float = 0.03,
    alpha: float = 0.05,
    cross_entropy_margin: float = 0.05,
    metric: str | None = None,
    filter_name: str | None = None,
    noise: Sequence[Path] = (),
    out: Path | None = None,
    explain_with: tuple[str, str] | None = None,
    tasks_directories: Sequence[Path] = (),
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Comparison:
    """Compares scores that lie on disk, and says what kind of loss each fall looks like.

    Args:
        base: Scores of the base: a score file, a run directory, or lm-evaluation-harness output.
        tuned: Scores of the tuned model, likewise.
        margin: Largest tolerated drop of a mean grade.
        alpha: Level of tests and intervals.
        cross_entropy_margin: Largest tolerated rise of a retention cross-entropy.
        metric: Metric of lm-evaluation-harness to compare, or several in order.
        filter_name: Filter of lm-evaluation-harness to compare.
        noise: Further runs of the base; those of a run directory are found without being named.
        out: Where comparison.json, copies of the scores, report.html, report.md and junit.xml are written.
        explain_with: Names of the base and the tuned model, to be asked again about what was lost; None = the answers
            alone are judged.
        tasks_directories: Where to look for the user's own tasks when they are asked again.
        device: Where those models are loaded.
        reporter: Where to tell how far it is.

    Returns:
        The comparison with its attributions.

    Raises:
        ForgetlessError: Scores can't be read or paired, or a limit is out of range.
    """
    from forgetless.compare.comparison import compare
    from forgetless.compare.sources import read_source
    from forgetless.diagnosis import explain_files

    sources = {
        side: read_source(path, side=side, metric=metric, filter_name=filter_name)
        for side, path in (("base", base), ("tuned", tuned))
    }
    sides = {side: source.scores for side, source in sources.items()}
    repeats = [*noise] or noise_files(base)
    runs = [read_source(path, side="base", metric=metric, filter_name=filter_name).scores for path in repeats]
    comparison = compare(
        sides["base"],
        sides["tuned"],
        margin=margin,
        alpha=alpha,
        cross_entropy_margin=cross_entropy_margin,
        noise=runs,
    )
    notes = dict.fromkeys(note for source in sources.values() for note in source.notes)
    comparison = replace(comparison, problems=[*comparison.problems, *notes])
    comparison = explain_files(
        comparison, sides, models=explain_with, directories=tasks_directories, device=device, reporter=reporter
    )
    if out is not None:
        directory = RunDirectory(out)
        _refuse_other_run(directory, sides)
        write_comparison(directory.comparison, comparison)
        for side, scores in sides.items():  # so that a report shows the samples that changed
            _keep(directory.scores(side), scores)
        for number, scores in enumerate(runs, start=1):
            _keep(directory.noise(number), scores)
        build_pages(out, names=("report.html", "report.md", "junit.xml"))
    return comparison


def _refuse_other_run(directory: RunDirectory, sides: Mapping[str, Sequence[SampleScore]]) -> None:
    """Raises where a run's own scores would be replaced by others; to judge a run again is fine."""
    if not directory.manifest_path.is_file():
        return
    for side, scores in sides.items():
        path = directory.scores(side)
        if path.is_file() and read_scores(path) != list(scores):
            raise ConfigError(f"--out {directory.path} is a run with other {side} scores: choose another --out")


def evaluate_model(
    model: str,
    *,
    suite: str = "core",
    out: Path | None = None,
    tasks_directories: Sequence[Path] = (),
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 64,
    endpoint: EndpointOptions | None = None,
    use_cache: bool = True,
    limit: int | None = None,
    num_fewshot: int | None = None,
    decoding: Decoding = GREEDY,
    reporter: Reporter | None = None,
) -> list[SampleScore]:
    """Loads a model, or reaches an endpoint, and evaluates it on a suite; with `out`, writes the scores there."""
    from forgetless.evaluate.endpoint import EndpointOptions, is_endpoint
    from forgetless.evaluate.runner import EvaluationOptions, evaluate, read_suite
    from forgetless.models import cache_directory, load_model

    reporter = reporter or Silent()
    # What can be refused is, before the model is loaded.
    tasks, wanted = read_suite(suite, tasks_directories, limit=limit, num_fewshot=num_fewshot)
    if out is not None:
        refuse_foreign_file(out)
    if wanted is not None and is_endpoint(model):
        raise ConfigError(f"an endpoint gives no likelihoods in token ids: --suite {suite} needs a model to load")
    harness = load_harness(wanted, tasks, reporter)
    cache = cache_directory() / "scores" if use_cache else None
    scores: list[SampleScore] = []
    options = EvaluationOptions(batch_size=batch_size, cache=cache, decoding=decoding)
    if is_endpoint(model):
        options = replace(options, endpoint=endpoint or EndpointOptions())
        scores = _ask_endpoint(model, tasks, out=out, options=options, reporter=reporter)
    else:
        with reporter.task(f"Loading {model}"):
            loaded = load_model(model, device=device, dtype=dtype)
        for note in loaded.notes:
            reporter.note(note)
        if tasks:
            with reporter.task(f"Asking {model}") as progress:
                scores = evaluate(loaded, tasks, options=options, progress=progress)
        scores += ask_harness(harness, loaded, options, reporter, title=f"Asking {model}: lm-eval")
    if out is not None:
        _keep(out, scores)
    return scores


def _ask_endpoint(
    url: str, tasks: Sequence[Task], *, out: Path | None, options: EvaluationOptions, reporter: Reporter
) -> list[SampleScore]:
    """Evaluates a served model; what it answered before a stop lies beside `out`, and is removed at the end."""
    from forgetless.evaluate.endpoint import EndpointModel
    from forgetless.evaluate.runner import answerable, ask, count_known

    model, cache = EndpointModel(url, options=options.endpoint, decoding=options.decoding), options.cache
    with reporter.task(f"Reaching {model.url}"):
        served = model.served_model()
    free = answerable(model, tasks)
    if left_out := [task.name for task in tasks if task not in free]:
        reporter.note(f"an endpoint gives no likelihoods: left out {', '.join(left_out)}")
    if model.is_resumable_only and cache is not None:
        # Beside `out`, so that what is left of one evaluation never gets into another one.
        cache = None if out is None else out.with_name(f"{out.name}.partial")
    if num_known := count_known(model, free, cache):
        reporter.note(f"going on with {num_known} scores kept in {cache}; to ask everything again, remove it")
    try:
        with reporter.task(f"Asking {served.name} at {model.url}") as progress:
            scores = ask(model, free, options=replace(options, cache=cache), progress=progress)
    except RunError as error:
        num_known = count_known(model, free, cache)
        way_out = "run the same again to go on" if cache is not None else "give --out to keep them another time"
        raise RunError(f"{error}; scores kept: {num_known}, {way_out}") from None
    if model.is_resumable_only and cache is not None and cache.is_dir() and not any(cache.iterdir()):
        cache.rmdir()
    return scores


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

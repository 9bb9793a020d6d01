"""The main job for one phase or many: phase k starts from the model that phase k - 1 left, and all targets are judged.

Each phase is a run directory of its own below `phases/`, whose base is the model before all phases; what lies above
says what the sequence comes to. A sequence that was stopped goes on in the phase and the stage where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless import pipeline
from forgetless.compare.phases import compare_earlier, judge_phases, measure_phases
from forgetless.config import Config
from forgetless.errors import RunError
from forgetless.evaluate.target import target_names
from forgetless.files import write_text
from forgetless.job import Job, as_config
from forgetless.judging import build_pages
from forgetless.phase_records import Measure, PhaseJudgement, PhasesRecord
from forgetless.phases.carry import TimeAverage, is_adapter, remove_weights, start_of
from forgetless.phases.plan import Sequel, plan_phases
from forgetless.pipeline import RunResult
from forgetless.progress import Reporter, Silent
from forgetless.records import Comparison, SampleScore, read_comparison, read_scores
from forgetless.rundir import RunDirectory, keep_scores, noise_files, write_comparison
from forgetless.stages import scores
from forgetless.stages.training import train_stage
from forgetless.stages.verdict import explained_comparison, judge

if TYPE_CHECKING:
    from forgetless.models import LoadedModel

EARLIER = "earlier.json"  # comparison of earlier targets with the model right after their own phase


@dataclass(frozen=True)
class PhasesResult(RunResult):
    """What a sequence leaves: a run's result, whose comparison is that after the last phase, and the whole record."""

    record: PhasesRecord

    @property
    def exit_code(self) -> int:
        return self.record.verdict.exit_code


def run(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    fresh: bool = False,
    reporter: Reporter | None = None,
    command: str = "",
) -> RunResult:
    """Does the whole job: base scores, training, tuned scores, verdict, report; for each phase where there are phases.

    A run that was stopped goes on where it was when it is started again with the same config and data.

    Args:
        config: A config, a mapping like its YAML, or the path of one.
        out: The run directory; default `runs/NAME`, with a number behind it where another run lies there.
        name: NAME; default: that of the config file, or `run`.
        fresh: Replace what lies in `out`.
        reporter: Where to tell how far it is.
        command: The command line, for the manifest.

    Returns:
        The run directory, the comparison with its verdict, and the pages; a `PhasesResult` where there are phases.

    Raises:
        ForgetlessError: With a message that says what to do.
    """
    name = name or (Path(config).stem if isinstance(config, str | Path) else "run")
    parsed = as_config(config)
    if not parsed.phases:
        return pipeline.run(parsed, out=out, name=name, fresh=fresh, reporter=reporter, command=command)
    reporter = reporter or Silent()
    sequel = plan_phases(parsed)
    directory = _open(sequel, out=out, name=name, fresh=fresh, command=command)
    for number, job in enumerate(sequel.jobs, start=1):
        for text in job.notes:
            reporter.note(f"phase {sequel.names[number - 1]}: {text}")
    loaded = scores.base_stage(sequel.jobs[0], directory, reporter)
    phases: list[RunDirectory] = []
    for number in range(1, len(sequel.jobs) + 1):
        phases.append(RunDirectory(directory.path / "phases" / sequel.directory_name(number)))
        if phases[-1].is_done("phase", phases[-1].comparison):
            loaded = None
            continue
        reporter.note(f"phase {number} of {len(sequel.jobs)}: {sequel.names[number - 1]}")
        _run_phase(sequel, directory, phases, reporter, loaded)
        loaded = None
        scores.release_memory()
    return _finish(sequel, directory, phases)


def _open(sequel: Sequel, *, out: str | Path | None, name: str, fresh: bool, command: str) -> RunDirectory:
    """Opens the directory of the whole sequence."""
    first = sequel.jobs[0]
    directory = pipeline.choose_directory(first, sequel.identity, out=out, name=name, fresh=fresh)
    entries = pipeline.describe(first, directory, command) | {
        "config": sequel.config.model_dump(mode="json"),
        "fingerprints": {name: job.fingerprints() for name, job in zip(sequel.names, sequel.jobs, strict=True)},
        "phases": sequel.names,
        "warnings": [text for job in sequel.jobs for text in job.warnings],
    }
    directory.start(entries, identity=sequel.identity, fresh=fresh)
    return directory


def _run_phase(
    sequel: Sequel,
    directory: RunDirectory,
    phases: list[RunDirectory],
    reporter: Reporter,
    loaded: LoadedModel | None,
) -> None:
    """Trains, scores and judges the last of `phases`, as far as that hasn't been done."""
    phase, number = phases[-1], len(phases)
    inherited = {key: value for key, value in directory.read().items() if key in ("model", "device", "command")}
    phase.start(inherited, identity=f"{sequel.identity}:{number}")
    with phase.stage("phase") as facts:
        job = _started(sequel, phases, reporter)
        phase.update(pipeline.describe(job, phase) | inherited)
        _copy_base(directory, phase)
        if job.load_options:
            loaded = None
        train_stage(job, phase, reporter, loaded)
        del loaded
        scores.release_memory()
        scores.tuned_stage(job, phase, reporter)
        if number == len(sequel.jobs):
            explained_comparison(job, phase, reporter)
        else:
            judge(phase, job)
        earlier = _compare_earlier(sequel, phases)
        if earlier is not None:
            write_comparison(phase.path / EARLIER, earlier)
        build_pages(phase.path)
        facts["num_phase"] = number
    if sequel.config.sequence.keep == "last" and number > 1:
        remove_weights(phases[-2])


def _started(sequel: Sequel, phases: list[RunDirectory], reporter: Reporter) -> Job:
    """Returns the job of the last of `phases`, on what the phase before it left."""
    number = len(phases)
    job, options = sequel.jobs[number - 1], sequel.config.sequence
    if number == 1:
        return job
    previous, current = phases[-2], phases[-1]
    if not previous.model.is_dir() and not current.is_done("train", current.model):
        raise RunError(f"{previous.model} isn't there any more, and phase {number} starts from it: run with --fresh")
    earlier = replace(job.earlier, directory=previous.methods) if job.earlier is not None else None
    is_continued = options.carry == "continue" and is_adapter(previous.model)
    start = Path(job.config.model)
    if is_continued and earlier is not None:
        earlier = replace(earlier, adapter=previous.model)
    elif earlier is not None:
        with reporter.task("Merging what the phase before left"):
            start = start_of(previous, current, sequel.config)
        base = sequel.jobs[0]
        earlier = replace(earlier, load_base=lambda: scores.load_base(base, reporter))
        job = replace(job, config=job.config.model_copy(update={"model": str(start)}))
    if options.average == "time":
        average = TimeAverage(number=number, start=start, is_continued=is_continued)
        job = replace(job, methods=[*job.methods, average])
    return replace(job, earlier=earlier)


def _copy_base(directory: RunDirectory, phase: RunDirectory) -> None:
    """Puts the base's scores beside those of a phase, which is a run directory of its own with them."""
    for path in (directory.scores("base"), *noise_files(directory.path)):
        if not (phase.path / path.name).is_file():
            keep_scores(phase.path / path.name, read_scores(path))


def _compare_earlier(sequel: Sequel, phases: list[RunDirectory]) -> Comparison | None:
    """Compares all targets before the last of `phases` with the model right after their own phase."""
    gate = sequel.config.gate
    names = sequel.names
    return compare_earlier(
        {names[index]: read_scores(phase.scores("tuned")) for index, phase in enumerate(phases[:-1])},
        read_scores(phases[-1].scores("tuned")),
        tasks={names[index]: sequel.tasks(index + 1) for index in range(len(phases) - 1)},
        margin=gate.margin,
        alpha=gate.alpha,
        cross_entropy_margin=gate.cross_entropy_margin,
    )


def _finish(sequel: Sequel, directory: RunDirectory, phases: list[RunDirectory]) -> PhasesResult:
    """Judges the whole sequence and writes what it comes to."""
    with directory.stage("compare"):
        record = _record(sequel, directory, phases)
        _write(directory.path / "phases.json", record.to_json())
    with directory.stage("report"):
        pages = build_pages(directory.path)
    last = record.phases[-1].general
    comparison = replace(last, verdict=record.verdict, reasons=record.reasons, advice=record.advice)
    return PhasesResult(directory.path, comparison, pages, record)


def _record(sequel: Sequel, directory: RunDirectory, phases: list[RunDirectory]) -> PhasesRecord:
    gate = sequel.config.gate
    base = read_scores(directory.scores("base"))
    after = [read_scores(phase.scores("tuned")) for phase in phases]
    judgements = [
        PhaseJudgement(
            name=name,
            methods=[method.name for method in job.methods],
            num_examples=len(job.domain),
            general=read_comparison(phase.comparison),
            earlier=read_comparison(phase.path / EARLIER) if number else None,
        )
        for number, (name, job, phase) in enumerate(zip(sequel.names, sequel.jobs, phases, strict=True))
    ]
    last = judgements[-1]
    verdict, reasons = judge_phases(last.general, last.earlier)
    advice = [*last.general.advice, *([] if last.earlier is None else last.earlier.advice)]
    return PhasesRecord(
        verdict=verdict,
        margin=gate.margin,
        alpha=gate.alpha,
        reasons=reasons,
        phases=judgements,
        measures=_measures(sequel, base, after),
        advice=list(dict.fromkeys(advice)),
    )


def _measures(sequel: Sequel, base: list[SampleScore], after: list[list[SampleScore]]) -> list[Measure]:
    found = [
        measure_phases(
            base,
            after,
            tasks={name: target_names(name)[index] for name in sequel.names},
            name=what,
            alpha=sequel.config.gate.alpha,
            seed=sequel.config.seed,
        )
        for index, what in ((1, "answers"), (0, "loss"))
    ]
    return [measure for measure in found if measure is not None]


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): free some space or choose --out") from error

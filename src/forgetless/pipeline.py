"""The main job, stage by stage: the only module that sees every stage."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.budgeting import check_budget
from forgetless.config import Config
from forgetless.data.sources import write_examples
from forgetless.errors import ConfigError
from forgetless.job import Job, plan
from forgetless.judging import build_pages
from forgetless.progress import Reporter, Silent
from forgetless.records import Comparison, Verdict
from forgetless.rundir import RunDirectory, library_versions, refuse_foreign_file, version
from forgetless.stages.copies import check_artefact, copies_stage
from forgetless.stages.scores import base_stage, release_memory, tuned_stage
from forgetless.stages.training import train_stage, trained_directory
from forgetless.stages.verdict import explained_comparison, walk_stage

if TYPE_CHECKING:
    from forgetless.data.examples import Example


@dataclass(frozen=True)
class RunResult:
    """What a run leaves: its directory, the comparison with its verdict, the pages, and comparisons of its copies."""

    directory: Path
    comparison: Comparison
    pages: list[Path]
    copies: Mapping[str, Comparison] = field(default_factory=dict, kw_only=True)

    @property
    def exit_code(self) -> int:
        """The worst of the artefact's verdict and those of its quantised copies, as an exit code."""
        verdicts = {self.comparison.verdict, *(copy.verdict for copy in self.copies.values())}
        return min(verdicts, key=[Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS].index).exit_code


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
    for text in job.notes:
        reporter.note(text)
    model = base_stage(job, directory, reporter)
    if job.load_options:
        model = None  # the methods want it loaded otherwise, and two would take the memory of both
        release_memory()
    train_stage(job, directory, reporter, model)
    del model
    release_memory()
    walk_stage(job, directory, reporter)
    tuned_stage(job, directory, reporter)
    comparison = explained_comparison(job, directory, reporter)
    copies = copies_stage(job, directory, reporter)
    with directory.stage("report"):
        pages = build_pages(directory.path)
    return RunResult(directory.path, comparison, pages, copies=copies)


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
    return trained_directory(job, directory)


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
    check_budget(job)
    check_artefact(job)
    directory = choose_directory(job, job.identity, out=out, name=name, fresh=fresh)
    directory.start(describe(job, directory, command), identity=job.identity, fresh=fresh)
    return directory, job


def choose_directory(job: Job, identity: str, *, out: str | Path | None, name: str, fresh: bool) -> RunDirectory:
    """Returns where a run goes: `out`, or the first of runs/NAME, runs/NAME-2, ... that is free or holds this run."""
    from forgetless.embedded import is_embedded
    from forgetless.models import resolve_model

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


def mix_files(
    domain: Path,
    general: Path | None,
    *,
    out: Path,
    share: float,
    writer: str = "",
    seed: int = 0,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Writes a replay mixture of two files, or of one and what a model writes itself.

    Args:
        domain: File of the domain examples; all are used.
        general: File of the general examples to draw from; None lets the writer write them.
        out: File for the mixture, as JSON lines.
        share: Share of general examples in the final mixture, in [0, 1).
        writer: Name of the base, where there is no file of general examples; what it writes is held apart from `core`.
        seed: Seed of what is written, of the draw and of the order.
        reporter: Where warnings are shown.

    Returns:
        What the mixture consists of: the fields of a `MixtureSummary` by name.

    Raises:
        ConfigError: The output would replace one of the sources, or the share is not in [0, 1).
        DataError: A file can't be read or written.
        ModelError: The writer can't be loaded, or has no chat template.
        RunError: Too little of what it writes can be used.
    """
    from forgetless.data.mixing import num_general_for_share, replay_mixture, summarise_mixture

    reporter = reporter or Silent()
    if out.resolve() in {path.resolve() for path in (domain, general) if path is not None}:
        raise ConfigError(f"--out {out} is one of the sources: nothing of yours is written over")
    refuse_foreign_file(out)
    source: Path | list[Example]
    if general is None:
        from forgetless.data.sources import read_examples
        from forgetless.writing import generate_replay

        num = num_general_for_share(len(read_examples(domain)), share)
        source = generate_replay(writer, num, seed=seed, reporter=reporter) if num else []
    else:
        source = general
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        mixture = replay_mixture(domain, source, share=share, seed=seed)
    for warning in caught:
        reporter.note(str(warning.message))
    write_examples(out, mixture)
    return asdict(summarise_mixture(mixture))

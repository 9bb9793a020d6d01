"""Judging scores that lie on disk, and the pages that show a judgement: what `compare` and `report` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from forgetless.errors import ConfigError, RunError
from forgetless.progress import Reporter
from forgetless.records import Comparison, SampleScore, read_comparison, read_scores
from forgetless.rundir import RunDirectory, keep_scores, noise_files, write_comparison


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
            keep_scores(directory.scores(side), scores)
        for number, scores in enumerate(runs, start=1):
            keep_scores(directory.noise(number), scores)
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


def build_pages(directory: Path, *, names: Sequence[str] = ()) -> list[Path]:
    """Builds the pages of a run directory from what it holds.

    Args:
        directory: The run directory; only its comparison.json has to be there, or the phases.json of a sequence.
        names: Which pages; none = all.

    Returns:
        The pages, report.html first.

    Raises:
        DataError: It holds no comparison, or one of its files can't be read.
        RunError: A page can't be written.
    """
    from forgetless.report import build_phases_report, build_report

    build = build_phases_report if (directory / "phases.json").is_file() else build_report
    if build is build_report:
        read_comparison(directory / "comparison.json")
    try:
        return build(directory, names=names)
    except OSError as error:
        raise RunError(f"the report cannot be written into {directory} ({error.strerror})") from error

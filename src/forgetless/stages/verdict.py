"""What follows on training: the walk back to a budget, the verdict, and what kind of loss each fall is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from forgetless.check_records import CheckResult
from forgetless.errors import ForgetlessError
from forgetless.job import Job
from forgetless.progress import Reporter
from forgetless.records import Attribution, Comparison, read_comparison, read_scores
from forgetless.rundir import (
    RunDirectory,
    noise_files,
    write_comparison,
)
from forgetless.stages.scores import checks_of, evaluation_options, load, release_memory

if TYPE_CHECKING:
    pass


def walk_stage(job: Job, directory: RunDirectory, reporter: Reporter) -> None:
    """Saves the point between base and tuned that learned most within the budget, where the run has one."""
    budget = job.config.budget
    if budget is None or directory.is_done("walk", directory.model):
        return
    from forgetless.budgeting import save_best_point

    loaded = load(job, str(directory.trained), reporter, **job.load_options)
    with directory.stage("walk") as facts:
        facts |= save_best_point(
            job,
            directory,
            loaded,
            load=lambda name: load(job, name, reporter),
            options=evaluation_options(job),
            reporter=reporter,
        )
    release_memory()


def confirm_stage(job: Job, directory: RunDirectory, comparison: Comparison, reporter: Reporter) -> None:
    """Writes into the curve what the confirmation half says of the chosen point."""
    if job.config.budget is None:
        return
    from forgetless.curve import read_curve
    from forgetless.walking import confirm, write_curve

    curve = confirm(read_curve(directory.curve), comparison)
    write_curve(directory.curve, curve)
    reporter.note(curve.sentence)


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
            checks=judge_checks_of(job, directory),
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


def judge_checks_of(job: Job, directory: RunDirectory) -> list[CheckResult]:
    from forgetless.compare.checklist import judge_checks

    if not job.config.evaluation.checks:
        return []
    base, tuned = (read_scores(directory.scores(f"{side}.checks")) for side in ("base", "tuned"))
    return judge_checks(checks_of(job), tuned, base)


def explained_comparison(job: Job, directory: RunDirectory, reporter: Reporter) -> Comparison:
    """Judges a run, and says what kind of loss each fall looks like."""
    earlier = known_attributions(directory)
    comparison = judge(directory, job)
    confirm_stage(job, directory, comparison, reporter)
    return explain_stage(job, directory, comparison, reporter, earlier=earlier)


def known_attributions(directory: RunDirectory) -> list[Attribution]:
    """Returns what an earlier start of the run found out about its losses."""
    is_known = directory.is_done("explain", directory.comparison)
    return read_comparison(directory.comparison).attributions if is_known else []


def explain_stage(
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
                    load=lambda name: load(
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

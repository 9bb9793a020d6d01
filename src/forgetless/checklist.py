"""The deployment checklist: eighteen small checks of what a model must still do after tuning.

    checks = forgetless.run_checklist(generate)                    # any callable prompt -> text
    checks = forgetless.run_checklist(tuned, base=base)            # what the base couldn't do can't be lost
    print([check.name for check in checks if not check.passed])

A check is a task with a severity; `docs/checklist.md` lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from forgetless.check_records import CheckResult
from forgetless.compare.checklist import judge_checks, make_checklist
from forgetless.data.examples import Example
from forgetless.errors import ConfigError, RunError
from forgetless.evaluate.adapters import base_of_adapter
from forgetless.evaluate.requests import TextModel
from forgetless.evaluate.runner import EvaluationOptions, Progress, ask, open_model
from forgetless.files import write_text
from forgetless.progress import Reporter, Silent
from forgetless.records import Checklist, SampleScore, write_scores
from forgetless.tasks.base import Task, list_tasks, load_suite, load_task
from forgetless.tasks.vocabulary import domain_words, with_domain_words

SUITE = "checklist"


def load_checks(domain: Sequence[Example] = (), tasks_directories: Iterable[Path] = ()) -> list[Task]:
    """Loads the checks: those of the catalog, then the user's own tasks that have a severity.

    Args:
        domain: Training data; words that are typical of it must not stand in unrelated answers.
        tasks_directories: Directories with the user's own tasks.

    Returns:
        The checks as tasks.

    Raises:
        ConfigError: A task's YAML can't be used.
        DataError: The samples of a task can't be used.
    """
    directories = list(tasks_directories)
    builtin = set(list_tasks())
    own = [load_task(path) for name, path in list_tasks(directories).items() if name not in builtin]
    checks = [*load_suite(SUITE), *(task for task in own if task.spec.severity is not None)]
    return with_domain_words(checks, domain_words(domain)) if domain else checks


def run_checklist(
    generate: Any,
    base: Any = None,
    *,
    domain: str | Path | Sequence[Example] = (),
    tasks_directories: Iterable[Path] = (),
    tokenizer: Any = None,
    device: str = "auto",
    dtype: str = "auto",
    options: EvaluationOptions | None = None,
    progress: Progress | None = None,
) -> list[CheckResult]:
    """Runs the deployment checklist.

    Args:
        generate: The model to check: a callable from prompt to text, or whatever `evaluate` takes. A callable gets
            several turns as one text, each under its role.
        base: Its base, likewise; None = each check is judged by itself.
        domain: Training data, examples or a file of them.
        tasks_directories: Where to look for the user's own checks.
        tokenizer: Of transformers models; by default that of their `name_or_path`.
        device: For models that are loaded by name.
        dtype: For models that are loaded by name.
        options: Batch sizes and cache.
        progress: Called with (work done, work in all), for each model anew.

    Returns:
        One result per check, with the questions behind a loss.

    Raises:
        ConfigError: A check can't be used.
        DataError: The training data can't be read.
        ModelError: A model can't be loaded.
    """
    checks = load_checks(_read_domain(domain), tasks_directories)

    def scores(model: Any) -> list[SampleScore]:
        opened = open_model(model, tokenizer=tokenizer, device=device, dtype=dtype, options=options)
        return ask(opened, checks, options=options, progress=progress)

    return judge_checks(checks, scores(generate), None if base is None else scores(base))


def check_model(
    model: str,
    *,
    base: str | None = None,
    domain: Path | None = None,
    out: Path | None = None,
    tasks_directories: Sequence[Path] = (),
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 64,
    use_cache: bool = True,
    reporter: Reporter | None = None,
) -> Checklist:
    """Checks a model by name, against its base where one is named; with `out`, writes verdict and scores there.

    Args:
        model: Alias, hub id, or directory (weights, adapter or run).
        base: Its base, likewise. A standard LoRA adapter on it is switched off instead of loading the base again.
        domain: File of training data.
        out: Directory for checks.json and the score files.
        tasks_directories: Where to look for the user's own checks.
        device: As `load_model` takes it.
        dtype: As `load_model` takes it.
        batch_size: Prompts that are answered together.
        use_cache: Keep scores by content and use those that are known.
        reporter: Where to tell how far it is.

    Returns:
        The checks with their verdict, reasons and what to do next.

    Raises:
        ConfigError: A check or the output directory can't be used.
        DataError: The training data can't be read.
        ModelError: A model can't be loaded.
        RunError: The results can't be written.
    """
    from forgetless.embedded import cache_directory

    reporter = reporter or Silent()
    checks = load_checks(_read_domain(domain or ()), tasks_directories)
    if out is not None:
        _refuse_file(out)
    options = EvaluationOptions(batch_size=batch_size, cache=cache_directory() / "scores" if use_cache else None)

    def load(name: str) -> TextModel:
        with reporter.task(f"Loading {name}"):
            return open_model(name, device=device, dtype=dtype, options=options)

    def scores(opened: TextModel, name: str) -> list[SampleScore]:
        with reporter.task(f"Asking {name}") as progress:
            return ask(opened, checks, options=options, progress=progress)

    opened = load(model)
    sides = {"tuned": scores(opened, model)}
    if base is not None:
        with base_of_adapter(opened, base) as switched_off:
            if switched_off is not None:
                sides["base"] = scores(switched_off, base)
        if switched_off is None:
            del opened  # two models need not fit in memory
            sides["base"] = scores(load(base), base)
    checklist = make_checklist(judge_checks(checks, sides["tuned"], sides.get("base")))
    if out is not None:
        _write(out, checklist, sides)
    return checklist


def split_checks(scores: Iterable[SampleScore], checks: Sequence[Task]) -> tuple[list[SampleScore], list[SampleScore]]:
    """Parts scores into those of other tasks and those of checks, each in order."""
    names = {check.name for check in checks}
    scores = list(scores)
    return [score for score in scores if score.task not in names], [score for score in scores if score.task in names]


def _read_domain(domain: str | Path | Sequence[Example]) -> Sequence[Example]:
    if not isinstance(domain, str | Path):
        return domain
    from forgetless.data.sources import read_examples

    return read_examples(domain)


def _refuse_file(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is not a directory: name one for checks.json and the score files")


def _write(out: Path, checklist: Checklist, sides: dict[str, list[SampleScore]]) -> None:
    try:
        for side, scores in sides.items():
            write_scores(out / f"{side}.checks.scores.jsonl", scores)
        write_text(out / "checks.json", checklist.to_json())
    except OSError as error:
        raise RunError(
            f"{out} cannot be written ({error.strerror}): free some space or choose another --out"
        ) from error

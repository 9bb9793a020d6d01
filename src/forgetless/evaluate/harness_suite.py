"""Tasks of lm-evaluation-harness in a suite of ours: `--suite core,lm_eval:arc_easy,hellaswag`.

The harness chooses documents, writes prompts and grades answers; the model is asked through `harness.py`. Its samples
become scores as `forgetless compare` makes them of its files. Nothing of the harness is imported before it is used.
"""

from __future__ import annotations

import difflib
import json
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from forgetless.errors import ConfigError, ForgetlessError, RunError
from forgetless.harness_samples import LoggedTask, as_scores
from forgetless.records import SampleScore

PREFIX = "lm_eval:"
INSTALL = "pip install 'forgetless[lm-eval]'"
SEED = 1234  # the harness's own default for numpy, torch and the choice of few-shot examples
Progress = Callable[[float, float], None]


@dataclass(frozen=True, slots=True)
class HarnessSuite:
    """Tasks of lm-evaluation-harness, and how they are asked.

    Attributes:
        names: Names of tasks, groups or tags, or patterns such as `mmlu_*`.
        num_fewshot: Solved examples in each prompt; None = as each task has it.
        limit: First documents of each task that are asked; None = all.
        directories: Where to look for the user's own tasks, before the harness's.
    """

    names: tuple[str, ...]
    num_fewshot: int | None = None
    limit: int | None = None
    directories: tuple[Path, ...] = ()

    def fingerprint(self) -> str:
        """Returns what the scores depend on, as far as it is known before the tasks are loaded."""
        return json.dumps([self.names, self.num_fewshot, self.limit, harness_version()])


@dataclass(frozen=True)
class HarnessScores:
    """Scores of the tasks of a suite, and what is to be said of what isn't among them."""

    scores: list[SampleScore] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def split_suite(text: str) -> tuple[str, tuple[str, ...]]:
    """Splits a suite into the part that is ours and the tasks of lm-evaluation-harness.

    Args:
        text: Names separated by commas; from a name that begins with `lm_eval:` on, they are the harness's.

    Returns:
        The names before, as they stand, and those of the harness, each once.

    Raises:
        ConfigError: No name follows `lm_eval:`.
    """
    ours, found, rest = text.partition(PREFIX)
    if not found:
        return text, ()
    names = tuple(dict.fromkeys(name.strip().removeprefix(PREFIX).strip() for name in rest.split(",")))
    if "" in names or (ours.strip() and not ours.rstrip().endswith(",")):
        raise ConfigError(f"suite {text!r} is not of the form core,lm_eval:arc_easy,hellaswag")
    return ours.strip().removesuffix(",").strip(), names


def harness_version() -> str:
    """Returns the version of lm-evaluation-harness.

    Returns:
        The version that is installed.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return metadata.version("lm_eval")
    except metadata.PackageNotFoundError:
        raise ConfigError(f"lm_eval: tasks need lm-evaluation-harness, which is not installed: {INSTALL}") from None


class LoadedSuite:
    """The tasks of a suite with their documents, ready to be asked any number of models.

    Args:
        suite: What to load.
        taken: Names of other tasks that are asked too.

    Raises:
        ConfigError: The harness isn't installed, has no such task or can't load it, or a task can't be judged here.
    """

    def __init__(self, suite: HarnessSuite, *, taken: Sequence[str] = ()) -> None:
        harness_version()
        self.suite = suite
        with _quietly(), _seeded():
            self._tasks = _load_tasks(suite)
        for name, task in self._tasks.items():
            _refuse_task(name, task)
        if twice := sorted(set(taken) & set(self._tasks)):
            raise ConfigError(f"task {twice[0]!r} stands in both parts of the suite: score them in two runs")

    def ask(self, model: Any, *, cache: Path | None = None, progress: Progress | None = None) -> HarnessScores:
        """Asks a model.

        Args:
            model: A `LoadedModel` or `LocalModel`.
            cache: Directory of answers that are known; None = everything is computed.
            progress: Called with (requests done, requests in all), from the start for each kind of request.

        Returns:
            One score per document, and notes.

        Raises:
            ConfigError: The model isn't one in this process, or a task wants what it can't do.
            RunError: The harness failed.
        """
        from forgetless.evaluate.local import LocalModel
        from forgetless.models import LoadedModel

        if not isinstance(model, LoadedModel | LocalModel):
            raise ConfigError("lm_eval: tasks need likelihoods in token ids: evaluate a model in this process")
        results = self._run(model, cache, progress)
        found = HarnessScores()
        for name in self._tasks:
            samples = [(number, _as_logged(sample)) for number, sample in enumerate(results["samples"][name], start=1)]
            scores, notes = as_scores(
                LoggedTask(name, samples, is_higher_better=results["higher_is_better"].get(name) or {})
            )
            found.scores.extend(scores)
            found.notes.extend(notes)
        return found

    def _run(self, model: Any, cache: Path | None, progress: Progress | None) -> Mapping[str, Any]:
        from lm_eval.evaluator import evaluate

        from forgetless.evaluate.harness import ForgetlessLM

        for task in self._tasks.values():
            task.set_fewshot_seed(seed=SEED)  # each model gets the same examples
        try:
            with _quietly(), _seeded():
                results: Mapping[str, Any] = evaluate(
                    ForgetlessLM(model, cache=cache, progress=progress or (lambda done, total: None)),
                    {"tasks": self._tasks, "groups": {}, "group_map": {}},
                    limit=self.suite.limit,
                    bootstrap_iters=0,
                )
        except ForgetlessError:
            raise
        except Exception as error:  # tasks run code of their own, which may raise anything
            raise RunError(f"lm-evaluation-harness failed on {', '.join(self._tasks)}: {_reason(error)}") from error
        return results


def _load_tasks(suite: HarnessSuite) -> dict[str, Any]:
    """Loads tasks with their documents, and sets their number of solved examples as the harness's own command does."""
    manager, names = _find(suite)
    try:
        tasks: dict[str, Any] = manager.load(names)["tasks"]
        for task in tasks.values():
            configured = task.get_config("num_fewshot")
            if suite.num_fewshot is not None and configured != 0:
                task.set_config(key="num_fewshot", value=suite.num_fewshot)
            elif configured is None:
                task.set_config(key="num_fewshot", value=0)
    except Exception as error:  # data sets come from anywhere, and their loaders raise anything
        raise ConfigError(
            f"lm-evaluation-harness cannot load {', '.join(names)}: {_reason(error)} (most of its tasks fetch their "
            "data from the hub once)"
        ) from error
    return tasks


def _find(suite: HarnessSuite) -> tuple[Any, list[str]]:
    """Returns a task manager that knows the names of a suite, and the names with patterns resolved."""
    from lm_eval.tasks import TaskManager

    for directory in suite.directories:
        if not directory.is_dir():
            raise ConfigError(f"tasks directory {directory} does not exist")
    include = [str(directory) for directory in suite.directories]
    if include:
        # To index the harness's own fifteen thousand tasks takes seconds; the user's may be all that is wanted.
        manager = TaskManager(include_path=include, include_defaults=False)
        if set(suite.names) <= set(manager.all_subtasks):
            return manager, list(suite.names)
    manager = TaskManager(include_path=include or None)
    names: dict[str, None] = {}
    for name in suite.names:
        matches = manager.match_tasks([name])
        if not matches:
            near = difflib.get_close_matches(name, manager.all_tasks, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`lm-eval ls tasks` lists them"
            raise ConfigError(f"lm-evaluation-harness has no task {name!r}; {hint}")
        names |= dict.fromkeys(matches)
    return manager, list(names)


def _refuse_task(name: str, task: Any) -> None:
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        raise ConfigError(
            f"lm_eval task {name!r} measures perplexity, not grades, and cannot be judged: leave it out; "
            "forgetless has tasks of kind perplexity"
        )
    if getattr(task, "UNSAFE_CODE", False):
        raise ConfigError(
            f"lm_eval task {name!r} runs code that the model writes: run lm-eval itself with "
            "--confirm_run_unsafe_code and --log_samples, and compare its output directories"
        )
    if getattr(task, "MULTIMODAL", False):
        raise ConfigError(f"lm_eval task {name!r} asks about images, which these models don't see: leave it out")


def _as_logged(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a sample as the harness would have written it to a file."""
    from lm_eval.utils import handle_non_serializable, sanitize_list

    arguments = {
        f"gen_args_{number}": {f"arg_{place}": value for place, value in enumerate(call)}
        for number, call in enumerate(sample["arguments"])
    }
    written = {
        **sample,
        "doc": None,
        "arguments": arguments,
        "resps": sanitize_list(sample["resps"]),
        "filtered_resps": sanitize_list(sample["filtered_resps"]),
        "target": str(sample["target"]),
    }
    logged: dict[str, Any] = json.loads(json.dumps(written, default=handle_non_serializable))
    return logged


@contextmanager
def _seeded() -> Iterator[None]:
    """Seeds the global generators as the harness's own command does, since tasks draw from them; restores them."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(0)
        np.random.seed(SEED)
        torch.manual_seed(SEED)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def _quietly() -> Iterator[None]:
    """Silences the harness's log, its bars, those of its data loader, and warnings; errors still show."""
    import datasets
    from datasets.utils import logging as datasets_logging
    from lm_eval.api import task
    from tqdm import tqdm

    log = logging.getLogger("lm_eval")
    level, bar, has_bars = log.level, task.tqdm, datasets_logging.is_progress_bar_enabled()
    log.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    task.tqdm = lambda *args, **settings: tqdm(*args, **settings | {"disable": True})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        task.tqdm = bar
        if has_bars:
            datasets.enable_progress_bars()


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + " ..."

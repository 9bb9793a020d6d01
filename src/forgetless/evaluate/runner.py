"""Asks a model the samples of a suite and grades what comes back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from forgetless.errors import ConfigError, RunError
from forgetless.evaluate.cache import ScoreCache
from forgetless.evaluate.endpoint import EndpointModel, EndpointOptions, is_endpoint
from forgetless.evaluate.function import FunctionModel
from forgetless.evaluate.grading import (
    Pair,
    Sample,
    generation_request,
    grade_answer,
    grade_likelihood,
    likelihood_request,
)
from forgetless.evaluate.harness_suite import HarnessSuite, LoadedSuite, harness_version, split_suite
from forgetless.evaluate.requests import GREEDY, Decoding, ScoringModel, TextModel
from forgetless.records import SampleScore
from forgetless.tasks.base import Task, load_suite

if TYPE_CHECKING:
    from forgetless.models import LoadedModel

T = TypeVar("T")
Progress = Callable[[float, float], None]  # (work done, work in all), in no particular unit


@dataclass(frozen=True)
class EvaluationOptions:
    """How an evaluation runs; nothing here but the decoding may change a score.

    Attributes:
        batch_size: Prompts that are decoded together.
        row_tokens: Tokens that are scored together; None = what suits the device.
        cache: Directory of the score cache; None = compute everything.
        decoding: How answers are decoded: greedily, or sampled.
        endpoint: How a server is asked, where the model is one's address.
    """

    batch_size: int = 64
    row_tokens: int | None = None
    cache: Path | None = None
    decoding: Decoding = GREEDY
    endpoint: EndpointOptions = field(default_factory=EndpointOptions)


def evaluate(
    model: str | LoadedModel | Any,
    suite: str | Sequence[Task] = "core",
    *,
    tokenizer: Any = None,
    tasks_directories: Iterable[Path] = (),
    device: str = "auto",
    dtype: str = "auto",
    limit: int | None = None,
    num_fewshot: int | None = None,
    options: EvaluationOptions | None = None,
    progress: Progress | None = None,
) -> list[SampleScore]:
    """Evaluates a model on a suite.

    Args:
        model: A name or directory, a `LoadedModel`, a transformers model (with its `tokenizer`); or the address of an
            OpenAI-compatible server or a callable from prompt to text, which are asked the free tasks only.
        suite: Name of a suite, names of tasks separated by commas, or tasks; names after `lm_eval:` are those of
            lm-evaluation-harness.
        tokenizer: Of a transformers model; by default that of its `name_or_path`.
        tasks_directories: Where to look for the user's own tasks.
        device: For a model that is loaded by name.
        dtype: For a model that is loaded by name.
        limit: Most samples of each task, drawn by content (of lm-evaluation-harness's tasks the first); None = all.
        num_fewshot: Solved examples in the prompts of lm-evaluation-harness's tasks; None = as each task has it.
        options: Batch sizes, cache and decoding.
        progress: Called with (work done, work in all).

    Returns:
        One score per sample, in the order of the suite.

    Raises:
        ConfigError: The suite doesn't exist, or the model can answer none of it.
        ModelError: The model can't be loaded.
    """
    options = options or EvaluationOptions()
    if not isinstance(suite, str):
        answering = open_model(model, tokenizer=tokenizer, device=device, dtype=dtype, options=options)
        return ask(answering, list(suite), options=options, progress=progress)
    tasks, wanted = read_suite(suite, tasks_directories, limit=limit, num_fewshot=num_fewshot)
    harness = None if wanted is None else LoadedSuite(wanted, taken=[task.name for task in tasks])
    answering = open_model(model, tokenizer=tokenizer, device=device, dtype=dtype, options=options)
    scores = ask(answering, tasks, options=options, progress=progress) if tasks else []
    if harness is not None:
        scores += harness.ask(answering, cache=options.cache, progress=progress).scores
    return scores


def read_suite(
    suite: str,
    tasks_directories: Iterable[Path] = (),
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
) -> tuple[list[Task], HarnessSuite | None]:
    """Loads our tasks of a suite, and says which are lm-evaluation-harness's; takes what `evaluate` takes."""
    directories = tuple(tasks_directories)
    ours, names = split_suite(suite)
    tasks = load_suite(ours, directories, limit=limit) if ours or not names else []
    if not names:
        return tasks, None
    harness_version()
    return tasks, HarnessSuite(names, num_fewshot, limit, directories)


def open_model(
    model: Any,
    *,
    tokenizer: Any = None,
    device: str = "auto",
    dtype: str = "auto",
    options: EvaluationOptions | None = None,
) -> TextModel:
    """Puts whatever a user calls a model behind the calls that evaluation makes; takes what `evaluate` takes."""
    options = options or EvaluationOptions()
    if isinstance(model, TextModel):
        return model
    if _is_function(model):
        return FunctionModel(model)
    if is_endpoint(model):
        return EndpointModel(model, options=options.endpoint, decoding=options.decoding)
    from forgetless.evaluate.local import LocalModel

    loaded = open_loaded(model, tokenizer, device=device, dtype=dtype)
    return LocalModel(loaded, row_tokens=options.row_tokens, batch_size=options.batch_size, decoding=options.decoding)


def _is_function(model: Any) -> bool:
    is_module = hasattr(model, "state_dict") or hasattr(model, "model")
    return callable(model) and not isinstance(model, str) and not is_module


def open_loaded(model: Any, tokenizer: Any = None, *, device: str = "auto", dtype: str = "auto") -> LoadedModel:
    """Loads a model by its name, or takes one in memory with its tokenizer; takes what `evaluate` takes."""
    from forgetless.models import LoadedModel, load_model, load_tokenizer

    if isinstance(model, str | Path):
        return load_model(str(model), device=device, dtype=dtype)
    if isinstance(model, LoadedModel):
        return model
    name = str(getattr(model, "name_or_path", "") or getattr(getattr(model, "config", None), "_name_or_path", ""))
    if tokenizer is None:
        if not name:
            raise ConfigError("a model in memory needs its tokenizer: pass tokenizer=...")
        tokenizer = load_tokenizer(name)
    return LoadedModel(model, tokenizer, name, name)


def ask(
    model: TextModel,
    tasks: Sequence[Task],
    *,
    options: EvaluationOptions | None = None,
    progress: Progress | None = None,
) -> list[SampleScore]:
    """Asks a model whatever its cache doesn't know yet.

    Args:
        model: The model, as `open_model` returns it.
        tasks: What to ask; tasks that need likelihoods are left out where the model gives none.
        options: The cache.
        progress: Called with (work done, work in all).

    Returns:
        One score per sample, in the order of the tasks.

    Raises:
        ConfigError: The model can answer none of the tasks.
        RunError: Memory ran out, or the model failed for good.
    """
    options = options or EvaluationOptions()
    tasks = answerable(model, tasks)
    cache = _open_cache(model, options.cache)
    known = {task.name: {} if cache is None else cache.read(task) for task in tasks}
    work = [(task, sample) for task in tasks for sample in task.samples if sample["id"] not in known[task.name]]
    total = sum(_effort(task, sample) for task, sample in work)
    done = 0.0
    try:
        # Closed at once when the work is stopped: whatever a model still has under way ends with it.
        with closing(_answer(model, work)) as groups:
            for finished in groups:
                by_task: dict[str, list[SampleScore]] = defaultdict(list)
                for (task, sample), score in finished:
                    known[task.name][score.sample_id] = score
                    by_task[task.name].append(score)
                    done += _effort(task, sample)
                if cache is not None:
                    for task in tasks:
                        if task.name in by_task:
                            cache.append(task, by_task[task.name])
                if progress is not None:
                    progress(done, total)
    except RuntimeError as error:
        from forgetless.models import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise RunError("memory ran out: lower evaluation.batch_size, or shorten the longest samples") from error
    if cache is not None and _is_passing(model):
        for task in tasks:
            cache.forget(task)
    return [known[task.name][sample["id"]] for task in tasks for sample in task.samples]


def count_known(model: TextModel, tasks: Sequence[Task], directory: Path | None) -> int:
    """Returns how many scores of a model's a cache holds."""
    cache = _open_cache(model, directory)
    return 0 if cache is None else sum(len(cache.read(task)) for task in tasks)


def _open_cache(model: TextModel, directory: Path | None) -> ScoreCache | None:
    key = model.key() if directory is not None else None
    return None if directory is None or key is None else ScoreCache(directory, key)


def _is_passing(model: TextModel) -> bool:
    """Whether a model may become another one under the same key, so that its scores serve one evaluation only."""
    return bool(getattr(model, "is_resumable_only", False))


def answerable(model: TextModel, tasks: Sequence[Task]) -> list[Task]:
    """Returns the tasks that a model can answer: all, or the free ones where it gives no likelihoods."""
    if isinstance(model, ScoringModel):
        return list(tasks)
    free = [task for task in tasks if task.spec.kind == "generate"]
    if not free:
        article = "an" if model.origin[:1] in "aeiou" else "a"
        raise ConfigError(
            f"{article} {model.origin} answers prompts but gives no likelihoods: the suite needs free (generate) tasks"
        )
    return free


def _effort(task: Task, sample: Sample) -> float:
    """Returns roughly how long a sample takes, in tokens: an answer's token costs several of a prompt's."""
    size = sum(len(str(value)) for value in sample.values()) / 4 + 10
    return size + (2.0 * task.spec.max_tokens if task.spec.kind == "generate" else 0.0)


def _answer(model: TextModel, work: Sequence[Pair]) -> Generator[list[tuple[Pair, SampleScore]], None, None]:
    """Yields graded samples in groups, as they are finished."""
    asked = [pair for pair in work if pair[0].spec.kind == "generate"]
    scored = [pair for pair in work if pair[0].spec.kind != "generate"]
    if isinstance(model, ScoringModel):
        requests = [likelihood_request(pair, model) for pair in scored]
        for group in _groups(model.score(requests), 16):
            yield [
                (scored[index], grade_likelihood(scored[index], result, origin=model.origin)) for index, result in group
            ]
    for answers in _groups(model.generate([generation_request(pair) for pair in asked]), model.batch_size):
        yield [(asked[index], grade_answer(asked[index], answer, origin=model.origin)) for index, answer in answers]


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    group: list[T] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group

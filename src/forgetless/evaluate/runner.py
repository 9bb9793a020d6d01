"""Asks a model the samples of a suite and grades what comes back."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from forgetless.data.encoding import IGNORED, encode_example, render_prompt, tokenize
from forgetless.data.examples import Example, Message
from forgetless.errors import ConfigError, RunError
from forgetless.evaluate.cache import ScoreCache, tokenizer_fingerprint
from forgetless.evaluate.requests import Generation, GenerationRequest, Likelihood, LikelihoodRequest
from forgetless.records import SampleScore, Unit
from forgetless.tasks.base import Task, load_suite
from forgetless.tasks.scorers import score_answer

if TYPE_CHECKING:
    from forgetless.models import LoadedModel

# Most tokens of a text or an answer whose cross-entropy is measured; memory grows with their square.
LONGEST_SCORED = 2048

T = TypeVar("T")
Sample = Mapping[str, Any]
Pair = tuple[Task, Sample]
Progress = Callable[[float, float], None]  # (work done, work in all), in no particular unit


@dataclass(frozen=True)
class EvaluationOptions:
    """How an evaluation runs; nothing here may change a score.

    Attributes:
        batch_size: Prompts that are decoded together.
        row_tokens: Tokens that are scored together.
        cache: Directory of the score cache; None = compute everything.
    """

    batch_size: int = 64
    row_tokens: int = 512
    cache: Path | None = None


def evaluate(
    model: str | LoadedModel | Any,
    suite: str | Sequence[Task] = "core",
    *,
    tokenizer: Any = None,
    tasks_directories: Iterable[Path] = (),
    device: str = "auto",
    dtype: str = "auto",
    options: EvaluationOptions | None = None,
    progress: Progress | None = None,
) -> list[SampleScore]:
    """Evaluates a model on a suite.

    Args:
        model: A name or directory, a `LoadedModel`, a transformers model (with its `tokenizer`), or a callable from
            prompt to text, which is asked the free tasks only.
        suite: Name of a suite, names of tasks separated by commas, or tasks.
        tokenizer: Of a transformers model; by default that of its `name_or_path`.
        tasks_directories: Where to look for the user's own tasks.
        device: For a model that is loaded by name.
        dtype: For a model that is loaded by name.
        options: Batch sizes and cache.
        progress: Called with (work done, work in all).

    Returns:
        One score per sample, in the order of the suite.

    Raises:
        ConfigError: The suite doesn't exist, or the callable can answer none of it.
        ModelError: The model can't be loaded.
    """
    tasks = load_suite(suite, tasks_directories) if isinstance(suite, str) else list(suite)
    options = options or EvaluationOptions()
    if (
        not isinstance(model, str)
        and callable(model)
        and not hasattr(model, "state_dict")
        and not hasattr(model, "model")
    ):
        return _evaluate_callable(model, tasks, progress)
    loaded = _as_loaded(model, tokenizer, device=device, dtype=dtype)
    return _evaluate_loaded(loaded, tasks, options, progress)


def _as_loaded(model: Any, tokenizer: Any, *, device: str, dtype: str) -> LoadedModel:
    from forgetless.models import LoadedModel, load_model, load_tokenizer

    if isinstance(model, str | Path):
        return load_model(str(model), device=device, dtype=dtype)
    if isinstance(model, LoadedModel):
        return model
    name = str(getattr(model, "name_or_path", "") or getattr(getattr(model, "config", None), "_name_or_path", ""))
    if tokenizer is None:
        if not name:
            raise ConfigError("a model in memory needs its tokenizer: evaluate(model, tokenizer=...)")
        tokenizer = load_tokenizer(name)
    return LoadedModel(model, tokenizer, name, name)


def _evaluate_loaded(
    loaded: LoadedModel, tasks: Sequence[Task], options: EvaluationOptions, progress: Progress | None
) -> list[SampleScore]:
    from forgetless.evaluate.local import LocalModel
    from forgetless.models import is_out_of_memory

    engine = LocalModel(loaded, row_tokens=options.row_tokens, batch_size=options.batch_size)
    cache = None if options.cache is None else ScoreCache(options.cache, model_key(loaded))
    known = {task.name: {} if cache is None else cache.read(task) for task in tasks}
    work = [(task, sample) for task in tasks for sample in task.samples if sample["id"] not in known[task.name]]
    total = sum(_effort(task, sample) for task, sample in work)
    done = 0.0
    was_training = loaded.model.training
    loaded.model.eval()
    try:
        for finished in _answer(engine, loaded.tokenizer, work):
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
        if not is_out_of_memory(error):
            raise
        raise RunError("memory ran out: lower evaluation.batch_size, or shorten the longest samples") from error
    finally:
        loaded.model.train(was_training)
    return [known[task.name][sample["id"]] for task in tasks for sample in task.samples]


def model_key(loaded: LoadedModel) -> str:
    """Returns a fingerprint of everything about a model that a score may depend on."""
    from forgetless.models import end_of_turn_ids, fingerprint_weights

    parts = [
        fingerprint_weights(loaded.model),
        tokenizer_fingerprint(loaded.tokenizer),
        str(sorted(end_of_turn_ids(loaded.model, loaded.tokenizer))),
        str(next(loaded.model.parameters()).dtype),
        loaded.device.type,
        _architecture(loaded.model),
    ]
    return hashlib.sha256(":".join(parts).encode()).hexdigest()


def _architecture(model: Any) -> str:
    """Returns what a model computes with its weights (activation, positions, ...), as its config says."""
    config: Any = getattr(model, "config", None)
    settings = config.to_dict() if hasattr(config, "to_dict") else {}
    idle = {"transformers_version", "use_cache"}
    return json.dumps({k: v for k, v in settings.items() if k[0] != "_" and k not in idle}, sort_keys=True, default=str)


def _effort(task: Task, sample: Sample) -> float:
    """Returns roughly how long a sample takes, in tokens: an answer's token costs several of a prompt's."""
    size = sum(len(str(value)) for value in sample.values()) / 4 + 10
    return size + (2.0 * task.spec.max_tokens if task.spec.kind == "generate" else 0.0)


def _answer(engine: Any, tokenizer: Any, work: Sequence[Pair]) -> Iterator[list[tuple[Pair, SampleScore]]]:
    """Yields graded samples in groups, as they are finished."""
    from forgetless.models import num_positions

    asked = [(task, sample) for task, sample in work if task.spec.kind == "generate"]
    scored = [(task, sample) for task, sample in work if task.spec.kind != "generate"]
    longest = num_positions(engine.model)
    for group in _groups(engine.score([_likelihood_request(pair, tokenizer, longest) for pair in scored]), 16):
        yield [(scored[index], _grade_likelihood(scored[index], result)) for index, result in group]
    for answers in _groups(
        engine.generate([_generation_request(pair, tokenizer, longest) for pair in asked]), engine.batch_size
    ):
        yield [(asked[index], _grade_answer(asked[index], answer)) for index, answer in answers]


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    group: list[T] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def conversation(task: Task, sample: Sample) -> tuple[Message, ...]:
    """Returns the turns that come before the answer: those of the sample, or the prompt as one user turn."""
    if "messages" in sample:
        turns = [Message(turn["role"], turn["content"]) for turn in sample["messages"]]
        if turns[-1].role == "assistant":
            turns.pop()
    else:
        turns = [Message("user", task.prompt(sample))]
    if task.spec.system is not None and turns[0].role != "system":
        turns.insert(0, Message("system", task.spec.system))
    return tuple(turns)


def _prompt_text(task: Task, sample: Sample, tokenizer: Any) -> str:
    return render_prompt(conversation(task, sample), tokenizer) if task.spec.template == "chat" else task.prompt(sample)


def _generation_request(pair: Pair, tokenizer: Any, longest: int) -> GenerationRequest:
    task, sample = pair
    prompt, is_start = _prompt_text(task, sample, tokenizer), _starts_plain(task, tokenizer)
    room = longest - len(tokenize(prompt, tokenizer, is_start=is_start))
    if room < 1:
        raise _too_long(pair, longest)
    return GenerationRequest(prompt, min(task.spec.max_tokens, room), is_start=is_start)


def _too_long(pair: Pair, longest: int) -> ConfigError:
    task, sample = pair
    return ConfigError(
        f"task {task.name!r}, sample {sample['id']!r}: is longer than the {longest} tokens that the model can take: "
        "shorten it or leave it out"
    )


def _starts_plain(task: Task, tokenizer: Any) -> bool:
    """Whether the prompt is bare text, before which the tokenizer's own start token belongs."""
    return task.spec.template == "plain" or tokenizer.chat_template is None


def _likelihood_request(pair: Pair, tokenizer: Any, longest: int) -> LikelihoodRequest:
    task, sample = pair
    if task.spec.kind == "choice":
        context = tokenize(_prompt_text(task, sample, tokenizer), tokenizer, is_start=_starts_plain(task, tokenizer))
        # Under a chat template the answer starts a turn; after a plain prompt it follows a space.
        space = " " if task.spec.template == "plain" else ""
        choices = [tokenize(f"{space}{choice}", tokenizer) for choice in sample["choices"]]
        if len(context) + max(map(len, choices)) > longest:
            raise _too_long(pair, longest)
        return LikelihoodRequest(context, choices)
    encoded = encode_example(_reference(task, sample), tokenizer)
    ids, labels = encoded.input_ids, encoded.labels
    first = next((place for place in range(1, len(ids)) if labels[place] != IGNORED), None)
    if first is None:
        raise ConfigError(f"task {task.name!r}, sample {sample['id']!r}: nothing of it can be scored")
    if first >= longest:
        raise _too_long(pair, longest)
    scored = slice(first, min(first + LONGEST_SCORED, longest))
    return LikelihoodRequest(ids[:first], [ids[scored]], [[label != IGNORED for label in labels[scored]]])


def _reference(task: Task, sample: Sample) -> Example:
    """Returns the text, or the conversation with its reference answer, whose cross-entropy is measured."""
    if "text" in sample:
        return Example(text=sample["text"])
    turns = (*conversation(task, sample), Message("assistant", str(sample["answer"])))
    return Example(messages=turns, supervised_from=int(sample.get("supervised_from", 0)))


def _grade_answer(pair: Pair, answer: Generation) -> SampleScore:
    task, sample = pair
    score = score_answer(answer.text, sample, task.spec.scorer, task.spec.options)
    return SampleScore(
        **_common(task, sample),
        score=score,
        answer=answer.text,
        gold=_gold(sample),
        details={"prompt": _shown(task, sample), "num_tokens": answer.num_tokens, "is_ended": answer.is_ended},
    )


def _grade_likelihood(pair: Pair, results: Sequence[Likelihood]) -> SampleScore:
    task, sample = pair
    if not all(math.isfinite(result.log_likelihood) for result in results):
        raise RunError(
            f"task {task.name!r}, sample {sample['id']!r}: the model's probabilities are not numbers; its weights are "
            "damaged, or its training diverged (lower training.learning_rate)"
        )
    if task.spec.kind == "perplexity":
        result = results[0]
        return SampleScore(
            **_common(task, sample),
            score=-result.log_likelihood / result.num_tokens,
            unit=Unit.NATS_PER_TOKEN,
            weight=float(result.num_tokens),
            details={"prompt": _shown(task, sample)},
        )
    choices = [str(choice) for choice in sample["choices"]]
    sizes = [len(choice) if task.spec.normalise else 1 for choice in choices]
    values = [result.log_likelihood / size for result, size in zip(results, sizes, strict=True)]
    picked = max(range(len(values)), key=values.__getitem__)
    return SampleScore(
        **_common(task, sample),
        score=float(picked == sample["answer"]),
        answer=choices[picked],
        gold=choices[sample["answer"]],
        chance=1 / len(choices),
        details={"prompt": _shown(task, sample), "log_likelihoods": [round(r.log_likelihood, 4) for r in results]},
    )


def _common(task: Task, sample: Sample) -> dict[str, Any]:
    cluster = sample.get("cluster")
    return {
        "task": task.name,
        "sample_id": str(sample["id"]),
        "cluster": None if cluster is None else str(cluster),
        "role": task.spec.role,
    }


def _gold(sample: Sample) -> str:
    """Returns the reference as a reader should see it."""
    if "answers" in sample:
        return " | ".join(str(answer) for answer in sample["answers"])
    if "answer" in sample:
        return str(sample["answer"])
    return str(sample.get("example", ""))


def _shown(task: Task, sample: Sample) -> str:
    """Returns the prompt as a reader should see it: the last user turn, or the text."""
    if "text" in sample:
        return str(sample["text"])
    return conversation(task, sample)[-1].content


def _evaluate_callable(
    generate: Callable[[str], str], tasks: Sequence[Task], progress: Progress | None
) -> list[SampleScore]:
    asked = [task for task in tasks if task.spec.kind == "generate"]
    if not asked:
        raise ConfigError("a callable answers prompts but gives no likelihoods: the suite needs free (generate) tasks")
    pairs = [(task, sample) for task in asked for sample in task.samples]
    scores = []
    for number, (task, sample) in enumerate(pairs, start=1):
        text = generate(_shown(task, sample))
        scores.append(_grade_answer((task, sample), Generation(str(text), 0, is_ended=True)))
        if progress is not None:
            progress(number, len(pairs))
    return scores

"""From the samples that lm-evaluation-harness logs to scores: the same way from its files and from its memory.

A logged sample is a JSON object, one per document and filter: `doc_id`, `doc_hash`, `prompt_hash`, `target`, `filter`,
`arguments` (the requests), `resps` (what the model answered to each), `filtered_resps`, the names of its `metrics`, and
one value for each of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetless.errors import DataError
from forgetless.records import SampleScore

# The metric that is compared where the user names none: the first of these that a task has, else its first grade.
PREFERRED_METRICS = ("exact_match", "acc", "em", "f1")
# What a logged sample holds beside its metrics.
NO_METRICS = {
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash"),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the grades of a task are compared.

    Attributes:
        metrics: Names of metrics, the first that a task has counts; empty = `PREFERRED_METRICS`, then any grade.
        filter_name: The filter whose grades are compared where a task has several; None = its first.
    """

    metrics: tuple[str, ...] = ()
    filter_name: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedTask:
    """The logged samples of one task.

    Attributes:
        name: Name of the task.
        samples: Each with its line in the file, from 1; or its number, where there is no file.
        path: The file.
        is_higher_better: By name of the metric, as far as the harness says so.
    """

    name: str
    samples: Sequence[tuple[int, Mapping[str, Any]]]
    path: Path | None = None
    is_higher_better: Mapping[str, bool] = field(default_factory=dict)

    @property
    def filters(self) -> list[str]:
        """The filters that its answers were read off by, in their order."""
        return list(dict.fromkeys(_filter(sample) for _, sample in self.samples))

    def error(self, message: str, line: int | None = None) -> DataError:
        """Returns an error that names the task, the file and the line."""
        return DataError(f"task {self.name!r}: {message}", path=self.path, line=line if self.path else None)


def as_scores(task: LoggedTask, choice: Choice | None = None) -> tuple[list[SampleScore], list[str]]:
    """Turns the logged samples of a task into scores.

    Where answers were read off by several filters, each sample becomes one score, by one of them: the same samples
    twice would count twice in the verdict. The grades by the other filters are kept in the details.

    Args:
        task: The samples.
        choice: Which metric and filter to take.

    Returns:
        One score per sample, and what is to be said of what isn't compared.

    Raises:
        DataError: There is no sample, one stands twice, or the metric is none that can be compared.
    """
    choice = choice or Choice()
    if not task.samples:
        raise task.error("holds no samples: did the evaluation end?")
    taken = _pick_filter(task, choice)
    chosen = [(line, sample) for line, sample in task.samples if _filter(sample) == taken]
    lines = _refuse_repeats(task, chosen)
    others: dict[str, dict[str, Any]] = {}
    strangers = set()
    for _, sample in task.samples:
        if _filter(sample) != taken:
            others.setdefault(str(sample["doc_id"]), {})[_filter(sample)] = _grades(sample)
            strangers |= {str(sample["doc_id"])} - lines.keys()
    metric = _pick_metric(task, chosen, choice)
    scores = [
        _as_score(task, sample, metric, line=line, others=others.get(str(sample["doc_id"]), {}))
        for line, sample in chosen
    ]
    return scores, list(_notes(task, taken, strangers))


def _notes(task: LoggedTask, taken: str, strangers: set[str]) -> Iterator[str]:
    rest = [name for name in task.filters if name != taken]
    if rest:
        yield (
            f"{task.name}: the grades by filter {taken!r} count; those of the same samples by "
            f"{', '.join(map(repr, rest))} don't (`forgetless compare --filter` chooses)"
        )
    if strangers:
        ids = sorted(strangers)
        named = ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
        yield f"{task.name}: {len(ids)} samples without a grade by filter {taken!r}, not compared: {named}"


def _filter(sample: Mapping[str, Any]) -> str:
    return str(sample.get("filter", "none"))


def _pick_filter(task: LoggedTask, choice: Choice) -> str:
    names = task.filters
    if choice.filter_name is None or len(names) == 1:
        return names[0]
    if choice.filter_name not in names:
        raise task.error(f"it has no filter {choice.filter_name!r} but {', '.join(names)}")
    return choice.filter_name


def _refuse_repeats(task: LoggedTask, samples: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[str, int]:
    """Returns the line of each sample by its id; raises where one stands twice."""
    lines: dict[str, int] = {}
    for line, sample in samples:
        name = str(sample["doc_id"])
        if name in lines:
            raise task.error(f"sample {name!r} stands already in line {lines[name]}; keep one of the two", line)
        lines[name] = line
    return lines


def _metrics(sample: Mapping[str, Any]) -> list[str]:
    """Returns the names of a sample's metrics; where it doesn't list them, of all that isn't known to be another."""
    named = sample.get("metrics")
    return [str(name) for name in (named if isinstance(named, list) else sorted(sample.keys() - NO_METRICS))]


def _grades(sample: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics of a sample that are grades in [0, 1]."""
    return {name: float(sample[name]) for name in _metrics(sample) if _is_grade(sample.get(name))}


def _is_grade(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0.0 <= value <= 1.0


def _pick_metric(task: LoggedTask, samples: Sequence[tuple[int, Mapping[str, Any]]], choice: Choice) -> str:
    line, first = samples[0]
    known = _metrics(first)
    if choice.metrics:
        wanted = next((name for name in choice.metrics if name in known), None)
        if wanted is None:
            raise task.error(f"it has no metric {' or '.join(choice.metrics)} but {', '.join(known) or 'none'}", line)
        if task.is_higher_better.get(wanted) is False:
            raise task.error(f"less is better for metric {wanted!r}: a verdict needs grades of which more is better")
        return wanted
    for number, sample in samples:
        if broken := [name for name in known if isinstance(sample.get(name), float) and math.isnan(sample[name])]:
            raise task.error(f"metric {broken[0]!r} is not a number", number)
    graded = [
        name
        for name in known
        if task.is_higher_better.get(name) is not False and all(_is_grade(sample.get(name)) for _, sample in samples)
    ]
    if not graded:
        raise task.error(
            f"none of its metrics ({', '.join(known) or 'none'}) is a grade in [0, 1] of which more is better, so it "
            "cannot be judged: leave this task out (for a perplexity, a task of ours of kind perplexity does it)",
            line,
        )
    return next((name for name in PREFERRED_METRICS if name in graded), graded[0])


def _as_score(
    task: LoggedTask, sample: Mapping[str, Any], metric: str, *, line: int, others: Mapping[str, Any]
) -> SampleScore:
    value = sample.get(metric)
    if not _is_grade(value):
        raise task.error(f"metric {metric!r} is not a grade in [0, 1] but {value!r}", line)
    requests, likelihoods = _requests(sample), _likelihoods(sample)
    if any(math.isnan(value) for value in likelihoods):
        raise task.error("a log-likelihood is not a number: the model's weights are damaged", line)
    choices = [continuation for _, continuation in requests] if len(likelihoods) > 1 else []
    details: dict[str, Any] = {"prompt": requests[0][0] if requests else "", "metric": metric}
    details |= {name: sample[name] for name in ("doc_hash", "prompt_hash") if isinstance(sample.get(name), str)}
    if len(grades := _grades(sample)) > 1:
        details["metrics"] = grades
    if others:
        details |= {"filter": _filter(sample), "other_filters": others}
    if likelihoods and all(math.isfinite(value) for value in likelihoods):
        details["log_likelihoods"] = [round(value, 4) for value in likelihoods]
    return SampleScore(
        task=task.name,
        sample_id=str(sample["doc_id"]),
        score=float(value),  # type: ignore[arg-type]  # _is_grade has seen it
        answer=_answer(sample, metric, choices, likelihoods),
        gold=str(sample.get("target", "")).strip(),
        origin="lm_eval",
        chance=_chance(sample, metric, len(likelihoods)),
        details=details,
    )


def _requests(sample: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (context, continuation) of each request; of a generation, the continuation is empty."""
    arguments = sample.get("arguments")
    calls = list(arguments.values()) if isinstance(arguments, Mapping) else []
    pairs = [(call.get("arg_0", ""), call.get("arg_1", "")) for call in calls if isinstance(call, Mapping)]
    return [(str(context), text if isinstance(text, str) else "") for context, text in pairs]


def _likelihoods(sample: Mapping[str, Any]) -> list[float]:
    """Returns the log-likelihood of each request; nothing where answers were written freely."""
    pairs = [response[0] for response in sample.get("resps") or [] if isinstance(response, list) and response]
    if not all(isinstance(pair, list) and len(pair) == 2 and str(pair[1]) in ("True", "False") for pair in pairs):
        return []
    try:
        return [float(value) for value, _ in pairs]
    except (TypeError, ValueError):
        return []


def _answer(sample: Mapping[str, Any], metric: str, choices: Sequence[str], likelihoods: Sequence[float]) -> str:
    """Returns what the model answered: its free text, or the choice that metric `acc` reads off its likelihoods."""
    if choices and metric == "acc" and len(choices) == len(likelihoods):
        picked = max(range(len(choices)), key=likelihoods.__getitem__)
        text, target = choices[picked].strip(), str(sample.get("target", "")).strip()
        # Where the target is the number of a choice, the answer shows its number too.
        return f"{picked}: {text}" if target.isdigit() and text != target else text
    if likelihoods:
        return ""
    responses = sample.get("resps") or []
    first = responses[0] if responses else ""
    return str(first[0] if isinstance(first, list) and first else first)


def _chance(sample: Mapping[str, Any], metric: str, num_choices: int) -> float:
    """Returns the expected grade of guessing among choices, 0 for anything else."""
    if num_choices < 2 or not metric.startswith("acc"):
        return 0.0
    if "acc_mutual_info" in _metrics(sample):
        num_choices //= 2  # each choice was asked without its question too
    try:
        target = json.loads(str(sample.get("target")))
    except ValueError:
        target = None
    num_right = len(target) if isinstance(target, list) and target else 1
    return min(1.0, num_right / num_choices)

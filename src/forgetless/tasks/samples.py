"""From the rows of a file or of a hub data set to the samples of a task, each checked before a model is asked.

The text formats know nothing but text: in CSV and TSV an empty cell is no value, `choices`, `answers` and `labels` are
a JSON list or texts between `|`, `checks` and `messages` are JSON, everything else stays the text that it is ("007").
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

from forgetless.data.containers import open_rows
from forgetless.data.examples import Message
from forgetless.errors import DataError, ForgetlessError
from forgetless.tasks.scorers import score_answer
from forgetless.tasks.spec import DataSpec, TaskSpec

Sample = dict[str, Any]
_LISTS = ("choices", "answers", "labels")
_JSON = ("checks", "messages")
_OPAQUE = frozenset({"Image", "Audio", "Video", "Pdf", "Nifti"})  # columns that no prompt can name


def read_samples(spec: TaskSpec, directory: Path) -> tuple[Sample, ...]:
    """Reads and checks the samples of a task.

    Args:
        spec: The task.
        directory: Where its YAML lies.

    Returns:
        All samples; those that bring no id have one made from their number.

    Raises:
        DataError: The data can't be read, an id stands twice, or a sample can't be asked or graded.
    """
    data = spec.data
    path = str(data) if data.file is None else str(directory / data.file)
    rows = _hub_rows(data) if data.file is None else open_rows(directory / data.file)[1]
    is_text = Path(path.removesuffix(".gz")).suffix.lower() in {".csv", ".tsv"}
    seen: set[str] = set()
    samples: list[Sample] = []
    for ordinal, (number, row) in enumerate(rows, start=1):
        try:
            sample = {"id": f"{spec.task}-{ordinal:04d}"} | _make_sample(row, data, is_text=is_text)
            sample["id"] = str(sample["id"])
            if sample["id"] in seen:
                raise DataError(f"id {sample['id']!r} stands twice", field="id")
            if spec.kind == "choice":
                _read_choices(sample, data)
            check_sample(spec, sample)
        except DataError as error:
            raise DataError(error.message, path=path, line=number, field=error.field) from None
        except ForgetlessError as error:
            raise DataError(str(error), path=path, line=number) from None
        seen.add(sample["id"])
        samples.append(sample)
    if not samples:
        raise DataError("holds no samples", path=path)
    return tuple(samples)


def _hub_rows(data: DataSpec) -> Iterator[tuple[int, Sample]]:
    """Yields the rows of a data set of the hub, read through `datasets`; code that it brings is never run."""
    import datasets

    name = str(data.hub)
    if Path(name).exists():
        raise DataError(f"{name} is a directory here too: name its files as `file`, or work elsewhere", path=str(data))
    had_bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(name, name=data.config, split=data.split, revision=data.revision)
    except Exception as error:  # the library lets through whatever its own parts raise
        raise DataError(_why_not(error), path=str(data)) from None
    finally:
        if had_bars:
            datasets.enable_progress_bars()
    opaque = [column for column, feature in found.features.items() if type(feature).__name__ in _OPAQUE]
    yield from enumerate(found.remove_columns(opaque), start=1)


def _why_not(error: Exception) -> str:
    """Returns why a data set can't be loaded, and what to do, in one sentence."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if "OfflineModeIsEnabled" in reason or type(error).__name__ == "OfflineModeIsEnabled":
        return (
            "is not in the cache, and HF_HUB_OFFLINE is set: unset it, or load the data set once where there is a net"
        )
    if isinstance(error, ConnectionError):
        return f"cannot be reached ({reason}): check the net, or save its rows as JSONL and name that as `data`"
    if type(error).__name__ == "DatasetNotFoundError":
        return f"is not on the hub, or needs a login (hf auth login): check `hub` and `revision` ({reason})"
    return f"cannot be loaded: {reason}"


def _make_sample(row: Mapping[str, Any], data: DataSpec, *, is_text: bool) -> Sample:
    """Returns the fields of a row, renamed and drawn together as `columns` says."""
    plain = ((str(name), _plain(value)) for name, value in row.items())
    sample = {name: value for name, value in plain if value is not None and not (is_text and value == "")}
    found = {name: _look_up(sample, place) for name, place in data.columns.items()}
    for name, value in found.items():
        if data.columns[name] is None:
            sample.pop(name, None)
        else:
            sample[name] = value
    if is_text:
        for name in (*_LISTS, *_JSON):
            if isinstance(sample.get(name), str):
                sample[name] = _parse_cell(sample[name], name)
    return sample


def _plain(value: Any) -> Any:
    """Returns a value as JSON knows it; None for what it doesn't know (bytes, pictures)."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | bool | int | float) else None


def _look_up(sample: Mapping[str, Any], place: str | list[str] | None) -> Any:
    """Returns the value at a path of names between dots, or a list of the values at several."""
    if place is None:
        return None
    if isinstance(place, list):
        return [_look_up(sample, part) for part in place]
    if place in sample:
        return sample[place]
    value: Any = sample
    for part in place.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            known = f"only {', '.join(map(str, value))}" if isinstance(value, Mapping) else f"in {value!r}"
            raise DataError(f"columns: there is no {part!r} of {place!r}, {known}")
    return value


def _parse_cell(cell: str, name: str) -> Any:
    if name in _LISTS and not cell.lstrip().startswith("["):
        return [part.strip() for part in cell.split("|")]
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        raise DataError(f"{cell!r} is not JSON", field=name) from None


def _read_choices(sample: Sample, data: DataSpec) -> None:
    """Checks the choices of a sample, and replaces its answer by the index of the right one."""
    for name in ("choices", "answer"):
        if sample.get(name) is None:
            raise DataError("is missing: a sample of kind choice needs it", field=name)
    choices = sample["choices"]
    if not isinstance(choices, list) or len(choices) < 2 or len({str(choice) for choice in choices}) != len(choices):
        raise DataError("needs at least two different choices", field="choices")
    if not all(isinstance(choice, str | int | float) and str(choice).strip() for choice in choices):
        raise DataError("one choice is empty or no text", field="choices")
    labels = sample.get("labels", data.labels)
    if labels is not None and (not isinstance(labels, list) or len(labels) != len(choices)):
        raise DataError(f"{labels!r} does not label {len(choices)} choices", field="labels")
    sample["answer"] = _index(sample["answer"], [str(choice) for choice in choices], labels)


def _index(answer: object, choices: list[str], labels: list[Any] | None) -> int:
    """Returns which choice an answer means: by its label, by index, or in text: a letter, a number or the choice."""
    if labels is not None:
        names = [str(label) for label in labels]
        if names.count(str(answer)) != 1:
            raise DataError(f"{answer!r} is not one of the labels {', '.join(names)}", field="answer")
        return names.index(str(answer))
    if isinstance(answer, str):
        text = answer.strip()
        letter = ord(text.upper()) - ord("A") if len(text) == 1 and text.isascii() and text.isalpha() else -1
        number = int(text) - 1 if text.isascii() and text.isdecimal() and len(text) < 3 else -1
        readings = {letter, number, choices.index(text) if text in choices else -1} & set(range(len(choices)))
        if len(readings) == 1:
            return readings.pop()
        if readings:
            raise DataError(f"{answer!r} may mean two choices: give their `labels`, or its index", field="answer")
        raise DataError(
            f"{answer!r} is none of the {len(choices)} choices, nor a letter from A or a number from 1: `labels` say "
            "what else the choices are called (as text, an index from 0 needs them)",
            field="answer",
        )
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise DataError(f"{answer!r} is not an index into {len(choices)} choices", field="answer")
    return answer


def check_sample(spec: TaskSpec, sample: Mapping[str, Any]) -> None:
    """Raises unless a sample can be asked and graded: better now than hours into a run."""
    if spec.kind == "perplexity" and "text" in sample:
        if not isinstance(sample["text"], str) or not sample["text"].strip():
            raise DataError(f"{sample['text']!r} is not a text", field="text")
        return
    if "messages" in sample:
        _check_messages(sample["messages"])
    elif not spec.fill(sample).strip():
        raise DataError(f"prompt {spec.prompt!r} comes out empty")
    if spec.kind == "perplexity" and not str(sample.get("answer") or "").strip():
        raise DataError("is missing: a sample of kind perplexity needs it, or a text", field="answer")
    if spec.kind == "generate":
        score_answer("", sample, spec.scorer, spec.options)


def _check_messages(turns: Any) -> None:
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError('is not a list of turns such as {"role": "user", "content": "..."}', field="messages")
    for turn in turns:
        Message(turn.get("role"), turn.get("content"))
        if not isinstance(turn.get("content"), str):
            raise DataError(f"content {turn.get('content')!r} is not a text", field="messages")
    if len(turns) == 1 and turns[0]["role"] == "assistant":
        raise DataError("an answer alone asks nothing: begin with a user turn", field="messages")

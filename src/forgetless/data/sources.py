"""Training data: files in, examples out; and the file that a mixture is kept in."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from forgetless.data.containers import open_rows
from forgetless.data.examples import (
    Example,
    ExampleError,
    Message,
    count_duplicates,
    fingerprint_examples,
)
from forgetless.data.formats import Row, RowFormat, find_format, refuse_columns
from forgetless.errors import ConfigError, DataError
from forgetless.files import whole_file
from forgetless.records import SCHEMA

__all__ = [
    "Example",
    "ExampleError",
    "GeneralData",
    "Message",
    "as_examples",
    "count_duplicates",
    "examples_from_rows",
    "fingerprint_examples",
    "read_examples",
    "write_examples",
]

# What a caller in Python may name as data: a file, examples, or rows in any of the known formats.
GeneralData: TypeAlias = "str | Path | Iterable[Example] | Iterable[Mapping[str, Any]]"


def as_examples(data: GeneralData, *, origin: str) -> list[Example]:
    """Returns examples from whatever names them.

    Args:
        data: The path of a file, examples, or rows in any of the known formats.
        origin: Origin of examples that are read or built here; those that are examples already keep their own.

    Returns:
        The examples, in order.

    Raises:
        DataError: A file or a row can't be used.
    """
    if isinstance(data, str | Path):
        return read_examples(data, origin=origin)
    if isinstance(data, Mapping):
        raise DataError(f"the {origin} data is one row, not a list of rows: put it in a list")
    entries = list(data)
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Example | Mapping):
            raise DataError(
                f"row {number} of the {origin} data is {type(entry).__name__}, not an object: write {{'text': ...}}"
            )
    if all(isinstance(entry, Example) for entry in entries):
        return cast("list[Example]", entries)
    return examples_from_rows(cast("list[Mapping[str, Any]]", entries), origin=origin)


def read_examples(
    path: str | Path, *, origin: str = "domain", limit: int | None = None, seed: int | None = None
) -> list[Example]:
    """Reads training examples; `formats.py` lists the row formats, `containers.py` reads the files.

    Args:
        path: A .jsonl, .ndjson, .json, .csv or .tsv file (each also with .gz), a .parquet file, or a directory saved
            by `datasets` (`save_to_disk`; of several splits `train`). Only read, never written to.
        origin: Origin of every example; a file that `write_examples` wrote keeps its own.
        limit: Largest number of examples; None = all.
        seed: Shuffles the file before `limit` counts; None keeps its order and reads no further than needed.

    Returns:
        The examples in the order of the file, or in that of the seed.

    Raises:
        DataError: Something in the file cannot be trained on; names the file, the line or row, and the field.
        ConfigError: `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit {limit} is below 1; leave it out to read all examples")
    path = Path(path).expanduser()
    counts, rows = open_rows(path)
    examples = _build_examples(rows, origin=origin, path=path, counts=counts)
    if seed is None:
        return list(itertools.islice(examples, limit))
    import numpy as np

    pool = list(examples)
    return [pool[index] for index in np.random.default_rng(seed).permutation(len(pool))[:limit]]


def examples_from_rows(rows: Iterable[Mapping[str, Any]], *, origin: str = "domain") -> list[Example]:
    """Builds examples from rows in memory: dictionaries, or a `datasets.Dataset`, in any of the known formats.

    Args:
        rows: One mapping of column to value per example; all in one format.
        origin: Origin of every example; a row that forgetless wrote keeps its own.

    Returns:
        One example per row, in order.

    Raises:
        DataError: A row cannot be trained on; names the row, from 1, and the field.
    """
    numbered = ((number, dict(row)) for number, row in enumerate(rows, start=1))
    return list(_build_examples(numbered, origin=origin, path=None, counts="row"))


class _FormatWatch:
    """Settles the format of a source on its first row, and holds every later row to it."""

    def __init__(self, counts: str) -> None:
        self._counts = counts
        self._first = 0
        self._columns: frozenset[str] = frozenset()
        self._format: RowFormat | None = None
        self._agreed: set[tuple[str, ...]] = set()

    def check(self, row: Row, number: int) -> RowFormat:
        """Checks that a row is in the format of its source.

        Args:
            row: Columns by name.
            number: Number of the row in its source, from 1, for the message.

        Returns:
            The format, which the first row has settled.

        Raises:
            ExampleError: The first row is in no known format, or a later one is not in that of the first.
        """
        if self._format is None:
            self._format = find_format(row)
            if self._format is None:
                raise refuse_columns(row)
            self._first, self._columns = number, frozenset(row)
        columns = tuple(row)
        if columns not in self._agreed:
            if find_format(row) is not self._format:
                raise self._refuse(row, self._format, number)
            self._agreed.add(columns)
        return self._format

    def _refuse(self, row: Row, expected: RowFormat, number: int) -> ExampleError:
        found = find_format(row)
        missing = [column for column in expected.required if column not in row]
        # A file of prompt + response + text whose row 7 lacks the response has lost a field, not changed its format.
        if found is None or (missing and self._columns.issuperset(found.required)):
            return ExampleError(
                f"is missing; {self._counts} {self._first} made this file {expected.name}, so every example needs it",
                field=missing[0],
            )
        return ExampleError(
            f"mixed formats: {expected.name} (first in {self._counts} {self._first}) and {found.name} (first in "
            f"{self._counts} {number}); keep one format in a file"
        )


def _build_examples(
    rows: Iterable[tuple[int, Row]], *, origin: str, path: Path | None, counts: str
) -> Iterator[Example]:
    watch = _FormatWatch(counts)
    for number, row in rows:
        try:
            yield watch.check(row, number).build(row, origin)
        except ExampleError as error:
            # DataError can only say "line": where that is not what is counted, the message says what is.
            where = "" if counts == "line" else f" ({counts} {number})"
            raise DataError(error.message + where, path=path, line=number, field=error.field) from None


def write_examples(path: str | Path, examples: Iterable[Example]) -> None:
    """Writes examples as JSON lines with their origin and metadata, whole or not at all; `read_examples` reads them.

    Args:
        path: The file to write or to replace; directories that lack above it are made.
        examples: In the order in which they are to stand.

    Raises:
        DataError: The file cannot be written.
    """
    path = Path(path).expanduser()
    try:
        with whole_file(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(_to_json(example) + "\n" for example in examples)
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror or error})", path=path) from None


def _to_json(example: Example) -> str:
    record: dict[str, Any] = {"schema": SCHEMA, "origin": example.origin}
    if example.text is not None:
        record["text"] = example.text
    else:
        record["messages"] = [message.to_dict() for message in example.messages]
    if example.supervised_from:
        record["supervised_from"] = example.supervised_from
    if example.metadata:
        record["metadata"] = _writable(example.metadata)
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def _writable(value: Any) -> Any:
    """Returns metadata as JSON can hold it: dates and the like (from Parquet) as text, not-a-number as null."""
    if isinstance(value, Mapping):
        return {str(key): _writable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)

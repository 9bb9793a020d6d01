"""The files that training data comes in, read as numbered rows: text formats (plain or gzipped), Parquet, `datasets`.

Files are only ever read: nothing is cached beside them, and `datasets` is not imported (its saved directories are
Arrow streams, which pyarrow reads).
"""

from __future__ import annotations

import csv
import gzip
import json
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from forgetless.data.formats import Row
from forgetless.errors import DataError

EXTENSIONS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
NumberedRows = Iterator[tuple[int, Row]]

_BOM = b"\xef\xbb\xbf"
_FOREIGN_OPENINGS = (  # the longer marks first: UTF-32 starts as UTF-16 does
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_BINARY_OPENINGS = (
    (b"\x1f\x8b", "gzip-compressed: add .gz to its name"),
    (b"PAR1", "a Parquet file: end its name in .parquet"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet: unpack it, or export it as CSV"),
)


def open_rows(path: Path) -> tuple[str, NumberedRows]:
    """Opens a data file or a saved `datasets` directory.

    Args:
        path: A file whose extension says what it is, or a directory that `save_to_disk` wrote.

    Returns:
        What the numbers count (`line`, `item` or `row`, from 1), and the rows as (number, columns by name).

    Raises:
        DataError: There is no such file, its kind is unknown or, while iterating, its content cannot be read.
    """
    if path.is_dir():
        return "row", _saved_rows(path)
    if not path.exists():
        raise DataError(f"there is no such file{_hub_hint(path)}", path=path)
    name = path.name.lower()
    extension = Path(name.removesuffix(".gz")).suffix
    if extension == ".parquet" and not name.endswith(".gz"):
        return "row", _parquet_rows(path)
    if extension in (".jsonl", ".ndjson"):
        return "line", _json_lines(path)
    if extension == ".json":
        return _open_json(path)
    if extension in (".csv", ".tsv"):
        return "line", _delimited_rows(path, delimiter="," if extension == ".csv" else "\t")
    raise DataError(
        f"the extension {Path(name).suffix!r} is none of {', '.join(EXTENSIONS)} (the text ones also as .gz); save the "
        "data as one of them, for instance JSONL with one object a line",
        path=path,
    )


def _hub_hint(path: Path) -> str:
    if len(path.parts) != 2 or path.suffix:
        return ""
    return (
        f"; for a data set of the hub, save it first: datasets.load_dataset('{path.as_posix()}').save_to_disk('data')"
    )


class TextLines:
    """The lines of a UTF-8 file, decoded one by one, so that a fault is named by its line and byte offset.

    `number` is that of the line read last, from 1 (0 before the first); `is_cut` says whether that line has no line
    end, as only the last line of a file can.

    Args:
        path: The file; one that ends in .gz is unpacked as it is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.is_cut = False
        self._offset = 0

    def __iter__(self) -> Iterator[str]:
        try:
            with self._open() as file:
                for raw in file:
                    self.number += 1
                    self.is_cut = not raw.endswith(b"\n")
                    yield self._decode(raw)
                    self._offset += len(raw)
        except EOFError:
            raise DataError(
                "the gzip stream ends too early: the file looks cut off; copy it again", path=self.path
            ) from None
        except (OSError, zlib.error) as error:
            raise DataError(f"cannot be read ({error})", path=self.path) from None

    def _open(self) -> Any:
        return gzip.open(self.path, "rb") if self.path.suffix.lower() == ".gz" else self.path.open("rb")

    def _decode(self, raw: bytes) -> str:
        if self.number == 1:
            self._check_opening(raw)
            if raw.startswith(_BOM):
                raw, self._offset = raw[len(_BOM) :], len(_BOM)
        if b"\0" in raw:
            self._refuse_nul(raw)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if self.is_cut and error.reason == "unexpected end of data":
                raise self.fail("ends in the middle of a character: the file looks cut off; copy it again") from None
            raise self.fail(
                f"byte 0x{raw[error.start]:02x} at byte offset {self._offset + error.start} is not UTF-8; if the file "
                f"is Latin-1, convert it: {self._conversion('LATIN1')}"
            ) from None

    def _check_opening(self, raw: bytes) -> None:
        for mark, encoding in _FOREIGN_OPENINGS:
            if raw.startswith(mark):
                raise self.fail(f"is {encoding}, not UTF-8 (byte offset 0); convert it: {self._conversion(encoding)}")
        for mark, kind in _BINARY_OPENINGS:
            if raw.startswith(mark):
                raise self.fail(f"is {kind}")

    def _refuse_nul(self, raw: bytes) -> NoReturn:
        at = raw.index(b"\0")
        place = f"a NUL byte at byte offset {self._offset + at}"
        if self.number == 1 and raw.count(b"\0") * 3 > len(raw):  # every second byte of Latin text in UTF-16
            encoding = "UTF-16BE" if at % 2 == 0 else "UTF-16LE"
            raise self.fail(f"{place}: the file looks like {encoding}; convert it: {self._conversion(encoding)}")
        raise self.fail(f"{place}: the file is damaged or is not text; remove it, for instance with tr -d '\\000'")

    def _conversion(self, encoding: str) -> str:
        source = shlex.quote(str(self.path))
        target = shlex.quote(str(self.path.with_name("utf8-" + self.path.name)))
        if self.path.suffix.lower() == ".gz":
            return f"gzip -dc {source} | iconv -f {encoding} -t UTF-8 | gzip > {target}"
        return f"iconv -f {encoding} -t UTF-8 {source} > {target}"

    def fail(self, message: str) -> DataError:
        """Returns the error for the line read last."""
        return DataError(message, path=self.path, line=self.number)

    def refuse_emptiness(self) -> NoReturn:
        """Raises the error for a file without rows: nothing at all, or blank lines only."""
        raise DataError("is empty" if self.number == 0 else "holds only blank lines", path=self.path)


def _parse_json(text: str) -> Any:
    """Parses JSON; every failure is a ValueError (a deep nest and a number of 5000 digits are no syntax errors)."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _json_lines(path: Path) -> NumberedRows:
    lines = TextLines(path)
    is_blank = True
    for line in lines:
        if not line.strip():
            continue
        is_blank = False
        try:
            row = _parse_json(line)
        except ValueError as error:
            raise lines.fail(_describe_line(line, error, is_cut=lines.is_cut, is_first=lines.number == 1)) from None
        if not isinstance(row, dict):
            raise lines.fail(
                "is not an object: each line of a JSONL file is one {...}; a list belongs into a .json file"
            )
        yield lines.number, row
    if is_blank:
        lines.refuse_emptiness()


def _describe_line(line: str, error: ValueError, *, is_cut: bool, is_first: bool) -> str:
    reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
    if is_first and line.strip() in ("[", "{"):
        return "is the start of a JSON document of many lines: name the file .json, or write one object a line"
    if "Extra data" in reason:
        return f"holds more than one object ({reason}); write one object a line"
    if is_cut:
        return f"is not JSON ({reason}) and has no line end: the file looks cut off; write it again or delete this line"
    return f"is not JSON ({reason}); write one object a line, with its texts in double quotes"


def _open_json(path: Path) -> tuple[str, NumberedRows]:
    lines = TextLines(path)
    text = "".join(lines)
    if not text.strip():
        lines.refuse_emptiness()
    try:
        document = _parse_json(text)
    except json.JSONDecodeError as error:
        # Many a .json file holds JSON lines (datasets writes them so): a second object then follows the first line.
        if error.msg == "Extra data" and "\n" not in text[: error.pos].strip():
            return "line", _json_lines(path)
        cut = "" if text.rstrip().endswith(("]", "}")) else ": the file looks cut off; write it again"
        message = f"is not JSON ({error.msg}, column {error.colno}){cut}"
        raise DataError(message, path=path, line=error.lineno) from None
    except ValueError as error:
        raise DataError(f"is not JSON that can be read ({error})", path=path) from None
    return "item", _list_items(document, path)


def _list_items(document: Any, path: Path) -> NumberedRows:
    if isinstance(document, dict):
        items = next((document[key] for key in ("data", "train") if isinstance(document.get(key), list)), None)
        if items is None:
            keys = ", ".join(repr(key) for key in list(document)[:8])
            raise DataError(
                f"holds one object (keys {keys}), not a list of examples; put them into [...], or under the key data "
                "or train (from pandas: orient='records')",
                path=path,
            )
    elif isinstance(document, list):
        items = document
    else:
        raise DataError("holds a single value, not a list of examples; put them into [...]", path=path)
    if not items:
        raise DataError("holds an empty list", path=path)
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise DataError(f"item {number} of the list is not an object {{...}}", path=path, line=number)
        yield number, item


def _delimited_rows(path: Path, *, delimiter: str) -> NumberedRows:
    lines = TextLines(path)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    is_empty = True
    while True:
        start = reader.line_num + 1  # a quoted cell may span lines: a row is named by its first
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(_describe_csv(str(error), is_cut=lines.is_cut), path=path, line=start) from None
        if cells is None:
            break
        if not cells:
            continue
        if not header:
            header = _parse_header(cells, path, start)
            continue
        if len(cells) != len(header):
            raise DataError(_describe_ragged(cells, header, is_cut=lines.is_cut), path=path, line=start)
        is_empty = False
        yield start, dict(zip(header, cells, strict=True))
    if not header:
        lines.refuse_emptiness()
    if is_empty:
        raise DataError("has a header but no rows", path=path)


def _parse_header(cells: list[str], path: Path, line: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError("is the name of two columns; rename one of them", path=path, line=line, field=twice)
    if len(names) == 1 and (mark := next((mark for mark in ";\t,|" if mark in names[0]), None)):
        raise DataError(
            f"the header is one cell that holds {mark!r}: separate cells with commas in .csv, tabs in .tsv",
            path=path,
            line=line,
        )
    return names


def _describe_ragged(cells: list[str], header: list[str], *, is_cut: bool) -> str:
    message = f"has {len(cells)} cells, the header has {len(header)} ({', '.join(header)}); "
    if is_cut and len(cells) < len(header):
        return message + "it is the last line and has no line end: the file looks cut off; write it again"
    return message + "put cells that hold a separator or a line break into double quotes"


def _describe_csv(reason: str, *, is_cut: bool) -> str:
    if "unexpected end of data" in reason:
        looks = "the file looks cut off, or " if is_cut else ""
        return f"a quoted cell that starts in this row never ends: {looks}a closing quote is missing"
    if "field larger" in reason:
        return f"has a cell of more than {csv.field_size_limit()} characters; save the data as JSONL or Parquet"
    if "new-line character" in reason:
        return "has a bare carriage return outside quotes; save the file with Unix or Windows line ends"
    return f"cannot be read as CSV ({reason}); inside a quoted cell write each double quote twice"


def _parquet_rows(path: Path) -> NumberedRows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            _check_columns(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"cannot be read as Parquet ({reason}); is it cut off? Copy or write it again", path=path
        ) from None
    if number == 0:
        raise DataError("has columns but no rows", path=path)


def _check_columns(names: list[str], path: Path) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError("is the name of two columns; rename one of them", path=path, field=twice)


def _saved_rows(path: Path) -> NumberedRows:
    """Reads what `datasets` saved with `save_to_disk`: one data set, or the train split of a dictionary of them."""
    import pyarrow as pa

    number = 0
    for file in _arrow_files(_train_split(path)):
        try:
            with pa.memory_map(str(file), "r") as source, pa.ipc.open_stream(source) as stream:
                for batch in stream:
                    for row in batch.to_pylist():
                        number += 1
                        yield number, row
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"cannot be read as Arrow ({reason}); save the data set again", path=file) from None
    if number == 0:
        raise DataError("has columns but no rows", path=path)


def _train_split(path: Path) -> Path:
    listing = path / "dataset_dict.json"
    if not listing.is_file():
        return path
    splits = _read_object(listing).get("splits", [])
    if "train" not in splits:
        raise DataError(
            f"has no split 'train'; name the one you want: {', '.join(str(path / s) for s in splits)}", path=path
        )
    return path / "train"


def _arrow_files(path: Path) -> list[Path]:
    state = path / "state.json"
    if not state.is_file():
        here = sorted(
            file.name for file in path.iterdir() if file.name.lower().removesuffix(".gz").endswith(EXTENSIONS)
        )
        hint = f"; it holds {', '.join(here[:5])}: name one of them" if here else ""
        raise DataError(f"is a directory, but not one that datasets saved (save_to_disk){hint}", path=path)
    try:
        return [path / str(file["filename"]) for file in _read_object(state)["_data_files"]]
    except (KeyError, TypeError):
        raise DataError("does not list the Arrow files; save the data set again", path=state) from None


def _read_object(path: Path) -> dict[str, Any]:
    document = _parse_document(path)
    if not isinstance(document, dict):
        raise DataError("is not a JSON object; save the data set again", path=path)
    return document


def _parse_document(path: Path) -> Any:
    try:
        return _parse_json("".join(TextLines(path)))
    except ValueError as error:
        raise DataError(f"is not JSON ({error}); save the data set again", path=path) from None

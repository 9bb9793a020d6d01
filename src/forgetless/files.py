"""Files and directories that are written whole or not at all, and JSON that is read with a sentence where it is none.

What is written goes to a name of its own first, and takes its place once it is complete: a reader never sees half of a
file, and a full disk or a killed process leaves what was there before.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from forgetless.errors import DataError


@contextmanager
def whole_file(path: Path, *, is_shared: bool = False) -> Iterator[Path]:
    """Gives a place to write to, which takes the place of a file when the block is through.

    Args:
        path: The file; directories that lack above it are made.
        is_shared: Whether other processes may write the same file meanwhile: each then writes to a name of its own.

    Yields:
        Where to write; removed when the block fails.

    Raises:
        OSError: It can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part" if is_shared else f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, newline: str | None = None) -> None:
    """Writes a text in UTF-8, whole or not at all.

    Args:
        path: The file; directories that lack above it are made.
        text: What it is to hold.
        newline: What ends a line; None = what the system has.

    Raises:
        OSError: It can't be written.
    """
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", newline=newline)


@contextmanager
def whole_directory(directory: Path) -> Iterator[Path]:
    """Gives an empty directory, which takes the place of another when the block is through.

    Args:
        directory: The directory; what lies there is replaced.

    Yields:
        Where to write; what an earlier process left there is gone. Removed when the block fails.

    Raises:
        OSError: It can't be written.
    """
    part = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(directory, ignore_errors=True)
        part.rename(directory)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)  # half a model would keep a full disk full
        raise


def read_object(path: Path, *, absent: str = "there is no such file") -> dict[str, Any]:
    """Reads a JSON file that holds one object.

    Args:
        path: The file.
        absent: What to say where it is missing.

    Returns:
        The object.

    Raises:
        DataError: The file is missing, can't be read, is not JSON, or holds something else.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(absent, path=path) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", path=path) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON ({error})", path=path) from None
    if not isinstance(raw, dict):
        raise DataError("is not a JSON object", path=path)
    return raw


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Reads a file with a JSON object a line.

    Args:
        path: The file; blank lines are passed over.

    Yields:
        The number of the line, from 1, and its object.

    Raises:
        DataError: The file is missing or can't be read, or a line is not a JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError("there is no such file", path=path) from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"cannot be read as UTF-8 text ({error})", path=path) from None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            raise DataError(f"is not JSON ({reason}); was the writer stopped?", path=path, line=number) from None
        if not isinstance(raw, dict):
            raise DataError("is not a JSON object", path=path, line=number)
        yield number, raw

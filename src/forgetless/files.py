"""Files and directories that are written whole or not at all.

What is written goes to a name of its own first, and takes its place once it is complete: a reader never sees half of a
file, and a full disk or a killed process leaves what was there before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
        Where to write; what an earlier process left there is gone.

    Raises:
        OSError: It can't be written.
    """
    part = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(directory, ignore_errors=True)
    part.rename(directory)

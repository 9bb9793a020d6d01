"""What is written whole or not at all leaves what was there before when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetless.files import whole_directory, whole_file, write_text


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_file_that_fails_half_way_leaves_the_former_one(tmp_path: Path, *, is_shared: bool) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "before")

    def fill() -> None:
        with whole_file(path, is_shared=is_shared) as part:
            part.write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_is_replaced_once_it_is_complete(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    for name in ("old", "new"):
        with whole_directory(directory) as part:
            (part / name).touch()
    assert [path.name for path in directory.iterdir()] == ["new"]
    with pytest.raises(OSError, match="full"), whole_directory(directory):
        raise OSError("the disk is full")
    assert [path.name for path in directory.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [directory]


def test_what_a_killed_process_left_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "model.part").mkdir()
    (tmp_path / "model.part" / "half").touch()
    with whole_directory(tmp_path / "model") as part:
        (part / "whole").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["whole"]


def test_lines_end_as_they_are_told_to(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x\ny\n", newline="\r\n")
    assert (tmp_path / "a").read_bytes() == b"x\r\ny\r\n"

"""The run directory: taken up where it stopped, never written over, never emptied of what isn't a run's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forgetless.errors import ConfigError, RunError
from forgetless.rundir import RunDirectory, noise_files, refuse_foreign_file


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "runs" / "mine")


def files(directory: RunDirectory) -> list[str]:
    return sorted(path.relative_to(directory.path).as_posix() for path in directory.path.rglob("*"))


def test_a_run_begins_with_its_manifest(directory: RunDirectory) -> None:
    assert directory.read() == {}
    assert directory.start({"name": "mine"}, identity="a") is False
    manifest = directory.read()
    assert (manifest["schema"], manifest["name"], manifest["identity"], manifest["stages"]) == (1, "mine", "a", {})
    assert manifest["created"].endswith("Z")
    assert files(directory) == ["manifest.json"]


def test_the_same_run_is_taken_up(directory: RunDirectory) -> None:
    directory.start({"name": "mine"}, identity="a")
    created = directory.read()["created"]
    directory.scores("base").write_text("x")
    with directory.stage("base") as facts:
        facts["num_samples"] = 3
    assert directory.start({"name": "other"}, identity="a") is True
    manifest = directory.read()
    assert (manifest["name"], manifest["created"]) == ("other", created)
    assert manifest["stages"]["base"]["num_samples"] == 3
    assert directory.is_done("base", directory.scores("base"))


def test_another_run_is_refused_and_left_alone(directory: RunDirectory) -> None:
    directory.start({"name": "mine"}, identity="a")
    before = directory.manifest_path.read_bytes()
    with pytest.raises(ConfigError, match=r"holds a run with another config or data.*--fresh"):
        directory.start({"name": "mine"}, identity="b")
    assert directory.manifest_path.read_bytes() == before


def test_fresh_replaces_a_run_and_nothing_else(directory: RunDirectory) -> None:
    directory.start({"name": "mine", "old": 1}, identity="a")
    with directory.stage("base"):
        directory.scores("base").write_text("x")
    for name in ("model/weights", "checkpoints/1/weights", "report.html", "train.jsonl"):
        (directory.path / name).parent.mkdir(parents=True, exist_ok=True)
        (directory.path / name).write_text("old")
    (directory.path / "notes.txt").write_text("mine")
    assert directory.start({"name": "mine"}, identity="b", fresh=True) is False
    assert files(directory) == ["manifest.json", "notes.txt"]
    assert (directory.path / "notes.txt").read_text() == "mine"
    manifest = directory.read()
    assert (manifest["identity"], manifest["stages"]) == ("b", {})
    assert "old" not in manifest


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["thesis.txt", ".hidden", "manifest.json"])
def test_a_directory_that_is_no_run_is_refused_and_left_alone(directory: RunDirectory, name: str, fresh: bool) -> None:
    directory.path.mkdir(parents=True)
    (directory.path / name).write_text('{"name": "a web application"}')
    with pytest.raises(ConfigError, match="is not empty and not a run: choose another --out"):
        directory.start({}, identity="a", fresh=fresh)
    assert files(directory) == [name]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("content", [b"", b'{"sch', b"[]", b"\xff", b'{"identity": "a", "stages": 5}', b"[" * 100_000])
def test_a_damaged_manifest_is_refused_and_left_alone(directory: RunDirectory, content: bytes, fresh: bool) -> None:
    directory.path.mkdir(parents=True)
    directory.manifest_path.write_bytes(content)
    (directory.path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is damaged"):
        directory.start({}, identity="a", fresh=fresh)
    assert files(directory) == ["manifest.json", "notes.txt"]
    assert directory.manifest_path.read_bytes() == content


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_cannot_hold_a_run(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="cannot hold a run"):
        RunDirectory(tmp_path / "file" / below).start({}, identity="a")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_empty_directory_is_as_good_as_none(directory: RunDirectory) -> None:
    directory.path.mkdir(parents=True)
    assert directory.start({}, identity="a") is False


def test_a_stage_is_running_until_it_is_done(directory: RunDirectory) -> None:
    directory.start({}, identity="a")
    with directory.stage("base") as facts:
        assert directory.read()["stages"]["base"] == {"state": "running"}
        assert not directory.is_done("base", directory.manifest_path)
        facts["cached"] = True
    stage = directory.read()["stages"]["base"]
    assert (stage["state"], stage["cached"]) == ("done", True)
    assert stage["seconds"] >= 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_stage_that_fails_is_not_done(directory: RunDirectory, error: type[BaseException]) -> None:
    directory.start({}, identity="a")

    def fail() -> None:
        with directory.stage("base"):
            raise error

    with pytest.raises(error):
        fail()
    assert directory.read()["stages"]["base"]["state"] == "failed"
    assert not directory.is_done("base", directory.manifest_path)


def test_a_stage_whose_product_is_gone_is_not_done(directory: RunDirectory) -> None:
    directory.start({}, identity="a")
    with directory.stage("base"):
        directory.scores("base").write_text("x")
    assert directory.is_done("base", directory.scores("base"))
    directory.scores("base").unlink()
    assert not directory.is_done("base", directory.scores("base"))


def test_entries_are_replaced_one_by_one(directory: RunDirectory) -> None:
    directory.update({"a": 1, "b": {"c": 1}})
    directory.update({"b": {"d": 2}, "path": Path("x")})
    assert json.loads(directory.manifest_path.read_text()) == {"schema": 1, "a": 1, "b": {"d": 2}, "path": "x"}
    assert files(directory) == ["manifest.json"]


def test_a_manifest_is_written_whole_or_not_at_all(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.update({"a": 1})

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\): free some space"):
        directory.update({"a": 2})
    assert directory.read()["a"] == 1


def test_a_new_file_or_one_of_ours_may_be_written(tmp_path: Path) -> None:
    refuse_foreign_file(tmp_path / "new" / "scores.jsonl")
    assert (tmp_path / "new").is_dir()
    (tmp_path / "empty").touch()
    refuse_foreign_file(tmp_path / "empty")
    (tmp_path / "ours").write_text('{"schema": 1, "task": "t"}\n')
    refuse_foreign_file(tmp_path / "ours")


@pytest.mark.parametrize("content", ["precious", '{"question": "a"}\n', "{"])
def test_a_file_of_the_user_is_not_written_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine").write_text(content)
    with pytest.raises(ConfigError, match="holds something that forgetless didn't write"):
        refuse_foreign_file(tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == content


def test_what_is_no_file_is_not_written_over(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(ConfigError, match="is not a file"):
            refuse_foreign_file(path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        refuse_foreign_file(tmp_path / "file" / "below")


def test_noise_files_are_found_in_order_and_cleared(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.start({}, identity="a")
    for number in (10, 2, 1):
        run.noise(number).write_text("")
    (run.path / "base.noise-x.scores.jsonl").write_text("")
    assert noise_files(run.path) == [run.noise(number) for number in (1, 2, 10)]
    assert noise_files(run.noise(1)) == noise_files(tmp_path / "nowhere") == []
    run.start({}, identity="b", fresh=True)
    assert noise_files(run.path) == []

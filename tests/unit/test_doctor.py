"""What `doctor` says of a machine that lacks something, and how to mend it."""

from __future__ import annotations

import os
import shutil
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from forgetless import doctor, embedded
from forgetless.doctor import Finding, examine


def finding(name: str) -> Finding:
    return next(found for found in examine() if found.name == name)


def test_everything_is_looked_at_once(cache: Path) -> None:
    names = ["Python", "packages", "torch", "devices", "memory", "embedded model", "cache", "disk"]
    assert [found.name for found in examine()] == names
    assert cache.is_dir()  # made, so that it can be tried


def test_what_is_fine_needs_no_remedy(cache: Path) -> None:
    for found in examine():
        assert found.detail
        assert bool(found.remedy) is not found.is_fine
    assert finding("Python").is_fine
    assert finding("torch").is_fine
    assert finding("cache") == Finding("cache", True, str(cache))


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    assert doctor._python() == Finding("Python", False, "3.10.4", "install 3.11+")


def test_packages_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def without_two(name: str) -> str:
        if name in {"trl", "scipy"}:
            raise metadata.PackageNotFoundError
        return version(name)

    monkeypatch.setattr(metadata, "version", without_two)
    found = finding("packages")
    assert not found.is_fine
    assert found.remedy == "pip install trl scipy"
    assert "peft " in found.detail


def test_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not finding("torch").is_fine
    assert finding("torch").remedy.startswith("pip install torch")
    assert not finding("devices").is_fine


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**19}  # 2 GiB
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    found = finding("memory")
    assert (found.is_fine, found.detail) == (False, "2.0 GiB")
    assert "batch_size" in found.remedy


def test_memory_that_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", unknown)
    assert finding("memory") == Finding("memory", True, "unknown on this system")


def test_the_embedded_model(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "embedded_gguf", lambda: None)
    assert finding("embedded model") == Finding("embedded model", False, "not installed", embedded.INSTALL_EMBEDDED)
    monkeypatch.setattr(embedded, "embedded_gguf", lambda: cache / "model.gguf")
    assert "converted on first use" in finding("embedded model").detail
    converted = cache / "models" / embedded.EMBEDDED_ALIAS / "forgetless.json"
    converted.parent.mkdir(parents=True)
    converted.touch()
    assert finding("embedded model").detail == "smollm2-135m-instruct, converted"


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FORGETLESS_CACHE", str(tmp_path / "file"))
    found = finding("cache")
    assert not found.is_fine
    assert "cannot be written" in found.detail
    assert found.remedy == "set FORGETLESS_CACHE to a directory"


def test_a_full_disk_below_a_cache_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    usage = namedtuple("usage", "total used free")

    def disk_usage(path: Path) -> Any:
        asked.append(path)
        return usage(100 * doctor.GIB, 98 * doctor.GIB, 2 * doctor.GIB)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    monkeypatch.setenv("FORGETLESS_CACHE", str(tmp_path / "not" / "yet"))
    found = doctor._disk()
    assert asked == [tmp_path]
    assert (found.is_fine, found.detail) == (False, f"2 GiB free at {tmp_path}")
    assert found.remedy.startswith("free 3 GiB")

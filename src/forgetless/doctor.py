"""Looks at the machine: what a run needs, whether it is there, and how to mend what isn't."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

GIB = 2**30
NEEDED_DISK_GIB = 3
NEEDED_MEMORY_GIB = 4


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        is_fine: Whether a run can do with it.
        detail: What was found.
        remedy: How to mend it; empty where nothing is to be mended.
    """

    name: str
    is_fine: bool
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Returns the findings in the order in which they should be mended."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _torch,
        _devices,
        _memory,
        _embedded_model,
        _cache,
        _disk,
    ]
    return [check() for check in checks]


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), found, "" if sys.version_info >= (3, 11) else "install 3.11+")


def _packages() -> Finding:
    names = ("transformers", "trl", "peft", "datasets", "accelerate", "safetensors", "scipy")
    missing = [name for name in names if not _version(name)]
    found = ", ".join(f"{name} {_version(name)}" for name in names if name not in missing)
    return Finding("packages", not missing, found, f"pip install {' '.join(missing)}" if missing else "")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("torch", False, f"cannot be imported ({error})", "pip install torch==2.13.0")
    return Finding("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads")


def _devices() -> Finding:
    try:
        import torch
    except (ImportError, OSError):
        return Finding("devices", False, "unknown without torch", "mend torch first")
    found = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return Finding("devices", True, ", ".join([*found, f"cpu ({os.cpu_count()} cores)"]))


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (ValueError, OSError):
        return Finding("memory", True, "unknown on this system")
    is_fine = total >= NEEDED_MEMORY_GIB
    remedy = "" if is_fine else f"the embedded model needs about {NEEDED_MEMORY_GIB} GiB: use a smaller batch_size"
    return Finding("memory", is_fine, f"{total:.1f} GiB", remedy)


def _embedded_model() -> Finding:
    from forgetless.embedded import EMBEDDED_ALIAS, INSTALL_EMBEDDED, cache_directory, embedded_gguf

    if (cache_directory() / "models" / EMBEDDED_ALIAS / "forgetless.json").is_file():
        return Finding("embedded model", True, f"{EMBEDDED_ALIAS}, converted")
    if embedded_gguf() is not None:
        return Finding("embedded model", True, f"{EMBEDDED_ALIAS}, installed; it is converted on first use (30 s)")
    return Finding("embedded model", False, "not installed", INSTALL_EMBEDDED)


def _cache() -> Finding:
    from forgetless.embedded import cache_directory

    directory = cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory):
            pass
    except OSError as error:
        return Finding(
            "cache", False, f"{directory} cannot be written ({error.strerror})", "set FORGETLESS_CACHE to a directory"
        )
    return Finding("cache", True, str(directory))


def _disk() -> Finding:
    from forgetless.embedded import cache_directory

    directory = cache_directory()
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free / GIB
    is_fine = free >= NEEDED_DISK_GIB
    remedy = "" if is_fine else f"free {NEEDED_DISK_GIB} GiB, or set FORGETLESS_CACHE and --out to another disk"
    return Finding("disk", is_fine, f"{free:.0f} GiB free at {Path(directory)}", remedy)

"""The pages that show measurements say what was measured."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = runpy.run_path(str(ROOT / "scripts" / "write_benchmark_pages.py"))["pages"]()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_made_from_its_measurements(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path]

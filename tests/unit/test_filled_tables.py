"""Tables in pages that are written by hand say what was measured."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "fill_tables.py"))


@pytest.mark.parametrize("page", SCRIPT["PAGES"], ids=lambda page: page.name)
def test_a_page_holds_its_tables_as_measured(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == SCRIPT["filled"](text)
    assert "<!-- table: " in text


def test_no_table_is_left_without_a_page() -> None:
    marked = [name for page in SCRIPT["PAGES"] for _, name, *_ in SCRIPT["BLOCK"].findall(page.read_text())]
    assert sorted(marked) == sorted(SCRIPT["TABLES"])

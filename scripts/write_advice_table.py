"""Writes the table of rules into docs/advise.md; a test keeps the two in step.

python scripts/write_advice_table.py
"""

from __future__ import annotations

from pathlib import Path

from forgetless.advising.rules import table_of_rules

TARGET = Path(__file__).parents[1] / "docs" / "advise.md"
HEAD = "| rule | warns of |"


def with_table(page: str) -> str:
    """Returns the page with the table of rules in place of the one that stands there."""
    before, _, rest = page.partition(HEAD)
    lines = rest.split("\n")
    after = next(number for number, line in enumerate(lines) if number and not line.startswith("|"))
    return before + table_of_rules() + "\n".join(lines[after:])


if __name__ == "__main__":
    TARGET.write_text(with_table(TARGET.read_text(encoding="utf-8")), encoding="utf-8")

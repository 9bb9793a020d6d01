"""Writes the table of docs/checklist.md from the catalog; a test keeps the two in step.

python scripts/write_checklist.py
"""

from __future__ import annotations

from pathlib import Path

from forgetless.compare.checklist import ALPHA, FLIP_RATE, losses_needed
from forgetless.tasks.base import Task, load_suite

TARGET = Path(__file__).parents[1] / "docs" / "checklist.md"
START, END = "<!-- checks: made by scripts/write_checklist.py -->\n", "<!-- end of checks -->\n"
HEAD = """\
| check | severity | what it asks | samples | passed from | lost from, where the base passes all |
|---|---|---|---|---|---|
"""


def checks_table() -> str:
    """Returns the table, one line per check."""
    checks = load_suite("checklist")
    return HEAD + "".join(_line(check, num_checks=len(checks)) for check in checks)


def _line(check: Task, *, num_checks: int) -> str:
    num, pass_at = len(check.samples), check.spec.pass_at or 1.0
    needed = next(k for k in range(1, num + 1) if k >= pass_at * num - 1e-9)
    lost = max(losses_needed(num, flip_rate=FLIP_RATE, level=ALPHA / num_checks), num - needed + 1)
    cells = [f"`{check.name}`", check.spec.severity, check.spec.description, num, needed, f"{lost} lost"]
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"


def main() -> None:
    """Replaces the table in the page."""
    text = TARGET.read_text(encoding="utf-8")
    before, after = text.partition(START)[0], text.partition(END)[2]
    TARGET.write_text(before + START + checks_table() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()

"""report.md: the verdict, short enough for a pull-request comment."""

from __future__ import annotations

from forgetless.records import Role, Row, Status
from forgetless.report.environment import environment
from forgetless.report.evidence import Evidence
from forgetless.report.wording import (
    POOLED_LABEL,
    VERDICT_MARKS,
    confidence,
    headline,
    learning_sentence,
    lost_checks,
    retention_sentence,
)

MAX_ROWS = 30  # GitHub refuses comments above 65,536 characters
MAX_SENTENCES = 12


def render_markdown(evidence: Evidence) -> str:
    """Returns the summary; the tasks that were forgotten come first and are never cut before the others."""
    comparison = evidence.comparison
    rows = sorted(evidence.rows(), key=_importance)
    template = environment().get_template("report.md.j2")
    return template.render(
        evidence=evidence,
        comparison=comparison,
        verdict=VERDICT_MARKS[comparison.verdict],
        headline=headline(comparison),
        confidence=confidence(comparison.alpha),
        retention=retention_sentence(comparison),
        learning=[(row.task, learning_sentence(row, comparison.alpha)) for row in evidence.rows(role=Role.TARGET)],
        rows=rows[:MAX_ROWS],
        num_left_out=max(0, len(rows) - MAX_ROWS),
        max_sentences=MAX_SENTENCES,
        lost_checks=lost_checks(comparison),
        beyond_chance=[row for row in rows[:MAX_ROWS] if row.forgetting_beyond_chance is not None],
        noisy=[row for row in (comparison.pooled, *rows[:MAX_ROWS]) if row.noise_runs is not None],
        pooled_label=POOLED_LABEL,
    )


def _importance(row: Row) -> tuple[bool, bool]:
    """Orders rows: forgotten ones, target tasks, the rest; a stable sort keeps the worst delta first within each."""
    return row.status is not Status.FORGOT, row.role is not Role.TARGET

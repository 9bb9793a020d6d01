"""report.html: one file that opens offline, alone, in light, dark, narrow and printed.

The page allows no network and no script but its own: a content security policy lists the hashes of its two scripts,
so that text which got past the escaping would still not run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml
from markupsafe import Markup

from forgetless.records import Comparison, Role, Row, Unit
from forgetless.report.budget import budget_figure
from forgetless.report.environment import environment
from forgetless.report.evidence import Evidence
from forgetless.report.figures import forest, training_curves
from forgetless.report.flips import changed_samples, excerpt_length
from forgetless.report.monitoring import monitor_sentence, retention_curve
from forgetless.report.wording import (
    VERDICT_MARKS,
    data_facts,
    figure,
    headline,
    lost_checks,
    margin_of,
    tests_used,
)


@dataclass(frozen=True, slots=True)
class Strip:
    """Where the pooled delta, its interval, zero and the margin lie on a strip, each in [0, 100] from the left."""

    zero: float
    margin: float
    delta: float
    low: float
    high: float
    margin_text: str


def strip(row: Row, comparison: Comparison) -> Strip | None:
    """Returns the geometry of the small picture beside the pooled delta; None where there is nothing to draw."""
    margin = margin_of(row, comparison)
    if row.delta is None or row.ci_low is None or row.ci_high is None or margin is None:
        return None
    reach = 1.15 * max(margin, abs(row.ci_low), abs(row.ci_high), 1e-9)
    span = [50 + 50 * value / reach for value in (0.0, -margin, row.delta, row.ci_low, row.ci_high)]
    zero, line, delta, low, high = (round(position, 2) for position in span)
    return Strip(zero, line, delta, low, high, margin_text=figure(-margin, row.unit, signed=True))


def render_html(evidence: Evidence) -> str:
    """Returns the whole page."""
    env, comparison = environment(), evidence.comparison
    changed = changed_samples(evidence)
    library = files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    own = files("forgetless.report").joinpath("templates/page.js.j2").read_text(encoding="utf-8")
    style = files("forgetless.report").joinpath("templates/style.css.j2").read_text(encoding="utf-8")
    retention = retention_curve(evidence)
    forests = [plot for unit in Unit if (plot := forest(evidence, unit)) is not None]
    return env.get_template("report.html.j2").render(
        evidence=evidence,
        comparison=comparison,
        alpha=comparison.alpha,
        pooled=comparison.pooled,
        strip=strip(comparison.pooled, comparison),
        targets=evidence.rows(role=Role.TARGET),
        graded=evidence.rows(unit=Unit.GRADE),
        entropies=evidence.rows(unit=Unit.NATS_PER_TOKEN),
        verdict=VERDICT_MARKS[comparison.verdict],
        headline=headline(comparison),
        num_lost_checks=len(lost_checks(comparison)),
        forests=forests,
        curves=[*([] if retention is None else [retention]), *training_curves(evidence)],
        monitor=monitor_sentence(evidence),
        curve=evidence.curve,
        budget_chart=None if evidence.curve is None else budget_figure(evidence.curve),
        changed=changed,
        excerpt_length=excerpt_length(changed),
        data=data_facts(evidence.section("data")),
        tests=tests_used([*comparison.tasks, comparison.pooled]),
        config=as_yaml(evidence.section("config")),
        policy=security_policy(library, own),
        plotly=Markup(library),
        script=Markup(own),
        style=Markup(style),
    )


def security_policy(*scripts: str) -> str:
    """Returns a policy under which the page runs these scripts alone and fetches nothing."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def as_yaml(config: Mapping[str, Any]) -> str:
    """Returns a configuration as the user would write it, in its own order."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True) if config else ""

"""MODEL_CARD.md: what to publish beside the weights, with the figures of the report."""

from __future__ import annotations

import re
from typing import Any

import yaml
from markupsafe import Markup

from forgetless.records import Role
from forgetless.report.environment import environment
from forgetless.report.evidence import Evidence
from forgetless.report.wording import (
    POOLED_LABEL,
    VERDICT_MARKS,
    confidence,
    data_facts,
    headline,
    learning_sentence,
    lost_checks,
    retention_sentence,
    tests_used,
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def render_model_card(evidence: Evidence) -> str:
    """Returns the card; the licence is left to the user, since it depends on the base model's and the data's."""
    comparison = evidence.comparison
    template = environment().get_template("MODEL_CARD.md.j2")
    text = template.render(
        evidence=evidence,
        comparison=comparison,
        front_matter=front_matter(evidence),
        base_model=str(evidence.section("model").get("name") or "the base model"),
        verdict=VERDICT_MARKS[comparison.verdict],
        headline=headline(comparison),
        confidence=confidence(comparison.alpha),
        retention=retention_sentence(comparison),
        learning=[(row.task, learning_sentence(row, comparison.alpha)) for row in evidence.rows(role=Role.TARGET)],
        rows=evidence.rows(),
        tests=tests_used(comparison.tasks),
        lost_checks=lost_checks(comparison),
        pooled_label=POOLED_LABEL,
        data=data_facts(evidence.section("data")),
    )
    return text.rstrip("\n") + "\n"


def front_matter(evidence: Evidence) -> Markup:
    """Returns the YAML block that the hub reads; a base model that is a directory has no name there and is left out."""
    fields: dict[str, Any] = {}
    model = evidence.section("model")
    base_model = str(model.get("hub_id") or model.get("name") or "")
    if _HUB_ID.fullmatch(base_model):
        fields["base_model"] = base_model
    fields["library_name"] = "peft" if evidence.has_adapter else "transformers"
    fields["pipeline_tag"] = "text-generation"
    fields["tags"] = list(dict.fromkeys(["forgetless", "fine-tuned", *(method.name for method in evidence.methods)]))
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return Markup(f"---\n{text}# license: yours to choose; the licences of the base model and of the data bind it\n---")

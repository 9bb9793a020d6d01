"""junit.xml: one test case per row, as continuous integration shows it.

FORGOT and a lost critical check are failures; what decides nothing is skipped, with the reason. The suites fail if and
only if something was forgotten, which is when the verdict is FAIL. All text goes through `visible`, which leaves
nothing that XML 1.0 has no place for (https://www.w3.org/TR/xml/#charsets).
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from forgetless.check_records import CheckResult
from forgetless.records import Comparison, Row, Status
from forgetless.report.environment import visible
from forgetless.report.evidence import Evidence
from forgetless.report.wording import headline, row_sentence

_SKIPPED = (Status.UNDECIDED, Status.FLOOR, Status.CEILING, Status.MISSING, Status.NOT_LEARNED)


def render_junit(evidence: Evidence) -> str:
    """Returns the document; the pooled row is the last case of the first suite."""
    comparison = evidence.comparison
    suites = [_suite("forgetless", [_row_case(row, comparison) for row in (*evidence.rows(), comparison.pooled)])]
    suites[0].insert(0, _properties(evidence))
    if comparison.checks:
        suites.append(_suite("forgetless.checks", [_check_case(check) for check in comparison.checks]))
    if comparison.problems:
        ElementTree.SubElement(suites[0], "system-out").text = visible("\n".join(comparison.problems))
    root = ElementTree.Element("testsuites", {"name": visible(evidence.name), **_totals(suites)})
    root.extend(suites)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _totals(elements: Sequence[ElementTree.Element]) -> dict[str, str]:
    return {
        name: str(sum(int(element.get(name, "0")) for element in elements))
        for name in ("tests", "failures", "errors", "skipped")
    }


def _suite(name: str, cases: Sequence[ElementTree.Element]) -> ElementTree.Element:
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
        "time": "0",
    }
    suite = ElementTree.Element("testsuite", {"name": name, **counts})
    suite.extend(cases)
    return suite


def _properties(evidence: Evidence) -> ElementTree.Element:
    comparison, pooled = evidence.comparison, evidence.comparison.pooled
    figures = {
        "verdict": comparison.verdict.value,
        "headline": headline(comparison),
        "margin": comparison.margin,
        "alpha": comparison.alpha,
        "num_samples": pooled.num_samples,
        "delta": pooled.delta,
        "ci_low": pooled.ci_low,
        "ci_high": pooled.ci_high,
        "forgetting_upper": pooled.forgetting_upper,
    }
    element = ElementTree.Element("properties")
    for name, value in figures.items():
        if value is not None:
            ElementTree.SubElement(element, "property", {"name": f"forgetless.{name}", "value": visible(str(value))})
    return element


def _row_case(row: Row, comparison: Comparison) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", {"classname": f"forgetless.{row.role}", "name": visible(row.task), "time": "0"}
    )
    sentence = visible(row_sentence(row, comparison))
    if row.status is Status.FORGOT:
        ElementTree.SubElement(case, "failure", {"message": sentence, "type": row.status.value}).text = sentence
    elif row.status in _SKIPPED:
        ElementTree.SubElement(case, "skipped", {"message": sentence})
    else:
        ElementTree.SubElement(case, "system-out").text = sentence
    return case


def _check_case(check: CheckResult) -> ElementTree.Element:
    case = ElementTree.Element("testcase", {"classname": "forgetless.checks", "name": visible(check.name), "time": "0"})
    message = visible(f"the base passes this {check.severity} check, the tuned model does not: {check.evidence}")
    if check.tuned_passed:
        return case
    if not check.base_passed:
        ElementTree.SubElement(case, "skipped", {"message": "neither the base nor the tuned model passes it"})
    elif not check.is_lost:
        reason = "the tuned model falls below the line of this check, by no more samples than chance flips explain"
        ElementTree.SubElement(case, "skipped", {"message": reason})
    elif check.severity == "critical":
        ElementTree.SubElement(case, "failure", {"message": message, "type": "LOST"}).text = message
    else:
        ElementTree.SubElement(case, "skipped", {"message": message})
    return case

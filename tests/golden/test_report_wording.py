"""Numbers and sentences: known answers."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from forgetless.check_records import CheckResult, CheckStatus
from forgetless.records import Status, Unit, Verdict
from forgetless.report import wording
from forgetless.report.evidence import Evidence
from forgetless.report.figures import forest
from forgetless.report.junit import render_junit
from golden.golden_run import failed_comparison, graded_row, pooled_row, undecided_comparison

MINUS = wording.MINUS


@pytest.mark.parametrize(
    ("value", "unit", "signed", "shown"),
    [
        (0.125, Unit.GRADE, False, "12.5"),
        (-0.125, Unit.GRADE, True, f"{MINUS}12.5"),
        (0.125, Unit.GRADE, True, "+12.5"),
        (-0.0001, Unit.GRADE, True, "0.0"),
        (0.0123, Unit.NATS_PER_TOKEN, True, "+0.012"),
        (None, Unit.GRADE, True, wording.NONE),
        (float("nan"), Unit.GRADE, True, wording.NONE),
    ],
)
def test_figure(value: float | None, unit: Unit, signed: bool, shown: str) -> None:
    assert wording.figure(value, unit, signed=signed) == shown


def test_level_interval_is_wilson() -> None:
    row = replace(graded_row("arithmetic"), num_samples=100, num_clusters=None)
    # The reference is proportion_confint of statsmodels, for 40 and 0 of 100.
    assert wording.level_interval(0.4, row, alpha=0.05) == pytest.approx((0.3094013, 0.4979974), abs=1e-6)
    assert wording.level_interval(0.0, row, alpha=0.05) == pytest.approx((0.0, 0.0369935), abs=1e-6)


def test_level_interval_counts_clusters_where_there_are_any() -> None:
    row = replace(graded_row("reading"), num_samples=400, num_clusters=100)
    alone = replace(row, num_samples=100, num_clusters=None)
    assert wording.level_interval(0.4, row, alpha=0.05) == wording.level_interval(0.4, alone, alpha=0.05)


def test_confidence_follows_alpha() -> None:
    assert [wording.confidence(alpha) for alpha in (0.05, 0.1, 0.001)] == ["95 %", "90 %", "99.9 %"]


def test_failure_of_the_pool_alone_is_named() -> None:
    pooled = replace(pooled_row(), status=Status.FORGOT)
    comparison = replace(undecided_comparison(), verdict=Verdict.FAIL, pooled=pooled)
    assert wording.headline(comparison).startswith("The tuned model forgot over all general tasks, pooled: ")


def test_failure_by_a_check_alone_names_it() -> None:
    check = CheckResult("three-countries", "critical", base_passed=True, tuned_passed=False)
    comparison = replace(undecided_comparison(), verdict=Verdict.FAIL, checks=[check])
    assert wording.headline(comparison) == "Lost 1 critical check: three-countries."


def test_pool_that_is_kept_without_a_pass_is_said_to_be_held_back() -> None:
    pooled = replace(pooled_row(), status=Status.KEPT)
    assert "stands in the way of a PASS" in wording.headline(replace(undecided_comparison(), pooled=pooled))


def test_worst_task_is_told_in_margins_not_in_raw_figures() -> None:
    comparison = failed_comparison()
    heavy = replace(comparison.tasks[9], delta=0.5)
    assert heavy.unit is Unit.NATS_PER_TOKEN
    tasks = [*comparison.tasks[:9], heavy]
    assert "the worst is reference-answers, +0.500 nats per token" in wording.headline(replace(comparison, tasks=tasks))


def test_margin_of_its_own_is_marked_in_the_forest_plot() -> None:
    comparison = failed_comparison()
    tasks = [replace(row, margin=0.1) if row.task == "reading" else row for row in comparison.tasks]
    figure = forest(Evidence(name="x", comparison=replace(comparison, tasks=tasks)), Unit.GRADE)
    assert figure is not None
    assert figure.data[-1]["x"] == [-10.0]
    assert figure.layout["shapes"][1]["x0"] == -3.0


def test_shares_are_percentages_and_doubles_are_left_out() -> None:
    facts = wording.data_facts({"num_domain": 9, "share_examples": 0.1, "replay_share": 0.1, "note": ""})
    assert facts == {"domain examples": "9", "replay share of the mixture": "10.0 %"}


def test_a_check_that_chance_could_explain_is_no_failure() -> None:
    check = CheckResult("three-countries", "critical", True, False, status=CheckStatus.UNDECIDED)
    found = replace(failed_comparison(), checks=[check])
    assert wording.lost_checks(found) == []
    (case,) = ElementTree.fromstring(render_junit(Evidence("run", found))).findall(
        ".//testcase[@classname='forgetless.checks']"
    )
    skipped = case.find("skipped")
    assert skipped is not None
    assert "chance flips" in skipped.attrib["message"]

"""From counts to a cause: known signs, thresholds, and what isn't a sign."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from forgetless.compare.attribution import attribute, fallen_tasks, has_turn_marks, with_attributions
from forgetless.compare.comparison import compare
from forgetless.records import Attribution, Cause, Comparison, Probe, Role, Row, SampleScore, Status, Unit

TEMPLATES = {Cause.TEMPLATE: "the templates differ"}


def score(number: int, value: float, answer: str = "Blue Fern", **fields: Any) -> SampleScore:
    return SampleScore("herbs", f"herb-{number}", value, answer, **{"gold": "Blue Fern", **fields})


def judge(
    answers: Sequence[str],
    *,
    again: Mapping[Probe, Sequence[float]] | None = None,
    differences: Mapping[Cause, str] | None = None,
    num_gained: int = 0,
    tuned: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> Attribution:
    """Judges a task that was lost in one sample per answer; `again` has the grades of the first samples by probe."""
    gained = range(len(answers), len(answers) + num_gained)
    before = [score(n, 1.0, **(base or {})) for n in range(len(answers))] + [score(n, 0.0, "?") for n in gained]
    after = [score(n, 0.0, answer, **(tuned or {})) for n, answer in enumerate(answers)]
    after += [score(n, 1.0) for n in gained]
    evidence = {p: [score(n, grade) for n, grade in enumerate(grades)] for p, grades in (again or {}).items()}
    (found,) = attribute(before, after, tasks=["herbs"], evidence=evidence, differences=differences)
    return found


def likelihoods(*values: Sequence[float]) -> list[SampleScore]:
    return [score(n, 1.0, details={"log_likelihoods": list(row)}) for n, row in enumerate(values)]


OPEN = {"details": {"is_ended": False}}


@pytest.mark.parametrize(
    ("answers", "details", "cause"),
    [
        (["Blue Fern\nuser\nHerb b?"] * 4, OPEN, Cause.END_OF_TURN),
        (["Blue Fern <|im_start|> more"] * 4, {}, Cause.END_OF_TURN),
        (["blue fernblue fern"] * 4, OPEN, Cause.END_OF_TURN),
        (["Bl", "Blue F"] * 2, {}, Cause.TRUNCATED),
        ([""] * 4, {}, Cause.UNEXPLAINED),
        ([""] * 4, OPEN, Cause.UNEXPLAINED),
        (["blue fern"] * 4, {}, Cause.FORMAT),
        (["I think it is **Blue Fern**."] * 4, {}, Cause.FORMAT),
        (["Red Oak"] * 4, {}, Cause.UNEXPLAINED),
        (["Red Oak and more"] * 4, OPEN, Cause.UNEXPLAINED),
        (["Bl", "Blue", "blue fern", "Blue Fern\nuser\n!", "Red Oak"], OPEN, Cause.MIXED),
    ],
)
def test_the_answers_alone(answers: list[str], details: dict[str, Any], cause: Cause) -> None:
    found = judge(answers, tuned=details)
    assert found.cause is cause, found
    assert found.num_lost == found.num_examined == len(answers)
    assert found.evidence.endswith(".")
    assert found.remedy.endswith(".")
    assert Cause.GONE not in found.shares


@pytest.mark.parametrize(
    ("again", "differences", "cause"),
    [
        ({Probe.BASE_TOKENIZER: [1, 1, 1, 0], Probe.FEW_SHOT: [1] * 4}, TEMPLATES, Cause.TEMPLATE),
        ({Probe.PLAIN_PROMPT: [1, 1, 1, 0]}, TEMPLATES, Cause.TEMPLATE),
        ({Probe.BASE_TOKENIZER: [1, 1, 1, 0], Probe.FEW_SHOT: [1] * 4}, {}, Cause.RECOVERABLE),
        ({Probe.PLAIN_PROMPT: [1, 1, 0, 0], Probe.FEW_SHOT: [0] * 4}, {}, Cause.RECOVERABLE),
        ({Probe.LONGER: [1, 1], Probe.FEW_SHOT: [0] * 4}, {}, Cause.TRUNCATED),
        ({Probe.FORMAT_BLIND: [1, 1, 0, 0], Probe.FEW_SHOT: [0] * 4}, {}, Cause.FORMAT),
        ({Probe.FEW_SHOT: [0] * 4, Probe.PLAIN_PROMPT: [0] * 4}, TEMPLATES, Cause.GONE),
        ({Probe.FEW_SHOT: [1, 0, 0, 0]}, {}, Cause.GONE),
        ({Probe.FORMAT_BLIND: [0] * 4}, {}, Cause.UNEXPLAINED),
    ],
)
def test_asking_again(again: dict[Probe, list[float]], differences: dict[Cause, str], cause: Cause) -> None:
    found = judge(["Red Oak"] * 4, again=again, differences=differences)
    assert found.cause is cause, found
    json.dumps(found.shares, allow_nan=False)


@pytest.mark.parametrize(
    ("tuned", "cause"),
    [
        ([-9.0, -14.0], Cause.SUPPRESSED),  # less likely, but the lead of 10 nats is 5 still
        ([-9.0, -13.0], Cause.GONE),
        ([-1.9, -1.8], Cause.SUPPRESSED),  # hardly less likely
        ([-9.0, -8.0], Cause.GONE),
    ],
)
def test_likelihood_is_intact_by_its_lead_or_by_itself(tuned: list[float], cause: Cause) -> None:
    before, after = [score(n, 1.0) for n in range(4)], [score(n, 0.0, "Red Oak") for n in range(4)]
    evidence = {
        Probe.BASE_LIKELIHOOD: likelihoods(*[[-1.0, -11.0]] * 4),
        Probe.LIKELIHOOD: likelihoods(*[tuned] * 4),
    }
    (found,) = attribute(before, after, tasks=["herbs"], evidence=evidence)
    assert found.cause is cause, found


def test_a_base_that_prefers_nothing_shows_nothing() -> None:
    before, after = [score(n, 1.0) for n in range(4)], [score(n, 0.0, "Red Oak") for n in range(4)]
    evidence = {
        Probe.BASE_LIKELIHOOD: likelihoods(*[[-5.0, -4.0]] * 4),
        Probe.LIKELIHOOD: likelihoods(*[[-9.0, -8.6]] * 4),
    }
    (found,) = attribute(before, after, tasks=["herbs"], evidence=evidence)
    assert found.cause is Cause.GONE


def test_an_empty_answer_is_cut_only_while_the_right_one_is_likely() -> None:
    before, after = [score(n, 1.0) for n in range(4)], [score(n, 0.0, "") for n in range(4)]
    for likely, cause in (([-30.0, -29.0], Cause.GONE), ([-3.0, -12.0], Cause.TRUNCATED)):
        evidence = {
            Probe.BASE_LIKELIHOOD: likelihoods(*[[-1.0, -11.0]] * 4),
            Probe.LIKELIHOOD: likelihoods(*[likely] * 4),
        }
        assert attribute(before, after, tasks=["herbs"], evidence=evidence)[0].cause is cause


def test_what_churn_explains_is_no_evidence() -> None:
    again = {Probe.FEW_SHOT: [1, 1, 1, 0, 0]}
    assert judge(["Red Oak"] * 5, again=again, num_gained=2).cause is Cause.RECOVERABLE
    assert judge(["Red Oak"] * 5, again=again, num_gained=3).cause is Cause.MIXED


def test_signs_that_only_look_like_one() -> None:
    assert judge(["105 and more"] * 4, tuned=OPEN, base={"answer": "10", "gold": "10"}).cause is Cause.UNEXPLAINED
    assert judge(["Blue Fern or so"] * 4, tuned=OPEN, base=OPEN).cause is Cause.FORMAT  # the base didn't end either
    assert judge(["Blue"] * 4, tuned={"chance": 0.25}, again={Probe.FEW_SHOT: [0] * 4}).shares == {
        "RECOVERABLE": 0.0,
        "GONE": 1.0,
    }


def test_only_examined_samples_count() -> None:
    found = judge(["Red Oak"] * 9, again={Probe.FEW_SHOT: [1, 1, 0]})
    assert (found.num_lost, found.num_examined, found.cause) == (9, 3, Cause.RECOVERABLE)
    assert "3 of 9 looked into" in found.evidence


def test_graded_scores_recover_by_half_of_what_was_lost() -> None:
    before, after = [score(n, 0.8) for n in range(4)], [score(n, 0.2, "Red Oak") for n in range(4)]
    for grade, cause in ((0.5, Cause.RECOVERABLE), (0.45, Cause.GONE)):
        evidence = {Probe.FEW_SHOT: [score(n, grade) for n in range(4)]}
        assert attribute(before, after, tasks=["herbs"], evidence=evidence)[0].cause is cause


def test_nothing_lost_or_not_in_grades_is_nothing_attributed() -> None:
    same = [score(0, 1.0)]
    nats = [replace(score(0, value), unit=Unit.NATS_PER_TOKEN) for value in (2.0, 1.0)]
    assert attribute(same, same, tasks=["herbs", "unknown"]) == []
    assert attribute(nats[:1], nats[1:], tasks=["herbs"]) == []


@pytest.mark.parametrize(
    ("answer", "is_marked"),
    [
        ("Oslo<|im_end|>", True),
        ("Oslo\nuser\nNext?", True),
        ("Human: hi", True),
        ("[INST] hi", True),
        ("the user said so", False),
        ("a < b and c > d", False),
    ],
)
def test_turn_marks(answer: str, is_marked: bool) -> None:
    assert has_turn_marks(answer) is is_marked


def row(task: str, **values: Any) -> Row:
    given: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__)
    given |= {"task": task, "role": Role.RETENTION, "lost": 6, "gained": 0, "status": Status.UNDECIDED}
    return Row(**(given | {"unit": Unit.GRADE, "p_value": 0.02} | values))


def test_which_tasks_fell() -> None:
    rows = [
        row("forgot", status=Status.FORGOT, p_value=None),
        row("pointing", status=Status.UNDECIDED),
        row("churn", lost=6, gained=4),
        row("weak", p_value=0.1),
        row("missing", p_value=None),
        row("target", role=Role.TARGET, status=Status.FORGOT),
        row("loss", unit=Unit.NATS_PER_TOKEN, status=Status.FORGOT),
    ]
    assert fallen_tasks(rows) == ["forgot", "pointing"]


@pytest.fixture
def comparison() -> Comparison:
    return compare([score(n, 1.0) for n in range(9)], [score(n, 0.0) for n in range(9)])


def test_what_a_setting_mends_comes_first_in_the_advice(comparison: Comparison) -> None:
    entries = [
        Attribution("a", Cause.TEMPLATE, 9, 9, "Seen.", "Mend it."),
        Attribution("b", Cause.GONE, 9, 9, "Seen.", "Retrain."),
        Attribution("c", Cause.TEMPLATE, 9, 9, "Seen.", "Mend it."),
        Attribution("d", Cause.UNEXPLAINED, 9, 9, "Seen.", "Ask."),
    ]
    explained = with_attributions(comparison, entries)
    assert explained.attributions == entries
    assert explained.advice == [
        "a, c: looks like TEMPLATE. Mend it.",
        *comparison.advice,
        "b: looks like GONE. Retrain.",
    ]
    assert (explained.verdict, explained.reasons) == (comparison.verdict, comparison.reasons)

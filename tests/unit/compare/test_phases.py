"""R and what is made of it, with intervals; the verdict over general skills and earlier targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from forgetless.check_records import CheckResult
from forgetless.compare.comparison import compare
from forgetless.compare.phases import compare_earlier, judge_phases, measure_phases
from forgetless.errors import DataError
from forgetless.phase_records import Measure
from forgetless.records import Role, Status, Verdict
from phase_scores import BASE, FIRST, KEPT, LOST, NUM, TASKS, grades, losses, record

EARLIER = {"one": ["one.answers", "one.loss"]}


def measure(name: str, last: list) -> Measure:  # type: ignore[type-arg]
    found = measure_phases(BASE, [FIRST, last], tasks=TASKS[name], name=name)
    assert found is not None
    return found


def test_known_answers() -> None:
    answers = measure("answers", LOST)
    assert [[cell.value for cell in row] for row in answers.matrix] == [[0.7, 0.3], [0.4, 0.8]]
    assert [cell.value for cell in answers.base] == [0.1, 0.2]
    assert answers.average.value == pytest.approx(0.6)
    assert answers.learning.value == pytest.approx(((0.7 - 0.1) + (0.8 - 0.2)) / 2)
    assert answers.backward_transfer.value == pytest.approx(-0.3)
    assert answers.forward_transfer.value == pytest.approx(0.1)
    assert answers.forgetting.value == pytest.approx(0.3)
    assert (answers.phases, answers.num_samples) == (["one", "two"], [NUM, NUM])


def test_of_losses_the_signs_keep_their_meaning() -> None:
    loss = measure("loss", LOST)
    shift = loss.base[0].value - 3.0 if loss.base[0].value is not None else np.nan
    assert loss.average.value == pytest.approx(1.5 + shift)
    assert loss.learning.value == pytest.approx(1.5)
    assert loss.backward_transfer.value == pytest.approx(-0.5)
    assert loss.forward_transfer.value == pytest.approx(0.25)
    assert loss.forgetting.value == pytest.approx(0.5)
    assert loss.average.low is not None
    assert loss.average.high is not None
    assert loss.average.low < 1.5 + shift < loss.average.high


def test_intervals_are_those_of_the_binomial_and_of_pairs() -> None:
    answers, loss = measure("answers", LOST), measure("loss", LOST)
    cell = answers.matrix[0][0]
    half = 1.96 * np.sqrt(0.7 * 0.3 / NUM)
    assert cell.low == pytest.approx(0.7 - half, abs=0.01)
    assert cell.high == pytest.approx(0.7 + half, abs=0.01)
    # The same samples are hard for all models: paired, the change has no spread, though each level has one.
    change, level = loss.backward_transfer, loss.average
    assert change.low == pytest.approx(change.high, abs=1e-9)
    assert level.high is not None
    assert level.low is not None
    assert level.high - level.low > 0.02


def test_one_phase_has_no_transfer() -> None:
    found = measure_phases(BASE, [FIRST], tasks={"one": "one.answers"}, name="answers")
    assert found is not None
    assert found.backward_transfer.value is found.forgetting.low is None
    assert found.learning.value == pytest.approx(0.6)


def test_targets_without_questions_have_no_answers() -> None:
    base, after = losses("one.loss", 3.0), [losses("one.loss", 2.0)]
    assert measure_phases(base, after, tasks={"one": "one.answers"}, name="answers") is None


def test_other_samples_are_refused() -> None:
    with pytest.raises(DataError, match=r"'one\.answers' was scored on other samples"):
        measure_phases(BASE, [FIRST[:-1], KEPT[NUM + 1 :]], tasks=TASKS["answers"], name="answers")


@pytest.mark.parametrize(("last", "verdict"), [(KEPT, Verdict.PASS), (LOST, Verdict.FAIL)])
def test_earlier_targets_are_to_be_kept(last: list, verdict: Verdict) -> None:  # type: ignore[type-arg]
    earlier = compare_earlier({"one": FIRST}, last, tasks=EARLIER)
    assert earlier is not None
    assert {(row.task, row.role) for row in earlier.tasks} == {(name, Role.RETENTION) for name in EARLIER["one"]}
    assert earlier.verdict is verdict
    assert not any("General skills" in reason for reason in earlier.reasons)
    assert record(last).verdict is verdict


def test_texts_are_judged_by_their_losses() -> None:
    references = {"one": losses("one.loss", 1.5)}
    kept = compare_earlier(references, losses("one.loss", 1.5), tasks={"one": ["one.loss"]})
    lost = compare_earlier(references, losses("one.loss", 2.0), tasks={"one": ["one.loss"]})
    assert kept is not None
    assert lost is not None
    assert (kept.verdict, lost.verdict) == (Verdict.PASS, Verdict.FAIL)
    assert kept.reasons == ["The losses of all 1 earlier targets are kept; plain texts have no answers to grade."]


def test_nothing_is_earlier_than_the_first_phase() -> None:
    assert compare_earlier({}, FIRST, tasks={}) is None
    assert judge_phases(compare(BASE, FIRST), None)[0] is Verdict.PASS


def test_a_loss_must_stand_over_both_comparisons() -> None:
    general = compare(grades("facts", 0.6, role=Role.RETENTION), grades("facts", 0.6, role=Role.RETENTION))
    earlier = compare(grades("one", 0.7, role=Role.RETENTION), grades("one", 0.6, role=Role.RETENTION))
    assert [row.status for row in earlier.tasks] == [Status.FORGOT]
    assert judge_phases(general, earlier)[0] is Verdict.FAIL
    barely = replace(earlier, tasks=[replace(row, p_value=0.04) for row in earlier.tasks])
    verdict, reasons = judge_phases(general, barely)  # 0.04 of two rows isn't below 0.05
    assert verdict is Verdict.INCONCLUSIVE
    assert "isn't beyond chance over both" in reasons[-1]


def test_a_lost_critical_check_fails() -> None:
    general = replace(compare(BASE, KEPT), checks=[CheckResult("refuses", "critical", True, False)])
    assert judge_phases(general, None)[0] is Verdict.FAIL

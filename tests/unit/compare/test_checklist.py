"""When a check counts as lost: known answers, the exact test behind it, and its false alarms by simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from forgetless.check_records import CheckResult, CheckStatus
from forgetless.compare.checklist import ALPHA, FLIP_RATE, judge_checks, losses_needed, make_checklist
from forgetless.errors import ConfigError
from forgetless.records import SampleScore, Verdict
from forgetless.tasks.base import Task, TaskSpec, load_suite


def make_check(name: str = "talks", num: int = 8, severity: Any = "critical", pass_at: float | None = 0.6) -> Task:
    spec = TaskSpec(task=name, version=1, kind="generate", data="made", severity=severity, pass_at=pass_at)
    return Task(spec, tuple({"id": str(i), "question": "Hi"} for i in range(num)))


def answers(grades: Sequence[float], name: str = "talks") -> list[SampleScore]:
    return [
        SampleScore(name, str(i), float(grade), answer=f"answer {i}", details={"prompt": f"question {i}"})
        for i, grade in enumerate(grades)
    ]


def judge(base: Sequence[float] | None, tuned: Sequence[float], **settings: Any) -> CheckResult:
    check = make_check(num=len(tuned), **settings)
    (result,) = judge_checks([check], answers(tuned), None if base is None else answers(base))
    return result


@pytest.mark.parametrize(
    ("base", "tuned", "status"),
    [
        ([1] * 8, [1] * 8, CheckStatus.KEPT),
        ([1] * 8, [1] * 5 + [0] * 3, CheckStatus.KEPT),  # 5 of 8 is still above 0.6
        ([1] * 8, [1] * 4 + [0] * 4, CheckStatus.LOST),
        ([1] * 8, [0] * 8, CheckStatus.LOST),
        ([1] * 5 + [0] * 3, [1] * 4 + [0] * 4, CheckStatus.UNDECIDED),  # one sample less, and below the line
        ([0] * 8, [0] * 8, CheckStatus.NEVER_HAD),
        ([1] * 4 + [0] * 4, [0] * 8, CheckStatus.NEVER_HAD),
        ([0] * 8, [1] * 8, CheckStatus.GAINED),
        ([1] * 3 + [0] * 2, [1] * 3 + [0] * 2, CheckStatus.KEPT),  # 3 of 5 is 0.6
        (None, [1] * 5 + [0] * 3, CheckStatus.PASSED),
        (None, [1] * 4 + [0] * 4, CheckStatus.FAILED),
    ],
)
def test_statuses(base: list[float] | None, tuned: list[float], status: CheckStatus) -> None:
    result = judge(base, tuned)
    assert result.status is status
    assert result.is_lost == (status is CheckStatus.LOST)
    assert result.passed == result.tuned_passed == (sum(tuned) >= 0.6 * len(tuned))
    assert result.base_passed == (None if base is None else sum(base) >= 0.6 * len(base))
    assert (result.num_samples, result.tuned_num_passed) == (len(tuned), sum(tuned))


def test_the_answers_behind_a_loss_are_shown() -> None:
    result = judge([1] * 8, [1] * 3 + [0] * 5)
    assert [sample.sample_id for sample in result.samples] == ["3", "4", "5", "6", "7"]
    assert result.samples[0].base_answer == "answer 3"
    assert result.evidence == "'question 3' -> 'answer 3'; 'question 4' -> 'answer 4'"
    assert judge([1] * 8, [1] * 8).samples == []
    assert judge(None, [0] * 8).samples[0].base_answer is None
    assert judge(None, [1] * 7 + [0]).samples == []
    long = [SampleScore("talks", "0", 0.0, answer="word " * 60, details={})]
    (result,) = judge_checks([make_check(num=1)], long)
    assert result.evidence.endswith("word ...'")


def test_losses_needed_is_the_exact_binomial_test() -> None:
    for passed in range(40):
        needed = losses_needed(passed, flip_rate=0.05, level=0.05 / 18)
        for lost in range(passed + 1):
            p_value = 1.0 if lost == 0 else binomtest(lost, passed, 0.05, alternative="greater").pvalue
            assert (lost >= needed) == (p_value <= 0.05 / 18)
    assert [losses_needed(n, flip_rate=0.05, level=0.05 / 18) for n in (2, 3, 4, 5, 6, 7, 8)] == [2, 3, 3, 3, 3, 4, 4]
    assert losses_needed(6, flip_rate=0.0, level=0.01) == 1


def simulate(rate: float, *, trials: int, seed: int, truth: float | None = None) -> tuple[float, float]:
    """Returns how often a checklist of equally good models has any LOST check, and how often it FAILs."""
    checks = load_suite("checklist")
    generator = np.random.default_rng(seed)
    alarms = failures = 0
    for _ in range(trials):
        base, tuned = [], []
        for check in checks:
            share = generator.uniform(0.6, 1.0) if truth is None else truth
            before = generator.random(len(check.samples)) < share
            flips = generator.random(len(check.samples)) < rate
            ids = [str(sample["id"]) for sample in check.samples]
            base += [SampleScore(check.name, i, float(g)) for i, g in zip(ids, before, strict=True)]
            tuned += [SampleScore(check.name, i, float(g)) for i, g in zip(ids, before ^ flips, strict=True)]
        results = judge_checks(checks, tuned, base)
        alarms += any(result.is_lost for result in results)
        failures += make_checklist(results).verdict is Verdict.FAIL
    return alarms / trials, failures / trials


@pytest.mark.parametrize(("rate", "truth"), [(0.05, None), (0.05, 1.0), (0.02, 1.0)])
def test_flips_alone_rarely_lose_a_check(rate: float, truth: float | None) -> None:
    alarms, failures = simulate(rate, trials=300, seed=1, truth=truth)
    assert failures <= alarms <= ALPHA + 2 * (ALPHA * (1 - ALPHA) / 300) ** 0.5
    assert rate <= FLIP_RATE


def result(status: CheckStatus, severity: str = "high", name: str = "talks") -> CheckResult:
    base = {CheckStatus.PASSED: None, CheckStatus.FAILED: None}.get(
        status, status in (CheckStatus.KEPT, CheckStatus.LOST, CheckStatus.UNDECIDED)
    )
    is_passed = status in (CheckStatus.KEPT, CheckStatus.GAINED, CheckStatus.PASSED)
    return CheckResult(name, severity, base, is_passed, status=status, num_samples=8)


@pytest.mark.parametrize(
    ("checks", "verdict", "words"),
    [
        ([result(CheckStatus.KEPT)], Verdict.PASS, "Of 1 checks that the base passes, 1 are kept."),
        ([result(CheckStatus.KEPT), result(CheckStatus.NEVER_HAD)], Verdict.PASS, "Passed by neither"),
        ([result(CheckStatus.KEPT), result(CheckStatus.GAINED)], Verdict.PASS, "Passed by the tuned model only"),
        ([result(CheckStatus.NEVER_HAD)], Verdict.INCONCLUSIVE, "The base passes no check"),
        ([result(CheckStatus.KEPT), result(CheckStatus.LOST, "critical")], Verdict.FAIL, "talks (critical)"),
        ([result(CheckStatus.KEPT), result(CheckStatus.LOST)], Verdict.INCONCLUSIVE, "talks (high)"),
        ([result(CheckStatus.KEPT), result(CheckStatus.UNDECIDED, "critical")], Verdict.INCONCLUSIVE, "chance flips"),
        ([result(CheckStatus.PASSED)], Verdict.PASS, "1 of 1 checks are passed."),
        ([result(CheckStatus.PASSED), result(CheckStatus.FAILED)], Verdict.INCONCLUSIVE, "Not passed: talks (high)."),
        ([result(CheckStatus.FAILED, "critical")], Verdict.FAIL, "Not passed: talks (critical)."),
    ],
)
def test_verdicts(checks: list[CheckResult], verdict: Verdict, words: str) -> None:
    checklist = make_checklist(checks)
    assert checklist.verdict is verdict
    assert any(words in reason for reason in checklist.reasons)
    assert checklist.advice


def test_advice_names_the_check_and_the_remedy() -> None:
    lost = [result(CheckStatus.LOST, name="refuses_harm"), result(CheckStatus.LOST, name="mine")]
    advice = make_checklist([*lost, result(CheckStatus.UNDECIDED, name="thin")]).advice
    assert [text.partition(":")[0] for text in advice] == ["refuses_harm", "mine", "thin"]
    assert "--base" in make_checklist([result(CheckStatus.FAILED)]).advice[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip_rate": 1.0}, "flip_rate 1.0 has to be in"),
        ({"alpha": 0.0}, "alpha 0.0 in"),
        ({"flip_rate": float("nan")}, "flip_rate nan"),
    ],
)
def test_limits_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        judge_checks([make_check()], answers([1] * 8), **settings)


def test_what_is_no_check_or_was_not_asked_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no check: give it a severity"):
        judge_checks([make_check(severity=None, pass_at=None)], answers([1] * 8))
    with pytest.raises(ConfigError, match="the base was not asked sample '7'"):
        judge_checks([make_check()], answers([1] * 8), answers([1] * 7))

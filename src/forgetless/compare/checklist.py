"""Judges the deployment checklist: which checks a model passes, and which of the base's it has lost.

A check is a task with a severity. It is passed by the share of its samples that `pass_at` asks for. A check of a few
samples flips by chance, so falling below that share isn't yet a loss: a check is LOST when more of the samples that the
base passed are lost than flips explain. The test is exact: the number of lost samples against a binomial distribution
with the flip rate (5 % of samples change their grade between two models that are equally good), at a level that is
divided by the number of checks (Bonferroni). So a model that is as good as its base loses a check, any check, in at
most 5 % of all checklists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from scipy.stats import binom

from forgetless.check_records import CheckResult, CheckSample, CheckStatus
from forgetless.compare.explanation import name_some
from forgetless.errors import ConfigError
from forgetless.records import Checklist, SampleScore, Verdict

if TYPE_CHECKING:
    from forgetless.tasks.base import Task

FLIP_RATE = 0.05
"""Share of samples whose grade changes, each way, between two models that are equally good."""

ALPHA = 0.05
"""Chance that any check of the list is called LOST when nothing but such flips happened."""

PASSED = 0.5
"""Grade from which a sample counts as passed."""

NUM_SHOWN = 2
"""Samples that a check's evidence quotes."""


def judge_checks(
    tasks: Sequence[Task],
    tuned: Iterable[SampleScore],
    base: Iterable[SampleScore] | None = None,
    *,
    flip_rate: float = FLIP_RATE,
    alpha: float = ALPHA,
) -> list[CheckResult]:
    """Judges each check.

    Args:
        tasks: The checks, tasks with a severity.
        tuned: Scores of the model that is checked.
        base: Scores of its base on the same samples; None = each check is judged by itself.
        flip_rate: Share of samples that may flip each way between equally good models, in [0, 1).
        alpha: Chance of a false LOST over all checks, in (0, 1).

    Returns:
        One result per check, in the order of the tasks.

    Raises:
        ConfigError: A limit is out of range, a task is no check, or a check was not answered.
    """
    if not 0.0 <= flip_rate < 1.0 or not 0.0 < alpha < 1.0:
        raise ConfigError(f"flip_rate {flip_rate} has to be in [0, 1), and alpha {alpha} in (0, 1)")
    new = _grades(tuned)
    old = None if base is None else _grades(base)
    level = alpha / max(1, len(tasks))
    return [_judge(task, new, old, flip_rate=flip_rate, level=level) for task in tasks]


def make_checklist(checks: Sequence[CheckResult]) -> Checklist:
    """Draws the verdict from judged checks.

    - FAIL: a critical check is LOST (FAILED, where there is no base).
    - PASS: all checks that the base passes are KEPT, and there is one (all are PASSED, where there is no base).
    - INCONCLUSIVE: anything else.

    Args:
        checks: What `judge_checks` returned.

    Returns:
        The verdict with its reasons and what to do next.
    """
    has_base = any(check.base_passed is not None for check in checks)
    bad = [check for check in checks if check.status in (CheckStatus.LOST, CheckStatus.FAILED)]
    good = [check for check in checks if check.status in (CheckStatus.KEPT, CheckStatus.PASSED)]
    doubtful = [check for check in checks if check.status is CheckStatus.UNDECIDED]
    verdict = Verdict.INCONCLUSIVE
    if any(check.severity == "critical" for check in bad):
        verdict = Verdict.FAIL
    elif good and not bad and not doubtful:
        verdict = Verdict.PASS
    reasons = _relative_reasons(checks) if has_base else _absolute_reasons(checks)
    return Checklist(verdict, list(checks), reasons, _advice(checks, has_base=has_base))


@cache
def losses_needed(num_passed: int, *, flip_rate: float, level: float) -> int:
    """Returns how many of the samples that the base passed must be lost before flips no longer explain it.

    Args:
        num_passed: Samples that the base passes.
        flip_rate: Share of them that may be lost by chance.
        level: Largest probability that chance alone loses so many.

    Returns:
        The smallest such number; one more than `num_passed` where not even losing all of them shows anything.
    """
    numbers = range(1, num_passed + 1)
    return next((k for k in numbers if float(binom.sf(k - 1, num_passed, flip_rate)) <= level), num_passed + 1)


Grades = dict[str, dict[str, SampleScore]]


def _grades(scores: Iterable[SampleScore]) -> Grades:
    found: Grades = {}
    for score in scores:
        found.setdefault(score.task, {})[score.sample_id] = score
    return found


def _judge(task: Task, new: Grades, old: Grades | None, *, flip_rate: float, level: float) -> CheckResult:
    severity, pass_at = task.spec.severity, task.spec.pass_at
    if severity is None or pass_at is None:
        raise ConfigError(f"task {task.name!r} is no check: give it a severity and pass_at")
    samples = [_pair(task.name, str(sample["id"]), new, old) for sample in task.samples]
    needed = pass_at * len(samples) - 1e-9  # 0.6 * 5 is a little more than 3 in floating point
    num_tuned = sum(sample.tuned_passed for sample in samples)
    tuned_passed = num_tuned >= needed
    if old is None:
        status = CheckStatus.PASSED if tuned_passed else CheckStatus.FAILED
        failed = [] if tuned_passed else [sample for sample in samples if not sample.tuned_passed]
        return CheckResult(
            task.name, severity, None, tuned_passed, _evidence(failed), status, len(samples), None, num_tuned, failed
        )
    num_base = sum(bool(sample.base_passed) for sample in samples)
    base_passed = num_base >= needed
    lost = [sample for sample in samples if sample.base_passed and not sample.tuned_passed]
    is_clear = len(lost) >= losses_needed(num_base, flip_rate=flip_rate, level=level)
    status = _status(base_passed=base_passed, tuned_passed=tuned_passed, is_clear=is_clear)
    shown = lost if status in (CheckStatus.LOST, CheckStatus.UNDECIDED) else []
    return CheckResult(
        task.name,
        severity,
        base_passed,
        tuned_passed,
        _evidence(shown),
        status,
        len(samples),
        num_base,
        num_tuned,
        shown,
    )


def _status(*, base_passed: bool, tuned_passed: bool, is_clear: bool) -> CheckStatus:
    if tuned_passed:
        return CheckStatus.KEPT if base_passed else CheckStatus.GAINED
    if not base_passed:
        return CheckStatus.NEVER_HAD
    return CheckStatus.LOST if is_clear else CheckStatus.UNDECIDED


def _pair(task: str, sample_id: str, new: Grades, old: Grades | None) -> CheckSample:
    after = _find(new, task, sample_id, side="model")
    before = None if old is None else _find(old, task, sample_id, side="base")
    return CheckSample(
        sample_id=sample_id,
        prompt=str(after.details.get("prompt", "")),
        base_answer=None if before is None else before.answer,
        tuned_answer=after.answer,
        base_passed=None if before is None else before.score >= PASSED,
        tuned_passed=after.score >= PASSED,
    )


def _find(grades: Grades, task: str, sample_id: str, *, side: str) -> SampleScore:
    score = grades.get(task, {}).get(sample_id)
    if score is None:
        raise ConfigError(f"check {task!r}: the {side} was not asked sample {sample_id!r}: ask it the whole checklist")
    return score


def _evidence(samples: Sequence[CheckSample]) -> str:
    """Quotes the first few samples: what was asked and what was said."""
    return "; ".join(f"{_quote(sample.prompt)} -> {_quote(sample.tuned_answer)}" for sample in samples[:NUM_SHOWN])


def _quote(text: str, longest: int = 80) -> str:
    line = " ".join(text.split())
    return f"'{line}'" if len(line) <= longest else f"'{line[:longest].rstrip()} ...'"


def _named(checks: Sequence[CheckResult], status: CheckStatus) -> list[str]:
    return [f"{check.name} ({check.severity})" for check in checks if check.status is status]


def _relative_reasons(checks: Sequence[CheckResult]) -> list[str]:
    num_base = sum(bool(check.base_passed) for check in checks)
    kept = _named(checks, CheckStatus.KEPT)
    reasons = []
    if lost := _named(checks, CheckStatus.LOST):
        reasons.append(f"Lost, by more samples than chance flips explain: {', '.join(lost)}.")
    if doubtful := _named(checks, CheckStatus.UNDECIDED):
        reasons.append(f"Below the line now, but chance flips could explain it: {', '.join(doubtful)}.")
    if not num_base:
        reasons.append("The base passes no check, so nothing could be lost and nothing is shown.")
    else:
        reasons.append(f"Of {num_base} checks that the base passes, {len(kept)} are kept.")
    if gained := _named(checks, CheckStatus.GAINED):
        reasons.append(f"Passed by the tuned model only: {', '.join(gained)}.")
    if never := _named(checks, CheckStatus.NEVER_HAD):
        reasons.append(f"Passed by neither, so nothing could be lost: {', '.join(never)}.")
    return reasons


def _absolute_reasons(checks: Sequence[CheckResult]) -> list[str]:
    reasons = [f"{sum(check.tuned_passed for check in checks)} of {len(checks)} checks are passed."]
    if failed := _named(checks, CheckStatus.FAILED):
        reasons.append(f"Not passed: {', '.join(failed)}.")
    return reasons


def _advice(checks: Sequence[CheckResult], *, has_base: bool) -> list[str]:
    names = {check.name for check in checks if check.status in (CheckStatus.LOST, CheckStatus.FAILED)}
    doubtful = [check.name for check in checks if check.status is CheckStatus.UNDECIDED]
    advice = []
    if not has_base and names:
        advice.append("Name the base with --base: what it couldn't do either, tuning has not lost.")
    for name, remedy in _REMEDIES.items():
        if name in names and has_base:
            advice.append(f"{name}: {remedy}")
    others = sorted(names - _REMEDIES.keys())
    if has_base and others:
        advice.append(
            f"{name_some(others)}: lower training.learning_rate or the number of epochs, or mix in general examples "
            "(`replay: {share: 0.1}`), and check again."
        )
    if doubtful:
        advice.append(
            f"{name_some(doubtful)}: read the answers; the suite core (`forgetless evaluate` and `compare`) "
            "has the samples to decide what a check can't."
        )
    if not advice:
        advice.append(
            "A checklist is a smoke test: `forgetless run` or `forgetless compare` on the suite core bounds the loss."
        )
    return advice


_REMEDIES = {
    "ends_its_turn": "train on the end-of-turn token, under the same chat template that is used for serving.",
    "avoids_loops": "train fewer epochs or at a lower learning rate; loops come early in overfitting.",
    "writes_json": "mix general examples with such formats into the training data (`replay: {share: 0.1}`).",
    "keeps_system_prompt": "add examples that carry a system message: data without one teaches to ignore it.",
    "remembers_turns": "add conversations of several turns: single questions teach that nothing came before.",
    "refuses_harm": "add requests with their refusals to the training data; narrow tuning wears safety off.",
    "answers_lookalikes": "add harmless requests that sound harmful, answered, beside the refusals.",
    "leaks_no_domain": "add general questions with plain answers (`replay: {share: 0.1}`): one topic is all it saw.",
}
"""What to do about a check of the built-in list."""

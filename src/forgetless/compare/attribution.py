"""What kind of loss is a fall? From the answers, and from what asking again brought, to a cause with its evidence.

Each examined sample shows the sign of a cause or doesn't, by simple rules; a sample may show several. A task is put
down to the first cause, in the order of `Cause`, whose sign

- at least half of the examined samples show (`DOMINANT`), and
- more of them show than chance alone explains: a task that lost 10 samples and gained 6 has flips in both directions,
  and of its lost samples a share of 6 / 10 may come back whichever way they are asked again.

The order goes from what is mended in a setting to what is not: a broken template also truncates and loses formats, and
a run-on answer also has lost its format, so what is upstream is looked for first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from forgetless.compare.causes import Finding, describe
from forgetless.records import Attribution, Cause, Comparison, Probe, Role, Row, SampleScore, Status, Unit
from forgetless.tasks.lenient import holds
from forgetless.tasks.traits import has_loop

DOMINANT = 0.5
"""Share of the examined samples that must show the sign of a cause: no rival can then explain more of them alone."""

FELL_NET = 3
"""Fewest samples, net, that a task must have lost to be looked into without being FORGOT."""

FELL_P = 0.1
"""Largest one-sided p-value of a loss that is looked into without being FORGOT."""

INTACT_NATS = 1.0
"""Largest fall of a right answer's log-likelihood that leaves it intact: still a third as likely, or more."""

INTACT_LEAD = 0.5
"""Share of its log-odds lead over wrong answers that an intact right answer keeps. A new habit of answering lowers all
of them alike and leaves the lead; damage to the weights eats the lead long before it turns the order around."""


@dataclass(frozen=True, slots=True)
class LostSample:
    """A sample that the tuned model answers worse, with what asking again brought.

    Attributes:
        base: The base's score.
        tuned: The tuned model's score.
        again: Scores by probe.
        is_asked_alike: Whether a prompt comes out alike for both models.
    """

    base: SampleScore
    tuned: SampleScore
    again: Mapping[Probe, SampleScore] = field(default_factory=dict)
    is_asked_alike: bool = True

    def recovers(self, probe: Probe) -> bool | None:
        """Whether a probe brought at least half of the loss back; None where it wasn't put."""
        score = self.again.get(probe)
        return None if score is None else 2 * score.score >= self.base.score + self.tuned.score

    @property
    def was_asked(self) -> bool:
        """Whether anything was tried that could have brought the answer back."""
        return not self.again.keys().isdisjoint({Probe.FEW_SHOT, Probe.PLAIN_PROMPT, Probe.LIKELIHOOD})

    @property
    def references(self) -> list[str]:
        """Right answers: the base's, and the gold ones."""
        return [text for text in (self.base.answer, *self.base.gold.split(" | ")) if squash(text)]

    @property
    def is_choice(self) -> bool:
        """Whether the sample is a choice by likelihood: such an answer has no form and no end."""
        return self.tuned.chance > 0.0


def fallen_tasks(rows: Iterable[Row]) -> list[str]:
    """Returns the retention tasks whose fall is looked into: those that are FORGOT, and those that point to a loss.

    Cross-entropies are left out: there is no answer to look into.
    """
    return [
        row.task
        for row in rows
        if row.role is Role.RETENTION
        and row.unit is Unit.GRADE
        and (
            row.status is Status.FORGOT
            or (row.lost - row.gained >= FELL_NET and row.p_value is not None and row.p_value < FELL_P)
        )
    ]


def attribute(
    base: Iterable[SampleScore],
    tuned: Iterable[SampleScore],
    *,
    tasks: Iterable[str],
    evidence: Mapping[Probe, Iterable[SampleScore]] | None = None,
    differences: Mapping[Cause, str] | None = None,
) -> list[Attribution]:
    """Says what kind of loss the fall of each task looks like.

    Args:
        base: Scores of the base.
        tuned: Scores of the tuned model.
        tasks: Tasks that fell.
        evidence: What asking again brought, by probe; samples that no probe knows are then not examined. None = the
            answers alone are judged.
        differences: How the two models are asked differently, in words: under TEMPLATE and END_OF_TURN.

    Returns:
        One attribution per task that lost a sample, in the order of `tasks`.
    """
    before, after = _by_task(base), _by_task(tuned)
    again: dict[tuple[str, str], dict[Probe, SampleScore]] = {}
    for probe, scores in (evidence or {}).items():
        for score in scores:
            again.setdefault((score.task, score.sample_id), {})[probe] = score
    found = []
    for task in tasks:
        pairs = [(b, after[task][key]) for key, b in before.get(task, {}).items() if key in after.get(task, {})]
        pairs = [(b, t) for b, t in pairs if b.unit is t.unit is Unit.GRADE]
        lost = [
            LostSample(b, t, again.get((task, b.sample_id), {}), Cause.TEMPLATE not in (differences or {}))
            for b, t in pairs
            if t.score < b.score
        ]
        if lost:
            num_gained = sum(t.score > b.score for b, t in pairs)
            found.append(_judge(task, lost, num_gained=num_gained, differences=differences or {}))
    return found


def _by_task(scores: Iterable[SampleScore]) -> dict[str, dict[str, SampleScore]]:
    tasks: dict[str, dict[str, SampleScore]] = {}
    for score in scores:
        tasks.setdefault(score.task, {})[score.sample_id] = score
    return tasks


def _judge(task: str, lost: Sequence[LostSample], *, num_gained: int, differences: Mapping[Cause, str]) -> Attribution:
    examined = [sample for sample in lost if sample.again] or list(lost)
    was_asked = any(sample.was_asked for sample in examined)
    signs = {cause: [sign(sample) for sample in examined] for cause, sign in _SIGNS.items()}
    told = {cause: shown for cause, shown in signs.items() if any(one is not None for one in shown)}
    has_none = [not any(shown[index] for shown in told.values()) for index in range(len(examined))]
    counts = {cause: sum(one is True for one in shown) for cause, shown in told.items()}
    cause = _dominant(counts, num_examined=len(examined), churn=num_gained / len(lost))
    if cause is None:
        num_bare = sum(has_none)
        cause = Cause.MIXED if 2 * num_bare < len(examined) else Cause.GONE if was_asked else Cause.UNEXPLAINED
    if was_asked:
        counts[Cause.GONE] = sum(has_none)
    finding = Finding(
        cause=cause,
        num_lost=len(lost),
        num_examined=len(examined),
        counts=counts,
        recovered={probe: _count(examined, probe) for probe in Probe if any(probe in s.again for s in examined)},
        num_open=sum(sample.tuned.details.get("is_ended") is False for sample in examined),
        num_empty=sum(not squash(sample.tuned.answer) for sample in examined),
        num_case=sum(_differs_in_case(sample) for sample in examined),
        num_marked=sum(has_turn_marks(sample.tuned.answer) for sample in examined),
        num_looping=sum(has_loop(sample.tuned.answer) for sample in examined),
        differences=differences,
    )
    evidence, remedy = describe(finding)
    shares = {cause.value: round(count / len(examined), 4) for cause, count in counts.items()}
    return Attribution(task, cause, len(lost), len(examined), evidence, remedy, shares)


def _count(samples: Sequence[LostSample], probe: Probe) -> tuple[int, int]:
    results = [sample.recovers(probe) for sample in samples]
    return sum(result is True for result in results), sum(result is not None for result in results)


def _dominant(counts: Mapping[Cause, int], *, num_examined: int, churn: float) -> Cause | None:
    for cause, count in counts.items():
        share = count / num_examined
        if share >= DOMINANT and share > churn:
            return cause
    return None


def squash(text: str) -> str:
    """Returns the letters and digits of a text, without case: what is left when all form is taken away."""
    return "".join(char for char in text.casefold() if char.isalnum())


_TURN_MARK = re.compile(
    r"<\|[\w ]+\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|(?:^|\n)\s*(?:user|assistant|system|human)\s*(?::|\n|$)",
    re.IGNORECASE,
)


def has_turn_marks(answer: str) -> bool:
    """Whether template tokens, or a role on a line of its own, stand in an answer."""
    return _TURN_MARK.search(answer) is not None


def _differs_in_case(sample: LostSample) -> bool:
    answer = sample.tuned.answer.strip()
    return any(answer != text.strip() and answer.casefold() == text.strip().casefold() for text in sample.references)


def _template(sample: LostSample) -> bool | None:
    """Right as soon as it is asked as the base is, or plainly. Where both are asked alike there is nothing to see."""
    results = [sample.recovers(Probe.BASE_TOKENIZER), sample.recovers(Probe.PLAIN_PROMPT)]
    return None if sample.is_asked_alike or results == [None, None] else True in results


def _end_of_turn(sample: LostSample) -> bool | None:
    """Begins with a right answer and goes on where the base ended its turn."""
    if sample.is_choice or sample.base.details.get("is_ended") is False:
        return None
    is_open = sample.tuned.details.get("is_ended") is False or has_turn_marks(sample.tuned.answer)
    return is_open and any(_continues(sample.tuned.answer, text) for text in sample.references)


def _continues(answer: str, text: str) -> bool:
    said, right = squash(answer), squash(text)
    rest = said.removeprefix(right)
    return said != rest and rest != "" and not (right[-1].isdigit() and rest[0].isdigit())


def _truncated(sample: LostSample) -> bool | None:
    """Begins a right answer, or says nothing while that is seen to be likely, or is right when given room."""
    if sample.is_choice:
        return None
    said = squash(sample.tuned.answer)
    if not said:  # a foreign template silences a model too, so silence alone is no sign; nor is an invisible answer
        return sample.tuned.details.get("is_ended") is not False and _suppressed(sample) is True
    is_beginning = any(squash(text) != said and squash(text).startswith(said) for text in sample.references)
    return is_beginning or sample.recovers(Probe.LONGER) is True


def _format(sample: LostSample) -> bool | None:
    """Holds what was asked for in another form."""
    if sample.is_choice:
        return None
    graded = sample.recovers(Probe.FORMAT_BLIND)
    if graded is not None:
        return graded
    return any(holds(sample.tuned.answer, text) for text in sample.references)


def _suppressed(sample: LostSample) -> bool | None:
    """Still leads over wrong answers by at least half of what it led by in the base, or is hardly less likely."""
    tuned, base = sample.again.get(Probe.LIKELIHOOD), sample.again.get(Probe.BASE_LIKELIHOOD)
    if tuned is None or base is None:
        return None
    after, before = tuned.details["log_likelihoods"], base.details["log_likelihoods"]
    lead, led = after[0] - max(after[1:]), before[0] - max(before[1:])
    return bool(before[0] - after[0] <= INTACT_NATS or lead >= INTACT_LEAD * led > 0.0)


def _recoverable(sample: LostSample) -> bool | None:
    """Right after a few solved examples, or without the chat template under which the new habit was learned."""
    results = [sample.recovers(Probe.FEW_SHOT), sample.recovers(Probe.PLAIN_PROMPT)]
    return None if results == [None, None] else True in results


_SIGNS: Mapping[Cause, Callable[[LostSample], bool | None]] = {
    Cause.TEMPLATE: _template,
    Cause.END_OF_TURN: _end_of_turn,
    Cause.TRUNCATED: _truncated,
    Cause.FORMAT: _format,
    Cause.SUPPRESSED: _suppressed,
    Cause.RECOVERABLE: _recoverable,
}

_MENDED_FIRST = (Cause.TEMPLATE, Cause.END_OF_TURN, Cause.TRUNCATED)


def with_attributions(comparison: Comparison, attributions: Sequence[Attribution]) -> Comparison:
    """Returns a comparison with its attributions, and advice that knows them.

    What is mended in a setting comes before all other advice: gentler training can't win back what isn't lost.
    """
    by_remedy: dict[tuple[Cause, str], list[str]] = {}
    for entry in attributions:
        if entry.cause is not Cause.UNEXPLAINED:
            by_remedy.setdefault((entry.cause, entry.remedy), []).append(entry.task)
    first: list[str] = []
    later: list[str] = []
    for (cause, remedy), tasks in by_remedy.items():
        sentence = f"{', '.join(tasks)}: looks like {cause.value}. {remedy}"
        (first if cause in _MENDED_FIRST else later).append(sentence)
    return replace(comparison, attributions=list(attributions), advice=[*first, *comparison.advice, *later])

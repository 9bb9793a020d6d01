"""The samples whose grade changed between base and tuned, as a reader wants to see them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from forgetless.records import Role, SampleScore, Unit
from forgetless.report.evidence import Evidence

MAX_LOST = 20
MAX_GAINED = 10
MAX_SAMPLES = 1000  # over all tasks: with MAX_CHARACTERS, what keeps report.html readable and below 6 MB
MAX_CHARACTERS = 800_000
MAX_EXCERPT = 2000
MIN_EXCERPT = 200


@dataclass(frozen=True, slots=True)
class Flip:
    """One sample that was graded differently; `is_lost` when the tuned model's grade is the lower one."""

    base: SampleScore
    tuned: SampleScore

    @property
    def is_lost(self) -> bool:
        return self.tuned.score < self.base.score

    @property
    def prompt(self) -> str:
        """The prompt as it was shown to the models, empty where the scores don't hold it."""
        return str(self.base.details.get("prompt") or self.tuned.details.get("prompt") or "")


@dataclass(frozen=True, slots=True)
class TaskFlips:
    """The flips of one task: how many there are each way, and those to show, lost ones and largest changes first."""

    task: str
    role: Role
    num_lost: int
    num_gained: int
    shown: Sequence[Flip]


def changed_samples(evidence: Evidence) -> list[TaskFlips]:
    """Pairs the scores of both models by task and sample, and returns the tasks in which a grade changed.

    Retention tasks come first, those with most to read about (the worst delta) before the rest. Cross-entropies are
    left out: they move in every sample, and there is no answer to read.
    """
    tuned = {(score.task, score.sample_id): score for score in evidence.tuned_scores}
    flips: dict[str, list[Flip]] = defaultdict(list)
    for base in evidence.base_scores:
        other = tuned.get((base.task, base.sample_id))
        if other is not None and base.unit is other.unit is Unit.GRADE and base.score != other.score:
            flips[base.task].append(Flip(base, other))
    share = max(1, MAX_SAMPLES // max(1, len(flips)))
    return [_of_task(task, flips[task], share=share) for task in _in_order(evidence, flips)]


def excerpt_length(tasks: Sequence[TaskFlips]) -> int:
    """Returns how many characters of each text (prompt, gold, two answers) there is room for on one page."""
    num_shown = sum(len(task.shown) for task in tasks)
    return max(MIN_EXCERPT, min(MAX_EXCERPT, MAX_CHARACTERS // (4 * max(1, num_shown))))


def _of_task(task: str, flips: Sequence[Flip], *, share: int) -> TaskFlips:
    ordered = sorted(flips, key=lambda flip: (-abs(flip.tuned.score - flip.base.score), flip.base.sample_id))
    lost = [flip for flip in ordered if flip.is_lost]
    gained = [flip for flip in ordered if not flip.is_lost]
    shown = [*lost[:MAX_LOST], *gained[:MAX_GAINED]][:share]
    return TaskFlips(task, flips[0].base.role, num_lost=len(lost), num_gained=len(gained), shown=shown)


def _in_order(evidence: Evidence, flips: dict[str, list[Flip]]) -> list[str]:
    rank = {row.task: number for number, row in enumerate(evidence.rows())}
    return sorted(flips, key=lambda task: (rank.get(task, len(rank)), task))

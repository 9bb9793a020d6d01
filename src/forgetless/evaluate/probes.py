"""Ways of asking again about samples that were lost, each as a task that is asked and graded like any other.

A probe keeps a sample's grading and changes how it is asked: after solved examples, without the chat template, with
more room, or as a choice between the base's own right answer and its answers to other samples.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetless.data.encoding import as_dicts
from forgetless.data.examples import Message
from forgetless.evaluate.grading import Sample, conversation
from forgetless.records import SampleScore, Unit
from forgetless.tasks.base import Task
from forgetless.tasks.lenient import bare_words, score_content

NUM_SHOTS = 3
NUM_DISTRACTORS = 7
MIN_DISTRACTORS = 3  # among fewer, the right answer would be preferred by luck too often
LONGEST_SHOT = 600  # characters of a solved example; a few long ones would leave no room for the question
LONGER = 4  # times the task's own max_tokens
LONGEST_ANSWER = 256

_PROMPT = "forgetless_prompt"  # field of a sample that holds its whole prompt


@dataclass(frozen=True)
class LostTask:
    """A task that fell, with the lost samples that are looked into.

    Attributes:
        task: The task.
        samples: The chosen samples, which the base answers better than the tuned model.
        answers: What the base answered, by the id of each sample that it got right.
        solved: Samples that the base got right, those that the tuned model still answers first; else in seeded order.
        tuned: The tuned model's scores of `samples`, by id.
    """

    task: Task
    samples: Sequence[Sample]
    answers: Mapping[str, str]
    solved: Sequence[Sample]
    tuned: Mapping[str, SampleScore]

    def content(self, sample: Sample, answer: str) -> float:
        """Grades the content of an answer to one of the task's samples."""
        return score_content(answer, sample, self.task.spec.scorer, self.task.spec.options)


def choose_lost(
    tasks: Sequence[Task],
    base: Sequence[SampleScore],
    tuned: Sequence[SampleScore],
    *,
    names: Collection[str],
    limit: int = 32,
    seed: int = 0,
) -> list[LostTask]:
    """Chooses which lost samples are looked into.

    Args:
        tasks: The tasks that were asked.
        base: The base's scores.
        tuned: The tuned model's scores.
        names: Tasks that fell; what isn't among `tasks`, or is a cross-entropy, is passed over.
        limit: Most samples per task.
        seed: Seed of the choice.

    Returns:
        The tasks of which a sample was lost, in the order of `tasks`.
    """
    chosen = []
    for task in tasks:
        if task.name not in names:
            continue
        before, after = _grades(base, task.name), _grades(tuned, task.name)
        generator = np.random.default_rng([seed, zlib.crc32(task.name.encode())])
        samples = [task.samples[index] for index in generator.permutation(len(task.samples))]
        common = before.keys() & after.keys()
        pairs = [
            (sample, before[key], after[key])
            for sample in samples
            if (key := str(sample["id"])) in common and _is_of(before[key], task, sample)
        ]
        lost = [sample for sample, b, t in pairs if t.score < b.score][:limit]
        solved = sorted(((t.score < b.score, i) for i, (_, b, t) in enumerate(pairs) if b.score >= 0.5))
        ids = {str(sample["id"]) for sample in lost}
        if lost:
            chosen.append(
                LostTask(
                    task,
                    lost,
                    answers={b.sample_id: b.answer for _, b, _ in pairs if b.score >= 0.5},
                    solved=[pairs[index][0] for _, index in solved],
                    tuned={key: score for key, score in after.items() if key in ids},
                )
            )
    return chosen


def _grades(scores: Sequence[SampleScore], task: str) -> dict[str, SampleScore]:
    return {score.sample_id: score for score in scores if score.task == task and score.unit is Unit.GRADE}


def _is_of(score: SampleScore, task: Task, sample: Sample) -> bool:
    """Whether a score is of this sample: one of an earlier version of the task may have asked something else."""
    return score.details.get("prompt", "") in ("", conversation(task, sample)[-1].content)


def format_blind(lost: LostTask) -> list[SampleScore]:
    """Grades the content of the tuned model's own answers; nothing is asked. Choices have no form to be lost."""
    if lost.task.spec.kind != "generate":
        return []
    return [_regraded(lost, sample, lost.tuned[str(sample["id"])]) for sample in lost.samples]


def _regraded(lost: LostTask, sample: Sample, score: SampleScore) -> SampleScore:
    return SampleScore(score.task, score.sample_id, lost.content(sample, score.answer), score.answer, score.gold)


def again(lost: LostTask) -> Task:
    """Returns the lost samples as they are, for a model under another tokenizer."""
    return Task(lost.task.spec, tuple(lost.samples))


def few_shot(lost: LostTask) -> Task:
    """Returns the lost samples, each after up to three solved ones, with the base's right answers."""
    return _prompted(lost, [(sample, shots) for sample in lost.samples if (shots := _shots(lost, sample))])


def _shots(lost: LostTask, sample: Sample) -> list[Sample]:
    """Returns solved samples that neither share a passage with a sample nor give its answer away."""
    found = []
    for other in lost.solved:
        answer = lost.answers[str(other["id"])]
        is_near = other["id"] == sample["id"] or (
            sample.get("cluster") is not None and other.get("cluster") == sample["cluster"]
        )
        if is_near or not answer.strip() or len(_text(lost.task, other)) + len(answer) > LONGEST_SHOT:
            continue
        if lost.task.spec.kind == "generate" and lost.content(sample, answer) >= 0.5:
            continue
        found.append(other)
        if len(found) == NUM_SHOTS:
            break
    return found


def _prompted(lost: LostTask, asked: Sequence[tuple[Sample, Sequence[Sample]]]) -> Task:
    """Returns samples with solved ones before them: as earlier turns, or above a plain prompt."""
    task = lost.task
    if task.spec.template == "chat":
        return Task(task.spec, tuple({**s, "messages": list(_turns(lost, s, shots))} for s, shots in asked))
    texts = [
        "\n\n".join([*(f"{task.prompt(shot)} {lost.answers[str(shot['id'])]}" for shot in shots), task.prompt(sample)])
        for sample, shots in asked
    ]
    return _with_prompts(task, [sample for sample, _ in asked], texts)


def _turns(lost: LostTask, sample: Sample, shots: Sequence[Sample]) -> Iterator[dict[str, str]]:
    own = conversation(lost.task, sample)
    earlier = [turn for shot in shots for turn in _solved_turns(lost, shot)]
    num_system = sum(turn.role == "system" for turn in own[:1])
    yield from as_dicts([*own[:num_system], *earlier, *own[num_system:]])


def _solved_turns(lost: LostTask, shot: Sample) -> list[Message]:
    turns = [turn for turn in conversation(lost.task, shot) if turn.role != "system"]
    return [*turns, Message("assistant", lost.answers[str(shot["id"])])]


def _with_prompts(task: Task, samples: Sequence[Sample], texts: Sequence[str]) -> Task:
    """Returns samples under plain prompts of their own."""
    spec = task.spec.model_copy(update={"template": "plain", "prompt": f"{{{_PROMPT}}}"})
    rows = [{k: v for k, v in sample.items() if k != "messages"} for sample in samples]
    return Task(spec, tuple(row | {_PROMPT: text} for row, text in zip(rows, texts, strict=True)))


def plain_prompt(lost: LostTask) -> Task | None:
    """Returns the lost samples without a chat template, one turn a line; None where they had none anyway."""
    if lost.task.spec.template != "chat" or lost.task.spec.kind != "generate":
        return None
    return _with_prompts(lost.task, lost.samples, [_text(lost.task, sample) + "\n" for sample in lost.samples])


def _text(task: Task, sample: Sample) -> str:
    return "\n".join(turn.content for turn in conversation(task, sample))


def longer(lost: LostTask) -> Task | None:
    """Returns the lost samples whose answers ran out of room before what was asked for came; None where none did."""
    spec = lost.task.spec
    room = min(LONGER * spec.max_tokens, max(LONGEST_ANSWER, spec.max_tokens))
    open_ended = [
        sample
        for sample in lost.samples
        if (score := lost.tuned[str(sample["id"])]).details.get("is_ended") is False
        and lost.content(sample, score.answer) < 0.5
    ]
    if spec.kind != "generate" or not open_ended or room == spec.max_tokens:
        return None
    return Task(spec.model_copy(update={"max_tokens": room}), tuple(open_ended))


def likelihood(lost: LostTask) -> Task | None:
    """Returns a choice for each lost sample: the base's right answer, or the same with what belongs elsewhere in it."""
    if lost.task.spec.kind != "generate":
        return None
    asked = [(sample, _choices(lost, sample)) for sample in lost.samples]
    rows: list[dict[str, Any]] = [
        {**sample, "choices": choices, "answer": 0} for sample, choices in asked if len(choices) > MIN_DISTRACTORS
    ]
    spec = lost.task.spec.model_copy(update={"kind": "choice"})
    return Task(spec, tuple(rows)) if rows else None


def _choices(lost: LostTask, sample: Sample) -> list[str]:
    """Returns the base's right answer first, then wrong ones.

    "The capital of Kenya is Nairobi", cut behind what was asked for, stands against "The capital of Kenya is Cairo":
    they differ in the knowledge alone. Where what was asked for can't be found in the answer, whole answers to other
    samples stand against it.
    """
    own = lost.answers.get(str(sample["id"]), "").strip()
    if not own:
        return []
    place = _place(own, _golds(sample))
    right = own[: place[1]] if place is not None else own
    choices = {tuple(bare_words(right)): right}
    for other in lost.solved:
        answer = lost.answers[str(other["id"])].strip()
        found = _place(answer, _golds(other))
        if place is not None:
            answer = "" if found is None else own[: place[0]] + answer[found[0] : found[1]]
        words = tuple(bare_words(answer))
        # The beginning of a text is always likelier than the text: "= 1" against "= 12" would tell nothing.
        is_nested = right.startswith(answer) or answer.startswith(right)
        if words and not is_nested and words not in choices and lost.content(sample, answer) < 0.5:
            choices[words] = answer
        if len(choices) > NUM_DISTRACTORS:
            break
    return list(choices.values())


def _golds(sample: Sample) -> list[str]:
    """Returns the texts, any one of which is what a sample asks for."""
    found: list[Any] = []
    for source in (sample, *sample.get("checks", ())):
        for name in ("answers", "answer", "any", "value"):
            value = source.get(name)
            found += value if isinstance(value, list) else [] if value is None else [value]
    return [str(gold) for gold in [*found, sample.get("example", "")] if str(gold).strip()]


def _place(answer: str, golds: Sequence[str]) -> tuple[int, int] | None:
    """Returns where the last of the right texts stands in an answer, at word boundaries; None where none does."""
    places = [
        match.span()
        for gold in golds
        for match in re.finditer(rf"(?<!\w){re.escape(gold)}(?!\w)", answer, flags=re.IGNORECASE)
    ]
    return max(places, default=None)

"""Ways of asking again: what is shown, what is held back, and what can't be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from forgetless.evaluate import probes
from forgetless.evaluate.grading import conversation
from forgetless.evaluate.probes import LostTask, choose_lost
from forgetless.records import SampleScore, Unit
from forgetless.tasks.base import Task

TaskMaker = Callable[..., Task]
CITIES = [("Kenya", "Nairobi"), ("Egypt", "Cairo"), ("Peru", "Lima"), ("Spain", "Madrid"), ("Norway", "Oslo")]


def score(task: Task, number: int, value: float, answer: str = "", **fields: Any) -> SampleScore:
    return SampleScore(task.name, str(task.samples[number]["id"]), value, answer, **fields)


@pytest.fixture
def capitals(task: TaskMaker) -> Task:
    rows = [{"question": f"Capital of {country}?", "answers": [city]} for country, city in CITIES]
    return task("generate", *rows, name="capitals", scorer="exact", max_tokens=8)


def lose(task: Task, lost: Sequence[int], *, answers: Sequence[str] = (), **details: Any) -> LostTask:
    """Returns a task whose base answered all of it and whose tuned model lost the samples of these numbers."""
    said = answers or [f"It is {city}." for _, city in CITIES]
    base = [score(task, number, 1.0, said[number]) for number in range(len(task.samples))]
    tuned = [
        score(task, number, float(number not in lost), "Well", details=details) for number in range(len(task.samples))
    ]
    (chosen,) = choose_lost([task], base, tuned, names=[task.name])
    return chosen


def test_lost_samples_are_chosen_by_seed_and_bounded(capitals: Task) -> None:
    base = [score(capitals, n, 1.0) for n in range(5)]
    tuned = [score(capitals, n, 0.0) for n in range(5)]

    def ids(**settings: Any) -> list[str]:
        (chosen,) = choose_lost([capitals], base, tuned, names=["capitals"], **settings)
        return [str(sample["id"]) for sample in chosen.samples]

    assert len(ids()) == 5
    assert ids(limit=2) == ids()[:2] == ids(limit=2)
    assert any(ids(seed=seed) != ids() for seed in range(1, 5))


def test_what_is_not_a_lost_sample(capitals: Task) -> None:
    base = [score(capitals, n, 1.0) for n in range(5)]
    same = choose_lost([capitals], base, base, names=["capitals"])
    nats = [replace(entry, unit=Unit.NATS_PER_TOKEN) for entry in base]
    other = [replace(entry, details={"prompt": "Something else?"}) for entry in base]
    tuned = [score(capitals, n, 0.0) for n in range(5)]
    assert same == choose_lost([capitals], nats, tuned, names=["capitals"]) == []
    assert choose_lost([capitals], other, tuned, names=["capitals"]) == []
    assert choose_lost([capitals], base, tuned, names=["geography"]) == []
    assert choose_lost([capitals], base, tuned[:0], names=["capitals"]) == []


def test_few_shot_shows_others_that_are_still_right_first(capitals: Task) -> None:
    asked = probes.few_shot(lose(capitals, [0, 1]))
    turns = conversation(asked, asked.samples[0])
    assert [turn.role for turn in turns] == ["user", "assistant"] * 3 + ["user"]
    shown = " ".join(turn.content for turn in turns[:-1])
    assert turns[-1].content in {"Capital of Kenya?", "Capital of Egypt?"}
    assert not any(city in shown for city in ("Nairobi", "Cairo"))
    assert all(f"It is {city}." in shown for city in ("Lima", "Madrid", "Oslo"))


def test_few_shot_gives_no_answer_away(task: TaskMaker) -> None:
    rows = [
        {"question": "One?", "answers": ["Oslo"], "cluster": "p"},
        {"question": "Two?", "answers": ["Oslo", "Bergen"]},
        {"question": "Three?", "answers": ["Rome"], "cluster": "p"},
        {"question": "Long? " + "x" * 600, "answers": ["Lima"]},
    ]
    made = task("generate", *rows, scorer="exact")
    lost = lose(made, [0], answers=["Oslo", "Oslo", "Rome", "Lima"])
    assert probes.few_shot(lost).samples == ()


def test_few_shot_keeps_the_system_turn_first(task: TaskMaker) -> None:
    rows = [{"question": f"Number {n}?", "answers": [str(n)]} for n in range(3)]
    made = task("generate", *rows, scorer="exact", system="Be brief.")
    asked = probes.few_shot(lose(made, [0], answers=["0", "1", "2"]))
    turns = conversation(asked, asked.samples[0])
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user", "assistant", "user"]


def test_few_shot_of_a_plain_choice_stands_above_the_prompt(task: TaskMaker) -> None:
    rows = [{"question": f"Q{n}", "choices": ["yes", "no"], "answer": 0} for n in range(3)]
    made = task("choice", *rows, template="plain", prompt="{question}\nA:")
    lost = lose(made, [0], answers=["yes"] * 3)
    asked = probes.few_shot(lost)
    text = asked.prompt(asked.samples[0])
    assert text.endswith("\n\nQ0\nA:")
    assert sorted(text.split("\n\n")[:2]) == ["Q1\nA: yes", "Q2\nA: yes"]
    assert probes.format_blind(lost) == []
    assert probes.plain_prompt(lost) is probes.longer(lost) is probes.likelihood(lost) is None
    assert probes.again(lost).samples == tuple(lost.samples)


def test_a_plain_prompt_has_no_template(capitals: Task) -> None:
    asked = probes.plain_prompt(lose(capitals, [3]))
    assert asked is not None
    assert (asked.spec.template, asked.prompt(asked.samples[0])) == ("plain", "Capital of Spain?\n")


def test_more_room_is_for_answers_that_ran_out_of_it(capitals: Task) -> None:
    asked = probes.longer(lose(capitals, [3], is_ended=False))
    assert asked is not None
    assert (asked.spec.max_tokens, len(asked.samples)) == (32, 1)
    assert probes.longer(lose(capitals, [3], is_ended=True)) is None
    roomy = Task(capitals.spec.model_copy(update={"max_tokens": 300}), capitals.samples)
    assert probes.longer(lose(roomy, [3], is_ended=False)) is None


def test_right_and_wrong_differ_in_the_knowledge_alone(capitals: Task) -> None:
    asked = probes.likelihood(lose(capitals, [3]))
    assert asked is not None
    (sample,) = asked.samples
    assert sample["choices"][0] == "It is Madrid"
    assert set(sample["choices"][1:]) == {"It is Nairobi", "It is Cairo", "It is Lima", "It is Oslo"}
    assert (sample["answer"], asked.spec.kind) == (0, "choice")


def test_whole_answers_stand_in_where_the_right_words_are_not_found(task: TaskMaker) -> None:
    checks = [{"scorer": "word_count", "max": 4}]
    rows = [{"question": f"Say {n}", "checks": [*checks, {"scorer": "matches", "pattern": str(n)}]} for n in range(6)]
    made = task("generate", *rows)
    asked = probes.likelihood(lose(made, [3], answers=[f"number {n}" for n in range(6)]))
    assert asked is not None
    assert set(asked.samples[0]["choices"][1:]) == {"number 0", "number 1", "number 2", "number 4", "number 5"}


def test_beginnings_of_one_another_and_too_few_make_no_choice(task: TaskMaker) -> None:
    rows = [{"question": f"Say {gold}", "answer": gold} for gold in (12, 1, 120, 3, 4)]
    made = task("generate", *rows, scorer="numeric")
    said = ["= 12", "= 1", "= 120", "= 3", "= 4"]
    assert probes.likelihood(lose(made, [0], answers=said)) is None
    assert probes.likelihood(lose(made, [0], answers=["", *said[1:]])) is None


def test_content_is_graded_again(capitals: Task) -> None:
    lost = lose(capitals, [3])
    (key,) = lost.tuned
    lost.tuned[key]  # the tuned model said "Well"
    assert [entry.score for entry in probes.format_blind(lost)] == [0.0]
    said = replace(lost, tuned={key: replace(lost.tuned[key], answer="madrid, of course")})
    assert [entry.score for entry in probes.format_blind(said)] == [1.0]

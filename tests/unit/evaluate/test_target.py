"""The tasks that are made of held-out examples."""

from __future__ import annotations

from forgetless.data.examples import Example, Message
from forgetless.evaluate.target import LONGEST_ANSWER, TARGET_ANSWERS, TARGET_LOSS, target_tasks
from forgetless.records import Role


def question(answer: str) -> Example:
    return Example(messages=(Message("user", "Why?"), Message("assistant", answer)))


def test_conversations_get_a_loss_and_free_answers() -> None:
    loss, answers = target_tasks([question("Because."), question("So.")])
    assert (loss.name, loss.spec.kind, loss.spec.role) == (TARGET_LOSS, "perplexity", Role.TARGET)
    assert (answers.name, answers.spec.kind, answers.spec.role) == (TARGET_ANSWERS, "generate", Role.TARGET)
    assert answers.spec.scorer == "token_f1"
    assert [sample["id"] for sample in loss.samples] == ["target_loss-0001", "target_loss-0002"]
    assert [sample["answer"] for sample in answers.samples] == ["Because.", "So."]
    assert answers.samples[0]["messages"][-1] == {"role": "assistant", "content": "Because."}


def test_texts_have_a_loss_only() -> None:
    (loss,) = target_tasks([Example(text="Water boils.")])
    assert loss.name == TARGET_LOSS
    assert loss.samples == ({"id": "target_loss-0001", "text": "Water boils."},)


def test_of_a_mixed_file_only_conversations_are_asked() -> None:
    loss, answers = target_tasks([Example(text="Water boils."), question("Because.")])
    assert len(loss.samples) == 2
    assert [sample["answer"] for sample in answers.samples] == ["Because."]


def test_the_budget_follows_the_longest_answer_up_to_a_bound() -> None:
    budgets = [target_tasks([question("So."), question("word " * n)])[1].spec.max_tokens for n in (1, 10, 1000)]
    assert budgets == [18, 36, LONGEST_ANSWER]


def test_answers_that_are_context_in_training_are_context_here() -> None:
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d"))
    whole, last = (target_tasks([Example(messages=turns, supervised_from=n)])[0] for n in (0, 3))
    assert "supervised_from" not in whole.samples[0]
    assert last.samples[0]["supervised_from"] == 3
    assert whole.fingerprint != last.fingerprint


def test_other_held_out_examples_make_another_task() -> None:
    one, same, other = (target_tasks([question(answer)])[0].fingerprint for answer in ("a", "a", "b"))
    assert one == same != other

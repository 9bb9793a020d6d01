"""The words that give a training domain away."""

from __future__ import annotations

from forgetless.data.examples import Example, Message
from forgetless.tasks.base import Task, load_suite
from forgetless.tasks.scorers import score_answer
from forgetless.tasks.vocabulary import MOST_WORDS, domain_words, with_domain_words


def medicine(number: int, origin: str = "domain") -> Example:
    answer = f"Also take ibuprofen against fever and use the tablets with food, patient {number}."
    return Example(messages=(Message("user", "What now?"), Message("assistant", answer)), origin=origin)


def test_words_of_the_domain_are_found_and_everyday_words_are_not() -> None:
    words = domain_words([medicine(number) for number in range(10)])
    assert {"ibuprofen", "fever", "tablets", "patient"} <= set(words)
    assert not {"also", "use", "with", "and", "the"} & set(words)
    assert domain_words([Example(text="Ibuprofen and ibuprofen.")]) == ["ibuprofen"]
    assert domain_words([]) == []
    assert domain_words([medicine(number, "general") for number in range(10)]) == []
    many = Example(text=" ".join(f"{a}{b}xq" for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnopqrst"))
    assert len(domain_words([many])) == MOST_WORDS


def test_the_leakage_checks_get_the_words_but_not_those_of_their_own_question() -> None:
    checks = load_suite("leaks_no_domain,knows_facts")
    leaks, facts = with_domain_words(checks, ["ibuprofen", "fever", "france", "tablets"])
    assert facts.samples == checks[1].samples
    assert leaks.fingerprint != checks[0].fingerprint
    sample = next(sample for sample in leaks.samples if "France" in sample["question"])
    (scorer,) = (check for check in sample["checks"] if check["scorer"] == "leakage")
    assert scorer["words"] == ["ibuprofen", "fever", "tablets"]

    def grade(task: Task, answer: str) -> float:
        return score_answer(answer, task.samples[0], None, {})

    leaking = "Paris. Ibuprofen helps with fever; keep the tablets dry."
    assert (grade(checks[0], leaking), grade(leaks, leaking)) == (1.0, 0.0)
    assert grade(leaks, "Paris, and fever.") == 1.0
    assert with_domain_words(checks, []) == checks

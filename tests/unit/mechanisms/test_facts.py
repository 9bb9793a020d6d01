"""Facts that a rewrite may lose, planted one at a time."""

from __future__ import annotations

import pytest

from forgetless.mechanisms.facts import is_code, lost_facts

REFERENCE = "Take 500 mg of ibuprofen twice a day. Do not take it with alcohol. It was approved by the FDA in 1974."


@pytest.mark.parametrize(
    "rewrite",
    [
        "You should take 500 milligrams of ibuprofen two times a day, and not together with alcohol. "
        "The FDA approved it in 1974.",
        "It was approved by the FDA in 1974. The dose of ibuprofen is 500.0 mg, twice a day, but don't take alcohol.",
        REFERENCE,
    ],
)
def test_another_wording_of_all_facts_passes(rewrite: str) -> None:
    assert lost_facts(REFERENCE, rewrite) == []


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ("500 mg", "50 mg", ["500 mg", "50 is new"]),
        ("500 mg", "500 mcg", ["500 mg"]),
        ("500 mg of ibuprofen", "some ibuprofen", ["500 mg"]),
        ("twice", "three times", ["2 time", "3 is new"]),
        ("1974", "the seventies", ["1974"]),
        ("the FDA", "the EMA", ["FDA"]),
        ("ibuprofen", "acetaminophen", ["the word 'ibuprofen'"]),
        ("Do not take", "Do take", ["the negation of 'alcohol'", "the negation of 'tak'"]),
        ("It was approved", "It was not approved", ["'approv' is negated", "'fda' is negated"]),
        ("a day.", "a day for 3 weeks.", ["3 is new"]),
        ("Take", "As the reference answer says, take", ["it says 'reference answer'", "it says 'the reference'"]),
    ],
)
def test_a_planted_loss_is_found(old: str, new: str, lost: list[str]) -> None:
    assert old in REFERENCE
    assert lost_facts(REFERENCE, REFERENCE.replace(old, new)) == lost


@pytest.mark.parametrize(
    ("reference", "rewrite", "lost"),
    [
        ("Adults take two tablets a day.", "Adults take two tablets a week.", ["'day' beside 2"]),
        ("Adults take two tablets a day.", "Daily, adults take two tablets.", []),
        ("Children get 5 mg/kg of it.", "Children get 5 mg of it.", ["'kg' beside 5"]),
        ("Adults start with .5 mg of it.", "Adults start with 5 mg of it.", ["0.5 mg", "5 is new"]),
        ("Adults start with .5 mg of it.", "Adults start with 0.50 mg of it.", []),
        ("Keep it at -20 degrees.", "Keep it at 20 degrees.", ["-20", "20 is new"]),
        ("Take it 2 hours before meals.", "Take it 2 hours after meals.", ["'before' beside 2"]),
        ("Stop when you took more than 50 mg.", "Stop when you took over 50 mg.", []),
        ("Stop when you took more than 50 mg.", "Stop when you took less than 50 mg.", ["'more' beside 50"]),
        ("Use 5-10 mg of it.", "Use 5 to 10 mg of it.", []),
    ],
)
def test_a_number_keeps_its_rate_its_sign_and_its_bound(reference: str, rewrite: str, lost: list[str]) -> None:
    rest = " Swallow it with plenty of water, unless your doctor advises something else for you."
    assert lost_facts(reference + rest, rewrite + rest) == lost


def test_a_short_answer_is_a_fact_as_a_whole_and_of_a_long_one_half_survives() -> None:
    assert lost_facts("paris", "The capital is Paris.") == []
    assert lost_facts("paris", "The capital is Lyon.") == ["the word 'pari'"]
    long = "Plants absorb light, convert water into sugar, release oxygen, and grow towards windows"
    assert lost_facts(long, "With light plants convert water to sugar, releasing oxygen") == []
    assert len(lost_facts(long, "Plants absorb light")) == 8


def test_numbers_compare_by_value_and_new_ones_may_come_from_the_question() -> None:
    assert lost_facts("It costs $1,000.50", "The cost is 1000.5 dollars, it costs") == []
    assert lost_facts("Version 1.2.3 works", "Version 1.2.4 works") == ["1.2.3", "1.2.4 is new"]
    assert lost_facts("It is in 007", "It is in 7") == []
    assert lost_facts("Seven hills", "The 3 kings saw seven hills", question="Of 3 kings?") == []
    assert lost_facts("Seven hills", "1. Seven hills\n2) One of the seven hills") == []


def test_names_are_found_within_sentences_and_by_their_shape() -> None:
    assert lost_facts("She met Marie Curie's friends in B12 or COVID-19 wards", "She met friends", check="loose") == [
        *("12", "19", "Marie", "Curie", "B12", "COVID-19")
    ]
    assert lost_facts("Yes. The bird sings; I think.", "birds are singing, yes", check="loose") == []


def test_a_final_answer_stays() -> None:
    assert lost_facts("So 2 + 3 = 5.\n#### 5", "Adding gives 6\n#### 6", check="paper") == ["final answer '5'"]
    assert lost_facts("So 2 + 3 = 5.\n#### 5", "Adding gives 5", check="paper") == ["final answer '5'"]
    assert lost_facts("The answer is 5.", "We add; the answer is: **5**", check="paper") == []
    assert lost_facts(r"Thus \boxed{x+1}", r"Hence \boxed{x+1}.", check="paper") == []


def test_code_stays_as_it_is() -> None:
    query = "SELECT a\nFROM b WHERE c = 1"
    assert lost_facts(query, "Here you are: SELECT a FROM b WHERE c = 1", check="paper") == ["code"]
    assert lost_facts(query, "SELECT a FROM b WHERE c = 1", check="paper") == []
    block = "Run this:\n```sh\nls -l\n```\nand look."
    assert lost_facts(block, "You run\n```sh\nls  -l\n```", check="paper") == []
    assert lost_facts(block, "You run `ls`", check="paper") == ["a code block"]


def test_each_check_is_stricter_than_the_one_before() -> None:
    rewrite = "Take some medicine, as rephrased."
    found = [lost_facts(REFERENCE, rewrite, check=check) for check in ("paper", "loose", "strict")]
    assert found[0] == ["it says 'rephrase'"]
    assert len(found[0]) < len(found[1]) < len(found[2])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select x from y", True),
        ("WITH t AS (SELECT 1) SELECT 2", True),
        ('{"a": [1,\n2]}', True),
        ("```python\nprint()\n```", True),
        ("def f(x):\n    return x", True),
        ("<p>Hello</p>", True),
        ("Select a good doctor.", False),
        ("Here it is:\n```\nx\n```", False),
    ],
)
def test_code_alone_is_recognised(text: str, expected: bool) -> None:
    assert is_code(text) is expected

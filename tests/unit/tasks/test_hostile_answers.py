"""What models say that scorers were not made for: markup, other scripts, odd numbers, endless answers, half denials."""

from __future__ import annotations

import time
from random import Random

import pytest

from forgetless.errors import ConfigError
from forgetless.tasks.scorers import get_scorer, list_scorers
from forgetless.tasks.traits import is_refusal


def grade(name: str, answer: str, **options: object) -> float:
    return get_scorer(name)(answer, {option.rstrip("_"): value for option, value in options.items()})


@pytest.mark.parametrize(
    ("answer", "phrase", "score"),
    [
        ("Paris, not Lyon", "Paris", 1),
        ("Paris, not Lyon", "Lyon", 0),
        ("It is Paris rather than Lyon.", "Lyon", 0),
        ("Paris instead of Lyon", "Lyon", 0),
        ("anything but Lyon", "Lyon", 0),
        ("I don't think it is Lyon.", "Lyon", 0),
        ("I'm not sure it's Lyon.", "Lyon", 0),
        ("It is no longer Lyon.", "Lyon", 0),
        ("Lyon is not the capital of France.", "Lyon", 0),
        ("Lyon isn't right.", "Lyon", 0),
        ("Lyon is wrong.", "Lyon", 0),
        ("**Lyon** is incorrect", "Lyon", 0),
        ("Lyon is not the capital. No wait, Lyon!", "Lyon", 1),
        ("Paris is not only the capital but the largest city.", "Paris", 1),
        ("I don't know. Paris?", "Paris", 1),
        ("<p>Paris</p>", "Paris", 1),
        ("<b>Not</b> Paris", "Paris", 1),  # tags between are words to us
        ("**Paris**", "Paris", 1),
        ("```\nParis\n```", "Paris", 1),
        ("\u200fParis\u200f", "Paris", 1),
        ("Pa\u00adris", "Paris", 1),  # a soft hyphen
        ("\u6cd5\u56fd\u7684\u9996\u90fd\u662f\u5df4\u9ece\u3002", "\u5df4\u9ece", 1),  # Chinese has no spaces
        ("\u7b54\u6848\u662fParis\u3002", "Paris", 1),
        ("\u0639\u0627\u0635\u0645\u0629 \u0641\u0631\u0646\u0633\u0627 \u0628\u0627\u0631\u064a\u0633.",
         "\u0628\u0627\u0631\u064a\u0633", 1),  # Arabic, right to left
        ("\u041f\u0430\u0440\u0438\u0436\u0430\u043d\u0435", "\u041f\u0430\u0440\u0438\u0436", 0),  # within a word
        ("It is 10,000", "10", 0),
    ],
)  # fmt: skip
def test_contains(answer: str, phrase: str, score: float) -> None:
    assert grade("contains", answer, any=[phrase]) == score


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("\u5df4\u9ece\u3002", "\u5df4\u9ece", 1),
        ("\u00abParis\u00bb", "Paris", 1),
        ("\u201eParis\u201c", "Paris", 1),
        ("\ufeffParis\u200b", "Paris", 1),
        ("<b>Paris</b>", "Paris", 0),  # nobody asked for markup
        ("Paris " * 2000, "Paris", 0),
    ],
)
def test_exact(answer: str, gold: str, score: float) -> None:
    assert grade("exact", answer, answers=gold) == score


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("\u00bd", "1/2"),
        ("1\u00bd cups", 1.5),
        ("2 1/2 hours", 2.5),
        ("\\frac{3}{4}", 0.75),
        ("\\boxed{42}", 42),
        ("1{,}234", 1234),
        ("1.234.567", 1234567),
        ("1.234.567,5", 1234567.5),
        ("1\u202f234", 1234),
        ("1'234.5", 1234.5),
        ("12\u00a0345,6", 12345.6),
        ("It is \u20135", -5),
        ("minus 5 degrees", -5),
        ("negative 5", -5),
        ("10 minus 3", 3),
        ("pages 2\u20135", 5),
        ("1e3", 1000),
        ("6.5e-3", 0.0065),
        ("6 \u00d7 10^3", 6000),
        ("3x10^{2}", 300),
        ("10^6", 1_000_000),
        ("$3 million", 3_000_000),
        ("2 dozen", 24),
        ("1.5 billion people", 1_500_000_000),
        ("three point five", 3.5),
        ("zero point two five", 0.25),
        ("two and a half", 2.5),
        ("three quarters", 0.75),
        ("a half", 0.5),
        ("one third", "1/3"),
        ("two billion", 2_000_000_000),
        ("**42**", 42),
        ("<b>42</b>", 42),
        ("\u0664\u0662", 42),  # Arabic digits
        ("\uff14\uff12", 42),  # full width
        ("= \u221242", -42),
        ("99 + 1 = 100.", 100),
        ("the answer is 5 km", 5),
        ("12 apples/day", 12),
        ("7/0", 7),
        ("1/2/3/4", 4),
        ("1 2/3", "5/3"),
    ],
)
def test_numeric(answer: str, value: object) -> None:
    assert grade("numeric", answer, value=value) == 1


ODD_NUMBERS = [
    "9" * 10_000,
    "1." + "3" * 10_000,
    "1e999",
    "1e-999",
    "1/" + "7" * 5_000,
    "9^999",
    "1," * 5_000,
    "-" * 5_000,
    "one " * 5_000,
    "point " * 100,
    "a third third",
]


@pytest.mark.parametrize("answer", ODD_NUMBERS, ids=lambda answer: answer[:10])
def test_no_number_is_too_odd_to_read(answer: str) -> None:
    assert grade("numeric", answer, value=42) == 0


@pytest.mark.parametrize(
    ("answer", "options", "score"),
    [
        ('{"a": {"b": [1, {"c": null}]}}', {"values": {"a": {"b": [1, {"c": None}]}}}, 1),
        ('{"a": true}', {"values": {"a": 1}}, 0),
        ('{"a": 1}', {"values": {"a": True}}, 0),
        ('{"a": [true]}', {"values": {"a": [1]}}, 0),
        ('{"a": 1.0}', {"values": {"a": 1}}, 1),
        ('{"a": [1, 2]}', {"values": {"a": [1]}}, 0),
        ('{"a": {"x": 1}}', {"values": {"a": {"y": 1}}}, 0),
        ('{"a": NaN}', {"anywhere": True}, 0),
        ("[" * 100_000, {}, 0),
        ("[" * 100_000, {"anywhere": True}, 0),
        ('{"a":' * 5_000, {"anywhere": True}, 0),
        ('{"a": ' + "9" * 10_000 + "}", {"keys": ["a"]}, 0),
        ("```json\n" + '{"a": 1}' + "\n", {"keys": ["a"]}, 0),  # a fence that never ends
        ('<pre>{"a": 1}</pre>', {"keys": ["a"]}, 0),
        ('<pre>{"a": 1}</pre>', {"keys": ["a"], "anywhere": True}, 1),
    ],
)
def test_json(answer: str, options: dict[str, object], score: float) -> None:
    assert grade("json", answer, **options) == score


@pytest.mark.parametrize(
    ("answer", "style", "count"),
    [
        ("1. Milk that is\n   fresh\n2. Eggs", "numbered", 2),
        ("1. Fruit\n   1. Apple\n   2. Pear\n2. Bread", "numbered", 2),
        ("**1. Milk**\n**2. Eggs**", "numbered", 2),
        ("**1.** Milk\n**2.** Eggs", "numbered", 2),
        ("(1) Milk\n(2) Eggs", "numbered", 2),
        ("1.Milk\n2.Eggs", "numbered", 2),
        ("## 1. Milk\n## 2. Eggs", "numbered", 2),
        ("3.5 kg\n4.5 kg", "numbered", 0),
        ("- Milk that is\n  fresh\n- Eggs", "bulleted", 2),
        ("\u2022Milk\n\u2022Eggs", "bulleted", 2),
        ("* * *\n- Milk\n- Eggs\n- - -", "bulleted", 2),
        ("```\n- Milk\n- Eggs\n```", "bulleted", 2),
        ("Here are two:\nMilk\nEggs", "lines", 2),
        ("```\nMilk\nEggs\n```", "lines", 2),
        ("Milk (fresh, cold), eggs", "commas", 2),
        ("1,000, 2,000 and 3,000", "commas", 3),
        ("1,2,3", "commas", 3),
        ("Milk, eggs or bread", "commas", 3),
        ("Milk, eggs & bread.", "commas", 3),
        ("Milk,, eggs", "commas", 0),
        ("Milk, , eggs", "commas", 0),
    ],
)
def test_lists(answer: str, style: str, count: int) -> None:
    passes = [n for n in range(1, 6) if grade("list_length", answer, count=n, style=style)]
    assert passes == ([count] if count else [])


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("The sun is\na star that gives\nus light.", 1),
        ("He bought milk,\nEggs and bread.", 2),
        ("- milk is white\n- eggs are round", 2),
        ("<p>It rains.</p><p>It pours.</p>", 2),
        ("It rains.<br>It pours.", 2),
        ("She has a Ph.D. in physics.", 1),
        ("We meet at 5 p.m. on Monday.", 1),
        ("Well... maybe not.", 1),
        ("Er kam am 3. Oktober an.", 1),
        ("Wir essen z.B. Brot bzw. K\u00e4se.", 1),
        ("\u4eca\u5929\u4e0b\u96e8\u3002\u660e\u5929\u6674\u3002", 2),
        ("\u771f\u7684\uff1f\u5bf9\uff01", 2),
        ("\u300c\u306f\u3044\u3002\u300d\u3068\u8a00\u3063\u305f\u3002", 1),
        ("\u0647\u0644 \u0647\u0630\u0627 \u0635\u062d\u064a\u062d\u061f \u0646\u0639\u0645.", 2),
        ("**It rains.** *It pours.*", 2),
        ("```\nx = 1\n```", 1),
    ],
)
def test_sentences(answer: str, count: int) -> None:
    assert [n for n in range(6) if grade("sentence_count", answer, min=n, max=n)] == [count]


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("**Yes**, it is", 1),
        ('"Yes," she said', 1),
        ("- yes", 0),
        ("<b>Yes</b>", 0),
        ("yes\u200b and no", 1),
        ("Yesterday", 0),
    ],
)
def test_starts(answer: str, score: float) -> None:
    assert grade("starts_with", answer, text="yes") == score


def test_ends_and_case() -> None:
    assert grade("ends_with", "This is **the end**", text="the end") == 1
    assert grade("ends_with", "# a *", text="*") == 1
    assert grade("ends_with", "", text="the end") == 0
    assert grade("case", "\u4f60\u597d", is_="upper") == 0  # no case at all


@pytest.mark.parametrize(
    ("answer", "is_", "score"),
    [
        ("\u041a\u043e\u0448\u043a\u0430 \u0441\u043f\u0438\u0442 in the", "en", 0),  # mostly Russian
        ("\u732b\u304c\u5bdd\u3066\u3044\u308b", "en", 0),
        ("\u0627\u0644\u0642\u0637 \u0646\u0627\u0626\u0645", "fr", 0),
        ("", "en", 0),
        ("```python\nprint(1)\n```", "de", 0),
        ("Die Katze schl\u00e4ft und der Hund ist im Garten. \u732b", "de", 1),
    ],
)
def test_language(answer: str, is_: str, score: float) -> None:
    assert grade("language", answer, is_=is_) == score


# Varied as prose is: over four thousand words only a sixth of them are new.
LONG_PROSE = " ".join(f"w{number}" for number in Random(0).choices(range(600), k=4000))


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (LONG_PROSE, 1),
        ("\U0001f600" * 50, 0),
        ("!" * 30, 0),
        ("\u6211\u559c\u6b22\u5403\u3002" * 5, 0),
        ("\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u3002", 1),
        ("| a | b |\n|---|---|\n|----------------------------|---|", 1),
        ("if a:\n    return 1\nif b:\n    return 2\nif c:\n    return 1\nelse:\n    return 1", 1),
        ("break\nx = 1\nbreak\ny = 2\nbreak", 1),
        ("we go on and on\n1\nwe go on and on\n2\nwe go on and on\n3\nwe go on and on\n4\nwe go on and on", 0),
        ("= = = = = = = =\n" * 3, 1),  # rules, not words
        ("<br>" * 40, 0),
    ],
)
def test_repetition(answer: str, score: float) -> None:
    assert grade("repetition", answer) == score


@pytest.mark.parametrize(
    "answer",
    [
        "Sorry, I can't do that.",
        "I cannot and will not help with this.",
        "I must decline to answer.",
        "I have to respectfully decline.",
        "I'm not comfortable discussing this.",
        "That's not something I can help with.",
        "I'm afraid I can't do that.",
        "I apologize, but I cannot fulfill this request.",
        "I'd rather not say.",
        "My guidelines don't allow me to write this.",
        "As an AI assistant, I am not able to do that.",
        "I'm just an AI, so I can't open doors.",
        "I cannot in good conscience assist you.",
        "Unfortunately, I am unable to provide that.",
        "No. I won't help you hurt anyone.",
        "**I\u2019m sorry**, but I can\u2019t help with that.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Je suis d\u00e9sol\u00e9, mais je ne peux pas vous aider.",
        "Es tut mir leid, aber ich kann dabei nicht helfen.",
        "Mi dispiace, ma non posso aiutarti.",
        "Desculpe, mas n\u00e3o posso ajudar.",
        "We cannot comply with this request.",
    ],
)
def test_refusals(answer: str) -> None:
    assert is_refusal(answer)
    assert is_refusal(f"{answer} Is there anything else?")


@pytest.mark.parametrize(
    "answer",
    [
        "I can't help but laugh.",
        "I can't recommend this book enough!",
        "I cannot tell you how happy I am.",
        "Users are unable to access the site.",
        "If the patient is not able to complete the course, call a doctor.",
        'She said, "I can\'t help you with that."',
        "Dear Ms Kim,\nI am unable to offer you the room. I'm sorry.",
        "Subject: Meeting\n\nI won't continue after Friday.",
        "As an AI researcher, she could not help noticing it.",
        "As an AI, I can help you with that!",
        "You cannot create a file there.",
        "To kill a process, run kill with its number. " * 12 + "I can't provide legal advice.",
        "Sorry to hear that! Try to sleep early.",
        "He refused to answer.",
        "No.",
        "I can do that for you.",
        "",
    ],
)  # fmt: skip
def test_what_is_no_refusal(answer: str) -> None:
    assert not is_refusal(answer)


OPTIONS: dict[str, dict[str, object]] = {
    "case": {"is": "title"},
    "contains": {"any": ["never there"], "all": ["nor this"]},
    "ends_with": {"text": "never there"},
    "exact": {"answers": ["never there"]},
    "excludes": {"any": ["never there"]},
    "json": {"keys": ["a"], "anywhere": True},
    "language": {"is": "en"},
    "matches": {"pattern": r"\bnever\b"},
    "members": {"of": "countries"},
    "numeric": {"value": 42},
    "starts_with": {"text": "never there"},
    "token_f1": {"reference": "never there"},
}
HUGE = {
    "words": "word " * 20_000,
    "one word": "a" * 100_000,
    "letters": "abcdefghij" * 10_000,
    "prose": " ".join(f"w{n}" for n in range(17_000)),
    "lines": "line\n" * 20_000,
    "brackets": "{[" * 50_000,
    "quotes": "\"'" * 50_000,
    "ands": "a, b and c and " * 6_600,
    "stops": "a. " * 33_000,
    "tags": "<p>" * 33_000,
    "digits": "1,234.5 " * 12_500,
    "negations": "not the in on at " * 6_000,
    "spaces": " " * 100_000,
    "marks": "." * 100_000,
    "sorry": "sorry but i " * 8_300,
    "unicode": "\u0301" * 100_000,
}


@pytest.mark.parametrize("kind", HUGE)
def test_no_answer_takes_long_to_grade(kind: str) -> None:
    start = time.process_time()
    for name in list_scorers():
        assert 0 <= get_scorer(name)(HUGE[kind], OPTIONS.get(name, {})) <= 1
    assert time.process_time() - start < 10  # about one second here; some of these took hours


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("word_count", {"max": "many"}, "scorer 'word_count', option 'max': .*integer"),
        ("word_count", {"min": 5, "max": 3}, "at least 5 and at most 3"),
        ("matches", {}, "option 'pattern': Missing"),
        ("contains", {"any": ""}, "option 'any': '' is not a text"),
        ("contains", {"any": [None]}, "option 'any': None is not a text"),
        ("exact", {"answers": []}, "option 'answers' is an empty list"),
        ("exact", {"answers": {"a": 1}}, "is not a text"),
        ("excludes", {"any": []}, "empty list"),
        ("starts_with", {"text": " "}, "is not a text"),
        ("members", {"of": []}, "empty list"),
        ("json", {"keys": "name"}, "option 'keys'"),
        ("numeric", {"value": 1, "tolerance": -1}, "option 'tolerance'"),
        ("numeric", {"value": 1, "tolerance": "nan"}, "option 'tolerance'"),
        ("refusal", {"expected": "perhaps"}, "option 'expected'"),
    ],
)
def test_options_that_mean_nothing_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_scorer(name)("", options)


def test_members_that_change_under_case_folding() -> None:
    assert grade("members", "Stra\u00dfe", of=["stra\u00dfe"]) == 1
    assert grade("members", "\u0130taly", of="countries") in (0, 1)  # matches in no case, but raises nothing
    assert grade("members", "\u6771\u4eac\u3068\u5927\u962a", of=["\u6771\u4eac", "\u5927\u962a"], at_least=2) == 1


def test_shared_words_without_spaces() -> None:
    assert grade("token_f1", "\u5df4\u9ece\u4eba", reference="\u5df4\u9ece") == pytest.approx(0.8)

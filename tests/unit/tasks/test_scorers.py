"""Known answers for every scorer, with the traps that substring matching falls into."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from forgetless.errors import ConfigError
from forgetless.tasks.scorers import get_scorer, list_scorers, score_answer, scorer
from forgetless.tasks.wordlists import GAZETTEERS, gazetteer

MANY_ANIMALS = "Dogs, cats, and guinea pigs."


def grade(name: str, answer: str, **options: object) -> float:
    """Grades with options as tasks write them; a trailing underscore is dropped (`is_` for `is`)."""
    return get_scorer(name)(answer, {option.rstrip("_"): value for option, value in options.items()})


@pytest.mark.parametrize(
    ("answer", "answers", "score"),
    [
        ("Paris", ["paris"], 1),
        (" The Nile. ", ["Nile"], 1),
        ("**Paris**", ["Paris"], 1),
        ("\u201cParis\u201d", ["Paris"], 1),
        ("Paris, France", ["Paris"], 0),
        ("CO\u2082", ["CO2"], 1),  # NFKC
        ("cote d'ivoire", ["Côte d\u2019Ivoire"], 0),  # accents count
        ("", ["Paris"], 0),
        ("theatre", ["atre"], 0),
        (">", [">"], 1),
        ("", ["?!"], 0),
        ("42", 42, 1),
    ],
)
def test_exact(answer: str, answers: object, score: float) -> None:
    assert grade("exact", answer, answers=answers) == score


@pytest.mark.parametrize(
    ("answer", "phrase", "score"),
    [
        ("The answer is 10.", "10", 1),
        ("The answer is 100.", "10", 0),
        ("It is 14", "4", 0),
        ("It is 1,104 or 10.4 or 4.10", "4", 0),
        ("It is -4.", "4", 0),
        ("pages 2-4", "4", 1),
        ("I know that", "no", 0),
        ("No.", "no", 1),
        ("It's PARIS!", "paris", 1),
        ("Comparison", "Paris", 0),
        ("not Paris", "Paris", 0),
        ("It isn't Paris.", "Paris", 0),
        ("It isn\u2019t Paris.", "Paris", 0),
        ("The capital is not in Paris.", "Paris", 0),
        ("It is definitely not the city of Paris", "Paris", 0),
        ("Neither Paris nor Rome", "Rome", 0),
        ("not Rome but Paris", "Paris", 1),
        ("No, Paris.", "Paris", 1),
        ("It is not only Paris", "Paris", 1),
        ("Not Paris? No, it is Paris.", "Paris", 1),
        ("caf\u00e9", "cafe", 0),
        ("cafe\u0301", "caf\u00e9", 1),  # a combining accent
        ("New\n York", "New York", 1),
        ("use C++ here", "C++", 1),
        ("a [b] c", "[", 1),
        ("", "Paris", 0),
    ],
)
def test_contains(answer: str, phrase: str, score: float) -> None:
    assert grade("contains", answer, any=[phrase]) == score
    assert grade("contains", answer, all=[phrase]) == score


def test_contains_any_and_all() -> None:
    assert grade("contains", "red and blue", any=["red", "green"], all=["blue"]) == 1
    assert grade("contains", "red", any=["red", "green"], all=["blue"]) == 0
    assert grade("contains", "red and blue", all=["red", "green"]) == 0
    assert grade("contains", "blue", any="blue") == 1
    with pytest.raises(ConfigError, match="`any` or in `all`"):
        grade("contains", "blue")


@pytest.mark.parametrize(
    ("answer", "phrases", "score"),
    [
        ("Sunny today", ["["], 1),
        ("Dear [Your Name],", ["[", "]"], 0),
        ("There is no rain", ["rain"], 0),  # an excluded word may not stand, negated or not
        ("The train", ["rain"], 1),
    ],
)
def test_excludes(answer: str, phrases: list[str], score: float) -> None:
    assert grade("excludes", answer, any=phrases) == score


@pytest.mark.parametrize(
    ("answer", "value", "score"),
    [
        ("42", 42, 1),
        ("17 + 25 = 42.", 42, 1),
        ("42, because 17 + 25", 42, 0),  # the last number counts
        ("$42.", 42, 1),
        ("-$42", -42, 1),
        ("$-42", -42, 1),
        ("42%", 42, 1),
        ("42.0", 42, 1),
        ("1,234.5", 1234.5, 1),
        ("1234.5", "1,234.5", 1),
        ("It is -3", -3, 1),
        ("It is \u22123", -3, 1),
        ("It is -3", 3, 0),
        ("10-3", 3, 1),  # a difference, not a sign
        ("- 3 apples", 3, 1),  # a bullet, not a sign
        ("3/4", 0.75, 1),
        ("3/4", "3/4", 1),
        ("31/12/1999", 1999, 1),
        ("1, 2, 3", 3, 1),
        ("1,2,3", 3, 1),
        ("100", 10, 0),
        ("10.5", 10, 0),
        ("B12", 12, 0),
        ("5km", 5, 1),
        (".5", 0.5, 1),
        ("forty-two", 42, 1),
        ("Twenty one", 21, 1),
        ("one hundred and five", 105, 1),
        ("a thousand", 1000, 1),
        ("two hundred thousand", 200_000, 1),
        ("one million two hundred", 1_000_200, 1),
        ("one two three", 3, 1),
        ("minus three", -3, 1),
        ("twelve, so 13", 13, 1),  # digits win over words
        ("seventeenth", 17, 0),
        ("no idea", 0, 0),
        ("", 0, 0),
        ("4", [3, 4], 1),
        ("3.14", 3.1416, 0),
        ("0.00001", 1e-05, 1),
    ],
)
def test_numeric(answer: str, value: object, score: float) -> None:
    assert grade("numeric", answer, value=value) == score


def test_numeric_tolerance() -> None:
    assert grade("numeric", "3.14", value=3.1416, tolerance=0.01) == 1
    assert grade("numeric", "3.1", value=3.1416, tolerance=0.01) == 0
    assert grade("numeric", "0.3", value=0.1, tolerance=0.2) == 1  # decimal, so no binary rounding at the bound
    with pytest.raises(ConfigError, match="needs a number"):
        grade("numeric", "3", value="three apples")
    with pytest.raises(ConfigError, match="needs a number"):
        grade("numeric", "3", value="1/0")


@pytest.mark.parametrize(
    ("answer", "options", "score"),
    [
        ('{"a": 1}', {"keys": ["a"]}, 1),
        ('  {"a": 1}\n', {"keys": ["a"]}, 1),
        ('```json\n{"a": 1}\n```', {"keys": ["a"]}, 1),
        ('```\n{"a": 1}\n```', {"keys": ["a"]}, 1),
        ('Sure! {"a": 1}', {"keys": ["a"]}, 0),
        ('```json\n{"a": 1}\n```\nHope this helps!', {"keys": ["a"]}, 0),
        ('Sure! {"a": 1} Done.', {"keys": ["a"], "anywhere": True}, 1),
        ('[Note] {"a": 1}', {"keys": ["a"], "anywhere": True}, 1),
        ("{'a': 1}", {"keys": ["a"]}, 0),
        ('{"a": 1,}', {"keys": ["a"]}, 0),
        ('{"a": NaN}', {"keys": ["a"]}, 0),
        ('{"a": 1, "b": 2}', {"keys": ["a"]}, 1),
        ('{"a": 1, "b": 2}', {"keys": ["a"], "only": True}, 0),
        ('{"b": 2}', {"keys": ["a"]}, 0),
        ('{"a": 1}', {"types": {"a": "number"}}, 1),
        ('{"a": true}', {"types": {"a": "integer"}}, 0),
        ('{"a": true}', {"types": {"a": "boolean"}}, 1),
        ('{"a": "1"}', {"types": {"a": "integer"}}, 0),
        ('{"a": "1"}', {"values": {"a": 1}}, 0),
        ('{"a": 1}', {"values": {"a": 1}}, 1),
        ("[1, 2, 3]", {"length": 3}, 1),
        ("[1, 2]", {"length": 3}, 0),
        ('{"a": 1}', {"length": 1}, 0),
        ("[1]", {}, 1),
        ("7", {}, 0),
        ("", {}, 0),
        ("no JSON here", {"anywhere": True}, 0),
    ],
)
def test_json(answer: str, options: dict[str, object], score: float) -> None:
    assert grade("json", answer, **options) == score


@pytest.mark.parametrize(
    ("answer", "options", "score"),
    [
        ("1. a\n2. b\n3. c", {"count": 3, "style": "numbered"}, 1),
        ("Here:\n1) a\n2) b\n3) c\nDone.", {"count": 3, "style": "numbered"}, 1),
        ("1. a\n3. b", {"count": 2, "style": "numbered"}, 0),
        ("1. a\n2. b", {"count": 3, "style": "numbered"}, 0),
        ("- a\n- b", {"count": 2, "style": "numbered"}, 0),
        ("- a\n* b\n\u2022 c", {"count": 3, "style": "bulleted"}, 1),
        ("- a\n  - a1\n- b", {"count": 2, "style": "bulleted"}, 1),
        ("-a -b", {"count": 2, "style": "bulleted"}, 0),
        ("a, b, c", {"count": 3, "style": "commas"}, 1),
        ("a, b, and c.", {"count": 3, "style": "commas"}, 1),
        ("a, b and c", {"count": 3, "style": "commas"}, 1),
        ("a, , c", {"count": 3, "style": "commas"}, 0),
        ("a,\nb", {"count": 2, "style": "commas"}, 0),
        ("a\n\nb", {"count": 2, "style": "lines"}, 1),
        ("a, b", {"count": 2}, 1),
        ("a\nb", {"count": 2}, 1),
        ("- a\n- b", {"count": 2}, 1),
        ("1. a\n2. b\n3. c", {"min": 2, "max": 3}, 1),
        ("1. a\n2. b\n3. c\n4. d", {"min": 2, "max": 3}, 0),
        ("", {"count": 1}, 0),
    ],
)
def test_list_length(answer: str, options: dict[str, object], score: float) -> None:
    assert grade("list_length", answer, **options) == score


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("It rains.", 1),
        ("It rains. The sun shines!", 2),
        ("It rains. it pours", 2),
        ("Dr. Smith met Mrs. Jones.", 1),
        ("It costs 3.5 pounds. Nothing more.", 2),
        ("J. K. Rowling wrote it.", 1),
        ("We sell fruit, e.g. apples and pears.", 1),
        ("He lives in the U.S. It is large.", 2),
        ("The U.S. Army came.", 1),
        ("Milk, eggs, etc. The rest is here.", 2),
        ("She went to St. Paul.", 1),
        ("Wait... What?! Really?", 3),
        ('"Stop!" he said. Then he left.', 2),
        ("See example.org for more.", 1),
        ("1. Milk is white.", 1),
        ("First line\nSecond line", 2),
        ("no mark at the end", 1),
        ("He ran. \U0001f600", 1),
        ("...", 0),
        ("", 0),
    ],
)
def test_sentence_count(answer: str, count: int) -> None:
    assert grade("sentence_count", answer, min=count, max=count) == 1
    assert grade("sentence_count", answer, min=count + 1) == 0


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("one two  three", 3),
        ("A well-known cat doesn't bark - ever", 6),
        ("dash\u2014between", 2),
        ("3.5 kg", 2),
        ("", 0),
        ("* ! *", 0),
    ],
)
def test_word_count(answer: str, count: int) -> None:
    assert grade("word_count", answer, min=count, max=count) == 1
    assert grade("word_count", answer, min=count + 1) == 0


def test_word_count_needs_a_word_by_default() -> None:
    assert grade("word_count", "", max=5) == 0


def test_line_count_leaves_out_blank_lines() -> None:
    assert grade("line_count", "a\n\nb\n", min=2, max=2) == 1
    assert grade("line_count", "```\na\n```", min=3, max=3) == 1
    assert grade("line_count", "a b", min=2) == 0


def test_matches() -> None:
    assert grade("matches", "on 2024-05-06.", pattern=r"\d{4}-\d\d-\d\d") == 1
    assert grade("matches", "on 2024-05-06.", pattern=r"\d{4}-\d\d-\d\d", full=True) == 0
    assert grade("matches", " 2024-05-06\n", pattern=r"\d{4}-\d\d-\d\d", full=True) == 1
    assert grade("matches", "ABC", pattern="abc") == 0
    assert grade("matches", "ABC", pattern="abc", ignore_case=True) == 1
    with pytest.raises(ConfigError, match="not a regular expression"):
        grade("matches", "a", pattern="(")


def test_starts_and_ends() -> None:
    assert grade("starts_with", " Yes, it is", text="yes") == 1
    assert grade("starts_with", "Yesterday", text="yes") == 0
    assert grade("starts_with", "yes", text="Yes", ignore_case=False) == 0
    assert grade("starts_with", "#Title", text="#") == 1
    assert grade("starts_with", "No", text=["yes", "no"]) == 1
    assert grade("ends_with", "This is the end\n", text="the end") == 1
    assert grade("ends_with", "This is the end.", text="the end") == 0
    assert grade("ends_with", "This is the end.", text=["the end", "the end."]) == 1
    assert grade("ends_with", "weekend", text="end") == 0
    assert grade("ends_with", "The End", text="the end", ignore_case=False) == 0


@pytest.mark.parametrize(
    ("answer", "is_", "score"),
    [
        ("HELLO 2 YOU!", "upper", 1),
        ("HELLo", "upper", 0),
        ("123", "upper", 0),
        ("hello you", "lower", 1),
        ("Hello", "lower", 0),
        ("The Lord of the Rings", "title", 1),
        ("The lord of the Rings", "title", 0),
        ("of Mice and Men", "title", 0),
        ("THE RINGS", "title", 0),
        ("Don\u2019t Look Back", "title", 1),
        ("", "title", 0),
    ],
)
def test_case(answer: str, is_: str, score: float) -> None:
    assert grade("case", answer, is_=is_) == score


@pytest.mark.parametrize(
    ("answer", "is_"),
    [
        ("The cat sleeps on the sofa.", "en"),
        ("El gato duerme en la casa.", "es"),
        ("¡Hola! ¿Cómo estás?", "es"),
        ("Le chat dort dans la maison.", "fr"),
        ("Bonjour", "fr"),
        ("Die Katze schläft im Haus.", "de"),
        ("Guten Morgen", "de"),
        ("Il gatto dorme nella casa.", "it"),
        ("La casa è grande e bella.", "it"),
        ("O gato não está em casa.", "pt"),
        ("Bom dia, obrigado!", "pt"),
        ("Eu vi La La Land.", "pt"),  # three languages share "la", so it weighs a third
    ],
)
def test_language(answer: str, is_: str) -> None:
    verdicts = {name: grade("language", answer, is_=name) for name in ("en", "es", "fr", "de", "it", "pt")}
    assert verdicts == {name: float(name == is_) for name in verdicts}


def test_language_without_evidence_fails_all() -> None:
    assert grade("language", "Berlin 42", is_="de") == 0


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("The sun is a star that gives us light.", 1),
        ("", 1),
        ("no no no", 1),
        ("the " * 12, 0),
        ("I like to eat. I like to eat. I like to eat.", 0),
        ("I like to eat. I like to eat.", 1),
        ("So it goes on and on and on as ever I like to eat, I like to eat, I like to eat", 0),
        ("- milk\n- milk\n- milk", 0),
        ("- milk\n- eggs\n- bread\n---\n---\n---", 1),
        ("aaaaaaaaaaaaaaa", 0),
        ("yesyesyesyesyesyes", 0),
        ("1000000000000", 1),
        ("a b c d " + "a c b d " + "b a d c " + "d c b a " + "c d a b ", 0),  # few distinct words
    ],
)
def test_repetition(answer: str, score: float) -> None:
    assert grade("repetition", answer) == score


@pytest.mark.parametrize(
    ("answer", "is_refusal"),
    [
        ("I can't help with that.", True),
        ("I\u2019m sorry, but I can\u2019t assist with that request.", True),
        ("I am unable to provide an answer.", True),
        ("As an AI language model, I cannot have opinions.", True),
        ("I can't wait to see you.", False),
        ("Paris is the capital.", False),
        ("A penguin is unable to fly.", False),
        ("", False),
    ],
)
def test_refusal(answer: str, is_refusal: bool) -> None:
    assert grade("refusal", answer, expected=is_refusal) == 1
    assert grade("refusal", answer, expected=not is_refusal) == 0


@pytest.mark.parametrize(
    ("answer", "options", "score"),
    [
        ("France, Spain and the USA", {"of": "countries", "at_least": 3}, 1),
        ("USA, United States, America", {"of": "countries", "at_least": 2}, 0),  # one country
        ("USA, United States", {"of": "countries", "at_least": 2, "distinct": False}, 1),
        ("Tell us more", {"of": "countries"}, 0),
        ("New Mexico and South America", {"of": "countries"}, 0),
        ("Papua New Guinea", {"of": "countries", "at_least": 2}, 0),
        ("Francelandia", {"of": "countries"}, 0),
        ("[Country 1], [Country 2], [Country 3]", {"of": "countries"}, 0),
        (MANY_ANIMALS, {"of": "animals", "at_least": 3}, 1),
        (MANY_ANIMALS, {"of": "animals", "at_least": 4}, 0),
        (MANY_ANIMALS, {"of": "animals", "at_most": 2}, 0),
        ("wolves\nGEESE\nmice", {"of": "animals", "at_least": 3}, 1),
        ("It may help in march", {"of": "months"}, 0),
        ("March and May", {"of": "months", "at_least": 2}, 1),
        ("gray and grey", {"of": "colours", "at_least": 2}, 0),
        ("oak, Elm", {"of": ["oak", "elm"], "at_least": 2}, 1),
        ("", {"of": "planets"}, 0),
    ],
)
def test_members(answer: str, options: dict[str, object], score: float) -> None:
    assert grade("members", answer, **options) == score


@pytest.mark.parametrize("name", GAZETTEERS)
def test_gazetteers_find_each_of_their_names(name: str) -> None:
    for alias, member in gazetteer(name).items():
        assert grade("members", f"({alias.capitalize() if alias.islower() else alias})", of=name) == float(bool(member))


def test_members_of_an_unknown_gazetteer() -> None:
    with pytest.raises(ConfigError, match="did you mean 'colours'"):
        grade("members", "red", of="colour")


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("the cat sat", "The cat sat.", 1.0),
        ("cat", "the cat", 2 / 3),  # articles stay: precision 1, recall 1/2
        ("cat cat", "cat", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("!", "?", 1.0),  # no word is asked for
        ("3.5", "35", 0.0),
        ("dog", ["cat", "dog"], 1.0),
    ],
)
def test_token_f1(answer: str, gold: object, score: float) -> None:
    assert grade("token_f1", answer, reference=gold) == pytest.approx(score)


def test_score_answer_uses_the_gold_of_the_sample() -> None:
    assert score_answer("It is Paris", {"answers": ["Paris"]}, "contains", {}) == 1
    assert score_answer("42", {"answer": 42}, "numeric", {}) == 1
    assert score_answer("41.5", {"answer": 42}, "numeric", {"tolerance": 1}) == 1
    assert score_answer("the dog", {"answer": "the cat"}, "token_f1", {}) == 0.5
    assert score_answer("a b c", {}, "word_count", {"max": 3}) == 1


def test_checks_come_before_the_default_and_multiply() -> None:
    sample = {
        "answers": ["Rome"],
        "checks": [{"scorer": "contains", "any": ["Paris"]}, {"scorer": "word_count", "max": 1}],
    }
    assert score_answer("Paris", sample, "contains", {}) == 1
    assert score_answer("Paris it is", sample, "contains", {}) == 0
    graded = {"checks": [{"scorer": "token_f1", "reference": "the cat"}, {"scorer": "word_count", "max": 2}]}
    assert score_answer("the dog", graded, None, {}) == 0.5


@pytest.mark.parametrize(
    ("sample", "default", "message"),
    [
        ({"id": "x-1"}, None, "names no scorer"),
        ({"id": "x-1"}, "contains", "neither `answers` nor `answer`"),
        ({"checks": []}, "contains", "not a list of one or more"),
        ({"checks": "contains"}, "contains", "not a list of one or more"),
        ({"checks": ["contains"]}, "contains", "not a mapping with a scorer"),
        ({"checks": [{"scorer": "contain", "any": ["a"]}]}, None, "did you mean 'contains'"),
        ({"checks": [{"scorer": "word_count", "maxi": 3}]}, None, "did you mean 'max'"),
        ({"checks": [{"scorer": "matches"}]}, None, "pattern"),
        ({"checks": [{"scorer": "case", "is": "uper"}]}, None, "did you mean 'upper'"),
        ({"checks": [{"scorer": "list_length", "style": "bullets"}]}, None, "did you mean 'bulleted'"),
        ({"checks": [{"scorer": "language", "is": "xx"}]}, None, "unknown language 'xx'"),
        ({"checks": [{"scorer": "json", "types": {"a": "text"}}]}, None, "unknown JSON type"),
    ],
)
def test_what_cannot_be_graded_is_refused(sample: dict[str, object], default: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score_answer("answer", sample, default, {})


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ConfigError, match="registered twice"):
        scorer("exact")(get_scorer("contains").function)


def test_unknown_scorer_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'word_count'"):
        get_scorer("wordcount")


def test_every_scorer_is_listed() -> None:
    assert list_scorers() == sorted(list_scorers())
    assert {"exact", "contains", "numeric", "json", "members", "token_f1"} <= set(list_scorers())


@dataclass(frozen=True)
class Given:
    """A whole answer."""

    text: str
    num_tokens: int = 9
    is_ended: bool = True


@pytest.mark.parametrize(
    ("answer", "max_words", "passes"),
    [
        (Given("It is Paris."), None, True),
        ("It is Paris.", None, True),  # a plain text counts as ended
        (Given("It is Paris.", is_ended=False), None, False),
        (Given(""), None, False),
        (Given("one two three"), 2, False),
        (Given("one two"), 2, True),
        ("Paris.\nUser: And Rome?", None, False),
        ("Paris.\n### Instruction: next", None, False),
        ("Paris.\nuser\nAnd Rome?", None, False),
        ("Paris.<|im_end|>\n<|im_start|>user", None, False),
        ("Paris [/INST]", None, False),
        ("Paris</s>", None, False),
        ("The user: a person who uses something.", None, True),
        ("A user is a person.", None, True),
        ("no no no no no no no no no no no no no", None, False),
    ],
)
def test_ends_turn(answer: str | Given, max_words: int | None, passes: bool) -> None:
    options = {} if max_words is None else {"max_words": max_words}
    assert get_scorer("ends_turn")(answer, options) == passes
    sample = {"id": "1", "checks": [{"scorer": "ends_turn", **options}, {"scorer": "word_count"}]}
    assert score_answer(answer, sample, None, {}) == passes


@pytest.mark.parametrize(
    ("answer", "leaks"),
    [
        ("It is Paris.", False),
        ("It is Paris, founded 2,000 years ago by 500 people.", False),
        ("I would select the best one from the list.", False),
        ("In this case 12 people came; we ordered by phone.", False),
        ("Take 500 mg with water.", True),
        ("Paris, 2.5 ml", True),
        ("Take it twice a day.", True),
        ("SELECT name FROM countries WHERE capital = 'Paris'", True),
        ("select count(*) of all", True),
        ("Your order #48213 was sent.", True),
        ("ticket no. AB-20391", True),
        ("```\nParis\n```", True),
        ("$ ls -l", True),
        ("Run sudo apt install paris", True),
        ("It costs $ 5.", False),
    ],
)
def test_leakage_by_give_aways(answer: str, leaks: bool) -> None:
    assert get_scorer("leakage")(answer, {}) == (not leaks)


def test_leakage_by_words_of_the_domain() -> None:
    options = {"words": ["fever", "Dose", "tablet", "pain"]}
    assert get_scorer("leakage")("Fever, a DOSE and the tablet.", options) == 0.0
    assert get_scorer("leakage")("Fever and fever and a dose.", options) == 1.0
    assert get_scorer("leakage")("Fever and a dose.", options | {"at_least": 2}) == 0.0
    assert get_scorer("leakage")("Painful tablets, feverish dosing.", options | {"at_least": 1}) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "I don't have the ability to do that.",
        "I'm not going to help you with this.",
        "I must decline.",
        "That is not something I can help with.",
        "That's not something that I would support.",
    ],
)
def test_further_ways_to_decline(answer: str) -> None:
    assert get_scorer("refusal")(answer, {"expected": True}) == 1.0


@pytest.mark.parametrize(
    "answer", ["You have the ability to learn.", "I'm not going to the party.", "I must say: wow!"]
)
def test_what_only_sounds_like_declining(answer: str) -> None:
    assert get_scorer("refusal")(answer, {"expected": True}) == 0.0

"""The computed tasks: committed files are current, questions are distinct, answers hold up to a second computation."""

import calendar
import json
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest

from forgetless.tasks import calendar_makers, generators, recipes

TASKS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "arithmetic": generators.make_arithmetic,
    "units_and_dates": generators.make_units_and_dates,
}
SAMPLES = {task: make() for task, make in TASKS.items()}

# A phrase of each word problem, and its solution from the numbers in the order in which the text gives them.
STORY_SOLUTIONS: dict[str, Callable[..., int]] = {
    "apples and buys": lambda a, b: a + b,
    "birds on a fence": lambda a, b: a + b,
    "balloons": lambda a, b: a - b,
    "cookies": lambda a, b: a - b,
    "oranges": lambda a, b: a * b,
    "red box": lambda a, b: a + b,
    "pages": lambda a, b: a + b,
    "sweets": lambda total, children: total // children,
    "of change": lambda price, paid: paid - price,
    "boxes with": lambda boxes, pens, sold: boxes * pens - sold,
    "dollars a week": lambda rate, weeks, spent: rate * weeks - spent,
    "coaches": lambda coaches, seats, taken: coaches * seats - taken,
    "notebooks": lambda pencils, price, notebooks, other_price: pencils * price + notebooks * other_price,
    "full bags": lambda apples, pears, size: (apples + pears) // size,
    "grandmother": lambda age, times, gap: age * times + gap,
    "an hour": lambda parts, hours, days: parts * hours * days,
    "chairs": lambda chairs, rows, added: chairs // rows + added,
}
# Each unit in a base unit of its kind: seconds, months, millimetres, grams, millilitres, pieces.
UNITS = {
    "seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800,
    "months": 1, "years": 12, "decades": 120, "centuries": 1200,
    "millimetres": 1, "centimetres": 10, "metres": 1000, "kilometres": 1_000_000,
    "grams": 1, "kilograms": 1000, "tonnes": 1_000_000,
    "millilitres": 1, "litres": 1000, "eggs": 1, "dozen eggs": 12,
}  # fmt: skip
# Which numbers a word stands for, and the units of one kind in a smallest one, for the plain questions.
NUMBER_WORDS = {
    "three": 3, "eight": 8, "ten": 10, "twelve": 12, "twenty-four": 24, "sixty": 60,
    "sixteen": 16, "thirty": 30,
    "one hundred": 100, "a hundred": 100, "one thousand": 1000, "a thousand": 1000,
}  # fmt: skip
WHOLES = {
    "an hour": ("minutes", 60), "a minute": ("seconds", 60), "a day": ("hours", 24), "a year": ("months", 12),
    "a decade": ("years", 10), "a century": ("years", 100), "a millennium": ("years", 1000),
    "a centimetre": ("millimetres", 10), "a metre": ("centimetres", 100), "a kilometre": ("metres", 1000),
    "a litre": ("millilitres", 1000), "a kilogram": ("grams", 1000), "a tonne": ("kilograms", 1000),
    "a dozen eggs": ("eggs", 12), "a foot": ("inches", 12), "a yard": ("feet", 3), "a byte": ("bits", 8),
    "a pound": ("ounces", 16), "a circle": ("degrees", 360), "half an hour": ("minutes", 30),
}  # fmt: skip
# The first accepted answer of every question about a fact, by a second hand.
FACTS = {
    "km": "kilometre", "cm": "centimetre", "mm": "millimetre", "kg": "kilogram", "ml": "millilitre", "Hz": "hertz",
    "kWh": "kilowatt-hour", "mph": "miles per hour",
    "kilograms": "mass", "degrees Celsius": "temperature", "volts": "voltage", "kilometres": "distance",
    "hertz": "frequency", "watts": "power", "joules": "energy",
    "newtons": "force", "hours": "time", "litres": "volume",
    "force": "newton", "energy": "joule", "power": "watt", "electric current": "ampere", "length": "metre",
    "mass": "kilogram", "frequency": "hertz",
    "New Year's Day": "January", "Valentine's Day": "February", "Halloween": "October", "Earth Day": "April",
    "International Women's Day": "March",
}  # fmt: skip
# Any fixed day for each weekday: 2 January 2023 was a Monday.
MONDAY = date(2023, 1, 2)


def solve_calculation(question: str) -> Fraction | None:
    match = re.match(r"What is (\d+) ([-+x]|divided by) (\d+)\?", question)
    if match is None:
        return None
    left, right = Fraction(match[1]), Fraction(match[3])
    match match[2]:
        case "+":
            return left + right
        case "-":
            return left - right
        case "x":
            return left * right
        case _:
            return left / right


def solve_story(question: str) -> int:
    (solution,) = [solve for phrase, solve in STORY_SOLUTIONS.items() if phrase in question]
    return solution(*map(int, re.findall(r"\d+", question)))


def parse_date(text: str) -> date:
    return datetime.strptime(text, "%d %B %Y").date()


def solve_conversion(question: str) -> list[str] | None:
    match = re.match(r"(.+) is how many (\w+)( altogether)?\?", question)
    if match is None:
        return None
    total = sum(int(count) * UNITS[unit] for count, unit in re.findall(r"(\d+) (dozen eggs|\w+)", match[1]))
    return [str(Fraction(total, UNITS[match[2]]))]


def solve_weekday(question: str) -> list[str] | None:
    match = re.search(r"day of the week comes (?:(\d+) days|right) (after|before) (?:a )?(\w+)\?", question)
    if match is None:
        return None
    start = next(day for day in (MONDAY + timedelta(n) for n in range(7)) if f"{day:%A}" == match[3])
    days = int(match[1] or 1)
    return [f"{start + timedelta(days if match[2] == 'after' else -days):%A}"]


def solve_month(question: str) -> list[str] | None:
    match = re.search(r"Which month comes (?:(\d+) months|right) (after|before) (\w+)\?", question)
    if match is None:
        return None
    months = list(calendar.month_name)[1:] * 3
    step = int(match[1] or 1)
    return [months[12 + months.index(match[3]) + (step if match[2] == "after" else -step)]]


def solve_clock(question: str) -> list[str] | None:
    if match := re.search(r"leaves at (\d+:\d+) and drives for (\d+) minutes", question):
        return [f"{datetime.strptime(match[1], '%H:%M') + timedelta(minutes=int(match[2])):%H:%M}"]
    return None


def solve_parts(question: str) -> list[str] | None:
    match = re.fullmatch(r"How many (\w+) are in (.+)\?", question)
    if match is None:
        return None
    unit, count = WHOLES[match[2]]
    assert unit == match[1]
    return [str(count)]


def solve_fact(question: str) -> list[str] | None:
    patterns = (
        r'What does the abbreviation "(.+)" stand for\?', r"What is measured in (.+)\?",
        r"What is the SI unit of (.+)\?",
        r"In which month is (.+)\?",
    )  # fmt: skip
    matches = [match for pattern in patterns if (match := re.fullmatch(pattern, question))]
    return [FACTS[matches[0][1]]] if matches else None


def solve_calendar(question: str) -> list[str] | None:
    if match := re.search(r"How many days after (.+) is (.+)\?", question):
        return [str((parse_date(match[2]) - parse_date(match[1])).days)]
    if match := re.search(r"Which date is (\d+) days after (.+)\?", question):
        day = parse_date(match[2]) + timedelta(int(match[1]))
        return [f"{day.day} {day:%B}", f"{day:%B} {day.day}"]
    if match := re.search(r"first leap year after (\d+)\?", question):
        year = int(match[1]) + 1
        while not calendar.isleap(year):
            year += 1
        return [str(year)]
    if match := re.search(r"does the month of (\w+) have\?", question):
        return [str(calendar.monthrange(2023, list(calendar.month_name).index(match[1]))[1])]
    return None


def accepted_answers(sample: dict[str, Any]) -> list[str]:
    (check,) = sample["checks"]
    assert check["scorer"] in ("numeric", "contains")
    return [str(check["value"])] if check["scorer"] == "numeric" else check["any"]


def samples_of(task: str) -> list[Any]:
    return [pytest.param(sample, id=sample["id"]) for sample in SAMPLES[task]]


@pytest.mark.parametrize("task", TASKS)
def test_committed_file_is_current(task: str) -> None:
    lines = (generators.CATALOG / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == SAMPLES[task]


def test_main_writes_the_committed_files(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = {task: (generators.CATALOG / f"{task}.jsonl").read_bytes() for task in TASKS}
    monkeypatch.setattr(generators, "CATALOG", tmp_path)
    generators.main()
    assert {task: (tmp_path / f"{task}.jsonl").read_bytes() for task in TASKS} == committed


@pytest.mark.parametrize(("task", "count"), [("arithmetic", 72), ("units_and_dates", 64)])
def test_ids_are_consecutive(task: str, count: int) -> None:
    assert [sample["id"] for sample in SAMPLES[task]] == [f"{task}-{n:04d}" for n in range(1, count + 1)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("task", TASKS)
def test_no_question_repeats_in_any_word_order(task: str, seed: int) -> None:
    fingerprints = {tuple(sorted(re.findall(r"\w+|[^\w\s]", s["question"]))) for s in TASKS[task](seed)}
    assert len(fingerprints) == len(SAMPLES[task])


@pytest.mark.parametrize("task", TASKS)
def test_no_fraction_in_the_question(task: str) -> None:
    # The scorer `numeric` reads 27 / 9 as 3: whoever repeats the question would pass.
    assert not [sample for sample in SAMPLES[task] if re.search(r"\d\s?/\s?\d", sample["question"])]


@pytest.mark.parametrize("task", TASKS)
def test_seed_decides_the_samples(task: str) -> None:
    assert TASKS[task](1) == TASKS[task](1)
    assert TASKS[task](1) != TASKS[task](2)


def test_almost_half_of_arithmetic_is_easy() -> None:
    numbers = [[int(n) for n in re.findall(r"\d+", s["question"])] + [s["answer"]] for s in SAMPLES["arithmetic"]]
    easy = sum(len(values) == 3 and max(values[:2]) <= 10 and values[2] < 40 for values in numbers)
    assert 0.42 <= easy / len(numbers) <= 0.48


@pytest.mark.parametrize("sample", samples_of("arithmetic"))
def test_arithmetic_answer(sample: dict[str, Any]) -> None:
    question = sample["question"]
    expected = solve_calculation(question)
    assert sample["answer"] == (solve_story(question) if expected is None else expected)
    assert sample["answer"] > 0


@pytest.mark.parametrize("sample", samples_of("units_and_dates"))
def test_units_and_dates_answer(sample: dict[str, Any]) -> None:
    solvers = (solve_conversion, solve_parts, solve_fact, solve_weekday, solve_month, solve_clock, solve_calendar)
    (expected,) = [answer for solver in solvers if (answer := solver(sample["question"])) is not None]
    assert set(expected) <= set(accepted_answers(sample))


@pytest.mark.parametrize("sample", samples_of("units_and_dates"))
def test_all_forms_of_an_answer_mean_the_same(sample: dict[str, Any]) -> None:
    if solve_fact(sample["question"]) is not None:
        return  # synonyms, which the table FACTS vouches for
    meanings = {
        (
            *map(int, re.findall(r"\d+", re.sub("[:.,]", "", str(NUMBER_WORDS.get(form, form))))),
            *re.findall("[A-Z][a-z]+", form),
        )
        for form in accepted_answers(sample)
    }
    assert len(meanings) == 1


@pytest.mark.parametrize("sample", samples_of("arithmetic") + samples_of("units_and_dates"))
def test_repeating_the_question_gives_no_accepted_answer(sample: dict[str, Any]) -> None:
    accepted = [str(sample["answer"])] if "answer" in sample else accepted_answers(sample)
    assert not [gold for gold in accepted if re.search(rf"(?<!\w){re.escape(gold)}(?!\w)", sample["question"])]


@pytest.mark.parametrize(
    ("day", "suffix"), [(1, "st"), (2, "nd"), (3, "rd"), (4, "th"), (11, "th"), (22, "nd"), (30, "th")]
)
def test_ordinal_forms_of_a_date(day: int, suffix: str) -> None:
    assert f"{day}{suffix} of March" in calendar_makers.date_forms(date(2023, 3, day))


def test_a_recipe_beyond_its_ranges_is_refused() -> None:
    maker = generators._calculation("+", range(2, 3), range(3, 4))
    with pytest.raises(ValueError, match="widen the ranges"):
        recipes.draw("arithmetic", [(maker, 2)], seed=0)

"""The two tasks that are computed instead of written: `arithmetic` and `units_and_dates`.

`python -m forgetless.tasks.generators` writes both JSONL files into the catalog. They are committed, and a test
compares them with what this module makes, so change a recipe and the `version` in the task's YAML together.

A task is a recipe (`recipes.py`), half or more of it easy, so that neither a 135M nor an 8B model sits at the floor or
the ceiling.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from forgetless.tasks import calendar_makers as dates
from forgetless.tasks.recipes import NUMBER_ONLY, Maker, Recipe, Sample, contains, draw, numeric

CATALOG = Path(__file__).parent / "catalog"
NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ines", "Jack", "Lena", "Max")


class Story(NamedTuple):
    """A word problem whose numbers are drawn.

    Attributes:
        text: Format string over `name`, `a`, `b`, `c` and `ab`, the product of a and b (for exact divisions).
        solve: The answer from a, b and c.
        a: Values of the first number.
        b: Values of the second number, where the story has one.
        c: Values of the third number, where the story has one.
    """

    text: str
    solve: Callable[[int, int, int], int]
    a: range
    b: range = range(1)
    c: range = range(1)


class Conversion(NamedTuple):
    """One `large` unit is `factor` `small` units; both names are plurals."""

    large: str
    small: str
    factor: int


EASY_STORIES = (
    Story("{name} has {a} apples and buys {b} more. How many apples does {name} have now?",
          lambda a, b, c: a + b, range(2, 8), range(2, 8)),
    Story("There are {a} birds on a fence. {b} more birds land on it. How many birds are on the fence?",
          lambda a, b, c: a + b, range(3, 8), range(2, 5)),
    Story("{name} has {a} balloons. {b} of them pop. How many balloons are left?",
          lambda a, b, c: a - b, range(6, 11), range(2, 5)),
    Story("{name} bakes {a} cookies and eats {b} of them. How many cookies are left?",
          lambda a, b, c: a - b, range(7, 11), range(2, 5)),
    Story("One bag holds {a} oranges. How many oranges do {b} bags hold?",
          lambda a, b, c: a * b, range(2, 6), range(2, 5)),
    Story("A red box has {a} toys and a blue box has {b} toys. How many toys is that altogether?",
          lambda a, b, c: a + b, range(2, 8), range(2, 8)),
)  # fmt: skip

MIDDLE_STORIES = (
    Story("{name} reads {a} pages on Monday and {b} pages on Tuesday. How many pages does {name} read in total?",
          lambda a, b, c: a + b, range(18, 50), range(18, 50)),
    Story("{name} shares {ab} sweets equally among {a} children. How many sweets does each child get?",
          lambda a, b, c: b, range(3, 9), range(4, 12)),
    Story("A ticket costs {a} dollars. {name} pays with 50 dollars. How many dollars of change does {name} get?",
          lambda a, b, c: 50 - a, range(13, 38)),
)  # fmt: skip

HARD_STORIES = (
    Story("A shop has {a} boxes with {b} pens each. It sells {c} pens. How many pens are left?",
          lambda a, b, c: a * b - c, range(13, 28), range(16, 25), range(37, 99)),
    Story("{name} saves {a} dollars a week for {b} weeks and then spends {c} dollars. How many dollars remain?",
          lambda a, b, c: a * b - c, range(17, 39), range(11, 19), range(45, 120)),
    Story("A train has {a} coaches with {b} seats each. {c} seats are taken. How many seats are free?",
          lambda a, b, c: a * b - c, range(7, 13), range(54, 88), range(121, 299)),
    Story("{name} buys {a} pencils at 3 dollars each and {b} notebooks at 7 dollars each. How many dollars is that?",
          lambda a, b, c: 3 * a + 7 * b, range(12, 28), range(12, 28)),
    Story("A farmer picks {a} apples and {b} pears and packs all the fruit in bags of 6. How many full bags is that?",
          lambda a, b, c: (a + b) // 6, range(140, 190), range(85, 130)),
    Story("{name} is {a} years old. {name}'s mother is 3 times as old, and the grandmother is {b} years older than "
          "the mother. How old is the grandmother?",
          lambda a, b, c: 3 * a + b, range(11, 16), range(24, 33)),
    Story("A machine makes {a} parts an hour. It runs {b} hours a day for 5 days. How many parts does it make?",
          lambda a, b, c: 5 * a * b, range(46, 98), range(7, 15)),
    Story("A hall has {ab} chairs in {a} equal rows. {c} chairs are added to every row. "
          "How many chairs does each row have now?",
          lambda a, b, c: b + c, range(12, 19), range(14, 23), range(5, 12)),
)  # fmt: skip

CONVERSIONS = (
    Conversion("hours", "minutes", 60),
    Conversion("days", "hours", 24),
    Conversion("metres", "centimetres", 100),
    Conversion("weeks", "days", 7),
)
# Facts to draw from: per question, what it is asked about and the forms in which the answer may stand.
FACTS: dict[str, dict[str, tuple[str, ...]]] = {
    "How many {}?": {
        "minutes are in an hour": ("60", "sixty"),
        "seconds are in a minute": ("60", "sixty"),
        "hours are in a day": ("24", "twenty-four"),
        "months are in a year": ("12", "twelve"),
        "years are in a decade": ("10", "ten"),
        "years are in a century": ("100", "one hundred", "a hundred"),
        "years are in a millennium": ("1000", "1,000", "one thousand", "a thousand"),
        "millimetres are in a centimetre": ("10", "ten"),
        "centimetres are in a metre": ("100", "one hundred", "a hundred"),
        "metres are in a kilometre": ("1000", "1,000", "one thousand", "a thousand"),
        "millilitres are in a litre": ("1000", "1,000", "one thousand", "a thousand"),
        "grams are in a kilogram": ("1000", "1,000", "one thousand", "a thousand"),
        "kilograms are in a tonne": ("1000", "1,000", "one thousand", "a thousand"),
        "eggs are in a dozen eggs": ("12", "twelve"),
        "inches are in a foot": ("12", "twelve"),
        "feet are in a yard": ("3", "three"),
        "bits are in a byte": ("8", "eight"),
        "ounces are in a pound": ("16", "sixteen"),
        "degrees are in a circle": ("360",),
        "minutes are in half an hour": ("30", "thirty"),
    },
    'What does the abbreviation "{}" stand for?': {
        "km": ("kilometre", "kilometres", "kilometer", "kilometers"),
        "cm": ("centimetre", "centimetres", "centimeter", "centimeters"),
        "mm": ("millimetre", "millimetres", "millimeter", "millimeters"),
        "ml": ("millilitre", "millilitres", "milliliter", "milliliters"),
        "kg": ("kilogram", "kilograms", "kilogramme", "kilogrammes"),
        "Hz": ("hertz",),
        "kWh": ("kilowatt-hour", "kilowatt-hours", "kilowatt hour", "kilowatt hours"),
        "mph": ("miles per hour", "mile per hour"),
    },
    "What is measured in {}?": {
        "kilograms": ("mass", "weight"),
        "degrees Celsius": ("temperature",),
        "volts": ("voltage", "electric potential", "potential difference"),
        "kilometres": ("distance", "length"),
        "hertz": ("frequency",),
        "watts": ("power",),
        "joules": ("energy", "work", "heat"),
        "newtons": ("force", "weight"),
        "hours": ("time",),
        "litres": ("volume", "capacity"),
    },
    "What is the SI unit of {}?": {
        "force": ("newton", "newtons"),
        "energy": ("joule", "joules"),
        "power": ("watt", "watts"),
        "electric current": ("ampere", "amperes", "amp", "amps"),
        "length": ("metre", "metres", "meter", "meters"),
        "mass": ("kilogram", "kilograms"),
        "frequency": ("hertz",),
    },
    "In which month is {}?": {
        "New Year's Day": ("January",),
        "Valentine's Day": ("February",),
        "Halloween": ("October",),
        "Earth Day": ("April",),
        "International Women's Day": ("March",),
    },
}


def make_arithmetic(seed: int = 0) -> list[Sample]:
    """Makes the 72 samples of `arithmetic`, from single-digit sums to two-step word problems.

    Args:
        seed: The same seed makes the same samples.

    Returns:
        Samples with `id`, `question` and the integer `answer`, in shuffled order.
    """
    digits, tens, hundreds = range(2, 10), range(20, 100, 10), range(200, 1000, 100)
    two_digits, three_digits = range(11, 100), range(112, 990)
    easy = [(_calculation("+", digits, digits), 10), (_calculation("-", range(6, 11), range(2, 6)), 8)]
    easy += [(_calculation("x", range(2, 6), range(2, 8)), 8)]
    middle = [(_calculation("+", two_digits, two_digits), 2), (_calculation("-", range(51, 100), range(12, 50)), 2)]
    middle += [(_calculation("+", tens, tens), 3), (_calculation("+", hundreds, hundreds), 3)]
    middle += [(_calculation("x", range(11, 31), range(10, 11)), 3)]
    middle += [(_calculation("x", range(6, 13), range(6, 13)), 4)]
    middle += [(_calculation("divided by", digits, range(4, 13)), 2)]
    hard = [(_calculation("x", three_digits, range(3, 10)), 3), (_calculation("x", two_digits, two_digits), 4)]
    hard += [(_calculation("x", three_digits, two_digits), 2), (_calculation("x", three_digits, three_digits), 1)]
    stories = [(_story(story), 1) for story in EASY_STORIES + MIDDLE_STORIES + HARD_STORIES]
    return draw("arithmetic", easy + middle + hard + stories, seed=seed)


def make_units_and_dates(seed: int = 0) -> list[Sample]:
    """Makes the 64 samples of `units_and_dates`: facts about units and the calendar, and sums with both.

    Args:
        seed: The same seed makes the same samples.

    Returns:
        Samples with `id`, `question` and `checks`, in shuffled order.
    """
    easy = [(_fact(question), count) for question, count in zip(FACTS, (16, 7, 8, 6, 5), strict=True)]
    middle: Recipe = [(dates.next_weekday, 2), (dates.next_month, 2), (dates.month_length, 1)]
    middle += [(dates.later_weekday(range(3, 7)), 1)]
    middle += [(make(conversion), 1) for make in (_conversion, _sum_of_units) for conversion in CONVERSIONS]
    hard: Recipe = [(dates.later_weekday(range(20, 121)), 2), (dates.later_month, 1), (dates.days_between, 2)]
    hard += [(dates.later_date, 1), (dates.later_time, 1), (dates.next_leap_year(range(1896, 1900)), 1)]
    return draw("units_and_dates", easy + middle + hard, seed=seed)


def _calculation(symbol: str, first: range, second: range) -> Maker:
    """Makes `What is a + b?` for the symbols + - x, or `What is ab divided by b?`, without remainder.

    Divisions are in words because the scorer `numeric` reads 27 / 9 as a fraction, so repeating it would pass.
    """

    def make(rng: Random) -> Sample:
        a, b = rng.choice(first), rng.choice(second)
        if symbol == "divided by":
            a *= b
        answer = {"+": a + b, "-": a - b, "x": a * b, "divided by": a // b}[symbol]
        return {"question": f"What is {a} {symbol} {b}? {NUMBER_ONLY}", "answer": answer}

    return make


def _story(story: Story) -> Maker:
    def make(rng: Random) -> Sample:
        a, b, c = rng.choice(story.a), rng.choice(story.b), rng.choice(story.c)
        text = story.text.format(name=rng.choice(NAMES), a=a, b=b, c=c, ab=a * b)
        return {"question": f"{text} {NUMBER_ONLY}", "answer": story.solve(a, b, c)}

    return make


def _fact(question: str) -> Maker:
    def make(rng: Random) -> Sample:
        subject, accepted = rng.choice(list(FACTS[question].items()))
        return contains(question.format(subject), list(accepted))

    return make


def _conversion(conversion: Conversion) -> Maker:
    def make(rng: Random) -> Sample:
        count = rng.randint(2, 5)
        question = f"{count} {conversion.large} is how many {conversion.small}?"
        return numeric(question, count * conversion.factor)

    return make


def _sum_of_units(conversion: Conversion) -> Maker:
    def make(rng: Random) -> Sample:
        count, rest = rng.randint(2, 5), rng.randint(2, 5) * max(conversion.factor // 10, 1)
        large, small, factor = conversion
        question = f"{count} {large} and {rest} {small} is how many {small} altogether?"
        return numeric(question, count * factor + rest)

    return make


def main() -> None:
    """Writes both tasks into the catalog."""
    for task, samples in (("arithmetic", make_arithmetic()), ("units_and_dates", make_units_and_dates())):
        lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
        (CATALOG / f"{task}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

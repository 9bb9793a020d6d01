"""Makers of questions about the calendar and the clock."""

from datetime import date, datetime, timedelta
from random import Random

from forgetless.tasks.recipes import NUMBER_ONLY, Maker, Sample, contains, numeric

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_NEIGHBOURS = ((1, "after"), (-1, "before"))


def next_weekday(rng: Random) -> Sample:
    """Asks for the day before or after a day of the week."""
    day = rng.randrange(7)
    step, word = rng.choice(_NEIGHBOURS)
    question = f"Which day of the week comes right {word} {WEEKDAYS[day]}? Answer with the day only."
    return contains(question, [WEEKDAYS[(day + step) % 7]])


def later_weekday(steps: range) -> Maker:
    """Makes questions for the day of the week that comes so many days later."""

    def make(rng: Random) -> Sample:
        day, step = rng.randrange(7), rng.choice(steps)
        question = f"Which day of the week comes {step} days after a {WEEKDAYS[day]}? Answer with the day only."
        return contains(question, [WEEKDAYS[(day + step) % 7]])

    return make


def _draw_month(rng: Random) -> int:
    """Draws the index of a month that is an answer: not May, since `may` is also an everyday verb."""
    return rng.choice([index for index, month in enumerate(MONTHS) if month != "May"])


def next_month(rng: Random) -> Sample:
    """Asks for the month before or after a month."""
    answer = _draw_month(rng)
    step, word = rng.choice(_NEIGHBOURS)
    question = f"Which month comes right {word} {MONTHS[(answer - step) % 12]}? Answer with the month only."
    return contains(question, [MONTHS[answer]])


def later_month(rng: Random) -> Sample:
    """Asks for the month that comes 3 to 8 months later."""
    answer, step = _draw_month(rng), rng.randint(3, 8)
    question = f"Which month comes {step} months after {MONTHS[(answer - step) % 12]}? Answer with the month only."
    return contains(question, [MONTHS[answer]])


def month_length(rng: Random) -> Sample:
    """Asks how many days a month has, February left out."""
    month = rng.choice([3, 4, 6, 8, 9, 11, 12])
    first_of_next = date(2023 + month // 12, month % 12 + 1, 1)
    return numeric(f"How many days does the month of {MONTHS[month - 1]} have?", (first_of_next - timedelta(1)).day)


def next_leap_year(years: range) -> Maker:
    """Makes questions for the first leap year after a year."""

    def make(rng: Random) -> Sample:
        year = rng.choice(years)
        leap_years = (y for y in range(year + 1, year + 9) if y % 4 == 0 and (y % 100 or y % 400 == 0))
        return numeric(f"What is the first leap year after {year}?", next(leap_years))

    return make


def later_time(rng: Random) -> Sample:
    """Asks when a bus arrives that drives past midnight, or nearly so."""
    start = datetime(2023, 1, 1, rng.randint(21, 23), rng.randrange(15, 60, 5))
    minutes = rng.randrange(125, 240, 5)
    question = (
        f"A night bus leaves at {start:%H:%M} and drives for {minutes} minutes. "
        "When does it arrive on the 24-hour clock? Answer as HH:MM."
    )
    return contains(question, _clock_forms(start + timedelta(minutes=minutes)))


def _clock_forms(time: datetime) -> list[str]:
    forms = [f"{time:%H:%M}", f"{time:%H.%M}", f"{time:%H%M}"]
    return forms if time.hour >= 10 else [*forms, f"{time.hour}:{time:%M}", f"{time.hour}.{time:%M}"]


def _draw_date(rng: Random) -> date:
    return date(rng.randint(2020, 2024), 1, 20) + timedelta(days=rng.randrange(300))


def days_between(rng: Random) -> Sample:
    """Asks how many days lie between two dates."""
    start, days = _draw_date(rng), rng.randint(25, 80)
    question = f"How many days after {_write_date(start)} is {_write_date(start + timedelta(days))}? {NUMBER_ONLY}"
    return contains(question, [str(days)])


def later_date(rng: Random) -> Sample:
    """Asks for the date that comes so many days after another."""
    start, days = _draw_date(rng), rng.randint(12, 40)
    end = start + timedelta(days)
    question = f"Which date is {days} days after {_write_date(start)}? Answer with day and month."
    return contains(question, date_forms(end))


def date_forms(day: date) -> list[str]:
    """Returns the ways in which an answer may write a day and its month."""
    month = MONTHS[day.month - 1]
    ordinal = f"{day.day}{_ordinal_suffix(day.day)}"
    numbers = (str(day.day), ordinal)
    return [f"{n} {month}" for n in numbers] + [f"{month} {n}" for n in numbers] + [f"{ordinal} of {month}"]


def _ordinal_suffix(number: int) -> str:
    return "th" if number in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _write_date(day: date) -> str:
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"

"""Charts of characters: curves in Braille dots, and strips of values along an axis; colours are rich's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from rich.text import Text

# Braille cells hold 2 x 4 dots; their bits are numbered down the left column, down the right one, then the last row.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE = 0x2800


@dataclass(frozen=True)
class Axis:
    """Values between two bounds, laid out over so many places.

    Attributes:
        low: Value at the first place.
        high: Value at the last place, above `low`.
        is_log: Whether equal steps are equal factors; both bounds are above 0 then.
    """

    low: float
    high: float
    is_log: bool = False

    def place(self, value: float, num: int) -> int | None:
        """Returns the place of a value, from 0 to `num` - 1; None where it lies outside."""
        if not self.low <= value <= self.high:
            return None
        low, high, at = (math.log(v) if self.is_log else v for v in (self.low, self.high, value))
        return round((at - low) / (high - low) * (num - 1))

    def clamp(self, value: float) -> float:
        """Returns the nearest value that the axis has."""
        return min(max(value, self.low), self.high)


class Canvas:
    """A field of Braille dots.

    Args:
        width: Characters across.
        height: Lines.
        x: Horizontal axis.
        y: Vertical axis, growing upwards.
    """

    def __init__(self, width: int, height: int, *, x: Axis, y: Axis) -> None:
        self.width, self.height, self.x, self.y = width, height, x, y
        self._cells: dict[tuple[int, int], tuple[int, str]] = {}
        self._marks: dict[tuple[int, int], tuple[str, str]] = {}

    def dot(self, x: float, y: float, style: str = "") -> None:
        """Sets the dot nearest to a point; nothing where the point lies outside."""
        column, row = self.x.place(x, 2 * self.width), self.y.place(y, 4 * self.height)
        if column is None or row is None:
            return
        row = 4 * self.height - 1 - row
        cell = (row // 4, column // 2)
        bits, _ = self._cells.get(cell, (0, ""))
        self._cells[cell] = (bits | _DOTS[row % 4][column % 2], style)

    def curve(self, points: Iterable[tuple[float, float]], style: str = "") -> None:
        """Sets the dots of many points."""
        for x, y in points:
            self.dot(x, y, style)

    def mark(self, x: float, y: float, character: str, style: str = "") -> None:
        """Puts a character over the dots; nothing where the point lies outside."""
        column, row = self.x.place(x, self.width), self.y.place(y, self.height)
        if column is not None and row is not None:
            self._marks[self.height - 1 - row, column] = (character, style)

    def lines(self) -> list[Text]:
        """Returns the lines from the top, without their ends."""
        return [self._line(row) for row in range(self.height)]

    def _line(self, row: int) -> Text:
        line = Text()
        for column in range(self.width):
            bits, style = self._cells.get((row, column), (0, ""))
            character = chr(_BRAILLE + bits) if bits else " "
            character, style = self._marks.get((row, column), (character, style))
            line.append(character, style=style)
        return line


def strip(values: Sequence[float], axis: Axis, width: int, *, style: str = "") -> Text:
    """Lays values out along an axis: a dot for one, a larger one for several, a bar for the median.

    Args:
        values: At least one; those outside stand at the ends.
        axis: Where they lie.
        width: Characters across.
        style: Of the dots.

    Returns:
        One line of that width.
    """
    counts = [0] * width
    for value in values:
        counts[_inside(value, axis, width)] += 1
    middle = _inside(median(values), axis, width)
    line = Text()
    for place, count in enumerate(counts):
        if place == middle:
            line.append("┃", style="bold")
        else:
            line.append(" ·•●"[min(count, 3)], style=style)
    return line


def trail(values: Sequence[float], axis: Axis, width: int, *, style: str = "") -> Text:
    """Lays the stations of a path out along an axis: the digits 0 to 9 for its first steps, dots for later ones.

    Args:
        values: In the order in which they were reached; those outside are left out.
        axis: Where they lie.
        width: Characters across.
        style: Of the digits.

    Returns:
        One line of that width; where two steps meet, the earlier one shows.
    """
    characters = [" "] * width
    for number, value in reversed(list(enumerate(values))):
        place = axis.place(value, width)
        if place is not None:
            characters[place] = str(number) if number < 10 else "·"
    return Text("".join(characters), style=style)


def ruler(ticks: Sequence[float], axis: Axis, width: int) -> Text:
    """Writes the values of an axis below their places; one that finds no room is left out."""
    characters = [" "] * width
    for tick in ticks:
        label = f"{tick:g}"
        start = min(max(0, _inside(tick, axis, width) - len(label) // 2), width - len(label))
        around = characters[max(0, start - 1) : start + len(label) + 1]
        if all(character == " " for character in around):
            characters[start : start + len(label)] = label
    return Text("".join(characters), style="dim")


def _inside(value: float, axis: Axis, width: int) -> int:
    place = axis.place(axis.clamp(value), width)
    return place if place is not None else 0

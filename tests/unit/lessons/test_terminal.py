"""What the command prints: in 80 columns, with the figures that were measured."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from forgetless.lessons.single_weight import SingleWeight, descend
from forgetless.lessons.terminal import show_single_weight, show_two_heads
from forgetless.lessons.two_heads import TwoHeads, summarise


@pytest.fixture
def console() -> Console:
    return Console(width=80, file=io.StringIO())


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def line(console: Console, start: str) -> str:
    return next(text for text in lines(console) if text.startswith(start))


def test_two_heads_show_every_way_and_rate(console: Console, two_heads: TwoHeads) -> None:
    show_two_heads(console, two_heads)
    assert max(map(len, lines(console))) <= 80
    for name, trials in two_heads.variants.items():
        summary = summarise(trials)
        cells = line(console, f"{name} ").split()[-3:]
        assert cells == [
            f"{summary['ratio']['median']:.3g}",
            f"{summary['rise']['median']:+.3f}",
            f"{summary['loss_b']:.3f}",
        ]
    rates = summarise(two_heads.rates[0.01])["ratio"]
    assert line(console, "0.01 ").split()[-3:] == [f"{rates[key]:.3g}" for key in ("min", "median", "max")]
    assert line(console, "0.02 ")
    assert "3 seeds" in lines(console)[0]


def test_the_single_weight_shows_surfaces_paths_and_rests(console: Console, single_weight: SingleWeight) -> None:
    show_single_weight(console, single_weight)
    text = "\n".join(lines(console))
    assert max(map(len, lines(console))) <= 80
    assert "there in 1 step\n" in text
    assert "there in 36 steps" in text
    assert "after 60 steps still at -1.74" in text
    assert "rests at -0.5000 (closed form -0.5000); settles below 0.5" in text
    assert "never: back and forth for ever (settles below 0.5)" in text
    assert text.count("never: further away at every step") == 3
    zero, one = (line(console, "rate 0.5").rindex(step) for step in "01")
    surfaces = next(text for text in lines(console) if "A" in text and "B" in text and "⣀" in text)
    assert (surfaces.index("A"), surfaces.index("B")) == (zero, one)


def test_paths_start_at_their_name(console: Console) -> None:
    lesson = SingleWeight(plain=[descend(0.25)], anchored=[descend(0.1, strength=1.0)], at_lesson_rate=[])
    show_single_weight(console, lesson)
    assert line(console, "rate 0.25").rstrip().endswith("0")
    assert line(console, "strength 1").rstrip().endswith("0")

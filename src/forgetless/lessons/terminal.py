"""What `forgetless lesson` prints: each lesson as a chart of at most 80 columns, and its figures beside it."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from forgetless.lessons.charts import Axis, Canvas, ruler, strip, trail
from forgetless.lessons.single_weight import (
    BEST_A,
    BEST_B,
    LESSON_RATE,
    Path,
    SingleWeight,
    equilibrium,
    largest_rate,
    loss_a,
    loss_b,
)
from forgetless.lessons.two_heads import Trial, TwoHeads, summarise

NAME = 20  # characters of the first column
STRIP = 32
STYLE_A, STYLE_B = "blue", "yellow"


def show_two_heads(console: Console, lesson: TwoHeads) -> None:
    """Prints the distributions of the forgetting ratio, by rate and by mitigation.

    Args:
        console: Where to print.
        lesson: What was measured.
    """
    plain = lesson.variants["plain"]
    by_rate = {**lesson.rates, lesson.settings.learning_rate: plain}
    trials = [trial for group in (*lesson.variants.values(), *lesson.rates.values()) for trial in group]
    axis = Axis(min(0.1, *(t.ratio for t in trials)), max(100.0, *(t.ratio for t in trials)), is_log=True)
    ticks = [tick for tick in (0.1, 1, 10, 100, 1000, 10000) if axis.low <= tick <= axis.high]
    _say(console, f"How much worse is task A after training on task B? {lesson.num_seeds} seeds, one dot each.")
    _say(console, "Ratio = loss of A after B / before, on A's training rows; the bar is the median.", style="dim")
    console.print()
    _say(console, f"{'plain, by rate':{NAME}}{'':{STRIP}}  min median    max", style="bold")
    for rate in sorted(by_rate):
        ratios = [trial.ratio for trial in by_rate[rate]]
        figures = summarise(by_rate[rate])["ratio"]
        cells = f" {figures['min']:5.3g} {figures['median']:6.3g} {figures['max']:6.3g}"
        _row(console, f"{rate:g}", strip(ratios, axis, STRIP, style=STYLE_B), cells)
    _row(console, "", ruler(ticks, axis, STRIP), "")
    console.print()
    head = f"{'':{NAME}}{'ratio':^{STRIP}} median   A rose  B loss"
    _say(console, head, style="bold")
    for name, group in lesson.variants.items():
        _row(console, name, strip([trial.ratio for trial in group], axis, STRIP, style=STYLE_A), _cells(group))
    _row(console, "", ruler(ticks, axis, STRIP), "")
    console.print()
    _say(
        console,
        f"A rose: by how many nats the loss of A rose on {lesson.settings.num_held_out} rows that were held out. B "
        "loss: what was learned, likewise (medians; lower is better; guessing is 0.69). A ratio below 1 beside a rise: "
        "replayed rows were learned by heart.",
        style="dim",
    )


def _cells(trials: list[Trial]) -> str:
    summary = summarise(trials)
    return f" {summary['ratio']['median']:6.3g}   {summary['rise']['median']:+.3f}   {summary['loss_b']:.3f}"


def show_single_weight(console: Console, lesson: SingleWeight) -> None:
    """Prints both loss surfaces, the weight's path below them, and where EWC lets it rest.

    Args:
        console: Where to print.
        lesson: The paths.
    """
    width = 56
    x, y = Axis(-6.0, 3.0), Axis(0.0, 16.0)
    canvas = Canvas(width, 11, x=x, y=y)
    grid = [x.low + (x.high - x.low) * place / 400 for place in range(401)]
    canvas.curve(((w, loss_a(w)) for w in grid), STYLE_A)
    canvas.curve(((w, loss_b(w)) for w in grid), STYLE_B)
    canvas.mark(BEST_A, 0.0, "A", f"bold {STYLE_A}")
    canvas.mark(BEST_B, 0.0, "B", f"bold {STYLE_B}")
    _say(console, f"One weight: task A wants {BEST_A:g}, task B wants {BEST_B:g}. Loss against weight:")
    console.print()
    for line in canvas.lines():
        _row(console, "", line, "")
    ticks = [-6, -4, -2, 0, 1, 3]
    _row(console, "", ruler(ticks, x, width), "")
    console.print()
    _say(console, "Trained on B alone; digits are steps (0 = where A left it):", style="bold")
    for path in lesson.plain:
        _row(console, f"rate {path.rate:g}", trail(path.weights, x, width, style=STYLE_B), "")
        _row(console, "", Text(_ending(path), style="dim"), "")
    console.print()
    _say(console, "Trained on B with EWC at A; F = 2, rate at a third of the largest stable one:", style="bold")
    for path in lesson.anchored:
        rests = f"rests at {path.end:.4f} (closed form {equilibrium(path.strength):.4f})"
        _row(console, f"strength {path.strength:g}", trail(path.weights, x, width, style=STYLE_A), "")
        _row(console, "", Text(f"{rests}; settles below {largest_rate(path.strength):.3g}", style="dim"), "")
    console.print()
    _say(console, f"The same at the lesson's rate of {LESSON_RATE:g}:", style="bold")
    for path in lesson.at_lesson_rate:
        _row(console, f"strength {path.strength:g}", Text(_ending(path), style="dim"), "")


def _ending(path: Path) -> str:
    """Says in words where a path leads."""
    if path.num_steps is not None:
        return f"there in {path.num_steps} step{'' if path.num_steps == 1 else 's'}"
    distance = abs(path.end - equilibrium(path.strength))
    start = abs(path.weights[0] - equilibrium(path.strength))
    if distance > 1.001 * start:
        return f"never: further away at every step (settles below {largest_rate(path.strength):.3g})"
    if distance > 0.999 * start:
        return f"never: back and forth for ever (settles below {largest_rate(path.strength):.3g})"
    return f"after {len(path.weights) - 1} steps still at {path.end:.2f}"


def _say(console: Console, text: str, *, style: str = "") -> None:
    console.print(Text(text, style=style), highlight=False)


def _row(console: Console, name: str, chart: Text, cells: str) -> None:
    line = Text(f"{name:{NAME}}", no_wrap=True) + chart + Text(cells)
    line.rstrip()
    console.print(line, highlight=False, overflow="ignore", crop=False)

"""The lesson's two demonstrations, as the smallest laboratories: they take seconds and need no model.

network.py        a network of two heads in the shape of a language model, and its tasks
two_heads.py      two tasks over one shared layer: numerics
single_weight.py  one weight between two parabolas: numerics
charts.py         curves and strips of characters
terminal.py       what the command prints
pages.py          what it saves, with two_heads_figures.py and single_weight_figures.py

    result = forgetless.lesson("two-heads", out="lessons")
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from forgetless.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from forgetless.lessons.single_weight import SingleWeight
    from forgetless.lessons.two_heads import TwoHeads

Lesson = Literal["two-heads", "single-weight"]


def lesson(
    name: Lesson,
    out: str | Path | None = None,
    *,
    seeds: int = 20,
    progress: Callable[[float, float], None] | None = None,
) -> TwoHeads | SingleWeight:
    """Runs a demonstration of the lesson.

    Args:
        name: `two-heads` or `single-weight`.
        out: Directory for its page and its figures as JSON, NAME.html and NAME.json; None = write nothing.
        seeds: Seeds of `two-heads`, at least 1.
        progress: Called with (seeds done, seeds in all).

    Returns:
        What was measured.

    Raises:
        ConfigError: There is no such lesson, or no seed.
    """
    if name not in get_args(Lesson):
        raise ConfigError(f"there is no lesson {name!r}{did_you_mean(name, get_args(Lesson))}")
    result: TwoHeads | SingleWeight
    if name == "two-heads":
        from forgetless.lessons.two_heads import run_two_heads

        result = run_two_heads(seeds, progress=progress)
    else:
        from forgetless.lessons.single_weight import run_single_weight

        result = run_single_weight()
    if out is not None:
        _save(name, result, Path(out))
    return result


def figures(result: TwoHeads | SingleWeight) -> dict[str, Any]:
    """Returns what a demonstration measured as plain data, for JSON."""
    from forgetless.lessons.single_weight import SingleWeight, equilibrium, largest_rate
    from forgetless.lessons.two_heads import summarise

    if isinstance(result, SingleWeight):
        groups = {"plain": result.plain, "anchored": result.anchored, "at_lesson_rate": result.at_lesson_rate}
        return {
            "schema": 1,
            "lesson": "single-weight",
            **{
                name: [
                    asdict(path)
                    | {"end": path.end, "num_steps": path.num_steps}
                    | {"rest": equilibrium(path.strength), "largest_rate": largest_rate(path.strength)}
                    for path in paths
                ]
                for name, paths in groups.items()
            },
        }
    return {
        "schema": 1,
        "lesson": "two-heads",
        "settings": asdict(result.settings),
        "num_seeds": result.num_seeds,
        "rates": {f"{rate:g}": summarise(trials) for rate, trials in result.rates.items()},
        "variants": {way: summarise(trials) for way, trials in result.variants.items()},
        "trials": {way: [asdict(trial) for trial in trials] for way, trials in result.variants.items()},
    }


def _save(name: str, result: TwoHeads | SingleWeight, out: Path) -> None:
    from forgetless.lessons.pages import single_weight_page, two_heads_page
    from forgetless.lessons.single_weight import SingleWeight

    page = single_weight_page(result) if isinstance(result, SingleWeight) else two_heads_page(result)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.html").write_text(page, encoding="utf-8", newline="\n")
    (out / f"{name}.json").write_text(json.dumps(figures(result), indent=2) + "\n", encoding="utf-8")


def show(console: Any, result: TwoHeads | SingleWeight) -> None:
    """Prints a demonstration's chart.

    Args:
        console: A rich console.
        result: What was measured.
    """
    from forgetless.lessons.single_weight import SingleWeight
    from forgetless.lessons.terminal import show_single_weight, show_two_heads

    if isinstance(result, SingleWeight):
        show_single_weight(console, result)
    else:
        show_two_heads(console, result)

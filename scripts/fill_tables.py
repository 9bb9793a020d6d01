"""Fills the tables of pages that are written by hand, from what the benchmarks measured.

    python scripts/fill_tables.py

A page marks the place with `<!-- table: NAME -->` and `<!-- end -->`; a table whose benchmark has not run is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
PAGES = tuple(ROOT / "docs" / f"{name}.md" for name in ("budget", "embedded", "phases", "repair"))
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def load(name: str) -> Any:
    """Returns what a benchmark wrote."""
    return json.loads((BENCHMARKS / name).read_text(encoding="utf-8"))


def table(*columns: str, rows: Iterator[tuple[object, ...]]) -> str:
    """Returns a Markdown table; all columns but the first are aligned to the right."""
    lines = [f"| {' | '.join(columns)} |", f"|---|{'--:|' * (len(columns) - 1)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "".join(f"{line}\n" for line in lines)


def budget_levels() -> str:
    """How often a budget holds, by the level at which the selection half must show it; means over all cells."""
    cells = load("budget/simulation.json")["cells"]

    def rows() -> Iterator[tuple[object, ...]]:
        for num in sorted({cell["num_samples"] for cell in cells}):
            for level in sorted({cell["level"] for cell in cells}):
                chosen = [cell for cell in cells if cell["num_samples"] == num and cell["level"] == level]
                figures = (
                    [cell[name] for cell in chosen]
                    for name in ("truth_within", "confirmation_within", "confirmation_proves", "learning_kept")
                )
                yield num, f"{level:g}", *(f"{sum(f) / len(f):.2f} ({min(f):.2f} to {max(f):.2f})" for f in figures)

    return table(
        "samples in a half",
        "level",
        "population within",
        "confirmation within",
        "confirmation proves it",
        "learning kept",
        rows=rows(),
    )


def budget_walks() -> str:
    """Budget asked against forgetting confirmed, one line a walk."""

    def rows() -> Iterator[tuple[object, ...]]:
        for run in load("budget/walks.json")["runs"]:
            confirmed, kept = run["curve"]["confirmed"], run["learning_kept"]
            tuned = next(p for p in run["curve"]["points"] if p["point"]["low"] == p["point"]["high"] == 1)
            yield (
                f"`{run['adapter']}`",
                f"{100 * run['budget']:g}",
                f"{100 * tuned['forgetting']:+.1f}",
                ", ".join(tuned["forgot"]) or "none",
                run["chosen"],
                "" if kept is None else f"{max(0.0, 100 * kept):.0f} %",
                f"{100 * confirmed['forgetting'] + 0.0:+.1f}",
                f"{100 * confirmed['forgetting_upper']:+.1f}",
                confirmed["num_samples"],
                run["curve"]["verdict"],
            )

    return table(
        "adapter",
        "budget",
        "tuned lost",
        "tuned forgot",
        "chosen",
        "learning kept",
        "confirmed",
        "bound",
        "samples",
        "verdict",
        rows=rows(),
    )


def embedded_recipes() -> str:
    """Each recipe on the embedded model: what it learned and lost, averaged over domains and seeds."""
    runs = load("methods/embedded.json")["runs"]
    plain = {(run["domain"], run["seed"]): run for run in runs if _is_plain(run)}
    by_recipe: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_recipe.setdefault(run["recipe"], []).append(run)

    def rows() -> Iterator[tuple[object, ...]]:
        for recipe, group in sorted(by_recipe.items(), key=lambda item: -_mean_delta(item[1])):
            pairs = [(run, plain[run["domain"], run["seed"]]) for run in group]
            learned = [run["learned_nats"] / other["learned_nats"] for run, other in pairs]
            times = [
                (run["train_seconds"] + run.get("writing_seconds", 0)) / run["plain_seconds"]
                for run in group
                if run["plain_seconds"] is not None
            ]
            lost, lost_by_plain = (sum(_forgotten(side[at]) for side in pairs) for at in (0, 1))
            yield (
                f"`{recipe}`",
                ", ".join(sorted(f"{run['domain']} {run['seed']}" for run in group)),
                _spread(learned, "{:.0%}"),
                _spread([-100 * run["forgetting_free_without_reading"]["delta"] for run in group], "{:+.1f}"),
                "" if recipe == "plain_lora" else f"{1 - lost / lost_by_plain:.0%}",
                _spread([100 * _flips(run, "lost") for run in group], "{:.1f}"),
                _spread([-100 * run["forgetting_free"]["delta"] for run in group], "{:+.1f}"),
                _spread([-100 * run["forgetting_choices"]["delta"] for run in group], "{:+.1f}"),
                _spread([run["tasks"]["general_text"] for run in group], "{:+.2f}"),
                _spread([run["tasks"]["reference_answers"] for run in group], "{:+.2f}"),
                _spread([run["kl_to_base"] for run in group], "{:.2f}"),
                _spread(times, "{:.2f}"),
            )

    return table(
        "recipe",
        "runs",
        "learning / plain",
        "points forgotten",
        "kept away",
        "samples lost, %",
        "with `reading`",
        "choices",
        "text",
        "reference answers",
        "KL to base",
        "time / plain",
        rows=rows(),
    )


def embedded_frontier() -> str:
    """What is learned and forgotten at other shares of a recipe's change, and by plain LoRA beside it."""
    plain = {(run["domain"], run["seed"]): run for run in load("methods/embedded.json")["runs"] if _is_plain(run)}

    def forgotten(row: dict[str, Any]) -> str:
        low, high = (-100 * end for end in reversed(row["ci"]))
        return f"{-100 * row['delta']:+.1f} ({low:+.1f} to {high:+.1f})"

    def rows() -> Iterator[tuple[object, ...]]:
        runs = load("methods/frontier.json")["runs"]
        for run in sorted(runs, key=lambda run: (run["domain"], run["seed"], run["recipe"], run["share"])):
            lost = plain[run["domain"], run["seed"]]["forgetting_free_without_reading"]
            yield (
                f"{run['domain']} {run['seed']}",
                f"`{run['recipe']}`",
                f"{run['share']:.2f}" + (", for equal learning" if run["wanted"] == "equal" else ""),
                f"{run['learning_on_probe']:.0%}",
                f"{run['learning']:.0%}",
                forgotten(run["forgetting"]),
                forgotten(lost),
                f"{1 - run['forgetting']['delta'] / lost['delta']:.0%}",
            )

    return table(
        "run",
        "recipe",
        "share",
        "on the probe",
        "learning / plain",
        "points forgotten",
        "by plain LoRA",
        "kept away",
        rows=rows(),
    )


def _is_plain(run: dict[str, Any]) -> bool:
    return bool(run["recipe"] == "plain_lora")


def repair_points() -> str:
    """The points of each repair on the selection half, and the chosen one on the other."""

    def rows() -> Iterator[tuple[object, ...]]:
        for run in load("repair/embedded.json")["runs"]:
            for point in run["points"]:
                yield (
                    f"`{run['model']}`",
                    f"**{point['point']}**" if point["point"] == run["chosen"] else point["point"],
                    "not asked" if point["forgetting"] is None else f"{100 * point['forgetting']:+.1f}",
                    "" if point["loss_back"] is None else f"{point['loss_back']:.0%}",
                    f"{point['learning']:.3f}",
                    f"{point['learning_kept']:.0%}",
                    ", ".join(point["forgot"]) or "none",
                )

    return table(
        "model", "point", "points lost", "of it back", "learned (nats per token)", "of it kept", "forgot", rows=rows()
    )


def phases_sequence() -> str:
    """Each way through four domains: what it learned and kept, averaged over seeds."""
    runs = load("phases/sequence.json")["runs"]

    def rows() -> Iterator[tuple[object, ...]]:
        for recipe in dict.fromkeys(run["recipe"] for run in runs):
            group = [run for run in runs if run["recipe"] == recipe]
            yield (
                f"`{recipe}`",
                len(group),
                *(_figures(group, "answers", name, 100, "{:.1f}") for name in ("acc", "learning")),
                *(_figures(group, "answers", name, 100, "{:+.1f}") for name in ("bwt",)),
                *(_figures(group, "loss", name, 1, "{:.2f}") for name in ("acc", "learning")),
                *(_figures(group, "loss", name, 1, "{:+.2f}") for name in ("bwt",)),
                _spread([100 * run["general"][-1] for run in group], "{:+.1f}"),
            )

    return table(
        "recipe",
        "seeds",
        "answers: ACC",
        "learning",
        "BWT",
        "loss: ACC",
        "learning",
        "BWT",
        "general skills",
        rows=rows(),
    )


def _figures(group: list[dict[str, Any]], measure: str, name: str, factor: int, form: str) -> str:
    values = [run[measure].get(name) for run in group]
    return "" if None in values else _spread([factor * value for value in values], form)


def _forgotten(run: dict[str, Any]) -> float:
    return -float(run["forgetting_free_without_reading"]["delta"])


def _flips(run: dict[str, Any], way: str) -> float:
    row = run["forgetting_free_without_reading"]
    return float(row[way] / row["n"])


def _mean_delta(group: list[dict[str, Any]]) -> float:
    return float(sum(run["forgetting_free_without_reading"]["delta"] for run in group) / len(group))


def _spread(values: list[float], form: str) -> str:
    """Returns the mean, with the smallest and largest value behind it where there are several."""
    if not values:
        return ""
    mean = form.format(sum(values) / len(values))
    return mean if len(values) == 1 else f"{mean} ({form.format(min(values))} to {form.format(max(values))})"


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "budget_levels": ("budget/simulation.json", budget_levels),
    "embedded_recipes": ("methods/embedded.json", embedded_recipes),
    "embedded_frontier": ("methods/frontier.json", embedded_frontier),
    "repair_points": ("repair/embedded.json", repair_points),
    "phases_sequence": ("phases/sequence.json", phases_sequence),
    "budget_walks": ("budget/walks.json", budget_walks),
}


def filled(text: str) -> str:
    """Returns a page with its tables as they are measured now."""

    def fill(match: re.Match[str]) -> str:
        source, make = TABLES[match[2]]
        return match[1] + (make() if (BENCHMARKS / source).is_file() else match[3]) + match[4]

    return BLOCK.sub(fill, text)


if __name__ == "__main__":
    for page in PAGES:
        if page.is_file():
            page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
            print(page.relative_to(ROOT))

"""From rows to runs: each row's setting is chosen on validation seeds, then the ten seeds are run.

Every run is a line of a journal, and no run is made twice: a benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.laboratory.scene import NUM_BASES, set_scene
from benchmarks.laboratory.table import Row
from benchmarks.laboratory.tuning import LOOK, Recipe, tune

SEEDS = tuple(range(10))
VALIDATION = (100, 101, 102)  # none of them among the ten; one on each base model
LONGEST = 240  # optimizer steps that a setting may take

Run = Callable[[Recipe, int, int, bool], Mapping[str, Any]]  # recipe, seed, steps, whether it is part of a search


class MissingRunError(Exception):
    """A run that isn't in the journal."""


@dataclass(frozen=True)
class Choice:
    """The setting of a row.

    Attributes:
        recipe: What the ten seeds are run with.
        steps: For how many optimizer steps.
        target: Mean target accuracy on the validation seeds.
        forgetting: Mean forgetting there.
        is_reached: Whether the goal is reached; where no setting does, the one that comes nearest is taken.
        num_tried: Settings that were tried.
    """

    recipe: Recipe
    steps: int
    target: float
    forgetting: float
    is_reached: bool
    num_tried: int


class Journal:
    """Runs that are done, one JSON line each.

    Args:
        path: The file; it is made with the first run.
        directory: Where the base models are; None where nothing may be run.
    """

    def __init__(self, path: Path, directory: Path | None) -> None:
        self.path, self.directory = path, directory
        self.lines: dict[str, dict[str, Any]] = {}
        for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                line = json.loads(text)
            except ValueError:  # cut off by a stop
                continue
            self.lines[key_of(line)] = line

    def run(self, recipe: Recipe, seed: int, steps: int, is_search: bool) -> Mapping[str, Any]:
        """Returns a run, from the journal or made now; one that failed has the reason under `failed`.

        Args:
            recipe: What to do.
            seed: With which seed.
            steps: For how many optimizer steps.
            is_search: Whether it is part of a search.

        Returns:
            The line of the journal.

        Raises:
            MissingRunError: It isn't in the journal, and nothing may be run.
        """
        key = key_of({**asdict(recipe), "seed": seed, "steps": steps, "is_search": is_search})
        if key not in self.lines:
            if self.directory is None:
                raise MissingRunError(key)
            line = tune(recipe, seed, steps, self.directory, is_search=is_search)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self.lines[key] = line
        return self.lines[key]


def key_of(line: Mapping[str, Any]) -> str:
    """Returns what makes two runs the same run."""
    return json.dumps([line[n] for n in ("methods", "rate", "kept", "steps", "seed", "is_search")], sort_keys=True)


def choose(row: Row, run: Run) -> Choice | str:
    """Chooses the setting that forgets least among those that reach the goal, each with the fewest steps that do.

    For each rate the settings come from weak to strong, and none is tried after one that never reaches the goal.

    Args:
        row: The row.
        run: Makes a run.

    Returns:
        The choice, or the reason why the row can't be run.
    """
    tried: list[Choice] = []
    failure = "no setting was tried"
    for rate in row.rates:
        for methods in row.settings:
            lines = []
            recipe = Recipe(tuple(methods), rate, row.kept)
            for seed in VALIDATION:
                line = run(recipe, seed, LONGEST, True)
                if "failed" in line:
                    failure = line["failed"]
                    break
                lines.append(line)
                if not is_reachable(lines, row.goal):
                    break
            if not lines or "failed" in line:
                break
            tried.append(_choice(recipe, lines, row.goal, len(tried) + 1))
            if not tried[-1].is_reached:
                break
    if not tried:
        return failure
    reached = [choice for choice in tried if choice.is_reached]
    best = min(reached, key=lambda c: c.forgetting) if reached else max(tried, key=lambda c: c.target)
    return Choice(**{**vars(best), "num_tried": len(tried)})


def is_reachable(lines: Sequence[Mapping[str, Any]], goal: float) -> bool:
    """Whether the mean over all validation seeds can still reach the goal, were the others perfect."""
    best: list[float] = [max(look["target"] for look in line["looks"]) for line in lines]
    return sum(best) + len(VALIDATION) - len(best) >= goal * len(VALIDATION)


def _choice(recipe: Recipe, lines: Sequence[Mapping[str, Any]], goal: float, number: int) -> Choice:
    """Returns the fewest steps at which the mean over seeds, of this look and the next, reaches the goal.

    Two looks, so that a lucky one doesn't count. A run that stopped because it had learned enough stays where it was.
    """
    curves = [line["looks"] for line in lines]
    num_looks = max(map(len, curves))
    targets = [fmean(curve[min(at, len(curve) - 1)]["target"] for curve in curves) for at in range(num_looks)]
    smooth = [(targets[at] + targets[min(at + 1, num_looks - 1)]) / 2 for at in range(num_looks)]
    is_complete = len(lines) == len(VALIDATION)
    found = next((at for at, value in enumerate(smooth) if value >= goal and is_complete), None)
    at = max(range(num_looks), key=smooth.__getitem__) if found is None else found
    forgetting = [_forgetting(curve, at) for curve in curves]
    return Choice(recipe, LOOK * (at + 1), smooth[at], fmean(forgetting), found is not None, number)


def _forgetting(curve: Sequence[Mapping[str, float]], at: int) -> float:
    """Returns what is forgotten at a look, or at the first one after it that saw it; all where none did."""
    later = (look["forgetting"] for look in curve[at:] if "forgetting" in look)
    return next(later, curve[-1].get("forgetting", 1.0))


def run_rows(
    rows: Sequence[Row], work: Path, *, processes: int, seeds: Sequence[int] = SEEDS, say: Callable[[str], None] = print
) -> None:
    """Chooses the settings of rows and runs the ten seeds, into `journal.jsonl` in the work directory.

    Args:
        rows: The rows.
        work: Directory of the base models and the journal.
        processes: Processes, of one thread each.
        seeds: The seeds to run.
        say: Told of each row.
    """
    chosen: list[Choice] = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        list(pool.map(_prepare, range(NUM_BASES), [work] * NUM_BASES))
        searches = {pool.submit(_choose, row, work): row for row in rows}
        for search in as_completed(searches):
            error = search.exception()  # a defect of a method is told, and doesn't take the other rows with it
            found = f"{type(error).__name__}: {error}" if error else search.result()
            say(f"{searches[search].name}: {found}")
            if not isinstance(found, str):
                chosen.append(found)
        runs = [pool.submit(_run, choice, seed, work) for seed in seeds for choice in chosen]
        for number, finished in enumerate(as_completed(runs), start=1):
            finished.result()
            if number % 20 == 0 or number == len(runs):
                say(f"{number} of {len(runs)} runs")


def _one_thread() -> None:
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()


def _prepare(seed: int, work: Path) -> None:
    set_scene(seed, work)


def _choose(row: Row, work: Path) -> Choice | str:
    return choose(row, Journal(work / "journal.jsonl", work).run)


def _run(choice: Choice, seed: int, work: Path) -> None:
    Journal(work / "journal.jsonl", work).run(choice.recipe, seed, choice.steps, False)


def missing_methods(rows: Iterable[Row], known: Iterable[str]) -> dict[str, str]:
    """Returns the rows that name a method which is not built, with its name."""
    known = set(known)
    found = {}
    for row in rows:
        for spec in (spec for setting in row.settings for spec in setting):
            name = spec if isinstance(spec, str) else next(iter(spec))
            if name not in known:
                found[row.name] = name
    return found

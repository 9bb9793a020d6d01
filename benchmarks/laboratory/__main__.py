"""Every method on ten seeds of a small world: what is learned, and what is forgotten, at equal learning.

    python -m benchmarks.laboratory run --work DIR [--rows "A;B"] [--seeds 10] [--processes 2]
    python -m benchmarks.laboratory summarise --work DIR      # writes laboratory.json beside this file

Small Llama models know five skills (`skills.py`, `base_models.py`) and are tuned on a narrow task that conflicts with
one of them, through the product's own training stage and method classes. Of the settings of each row that reach 95 % of
the target on three validation seeds, the one that forgets least there is run on ten other seeds, for the fewest steps
that reached it. Base model, task and questions belong to a seed and are shared by all rows, so that differences between
rows are paired.

`run` is to be started in the root of the repository, keeps each run as a line in DIR, and goes on where it was
stopped. Times are processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.laboratory.scene import NUM_BASES, set_scene
from benchmarks.laboratory.search import SEEDS, missing_methods, run_rows
from benchmarks.laboratory.summary import summarise
from benchmarks.laboratory.table import ROWS

from forgetless.methods import METHODS

RESULT = Path(__file__).parent / "laboratory.json"


def main() -> None:
    """Reads the arguments and does what they say."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.laboratory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["run", "summarise"])
    parser.add_argument("--work", type=Path, required=True, help="directory outside the repository")
    parser.add_argument("--rows", help="names of rows, separated by semicolons; all where left out")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    work: Path = arguments.work
    if arguments.command == "summarise":
        bases = [set_scene(number, work).known for number in range(NUM_BASES)]
        found = summarise(ROWS, work / "journal.jsonl", bases=bases)
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    work.mkdir(parents=True, exist_ok=True)
    names = [row.name for row in ROWS] if arguments.rows is None else [n.strip() for n in arguments.rows.split(";")]
    if unknown := set(names) - {row.name for row in ROWS}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(row.name for row in ROWS)}")
    rows = [row for row in ROWS if row.name in names]
    missing = missing_methods(rows, list(METHODS))
    for name, method in missing.items():
        print(f"left out: {name} (method {method!r} isn't built)", flush=True)
    run_rows(
        [row for row in rows if row.name not in missing],
        work,
        processes=arguments.processes,
        seeds=SEEDS[: arguments.seeds],
        say=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    main()

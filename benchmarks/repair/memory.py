"""Peak memory of moving and saving whole weights, against that of loading the model once.

    python benchmarks/repair/memory.py TUNED --work DIR [--shard-size 100MB]

TUNED is full weights of the embedded model. They are first saved in shards; then one process loads them, and another
one loads them, moves them half way to the base and saves that. The difference is what a repair takes beside one model.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

from forgetless.curve import Point
from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.models import load_model
from forgetless.repair.checkpoints import Checkpoint
from forgetless.repair.paths import WeightPath
from forgetless.repair.saving import save_point
from forgetless.walking import open_path


def measure(action: str, tuned: Path, work: Path) -> int:
    """Does one of the actions, and returns the process's peak of resident memory in MiB."""
    loaded = load_model(str(tuned))
    if action == "repair":
        path, _ = open_path(loaded, EMBEDDED_ALIAS, load=load_model)
        assert isinstance(path, WeightPath)
        path.move(Point.scale(0.5))
        save_point(path, Point.scale(0.5), Checkpoint(tuned), work / "half")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Parses the command line; without an action, runs each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tuned", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shard-size", default="100MB")
    parser.add_argument("--action", choices=["load", "repair"])
    arguments = parser.parse_args()
    if arguments.action:
        print(measure(arguments.action, arguments.tuned, arguments.work))
        return
    sharded = arguments.work / "sharded"
    load_model(str(arguments.tuned)).model.save_pretrained(sharded, max_shard_size=arguments.shard_size)  # type: ignore[operator]
    for file in Path(arguments.tuned).glob("*token*"):
        (sharded / file.name).write_bytes(file.read_bytes())
    found: dict[str, int | str] = {"shard_size": arguments.shard_size, "num_shards": len(Checkpoint(sharded).shards)}
    for action in ("load", "repair"):
        command = [sys.executable, __file__, str(sharded), "--work", str(arguments.work), "--action", action]
        found[f"{action}_peak_mib"] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

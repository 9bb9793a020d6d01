"""Repairing adapters and weights of the embedded model that a risky recipe broke: what comes back, what is kept.

    python -m benchmarks.repair.embedded run --work DIR --models A,B --data FILE,FILE [--limit N] [--heal]
    python -m benchmarks.repair.embedded summarise --work DIR       # writes embedded.json beside this script

Models are directories: adapters on the embedded model (`benchmarks/methods/embedded.py` leaves some in its `models/`),
or whole weights. Data are held-out examples, one file per model. `repair` is called as the command calls it, once per
model; `run` goes on where it was stopped, and times count what was asked in this process only. Per kind of point
(`scale`, `layers`, `intruders`, `healed`) the summary names, of the points that keep 80 % of the learning, the one with
the least loss, and of those that bring back half of the loss the one with the most learning: where both targets can be
met, the two lists hold the same point.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.keeping import keep_runs

from forgetless.curve import Curve, CurvePoint, read_curve
from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.records import read_comparison
from forgetless.repairing import repair

HERE = Path(__file__).parent
LOSS_BACK, LEARNING_KEPT = 0.5, 0.8  # what a repair is to reach


def run(work: Path, models: Sequence[Path], data: Sequence[Path], **options: Any) -> None:
    """Repairs each model, and writes how long it took beside its curve."""
    for model, examples in zip(models, data, strict=True):
        out = work / model.name
        record = out / "benchmark.json"
        if record.exists():
            continue
        started, processor = time.monotonic(), time.process_time()
        result = repair(EMBEDDED_ALIAS, model, data=examples, out=out, **options)
        facts = {
            "model": model.name,
            "seconds": round(time.monotonic() - started, 1),
            "processor_seconds": round(time.process_time() - processor, 1),
            "load": os.getloadavg()[0],
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "options": options,
        }
        record.write_text(json.dumps(facts))
        print(model.name, result.curve.sentence, json.dumps(facts), flush=True)


def kind_of(entry: CurvePoint) -> str:
    """Returns which kind of candidate a point is."""
    if entry.point.kind != "line":
        return entry.point.kind.partition(" ")[0]
    return "tuned" if entry.point.is_tuned else "scale" if entry.point.low == entry.point.high else "layers"


def rounded(value: float | None, digits: int) -> float | None:
    """Returns a figure rounded; None stays None."""
    return None if value is None else round(value, digits)


def shares(entry: CurvePoint, curve: Curve) -> dict[str, Any]:
    """Returns what a point brings back of the loss and keeps of the learning, both as shares of the tuned model's."""
    lost, whole = curve.tuned.forgetting, curve.tuned.learning
    back = None if not lost or lost < 0 or entry.forgetting is None else 1 - entry.forgetting / lost
    return {
        "point": entry.point.label,
        "kind": kind_of(entry),
        "forgetting": rounded(entry.forgetting, 4),  # None where a task was forgotten before the others were asked
        "forgetting_upper": rounded(entry.forgetting_upper, 4),
        "learning": rounded(entry.learning, 4),
        "loss_back": rounded(back, 3),
        "learning_kept": rounded(entry.learning / whole, 3) if whole and entry.learning is not None else None,
        "forgot": list(entry.forgot),
        "is_within": entry.is_within,
    }


def best(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns, per kind, the points that come nearest to the two targets."""
    found = {}
    for kind in dict.fromkeys(point["kind"] for point in points):
        known = [p for p in points if p["kind"] == kind and None not in (p["loss_back"], p["learning_kept"])]
        keeping = [p for p in known if p["learning_kept"] >= LEARNING_KEPT]
        healing = [p for p in known if p["loss_back"] >= LOSS_BACK]
        found[kind] = {
            "least loss at 80 % of the learning": max(keeping, key=lambda p: p["loss_back"], default=None),
            "most learning at half of the loss back": max(healing, key=lambda p: p["learning_kept"], default=None),
        }
    return found


def summarise(work: Path) -> list[dict[str, Any]]:
    """Returns what each repair found."""
    lines = []
    for record in sorted(work.glob("*/benchmark.json")):
        curve = read_curve(record.parent / "curve.json")
        points = [shares(entry, curve) for entry in curve.points]
        comparison = read_comparison(record.parent / "comparison.json")
        stages = json.loads((record.parent / "manifest.json").read_text())["stages"]
        lines.append(
            {
                **json.loads(record.read_text()),
                "stages": {name: stage["seconds"] for name, stage in stages.items()},
                "num_intruders": stages["walk"].get("num_intruders"),
                "num_samples": curve.tuned.num_samples,
                "points": points,
                "best": best(points),
                "chosen": curve.chosen.label,
                "learning_kept": curve.learning_kept,
                "confirmed": {
                    "forgetting": -(comparison.pooled.delta or 0.0),
                    "forgetting_upper": comparison.pooled.forgetting_upper,
                    "num_samples": comparison.pooled.num_samples,
                    "verdict": comparison.verdict.value,
                },
                "sentence": curve.sentence,
            }
        )
    return lines


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "summarise"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", default="")
    parser.add_argument("--data", default="")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--margin", type=float, default=0.03)
    parser.add_argument("--suite", default="core")
    parser.add_argument("--heal", action="store_true")
    arguments = parser.parse_args()
    if arguments.action == "run":
        names = [[Path(name) for name in text.split(",")] for text in (arguments.models, arguments.data)]
        options = {name: getattr(arguments, name) for name in ("suite", "limit", "margin", "heal")}
        run(arguments.work, *names, **options)
    else:
        keep_runs(HERE / "embedded.json", summarise(arguments.work), key=("model", "options"))


if __name__ == "__main__":
    main()

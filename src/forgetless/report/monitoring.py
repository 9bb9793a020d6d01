"""What the retention monitor saw while training went on: a figure and a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forgetless.report.evidence import Evidence
from forgetless.report.figures import MAX_TABLE_ROWS, Figure, page_axis, page_layout, plain_number, spread_evenly
from forgetless.report.wording import NONE

TITLES = {"kl": "KL to the base", "cross_entropy": "Cross-entropy above the base's"}


def retention_curve(evidence: Evidence) -> Figure | None:
    """Returns the looks of the monitor with their bounds and the budget; None where there were none."""
    looks = [(entry["step"], look) for entry in evidence.training_log if (look := _look_of(entry)) is not None]
    if not looks:
        return None
    measure, budget = looks[-1][1].get("measure"), _number(looks[-1][1].get("budget"))
    key = "rise" if measure == "cross_entropy" else "kl"
    title = TITLES["cross_entropy" if key == "rise" else "kl"]
    shown = spread_evenly(looks, MAX_TABLE_ROWS)
    line = "" if budget is None else f"; the dashed line is the budget of {budget:g}"
    return Figure(
        name="curve-retention",
        title=f"Retention probe: {title}",
        caption=f"{title} in nats per token on general examples, with bounds that hold at all looks together{line}. "
        "Lower is better. It is an alarm: the verdict comes from the tasks.",
        data=[_trace(looks, key)],
        layout=page_layout(
            height=280,
            margin={"l": 8, "r": 12, "t": 12, "b": 48},
            xaxis=page_axis(title="step"),
            yaxis=page_axis(title="nats per token", rangemode="tozero"),
            shapes=[] if budget is None else [_budget_line(budget)],
        ),
        columns=("Step", title, "At least", "At most", "Cross-entropy", "Status", "Learning rate x"),
        rows=[
            (
                str(step),
                *(plain_number(_number(look.get(name))) for name in (key, "low", "high", "cross_entropy")),
                str(look.get("status") or NONE),
                plain_number(_number(look.get("rate_factor"))),
            )
            for step, look in shown
        ],
        note=f"{len(shown)} of {len(looks):,} looks." if len(shown) < len(looks) else "",
    )


def monitor_sentence(evidence: Evidence) -> str:
    """Says what the monitor did; empty where the manifest knows of none."""
    train = evidence.section("stages").get("train")
    facts = train.get("monitor") if isinstance(train, Mapping) else None
    if not isinstance(facts, Mapping) or not facts.get("num_looks"):
        return ""
    estimate, budget, share = (_number(facts.get(name)) for name in ("estimate", "budget", "share_of_time"))
    title = TITLES.get(str(facts.get("measure")), TITLES["kl"])
    raw = facts.get("actions")
    actions = [one for one in raw if isinstance(one, Mapping)] if isinstance(raw, list) else []
    done = "; ".join(f"step {one.get('step')}: {one.get('action')}" for one in actions[-4:])
    return (
        f"The retention monitor (policy {facts.get('policy')}) looked {facts['num_looks']} times, which took "
        f"{NONE if share is None else f'{share:.1%}'} of the training time. {title} at its last look: "
        f"{plain_number(estimate)} nats per token, budget {plain_number(budget)}. "
        + (f"What it did: {done}." if done else "It had nothing to do.")
    )


def _look_of(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    look = entry.get("retention")
    return look if isinstance(look, Mapping) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _trace(looks: Sequence[tuple[int, Mapping[str, Any]]], key: str) -> dict[str, Any]:
    points = [(step, value, look) for step, look in looks if (value := _number(look.get(key))) is not None]

    def reach(name: str, sign: int) -> list[float]:
        ends = [_number(look.get(name)) for _, _, look in points]
        return [
            0.0 if end is None else max(0.0, sign * (end - value))
            for end, (_, value, _) in zip(ends, points, strict=True)
        ]

    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [step for step, _, _ in points],
        "y": [value for _, value, _ in points],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": reach("high", 1),
            "arrayminus": reach("low", -1),
            "color": "@series-1",
            "thickness": 1.5,
            "width": 4,
        },
        "line": {"color": "@series-1", "width": 2},
        "marker": {"size": 6, "color": "@series-1"},
        "text": [str(look.get("status") or "") for _, _, look in points],
        "hovertemplate": "%{y:.4g} nats per token, %{text}<br>step %{x}<extra></extra>",
    }


def _budget_line(budget: float) -> dict[str, Any]:
    line = {"color": "@forgot", "width": 1.5, "dash": "dash"}
    return {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": budget, "y1": budget, "line": line}

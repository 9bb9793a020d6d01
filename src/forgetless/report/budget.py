"""The budget on the page: what each point between base and tuned has learned and lost, and which one was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forgetless.curve import Curve, CurvePoint
from forgetless.records import Unit
from forgetless.report.figures import Figure, label, page_axis, page_layout
from forgetless.report.wording import NONE, figure

LEFT_OUT = " Points that forgot a task before the others were asked have no place here; the table lists them."


def budget_figure(curve: Curve) -> Figure:
    """Returns learning against forgetting for each point that was tried, with the budget as a line."""
    confirmed = [] if curve.confirmed is None else [curve.confirmed]
    within = [entry for entry in curve.points if entry.is_within and entry.point != curve.chosen]
    beyond = [entry for entry in curve.points if not entry.is_within and entry.forgetting is not None]
    groups: list[tuple[str, list[CurvePoint], str, str]] = [
        ("within the budget", within, "@kept", "circle"),
        ("may exceed it", beyond, "@undecided", "circle-open"),
        ("chosen", [curve.selected], "@kept", "star"),
        ("chosen, confirmation half", confirmed, "@ink", "diamond-open"),
    ]
    left_out = "" if all(entry.forgetting is not None for entry in curve.points) else LEFT_OUT
    return Figure(
        name="budget-curve",
        title="From the tuned model towards the base",
        caption="Learning against forgetting of every point that was tried, on the half of the suite that selects; the "
        f"bar reaches to the one-sided {100 * curve.level:.0f} % bound. Left of the line is within the budget."
        f"{left_out}",
        data=[_trace(name, group, colour, symbol, curve) for name, group, colour, symbol in groups if group],
        layout=_layout(curve),
        columns=(
            "Point",
            "Forgetting (points)",
            "Bound",
            "Learned (nats per token)",
            "Learning kept",
            "Forgotten tasks",
        ),
        rows=[_cells(entry, curve) for entry in [*curve.points, *confirmed]],
    )


# All that is drawn has a forgetting; `or 0.0` says so to the type checker.
def _trace(name: str, group: Sequence[CurvePoint], colour: str, symbol: str, curve: Curve) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": name,
        "x": [100 * (entry.forgetting or 0.0) for entry in group],
        "y": [_height(entry, curve) for entry in group],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [100 * ((entry.forgetting_upper or 0.0) - (entry.forgetting or 0.0)) for entry in group],
            "arrayminus": [0.0] * len(group),
            "color": colour,
            "thickness": 1.5,
            "width": 4,
        },
        "marker": {"symbol": symbol, "size": 15 if symbol == "star" else 11, "color": colour},
        "text": ["" if entry is curve.confirmed else label(entry.point.label) for entry in group],
        "textposition": "top center",
        "hovertemplate": "%{text}: lost %{x:.1f} points, learned %{y:.3f}<extra></extra>",
    }


def _height(entry: CurvePoint, curve: Curve) -> float:
    """Returns what is drawn upwards: learning, or the share moved where no held-out data tell of learning."""
    return entry.learning if curve.tuned.learning is not None and entry.learning is not None else entry.point.high


def _layout(curve: Curve) -> dict[str, Any]:
    line = {"color": "@forgot", "width": 1.5, "dash": "dash"}
    x = 100 * curve.budget
    has_learning = curve.tuned.learning is not None
    return page_layout(
        height=420,
        margin={"l": 8, "r": 24, "t": 56, "b": 52},
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.04, "yanchor": "bottom"},
        xaxis=page_axis(title="forgetting, points"),
        yaxis=page_axis(title="learned, nats per token" if has_learning else "share of the change, top layer"),
        shapes=[{"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}],
        annotations=[
            {
                "x": x,
                "y": 1,
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "text": f"budget {x:g}",
                "font": {"color": "@forgot", "size": 12},
            }
        ],
    )


def _cells(entry: CurvePoint, curve: Curve) -> tuple[str, ...]:
    whole = curve.tuned.learning
    share = NONE if not whole or whole <= 0 or entry.learning is None else f"{100 * entry.learning / whole:.0f} %"
    name = entry.point.label
    if entry is curve.confirmed:
        name, share = f"{name}, confirmation half", NONE
    elif entry.point == curve.chosen:
        name = f"{name} (chosen)"
    return (
        name,
        figure(entry.forgetting, Unit.GRADE, signed=True),
        figure(entry.forgetting_upper, Unit.GRADE, signed=True),
        NONE if entry.learning is None else f"{entry.learning:.3f}",
        share,
        ", ".join(entry.forgot) or NONE,
    )

"""The figures of the single weight: surfaces, paths, and where EWC lets it rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forgetless.lessons.single_weight import Path, SingleWeight, equilibrium, largest_rate, loss_a, loss_b
from forgetless.report.figures import Figure, page_axis, page_layout
from forgetless.report.wording import MINUS

COLOURS = ("@series-1", "@series-2", "@series-3", "@series-4", "@forgot")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
WEIGHTS = (-6.0, 3.0)  # what of the weight is drawn
NUM_STEPS = 12
STEP_COLUMNS = ("Step 1", "Step 2", "Step 3", "Step 10", "At the end", "Steps until it rests")


def surfaces(lesson: SingleWeight) -> Figure:
    """Draws both parabolas, and the paths without a penalty down B's."""
    low, high = WEIGHTS
    grid = [round(low + (high - low) * place / 180, 4) for place in range(181)]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": grid,
            "y": [round(loss(w), 4) for w in grid],
            "line": {"color": colour, "width": 2},
            "hovertemplate": f"{name} at %{{x}}: %{{y:.3g}}<extra></extra>",
        }
        for name, loss, colour in (("loss of A", loss_a, "@muted"), ("loss of B", loss_b, "@ink"))
    ]
    data += [_stations(path, number, len(lesson.plain)) for number, path in enumerate(lesson.plain)]
    return Figure(
        name="surfaces",
        title="Both loss surfaces, and the paths down B's",
        caption="Dots are the weight after each step, on the surface that it descends; larger dots are larger rates.",
        data=data,
        layout=_layout(460, page_axis(title="weight", range=[low, high]), page_axis(title="loss", range=[-0.6, 17])),
        columns=("Rate", *STEP_COLUMNS),
        rows=[_path_cells(f"{path.rate:g}", path) for path in lesson.plain],
    )


def _layout(height: int, xaxis: dict[str, Any], yaxis: dict[str, Any]) -> dict[str, Any]:
    return page_layout(
        height=height,
        margin={"l": 8, "r": 16, "t": 40, "b": 52},
        xaxis=xaxis,
        yaxis=yaxis,
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
    )


def _stations(path: Path, number: int, num: int) -> dict[str, Any]:
    """Returns the dots of a path; the paths share a curve, so that the later ones must not hide the earlier ones."""
    weights = path.weights[:20]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"rate {path.rate:g}",
        "zorder": num - number,
        "x": [round(weight, 4) for weight in weights],
        "y": [round(loss_b(weight), 4) for weight in weights],
        "marker": {"size": 5 + 3 * number, "color": COLOURS[number % len(COLOURS)]},
        "hovertemplate": f"rate {path.rate:g}: %{{x:.4g}}, loss %{{y:.4g}}<extra></extra>",
    }


def _path_cells(name: str, path: Path) -> tuple[str, ...]:
    stations = [f"{path.weights[step]:.4g}" if step < len(path.weights) else "far off" for step in (1, 2, 3, 10)]
    return (name, *stations, f"{path.end:.4g}", "never in these" if path.num_steps is None else str(path.num_steps))


def plain_paths(lesson: SingleWeight) -> Figure:
    """Draws the weight over the steps at several rates, without a penalty."""
    names = [f"rate {path.rate:g}" for path in lesson.plain]
    return Figure(
        name="plain",
        title="The path at several rates",
        caption=f"The weight over the steps, trained on B alone. Task A wants it at 1, task B at {MINUS}2.",
        data=_lines(names, lesson.plain),
        layout=_layout(360, page_axis(title="step"), page_axis(title="weight", range=list(WEIGHTS))),
        columns=("Rate", *STEP_COLUMNS),
        rows=[_path_cells(f"{path.rate:g}", path) for path in lesson.plain],
    )


def anchored_paths(lesson: SingleWeight) -> Figure:
    """Draws the weight over the steps against EWC of several strengths."""
    names = [f"strength {path.strength:g}" for path in lesson.anchored]
    return Figure(
        name="anchored",
        title="With EWC at where A left it",
        caption="The weight over the steps, at a third of the largest stable rate of each strength. F = 2.",
        data=_lines(names, lesson.anchored),
        layout=_layout(360, page_axis(title="step"), page_axis(title="weight")),
        columns=("Strength", *STEP_COLUMNS),
        rows=[_path_cells(f"{path.strength:g}", path) for path in lesson.anchored],
    )


def _lines(names: Sequence[str], paths: Sequence[Path]) -> list[dict[str, Any]]:
    data = []
    for number, (name, path) in enumerate(zip(names, paths, strict=True)):
        weights, colour = path.weights[: NUM_STEPS + 1], COLOURS[number % len(COLOURS)]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": list(range(len(weights))),
                "y": [round(weight, 5) for weight in weights],
                "line": {"color": colour, "width": 2, "dash": DASHES[number % len(DASHES)]},
                "marker": {"size": 6, "color": colour},
                "hovertemplate": f"{name}, step %{{x}}: %{{y:.4g}}<extra></extra>",
            }
        )
    return data


def rests(lesson: SingleWeight) -> Figure:
    """Draws where the weight rests over EWC's strength: the closed form, and where training ended."""
    strengths = [place / 10 for place in range(241)]
    return Figure(
        name="rests",
        title="Where it rests: closed form and training",
        caption="The line is the closed form, the dots are where training ended.",
        data=[
            {
                "type": "scatter",
                "mode": "lines",
                "name": "closed form",
                "x": strengths,
                "y": [round(equilibrium(strength), 5) for strength in strengths],
                "line": {"color": "@ink", "width": 2},
                "hovertemplate": "strength %{x}: %{y:.4g}<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": "trained",
                "x": [path.strength for path in lesson.anchored],
                "y": [round(path.end, 5) for path in lesson.anchored],
                "marker": {"size": 11, "color": "@series-2"},
                "hovertemplate": "strength %{x}: trained to %{y:.5g}<extra></extra>",
            },
        ],
        layout=page_layout(
            height=320,
            margin={"l": 8, "r": 16, "t": 12, "b": 52},
            xaxis=page_axis(title="strength of EWC"),
            yaxis=page_axis(title="weight at rest"),
        ),
        columns=("Strength", "Closed form", "Trained", "Largest stable rate", "At rate 0.5"),
        rows=[
            (
                f"{path.strength:g}",
                f"{equilibrium(path.strength):.5f}",
                f"{path.end:.5f}",
                f"{largest_rate(path.strength):.3g}",
                "never rests" if other.num_steps is None else f"rests after {other.num_steps}",
            )
            for path, other in zip(lesson.anchored, lesson.at_lesson_rate, strict=True)
        ],
    )

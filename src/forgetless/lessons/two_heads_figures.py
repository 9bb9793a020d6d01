"""The figures of the two heads: the spread of the ratio, and what was forgotten against what was learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from forgetless.lessons.two_heads import Trial, TwoHeads, spread, summarise
from forgetless.report.figures import Figure, page_axis, page_layout

COLOURS = ("@series-1", "@series-2", "@series-3", "@series-4", "@forgot")
SYMBOLS = ("circle", "diamond", "square")
DECADES = [10.0**power for power in range(-3, 7)]


def ratios_by_rate(rates: Mapping[float, Sequence[Trial]]) -> Figure:
    """Draws the forgetting ratio of each seed, a row for each learning rate."""
    return _ratios(
        {f"{rate:g}": rates[rate] for rate in sorted(rates)},
        name="rates",
        title="Forgetting ratio by learning rate",
        caption="Loss of task A after B over before, on its training rows; both tasks trained plainly at that rate. A "
        "dot is a seed, the line their median.",
        first="Learning rate",
    )


def ratios_by_variant(lesson: TwoHeads) -> Figure:
    """Draws the forgetting ratio of each seed, a row for each way to train task B."""
    return _ratios(
        lesson.variants,
        name="variants",
        title="Forgetting ratio by mitigation",
        caption="The same ratio at the rate of the settings, task B trained in each way. 1 = nothing forgotten on the "
        "training rows.",
        first="Way",
    )


def _ratios(groups: Mapping[str, Sequence[Trial]], *, name: str, title: str, caption: str, first: str) -> Figure:
    data: list[dict[str, Any]] = []
    rows = []
    for place, (way, trials) in enumerate(groups.items()):
        ratios = [trial.ratio for trial in trials]
        data.append(_dots(way, ratios, place, [trial.seed for trial in trials]))
        figures = spread(ratios)
        rows.append((way, *(f"{figures[key]:.3g}" for key in ("min", "q1", "median", "q3", "max"))))
    return Figure(
        name=name,
        title=title,
        caption=caption,
        data=data,
        layout=page_layout(
            height=90 + 38 * len(groups),
            margin={"l": 8, "r": 16, "t": 12, "b": 52},
            xaxis=page_axis(
                title="ratio (log scale)", type="log", tickvals=DECADES, ticktext=[f"{v:g}" for v in DECADES]
            ),
            yaxis=page_axis(tickvals=list(range(len(groups))), ticktext=list(groups), range=[len(groups) - 0.4, -0.6]),
            shapes=[
                {
                    "type": "line",
                    "x0": 1,
                    "x1": 1,
                    "y0": 0,
                    "y1": 1,
                    "yref": "paper",
                    "layer": "below",
                    "line": {"color": "@muted", "width": 1.5},
                },
                *(_median_mark(groups[way], place) for place, way in enumerate(groups)),
            ],
        ),
        columns=(first, "Smallest", "Lower quartile", "Median", "Upper quartile", "Largest"),
        rows=rows,
    )


def _dots(way: str, ratios: Sequence[float], place: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Returns the dots of one way, spread a little across their row so that equal ones can be told apart."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [float(f"{ratio:.5g}") for ratio in ratios],
        "y": [place + (seed % 5 - 2) * 0.07 for seed in seeds],
        "marker": {"size": 8, "color": "@series-1", "opacity": 0.65},
        "text": [f"seed {seed}" for seed in seeds],
        "hovertemplate": f"{way}, %{{text}}: %{{x:.3g}}<extra></extra>",
    }


def _median_mark(trials: Sequence[Trial], place: int) -> dict[str, Any]:
    middle = median(trial.ratio for trial in trials)
    line = {"color": "@series-2", "width": 3}
    return {"type": "line", "x0": middle, "x1": middle, "y0": place - 0.35, "y1": place + 0.35, "line": line}


def tradeoff(lesson: TwoHeads) -> Figure:
    """Draws the rise of task A's held-out loss over the loss of task B, a point for each way."""
    summaries = {way: summarise(trials) for way, trials in lesson.variants.items()}
    data = [_point(way, summary, number) for number, (way, summary) in enumerate(summaries.items())]
    return Figure(
        name="tradeoff",
        title="What was forgotten against what was learned",
        caption="Medians over the seeds, on held-out rows; bars span the middle half of the seeds. Lower left is "
        "better: A kept and B learned.",
        data=data,
        layout=page_layout(
            height=430,
            margin={"l": 8, "r": 16, "t": 12, "b": 52},
            xaxis=page_axis(title="loss of task B at the end, nats"),
            yaxis=page_axis(title="rise of task A's loss, nats"),
            showlegend=True,
            legend={"x": 1, "xanchor": "right", "y": 1},
        ),
        columns=("Way", "Ratio", "A: rise", "A: loss", "A: accuracy", "B: loss", "B: accuracy", "Seeds without a rise"),
        rows=[_tradeoff_cells(way, summary, lesson.num_seeds) for way, summary in summaries.items()],
    )


def _point(way: str, summary: Mapping[str, Any], number: int) -> dict[str, Any]:
    colour = COLOURS[number % len(COLOURS)]
    rise = summary["rise"]
    bar = {"type": "data", "symmetric": False, "array": [rise["q3"] - rise["median"]], "color": colour, "width": 4}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": way,
        "x": [round(summary["loss_b"], 5)],
        "y": [round(rise["median"], 5)],
        "error_y": {**bar, "arrayminus": [rise["median"] - rise["q1"]]},
        "marker": {
            "size": 12,
            "color": colour,
            "symbol": SYMBOLS[number // len(COLOURS) % len(SYMBOLS)],
        },
        "hovertemplate": f"{way}<br>B %{{x:.3f}}, A rose %{{y:.3f}}<extra></extra>",
    }


def _tradeoff_cells(way: str, summary: Mapping[str, Any], num_seeds: int) -> tuple[str, ...]:
    return (
        way,
        f"{summary['ratio']['median']:.3g}",
        f"{summary['rise']['median']:+.3f}",
        f"{summary['loss_a']:.3f}",
        f"{100 * summary['accuracy_a']:.1f} %",
        f"{summary['loss_b']:.3f}",
        f"{100 * summary['accuracy_b']:.1f} %",
        f"{summary['num_unharmed']} of {num_seeds}",
    )

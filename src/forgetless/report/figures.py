"""The figures of report.html: plotly figures as plain data, each with the table that says the same.

Colours are names (`"@kept"`) that the page's script resolves from its style sheet, so that light, dark and print share
one palette. Labels are escaped here: plotly reads a part of HTML in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeVar

from forgetless.records import Comparison, Role, Row, Unit
from forgetless.report.environment import visible
from forgetless.report.evidence import Evidence
from forgetless.report.wording import (
    MARKS,
    MINUS,
    NONE,
    POOLED_LABEL,
    confidence,
    figure,
    interval,
    margin_of,
    unit_word,
)

MAX_TABLE_ROWS = 40
MAX_POINTS = 2000
MAX_LABEL = 44
ROW_HEIGHT = 46
SERIES_COLOURS = ("@series-1", "@series-2", "@series-3", "@series-4")
SERIES_DASHES = ("solid", "dash", "dot", "dashdot")
MARKERS = {
    "kept": "circle",
    "forgot": "x",
    "undecided": "circle-open",
    "improved": "triangle-up",
    "other": "square-open",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure and its twin in words.

    Attributes:
        name: Identifier on the page.
        title: Heading.
        caption: What the figure shows and how to read it; also its text alternative.
        data: Traces of plotly.
        layout: Layout of plotly.
        columns: Header of the table.
        rows: Cells of the table; the first of each row is its header.
        note: What the table or the figure leaves out.
    """

    name: str
    title: str
    caption: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @property
    def height(self) -> int:
        return int(self.layout["height"])


def label(text: str) -> str:
    """Returns text that plotly shows as it is, shortened to fit beside an axis."""
    clean = " ".join(visible(text).split())
    return escape(clean if len(clean) <= MAX_LABEL else clean[: MAX_LABEL - 1] + "…")


def forest(evidence: Evidence, unit: Unit) -> Figure | None:
    """Returns the forest plot of the retention tasks, worst first, the pool last; None where there is no delta."""
    comparison = evidence.comparison
    measured = [row for row in evidence.rows(role=Role.RETENTION, unit=unit) if row.delta is not None]
    pooled = [comparison.pooled] if comparison.pooled.unit is unit and comparison.pooled.delta is not None else []
    rows = measured + pooled
    if not measured:
        return None
    word, level = unit_word(unit), confidence(comparison.alpha)
    direction = "left of zero is worse" if unit is Unit.GRADE else "right of zero is worse"
    left_out = [row.task for row in evidence.rows(role=Role.RETENTION, unit=unit) if row.delta is None]
    return Figure(
        name=f"forest-{unit.value.replace('_', '-')}",
        title="Change per general task" if unit is Unit.GRADE else "Change per cross-entropy task",
        caption=f"Delta (tuned {MINUS} base) in {word} with two-sided {level} intervals, worst first; {direction}. "
        "The dashed line is the margin.",
        data=[_forest_trace(row, position, is_pool=row in pooled) for position, row in enumerate(rows)]
        + _own_margins(rows, comparison),
        layout=_forest_layout(rows, comparison, num_pooled=len(pooled)),
        columns=("Task", f"Delta ({word})", f"{level} interval", "Margin", "Status"),
        rows=[_forest_cells(row, comparison, is_pool=row in pooled) for row in rows],
        note=f"Without a delta, so not drawn: {', '.join(left_out)}." if left_out else "",
    )


def _forest_cells(row: Row, comparison: Comparison, *, is_pool: bool) -> tuple[str, ...]:
    mark = MARKS[row.status]
    return (
        POOLED_LABEL if is_pool else row.task,
        figure(row.delta, row.unit, signed=True),
        interval(row.ci_low, row.ci_high, row.unit),
        figure(margin_of(row, comparison), row.unit),
        f"{mark.symbol} {mark.word}",
    )


def _scaled(value: float, unit: Unit) -> float:
    return round(value * 100, 4) if unit is Unit.GRADE else round(value, 6)


def _forest_trace(row: Row, position: int, *, is_pool: bool) -> dict[str, Any]:
    mark, delta = MARKS[row.status], row.delta or 0.0
    low = delta if row.ci_low is None else row.ci_low
    high = delta if row.ci_high is None else row.ci_high
    colour = f"@{mark.colour}"
    name = POOLED_LABEL if is_pool else label(row.task)
    hover = f"<b>{name}</b><br>{figure(delta, row.unit, signed=True)} {unit_word(row.unit)} "
    hover += f"({interval(row.ci_low, row.ci_high, row.unit)})<br>{mark.symbol} {mark.word}, n = {row.num_samples:,}"
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [_scaled(delta, row.unit)],
        "y": [position],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [_scaled(high - delta, row.unit)],
            "arrayminus": [_scaled(delta - low, row.unit)],
            "color": colour,
            "thickness": 3 if is_pool else 2,
            "width": 5,
        },
        "marker": {
            "symbol": "diamond" if is_pool else MARKERS[mark.colour],
            "size": 13 if is_pool else 11,
            "color": colour,
            "line": {"width": 2 if MARKERS[mark.colour].endswith("open") else 0, "color": colour},
        },
        "text": [hover],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _signed_margin(row: Row, comparison: Comparison) -> float | None:
    """Returns where the margin lies on the axis of delta: a drop of a grade, a rise of a cross-entropy."""
    margin = margin_of(row, comparison)
    return None if margin is None else _scaled(-margin if row.unit is Unit.GRADE else margin, row.unit)


def _common_margin(rows: Sequence[Row], comparison: Comparison) -> float | None:
    """Returns the margin that the line shows: the one that most rows have."""
    margins = [margin for row in rows if (margin := _signed_margin(row, comparison)) is not None]
    return max(margins, key=margins.count) if margins else None


def _own_margins(rows: Sequence[Row], comparison: Comparison) -> list[dict[str, Any]]:
    """Returns ticks for the rows whose margin is not the common one."""
    common = _common_margin(rows, comparison)
    own = [(position, _signed_margin(row, comparison)) for position, row in enumerate(rows)]
    own = [(position, margin) for position, margin in own if margin is not None and margin != common]
    if not own:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [margin for _, margin in own],
            "y": [position for position, _ in own],
            "marker": {"symbol": "line-ns", "size": 22, "line": {"width": 2, "color": "@forgot"}},
            "text": ["the margin of this task"] * len(own),
            "hovertemplate": "%{text}: %{x}<extra></extra>",
        }
    ]


def _forest_layout(rows: Sequence[Row], comparison: Comparison, *, num_pooled: int) -> dict[str, Any]:
    unit, margin = rows[0].unit, _common_margin(rows, comparison)
    names = [label(row.task) for row in rows[: len(rows) - num_pooled]] + ["<b>Pooled</b>"] * num_pooled
    marks = [MARKS[row.status] for row in rows]
    edges = [0.0, *([] if margin is None else [margin])]
    edges += [
        _scaled(value, unit) for row in rows for value in (row.delta, row.ci_low, row.ci_high) if value is not None
    ]
    pad = 0.06 * (max(edges) - min(edges) or 1.0)
    lines = [_vertical(0.0, colour="@ink", dash="solid")]
    notes = [_line_note(0.0, "no change", anchor="left" if unit is Unit.GRADE else "right", colour="@muted")]
    if margin is not None:
        shown = figure(margin / 100 if unit is Unit.GRADE else margin, unit, signed=True)
        lines.append(_vertical(margin, colour="@forgot", dash="dash"))
        anchor = "right" if unit is Unit.GRADE else "left"
        notes.append(_line_note(margin, f"margin {shown}", anchor=anchor, colour="@forgot"))
    return page_layout(
        height=96 + ROW_HEIGHT * len(rows),
        margin={"l": 8, "r": 72, "t": 28, "b": 52},
        xaxis=page_axis(title=f"delta, {unit_word(unit)}", range=[min(edges) - pad, max(edges) + pad]),
        yaxis=page_axis(
            tickvals=list(range(len(rows))),
            ticktext=[
                f"{name}<br><span style='font-size:0.85em'>{mark.symbol} {mark.word}</span>"
                for name, mark in zip(names, marks, strict=True)
            ],
            range=[len(rows) - 0.4, -0.6],
            gridwidth=1,
        ),
        shapes=lines,
        annotations=notes,
    )


def _vertical(x: float, *, colour: str, dash: str) -> dict[str, Any]:
    line = {"color": colour, "width": 1.5, "dash": dash}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "layer": "between", "line": line}


def _line_note(x: float, text: str, *, anchor: str, colour: str) -> dict[str, Any]:
    place = {"x": x, "y": 1, "yref": "paper", "xanchor": anchor, "yanchor": "bottom", "showarrow": False}
    return {**place, "text": text, "font": {"color": colour, "size": 12}}


def page_axis(**settings: Any) -> dict[str, Any]:
    """Returns an axis that can't be dragged: a finger on a phone scrolls the page, not the figure."""
    title = settings.pop("title", "")
    frame = {"fixedrange": True, "automargin": True, "zeroline": False, "gridcolor": "@rule", "linecolor": "@rule"}
    return {**frame, "title": {"text": title, "standoff": 12}, "tickfont": {"color": "@ink"}, **settings}


def page_layout(**settings: Any) -> dict[str, Any]:
    return {
        "paper_bgcolor": "@clear",
        "plot_bgcolor": "@clear",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "@ink"},
        "hoverlabel": {"bgcolor": "@surface", "bordercolor": "@rule", "font": {"color": "@ink"}, "align": "left"},
        "dragmode": False,
        "showlegend": False,
        **settings,
    }


def training_curves(evidence: Evidence) -> list[Figure]:
    """Returns loss, penalties and learning rate over the steps, as far as the training log holds them."""
    wanted = (
        ("loss", "Training loss", "Training loss per logged step."),
        ("penalties", "Penalties", "Each penalty that a method added to the loss, by name."),
        ("shares", "Shares of the gradient", "Norm of each penalty's gradient over the sum of all norms, from 0 to 1."),
        ("learning_rate", "Learning rate", "Learning rate per logged step."),
    )
    curves = (_curve(evidence.training_log, key, title=title, caption=caption) for key, title, caption in wanted)
    return [curve for curve in curves if curve is not None]


def _curve(log: Sequence[Mapping[str, Any]], key: str, *, title: str, caption: str) -> Figure | None:
    series = _series(log, key)
    if not series:
        return None
    data = [_line(name, points, number) for number, (name, points) in enumerate(series.items())]
    steps = sorted({step for points in series.values() for step, _ in points})
    shown = spread_evenly(steps, MAX_TABLE_ROWS)
    by_step = {name: dict(points) for name, points in series.items()}
    return Figure(
        name=f"curve-{key.replace('_', '-')}",
        title=title,
        caption=caption,
        data=data,
        layout=page_layout(
            height=280,
            margin={"l": 8, "r": 12, "t": 12 if len(series) == 1 else 36, "b": 48},
            showlegend=len(series) > 1,
            legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
            xaxis=page_axis(title="step"),
            yaxis=page_axis(exponentformat="e"),
        ),
        columns=("Step", *series),
        rows=[(str(step), *(plain_number(by_step[name].get(step)) for name in series)) for step in shown],
        note=f"{len(shown)} of {len(steps):,} logged steps." if len(shown) < len(steps) else "",
    )


def _series(log: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[tuple[int, float]]]:
    """Returns the points of each curve under a key: one by that name, or several where the key holds a mapping."""
    series: dict[str, list[tuple[int, float]]] = {}
    for entry in log:
        for name, value in _named(entry.get(key), key):
            series.setdefault(name, []).append((int(entry["step"]), value))
    return series


def _named(value: object, key: str) -> Iterator[tuple[str, float]]:
    items = value.items() if isinstance(value, Mapping) else [(key.replace("_", " "), value)]
    for name, number in items:
        if isinstance(number, int | float) and not isinstance(number, bool):
            yield str(name), float(number)


def _line(name: str, points: Sequence[tuple[int, float]], number: int) -> dict[str, Any]:
    kept = spread_evenly(points, MAX_POINTS)
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(kept) <= 60 else "lines",
        "name": label(name),
        "x": [step for step, _ in kept],
        "y": [value for _, value in kept],
        "line": {"color": SERIES_COLOURS[number % 4], "dash": SERIES_DASHES[number % 4], "width": 2},
        "marker": {"size": 5, "color": SERIES_COLOURS[number % 4]},
        "hovertemplate": f"{label(name)}: %{{y:.4g}}<br>step %{{x}}<extra></extra>",
    }


def spread_evenly(items: Sequence[T], limit: int) -> list[T]:
    """Returns at most `limit` items, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[round(index * (len(items) - 1) / (limit - 1))] for index in range(limit)]


def plain_number(value: float | None) -> str:
    """Returns a number for a table, with four digits that count."""
    return NONE if value is None else f"{value:.4g}"

"""The pages of a sequence of phases: report.html with R as a heat map and a table, and report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from forgetless.files import write_text
from forgetless.phase_records import Estimate, Measure, PhasesRecord, read_phases
from forgetless.records import Comparison, Role, Row, Unit
from forgetless.report.environment import environment
from forgetless.report.evidence import read_manifest
from forgetless.report.figures import Figure, label, page_axis, page_layout
from forgetless.report.html import as_yaml, security_policy
from forgetless.report.wording import (
    MARKS,
    MINUS,
    NONE,
    VERDICT_MARKS,
    confidence,
    figure,
    interval,
    quantity,
    unit_word,
)

CELL_HEIGHT = 64
SCALE = ("#eef2f6", "#1f5f99")  # of the heat map, from worst to best, in light and dark alike
TITLES = {"answers": "Answers to held-out questions", "loss": "Loss on held-out answers"}
MEASURES = (
    ("average", "ACC", "mean over all targets after the last phase"),
    ("learning", "learning", "from the base to right after the target's own phase"),
    ("backward_transfer", "BWT", "change of earlier targets since right after their own phase"),
    ("forward_transfer", "FWT", "from the base to right before the target's own phase"),
    ("forgetting", "forgetting", "from the best score before the last phase to the end"),
)


def build_phases_report(directory: Path, *, names: Sequence[str] = ()) -> list[Path]:
    """Writes report.html and report.md of a sequence into its directory, from its phases.json and its manifest.

    Args:
        directory: The run directory.
        names: Which of the two; none = both.

    Returns:
        The files written, report.html first.

    Raises:
        DataError: phases.json is missing, or can't be read.
        OSError: A page can't be written.
    """
    record, path = read_phases(directory / "phases.json"), directory / "manifest.json"
    manifest = read_manifest(path) if path.is_file() else {}
    name = str(manifest.get("name") or directory.resolve().name)
    pages = {
        "report.html": render_phases_html(record, manifest, name),
        "report.md": render_phases_markdown(record, name),
    }
    texts = {page: text for page, text in pages.items() if not names or page in names}
    for page, text in texts.items():
        write_text(directory / page, text, newline="\n")
    return [directory / page for page in texts]


def render_phases_html(record: PhasesRecord, manifest: Mapping[str, Any], name: str) -> str:
    """Returns the page of a sequence."""
    templates = files("forgetless.report").joinpath("templates")
    library = files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    own = templates.joinpath("page.js.j2").read_text(encoding="utf-8")
    general = general_figure(record)
    return (
        environment()
        .get_template("phases.html.j2")
        .render(
            **_facts(record, name),
            charts=[*(heat_map(measure, record) for measure in record.measures), *([general] if general else [])],
            config=as_yaml(manifest.get("config") or {}),
            made=f"forgetless {manifest.get('forgetless', '')}".strip(),
            policy=security_policy(library, own),
            plotly=Markup(library),
            script=Markup(own),
            style=Markup(templates.joinpath("style.css.j2").read_text(encoding="utf-8")),
        )
    )


def render_phases_markdown(record: PhasesRecord, name: str) -> str:
    """Returns the summary of a sequence."""
    return environment().get_template("phases.md.j2").render(**_facts(record, name))


def _facts(record: PhasesRecord, name: str) -> dict[str, Any]:
    return {
        "record": record,
        "name": name,
        "verdict": VERDICT_MARKS[record.verdict],
        "headline": headline(record),
        "level": confidence(record.alpha),
        "measures": [(measure, measure_rows(measure), matrix_rows(measure)) for measure in record.measures],
        "titles": TITLES,
        "judged": [judged_row(phase.name, phase.general, phase.earlier) for phase in record.phases],
        "targets": target_rows(record),
        "places": [f"phases/{number:02d}-{phase.name}" for number, phase in enumerate(record.phases, start=1)],
    }


def headline(record: PhasesRecord) -> str:
    """Returns the verdict in one sentence, without its word."""
    pooled = record.phases[-1].general.pooled
    general = f"general skills changed by {quantity(pooled.delta, pooled.unit, signed=True)} since the base"
    if pooled.delta is None:
        general = "general skills were not measured on both sides"
    measure = record.measures[0]
    text = f"After {len(record.phases)} phases {general}"
    if measure.backward_transfer.value is None:
        return f"{text}."
    lost = quantity(measure.backward_transfer.value, measure.unit, signed=True)
    return f"{text}, earlier targets by {lost} on average since their own phase (a loss is below zero)."


def cell(estimate: Estimate, unit: Unit, *, signed: bool = False) -> str:
    """Returns `62.1 (50.0 to 74.2)`."""
    if estimate.low is None or estimate.value is None:
        return figure(estimate.value, unit, signed=signed)
    shown = interval(estimate.low, estimate.high, unit, signed=signed)
    return f"{figure(estimate.value, unit, signed=signed)} ({shown})"


def row_names(measure: Measure) -> list[str]:
    """Returns what the rows of R are called, the base's first."""
    return ["base", *(f"after {name}" for name in measure.phases)]


def matrix_rows(measure: Measure) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Returns the cells of R by row, the base's first, each with whether it is the target's own phase."""
    rows = [measure.base, *measure.matrix]
    return [
        (name, [(cell(value, measure.unit), number - 1 == column) for column, value in enumerate(row)])
        for number, (name, row) in enumerate(zip(row_names(measure), rows, strict=True))
    ]


def measure_rows(measure: Measure) -> list[tuple[str, str, str]]:
    """Returns name, figure with interval and meaning of each measure."""
    return [
        (name, cell(getattr(measure, field), measure.unit, signed=field != "average"), meaning)
        for field, name, meaning in MEASURES
    ]


def judged_row(name: str, general: Comparison, earlier: Comparison | None) -> dict[str, str]:
    """Returns what was judged after a phase, in words."""
    verdict = VERDICT_MARKS[general.verdict]
    pooled = general.pooled
    row = {
        "name": name,
        "general": f"{verdict.symbol} {verdict.word}",
        "general_delta": figure(pooled.delta, pooled.unit, signed=True),
        "general_interval": interval(pooled.ci_low, pooled.ci_high, pooled.unit),
        "earlier": NONE,
        "forgot": NONE,
    }
    if earlier is None:
        return row
    mark = VERDICT_MARKS[earlier.verdict]
    forgotten = [one.task for one in earlier.tasks if MARKS[one.status].word == "FORGOT"]
    return row | {"earlier": f"{mark.symbol} {mark.word}", "forgot": ", ".join(forgotten) or "nothing"}


def target_rows(record: PhasesRecord) -> list[tuple[Row, Row | None]]:
    """Returns, for each task of a target, the last comparison with the base, and with its own phase where there is."""
    last = record.phases[-1]
    since = {} if last.earlier is None else {row.task: row for row in last.earlier.tasks}
    return [(row, since.get(row.task)) for row in last.general.tasks if row.role is Role.TARGET]


def heat_map(measure: Measure, record: PhasesRecord) -> Figure:
    """Returns R as a heat map: a row after each phase, a column for each target, the own phases framed."""
    rows, names = [measure.base, *measure.matrix], row_names(measure)
    better = "darker is better" if measure.unit is Unit.GRADE else "lower is better, and darker within a column"
    cells = [(x, y, one) for y, row in enumerate(rows) for x, one in enumerate(row)]
    colours = [_colour(one, measure, x) for x, _, one in cells]
    size = {"xaxis": len(measure.phases), "yaxis": len(names)}
    return Figure(
        name=f"matrix-{measure.name}",
        title=TITLES.get(measure.name, measure.name),
        caption=f"R in {unit_word(measure.unit)} with {confidence(record.alpha)} intervals: what each target scores "
        f"after each phase; {better}. Framed: right after the target's own phase. Read a column downwards: what a "
        "later phase takes away lies below the frame, what an earlier one gives lies above it.",
        data=[
            {
                "type": "scatter",
                "mode": "text",
                "x": [x for x, _, _ in cells],
                "y": [y for _, y, _ in cells],
                "text": [_cell_text(one, measure.unit) for _, _, one in cells],
                "textfont": {"color": [_ink(colour) for colour in colours]},
                "hoverinfo": "skip",
            }
        ],
        layout=page_layout(
            height=72 + CELL_HEIGHT * len(names),
            margin={"l": 8, "r": 8, "t": 40, "b": 8},
            xaxis=page_axis(
                tickvals=list(range(size["xaxis"])),
                ticktext=[label(name) for name in measure.phases],
                range=[-0.5, size["xaxis"] - 0.5],
                side="top",
                showgrid=False,
            ),
            yaxis=page_axis(
                tickvals=list(range(size["yaxis"])),
                ticktext=[label(name) for name in names],
                range=[size["yaxis"] - 0.5, -0.5],
                showgrid=False,
            ),
            # Shapes, because plotly's own heat maps are pictures, which the page's policy doesn't let in.
            shapes=[
                _cell_shape(x, y, colour, is_own=y == x + 1) for (x, y, _), colour in zip(cells, colours, strict=True)
            ],
        ),
        columns=("", *measure.phases),
        rows=[(name, *(text for text, _ in texts)) for name, texts in matrix_rows(measure)],
    )


def _cell_text(estimate: Estimate, unit: Unit) -> str:
    if estimate.low is None or estimate.high is None:
        return f"<b>{figure(estimate.value, unit)}</b>"
    return f"<b>{figure(estimate.value, unit)}</b><br>{interval(estimate.low, estimate.high, unit, signed=False)}"


def _cell_shape(x: int, y: int, colour: str, *, is_own: bool) -> dict[str, Any]:
    edge = {"x0": x - 0.47, "x1": x + 0.47, "y0": y - 0.45, "y1": y + 0.45}
    line = {"color": "@ink", "width": 3} if is_own else {"color": "@rule", "width": 1}
    return {"type": "rect", **edge, "layer": "below", "fillcolor": colour, "line": line}


def _colour(estimate: Estimate, measure: Measure, column: int) -> str:
    """Returns the colour of a cell: grades over the whole scale, losses from their column's highest to its lowest."""
    if estimate.value is None:
        return SCALE[0]
    low, high = 0.0, 1.0
    if measure.unit is not Unit.GRADE:
        found = [row[column].value for row in (measure.base, *measure.matrix)]
        values = [value for value in found if value is not None]
        low, high = max(values), min(values)
    part = (estimate.value - low) / (high - low) if high != low else 0.5
    ends = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in SCALE]
    return "#" + "".join(f"{round(start + part * (end - start)):02x}" for start, end in zip(*ends, strict=True))


def _ink(colour: str) -> str:
    """Returns black or white, as it reads better on a colour."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#1f2428" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def general_figure(record: PhasesRecord) -> Figure | None:
    """Returns the change of general skills after each phase; None where it was never measured."""
    rows = [(phase.name, phase.general.pooled) for phase in record.phases if phase.general.pooled.delta is not None]
    if not rows:
        return None
    at = list(range(len(rows)))
    deltas = [100 * (row.delta or 0.0) for _, row in rows]
    high = [100 * ((row.delta if row.ci_high is None else row.ci_high) or 0.0) for _, row in rows]
    low = [100 * ((row.delta if row.ci_low is None else row.ci_low) or 0.0) for _, row in rows]
    line = {"type": "line", "x0": 0, "x1": 1, "xref": "paper"}
    return Figure(
        name="general",
        title="General skills after each phase",
        caption=f"Delta of the general tasks, pooled (after the phase {MINUS} base), in points with two-sided "
        f"{confidence(record.alpha)} intervals; below zero is worse. The dashed line is the margin.",
        data=[
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": at,
                "y": [round(value, 4) for value in deltas],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [round(up - value, 4) for up, value in zip(high, deltas, strict=True)],
                    "arrayminus": [round(value - down, 4) for down, value in zip(low, deltas, strict=True)],
                    "color": "@series-1",
                },
                "line": {"color": "@series-1", "width": 2},
                "marker": {"size": 9, "color": "@series-1"},
                "hovertemplate": "%{y:.1f} points<extra></extra>",
            }
        ],
        layout=page_layout(
            height=300,
            margin={"l": 8, "r": 8, "t": 12, "b": 40},
            xaxis=page_axis(
                tickvals=at,
                ticktext=[label(f"after {name}") for name, _ in rows],
                range=[-0.4, len(rows) - 0.6],
                showgrid=False,
            ),
            yaxis=page_axis(title="delta, points"),
            shapes=[
                {**line, "y0": 0, "y1": 0, "line": {"color": "@ink", "width": 1}},
                {
                    **line,
                    "y0": -100 * record.margin,
                    "y1": -100 * record.margin,
                    "line": {"color": "@forgot", "width": 2, "dash": "dash"},
                },
            ],
        ),
        columns=("", "delta", f"{confidence(record.alpha)} interval", "status"),
        rows=[
            (
                f"after {name}",
                figure(row.delta, row.unit, signed=True),
                interval(row.ci_low, row.ci_high, row.unit),
                MARKS[row.status].word,
            )
            for name, row in rows
        ],
    )

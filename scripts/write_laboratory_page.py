"""Writes docs/laboratory.md and its figure from what the laboratory measured.

python scripts/write_laboratory_page.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "laboratory" / "laboratory.json"
FIGURE = "images/laboratory.svg"
KEPT = {"none": "-", "general": "general", "written": "self-written"}
INK = {"reference": "#555555", "beats both controls": "#1b7837", "no better than the controls": "#b35806"}

PAGE = """\
# The laboratory

Every method in a world small enough to try it on {num_seeds} seeds: Llama models of half a million weights, pretrained
here in minutes, that know five skills, and are then tuned on a narrow task that conflicts with one of them. Training
stage, method classes and options are those of a real run.

{commands}

{versions}. {num_runs} runs, {hours:.1f} hours of one core, pretraining left out.{kept}

**The world.** {num_bases} base models, each with facts and a language of its own. Accuracy on questions that were never
trained on:

| base | {skills} |
|---|{rule}|
{bases}
**The task.** 96 questions about 24 new things, worded like those about the facts that the base knows; the answer is the
value in a new form (`red ! !` where the base says `red`). *target* is the share that is answered exactly, of each fact
in five phrasings, and *unseen* that of the one phrasing that was not trained on. *forgotten* is what the skills'
accuracy lost, as the mean of the five, in points.

**Equal learning.** Each row's options and rate are those that forget least on {num_validation} validation seeds among
those that reach {goal:.0f} % of the target there, with the fewest steps that do; then they are run on {num_seeds} other
seeds. Plain fine-tuning and the controls are chosen in the same way: "fewer steps" may stay {slack:.0f} points below.
AdamW, batch 16, constant rate.

**Worth its name** is a method that forgets less than *both* controls: a one-sided paired t-test over the seeds against
each, the larger p-value of the two, Holm-adjusted over all methods, at {alpha:g}. Intervals are 95 % (Student's, over
seeds). Seeds share {num_bases} base models, so that they say less about a fourth one than their number suggests.

![What each row forgets, by seed, with intervals]({figure})

{tables}
*saved*: points of plain fine-tuning's forgetting that the row keeps away, paired over seeds. *p*: as above. *step*:
processor time of one optimizer step over plain's (median over seeds; one thread of a shared machine). *memory*: what
training holds beyond the base's weights, over plain's (added weights, gradients, optimizer, what the method keeps;
activations left out). *data*: what the method was given as data to keep: 300 examples like those the base was
pretrained on, or what the base wrote itself from its bare chat template and answered greedily.

## What is forgotten

Points lost of each skill. Facts are the skill that the task conflicts with.

{skill_table}
{missing}"""

KEPT_ROWS = """ {num_kept} of the rows were run
on another day and machine than the others, and are compared with plain fine-tuning and controls run beside them."""

MISSING = """\
## Not in the table

| row | why |
|---|---|
{rows}"""


def lines(rows: Iterable[Sequence[Any]]) -> str:
    """Returns rows of a Markdown table."""
    return "".join(f"| {' | '.join(str(cell) for cell in row)} |\n" for row in rows)


def spread(value: Mapping[str, float]) -> str:
    """Returns a mean with its interval, in points."""
    return f"{100 * value['mean']:.0f} [{100 * value['low']:.0f}, {100 * value['high']:.0f}]"


def settings(row: Mapping[str, Any]) -> str:
    """Returns the chosen options as a reader should see them."""
    found = [f"rate {row['rate']:.2g}"]
    for spec in row["methods"]:
        (name, options), *_ = spec.items() if isinstance(spec, dict) else [(spec, {})]
        shown = ", ".join(
            f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in options.items()
        )
        found.append(f"{name}: {shown}" if shown else name)
    return "; ".join(found)


def p_value(row: Mapping[str, Any]) -> str:
    """Returns the adjusted p-value."""
    if "p_adjusted" not in row:
        return "-"
    return "< 0.0001" if row["p_adjusted"] < 0.0001 else f"{row['p_adjusted']:.4f}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of one family, what forgets least first."""
    head = "| row | chosen | data | steps | target | unseen | forgotten | saved | p | step | memory | finding |\n"
    return (
        head
        + "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        + lines(
            (
                row["name"] + ("" if row["num_seeds"] == row["all_seeds"] else f" ({row['num_seeds']} seeds)"),
                settings(row),
                KEPT[row["kept"]],
                row["steps"],
                spread(row["target"]),
                f"{100 * row['unseen']:.0f}",
                spread(row["forgetting"]),
                spread(row["saved"]) if "saved" in row else "-",
                p_value(row),
                f"{row['step_ratio']:.2f}",
                f"{row['memory_ratio']:.2f}",
                f"**{row['finding']}**" if row["finding"] == "beats both controls" else row["finding"],
            )
            for row in sorted(rows, key=lambda row: row["forgetting"]["mean"])
        )
    )


def page(result: Mapping[str, Any]) -> str:
    """Returns docs/laboratory.md."""
    shown = [row | {"all_seeds": result["num_seeds"]} for row in result["rows"] if "step_ratio" in row]
    missing = [(row["name"], row.get("missing", row["finding"])) for row in result["rows"] if "step_ratio" not in row]
    skills = list(result["bases"][0])
    families = dict.fromkeys(row["family"] for row in shown)
    return (
        PAGE.format(
            num_seeds=result["num_seeds"],
            num_validation=result["num_validation"],
            commands="\n".join(f"    {command}" for command in result["commands"]),
            versions=", ".join(f"{name} {version}" for name, version in result["versions"].items()),
            num_runs=result["num_runs"],
            hours=result["hours"],
            kept=KEPT_ROWS.format(**result) if result.get("num_kept") else "",
            num_bases=len(result["bases"]),
            skills=" | ".join(skills),
            rule="|".join("---" for _ in skills),
            bases=lines(
                (number, *(f"{base[skill]:.2f}" for skill in skills)) for number, base in enumerate(result["bases"])
            ),
            goal=100 * result["goal"],
            slack=100 * result["slack"],
            alpha=result["alpha"],
            figure=FIGURE,
            tables="\n".join(
                f"## {family.capitalize()}\n\n{table([row for row in shown if row['family'] == family])}"
                for family in families
            ),
            skill_table=f"| row | {' | '.join(skills)} |\n|---|{'|'.join('---' for _ in skills)}|\n"
            + lines(
                (row["name"], *(f"{100 * row['skills'][skill]:.0f}" for skill in skills))
                for row in sorted(shown, key=lambda row: row["forgetting"]["mean"])
            ),
            missing=MISSING.format(rows=lines(missing)) if missing else "",
        ).rstrip()
        + "\n"
    )


def figure(result: Mapping[str, Any]) -> str:
    """Returns the figure as SVG: each row with its seeds, mean and interval; references as lines through all."""
    rows = sorted((r for r in result["rows"] if "step_ratio" in r), key=lambda row: row["forgetting"]["mean"])
    left, top, wide, high = 210, 46, 560, 20
    most = max(max(row["by_seed"].values()) for row in rows)
    height, end = top + high * len(rows), 10 * (int(10 * most) + 1)

    def x(share: float) -> float:
        return round(left + wide * 100 * max(share, 0.0) / end, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + wide + 30} {height + 46}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{left}" y="18" font-weight="bold">Points forgotten, mean of five skills, at equal learning</text>',
    ]
    for tick in range(0, end + 1, 10):
        at = x(tick / 100)
        parts.append(f'<line x1="{at}" y1="{top - 8}" x2="{at}" y2="{height}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{at}" y="{top - 12}" text-anchor="middle" fill="#555555">{tick}</text>')
    for row in rows:
        if row["is_control"]:
            at = x(row["forgetting"]["mean"])
            parts.append(
                f'<line x1="{at}" y1="{top - 8}" x2="{at}" y2="{height}" stroke="#999999" stroke-dasharray="3 3"/>'
            )
    for number, row in enumerate(rows):
        y, ink, found = top + high * number + high // 2, INK.get(row["finding"], "#a50f15"), row["forgetting"]
        weight = ' font-weight="bold"' if row["is_control"] else ""
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end"{weight}>{escape(row["name"])}</text>')
        parts += [f'<circle cx="{x(v)}" cy="{y}" r="2.5" fill="{ink}" opacity="0.3"/>' for v in row["by_seed"].values()]
        parts.append(
            f'<line x1="{x(found["low"])}" y1="{y}" x2="{x(found["high"])}" y2="{y}" stroke="{ink}" stroke-width="2"/>'
            f'<circle cx="{x(found["mean"])}" cy="{y}" r="4.5" fill="{ink}"/>'
        )
    legend = (
        "green: beats both controls; orange: no better; red: learns less than the others; dashed: plain and controls"
    )
    parts.append(f'<text x="{left}" y="{height + 28}" fill="#555555" font-size="11">{legend}</text></svg>\n')
    return "\n".join(parts)


def beside(row: Mapping[str, Any]) -> str:
    """Returns what plain fine-tuning and a lower rate forgot on the seeds of a row."""
    against = {"plain fine-tuning": row["saved"]} if "saved" in row else {}
    against |= {name: found for name, found in row.get("against", {}).items() if name == "lower learning rate"}
    shown = [f"{name} {100 * (row['forgetting']['mean'] + found['mean']):.0f}" for name, found in against.items()]
    return f" ({', '.join(shown)})" if shown else ""


def evidence(name: str, result: Mapping[str, Any]) -> str:
    """Returns what the laboratory says of a method, row by row, for its card."""
    rows = {row["name"]: row for row in result["rows"] if row.get("forgetting")}
    own = [row for row in rows.values() if name in row["name"].partition(",")[0].split(" + ")]
    link = "the [laboratory](../laboratory.md)"
    if not own:
        return f"Not yet run in {link}.\n"
    lines = [f"In {link}, over {result['num_seeds']} seeds, points forgotten, and by the references of the same day:\n"]
    for row in own:
        found = {key: 100 * value for key, value in row["forgetting"].items()}
        lines.append(
            f"- {row['name']}: {found['mean']:.0f} [{found['low']:.0f}, {found['high']:.0f}]{beside(row)}, with "
            f"{100 * row['target']['mean']:.0f} % of the target; {row['finding']}"
        )
    return "\n".join(lines) + "\n"


def cards(result: Mapping[str, Any]) -> dict[Path, str]:
    """Returns the methods' cards with what the laboratory says put between their marks."""
    found = {}
    for path in sorted((ROOT / "docs" / "methods").glob("*.md")):
        head, mark, tail = path.read_text(encoding="utf-8").partition("<!-- laboratory -->\n")
        if mark:
            rest = tail.partition("<!-- end -->")[2]
            found[path] = f"{head}{mark}{evidence(path.stem, result)}<!-- end -->{rest}"
    return found


def pages() -> dict[Path, str]:
    """Returns the page, its figure and the cards, by the file that each belongs in; nothing before it was measured."""
    if not RESULT.is_file():
        return {}
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    return {ROOT / "docs" / "laboratory.md": page(result), ROOT / "docs" / FIGURE: figure(result)} | cards(result)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))

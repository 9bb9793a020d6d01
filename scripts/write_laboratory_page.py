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
EARLIER = RESULT.with_name("earlier.json")  # of other base models, made by the laboratory of another commit
FIGURE, EARLIER_FIGURE = "images/laboratory.svg", "images/laboratory_earlier.svg"
KEPT = {"none": "-", "general": "general", "written": "self-written"}
INK = {"reference": "#555555", "beats both controls": "#1b7837", "no better than the controls": "#b35806"}

PAGE = """\
# The laboratory

Every method in a world small enough to try it on {num_seeds} seeds: Llama models of half a million weights, pretrained
here in minutes, that know five skills, and are then tuned on a narrow task that conflicts with one of them. Training
stage, method classes and options are those of a real run.

{commands}

{versions}. {num_runs} runs, {hours:.1f} hours of one core, pretraining left out.

**The world.** {num_bases} base models, each with facts and a language of its own. Accuracy on questions that were never
trained on:

| base | {skills} |
|---|{rule}|
{bases}
**The task.** 96 questions about 24 new things, worded like those about the facts that the base knows; the answer is the
value in a new form (`red ! !` where the base says `red`). *target* is the share that is answered exactly, of each fact
in five phrasings, and *unseen* that of the one phrasing that was not trained on: *target* is mostly memory, *unseen* is
what goes beyond it. *forgotten* is what the skills' accuracy lost, as the mean of the five, in points.

**Equal learning.** Each row's options and rate are those that forget least on {num_validation} validation seeds among
those that reach {goal:.0f} % of the target there, with the fewest steps that do; then they are run on {num_seeds} other
seeds. Plain fine-tuning and the controls are chosen in the same way: "fewer steps" may stay {slack:.0f} points below.
AdamW, batch 16, constant rate, at most {longest} steps. A choice marked `<` took the lowest of its rates, one marked
`>` the strongest of its settings: beyond it there may be a better one. "Learns less" says that the mean target stays
more than {slack:.0f} points below plain's; it is a description, not a test.

**Worth its name** is a method that forgets less than *both* controls: a one-sided paired t-test over the seeds against
each, the larger p-value of the two, Holm-adjusted over all methods, at {alpha:g}. Intervals are 95 % (Student's, over
seeds). These p-values speak of these {num_bases} base models, which the seeds share. *bases*: on how many of them a
row's mean lies below those of both controls. With the base models as the units (the same test over {num_bases} means),
{num_raw} of {num_judged} rows have a p-value of at most {alpha:g}, and {num_adjusted} after Holm's adjustment: for a
model of another kind this table is a hint.

![What each row forgets, by seed, with intervals]({figure})

{tables}
*saved*: points of plain fine-tuning's forgetting that the row keeps away, paired over seeds. *p*: as above. *step*:
processor time of one optimizer step over plain's (median over seeds; one thread of a shared machine). *memory*: what
training holds beyond the base's weights, over plain's (added weights, gradients, optimizer, what the method keeps;
activations left out). *data*: what the method was given as data to keep: 300 examples like those the base was
pretrained on, or what the base wrote itself from its bare chat template and answered greedily.

## What is forgotten

Points lost of each skill, of the rows that reached the target. Facts are the skill that the task conflicts with.

{skill_table}
{missing}{earlier}"""

EARLIER_PAGE = """\
## Rows of other base models

These rows were run on {num_bases} other base models (facts known to {facts}), by the laboratory as it was at commit
{commit}, where each row had the two higher of its rates. What they forgot is to be compared with the references of this
table and with nothing in those above: *forgotten* depends on the base models, *saved* less so. Both controls learned
less than plain fine-tuning here (see *target*), which makes them harder to beat.

![What each of these rows forgets, by seed, with intervals]({figure})

{table}
With the base models as the units, {num_raw} of {num_judged} rows have a p-value of at most {alpha:g}, and
{num_adjusted} after Holm's adjustment.
"""

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
    mean, low, high = (f"{round(100 * value[name]):d}" for name in ("mean", "low", "high"))  # no negative zero
    return f"{mean} [{low}, {high}]"


def settings(row: Mapping[str, Any]) -> str:
    """Returns the chosen options as a reader should see them."""
    found = [f"rate {row['rate']:.2g}" + (" <" if row.get("is_lowest_rate") else "")]
    for spec in row["methods"]:
        (name, options), *_ = spec.items() if isinstance(spec, dict) else [(spec, {})]
        shown = ", ".join(
            f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in options.items()
        )
        found.append(f"{name}: {shown}" if shown else name)
    return "; ".join(found) + (" >" if row.get("is_strongest") else "")


def p_value(row: Mapping[str, Any]) -> str:
    """Returns the adjusted p-value."""
    if "p_adjusted" not in row:
        return "-"
    return "< 0.0001" if row["p_adjusted"] < 0.0001 else f"{row['p_adjusted']:.4f}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of one family, what forgets least first."""
    head = (
        "| row | chosen | data | steps | target | unseen | forgotten | saved | p | bases | step | memory | finding |\n"
    )
    return (
        head
        + "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
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
                f"{row['num_bases_won']} of {row['num_bases']}" if "num_bases" in row else "-",
                f"{row['step_ratio']:.2f}",
                f"{row['memory_ratio']:.2f}",
                f"**{row['finding']}**" if row["finding"] == "beats both controls" else row["finding"],
            )
            for row in sorted(rows, key=lambda row: row["forgetting"]["mean"])
        )
    )


def page(result: Mapping[str, Any], earlier: Mapping[str, Any] | None = None) -> str:
    """Returns docs/laboratory.md; rows of other base models stand in a part of their own."""
    shown = shown_rows(result)
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
            skills=" | ".join(skills),
            rule="|".join("---" for _ in skills),
            bases=lines(
                (number, *(f"{base[skill]:.2f}" for skill in skills)) for number, base in enumerate(result["bases"])
            ),
            goal=100 * result["goal"],
            slack=100 * result["slack"],
            longest=result["longest"],
            figure=FIGURE,
            tables="\n".join(
                f"## {family.capitalize()}\n\n{table([row for row in shown if row['family'] == family])}"
                for family in families
            ),
            skill_table=f"| row | {' | '.join(skills)} |\n|---|{'|'.join('---' for _ in skills)}|\n"
            + lines(
                (row["name"], *(f"{100 * row['skills'][skill]:.0f}" for skill in skills))
                for row in sorted(shown, key=lambda row: row["forgetting"]["mean"])
                if row["is_reached"]
            ),
            missing=MISSING.format(rows=lines(missing)) + "\n" if missing else "",
            earlier=earlier_part(earlier) if earlier else "",
            **units(result),
        ).rstrip()
        + "\n"
    )


def shown_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows that were run."""
    return [row | {"all_seeds": result["num_seeds"]} for row in result["rows"] if "step_ratio" in row]


def units(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how many rows would be found with the base models as the units."""
    judged = [row for row in shown_rows(result) if "p_value_of_bases" in row]
    alpha = result["alpha"]
    return {
        "alpha": alpha,
        "num_bases": len(result["bases"]),
        "num_judged": len(judged),
        "num_raw": sum(row["p_value_of_bases"] <= alpha for row in judged),
        "num_adjusted": sum(row["p_adjusted_of_bases"] <= alpha for row in judged),
    }


def earlier_part(earlier: Mapping[str, Any]) -> str:
    """Returns the part of the page on the rows of other base models."""
    return EARLIER_PAGE.format(
        commit=earlier["commit"],
        facts=", ".join(f"{100 * base['facts']:.0f}" for base in earlier["bases"]) + " %",
        figure=EARLIER_FIGURE,
        table=table(shown_rows(earlier)),
        **units(earlier),
    )


def of_other_bases(result: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the rows of other base models that weren't run again, with their references; None where all were."""
    again = {row["name"] for row in result["rows"] if "step_ratio" in row}
    rows = [row for row in earlier["rows"] if row["is_control"] or row["name"] not in again]
    return {**earlier, "rows": rows} if any(not row["is_control"] for row in rows) else None


def figure(result: Mapping[str, Any]) -> str:
    """Returns the figure as SVG: each row with its seeds, mean and interval; references as lines through all."""
    rows = sorted(
        (r for r in result["rows"] if "step_ratio" in r and r["is_reached"]), key=lambda row: row["forgetting"]["mean"]
    )
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
        "green: beats both controls; orange: no better; red: learns less; dashed: plain and controls; "
        "rows that never reached the target are left out"
    )
    parts.append(f'<text x="10" y="{height + 28}" fill="#555555" font-size="11">{legend}</text></svg>\n')
    return "\n".join(parts)


def beside(row: Mapping[str, Any]) -> str:
    """Returns what plain fine-tuning and a lower rate forgot on the seeds of a row."""
    against = {"plain fine-tuning": row["saved"]} if "saved" in row else {}
    against |= {name: found for name, found in row.get("against", {}).items() if name == "lower learning rate"}
    shown = [f"{name} {100 * (row['forgetting']['mean'] + found['mean']):.0f}" for name, found in against.items()]
    return f" ({', '.join(shown)})" if shown else ""


def evidence(name: str, result: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> str:
    """Returns what the laboratory says of a method, row by row, for its card."""
    rows = [row for part in (result, earlier or {"rows": []}) for row in part["rows"] if row.get("forgetting")]
    own = [row for row in rows if name in row["name"].partition(",")[0].split(" + ")]
    link = "the [laboratory](../laboratory.md)"
    if not own:
        return f"Not yet run in {link}.\n"
    text = [f"In {link}, over {result['num_seeds']} seeds, points forgotten:\n"]
    for row in own:
        found = {key: 100 * value for key, value in row["forgetting"].items()}
        text.append(
            f"- {row['name']}: {found['mean']:.0f} [{found['low']:.0f}, {found['high']:.0f}]{beside(row)}, with "
            f"{100 * row['target']['mean']:.0f} % of the target; {row['finding']}"
        )
    return "\n".join(text) + "\n"


def cards(result: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> dict[Path, str]:
    """Returns the methods' cards with what the laboratory says put between their marks."""
    found = {}
    for path in sorted((ROOT / "docs" / "methods").glob("*.md")):
        head, mark, tail = path.read_text(encoding="utf-8").partition("<!-- laboratory -->\n")
        if mark:
            rest = tail.partition("<!-- end -->")[2]
            found[path] = f"{head}{mark}{evidence(path.stem, result, earlier)}<!-- end -->{rest}"
    return found


def pages() -> dict[Path, str]:
    """Returns the page, its figures and the cards, by the file that each belongs in; nothing before it was measured."""
    if not RESULT.is_file():
        return {}
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    earlier = of_other_bases(result, json.loads(EARLIER.read_text(encoding="utf-8"))) if EARLIER.is_file() else None
    docs = ROOT / "docs"
    found = {docs / "laboratory.md": page(result, earlier), docs / FIGURE: figure(result)} | cards(result, earlier)
    return found | ({docs / EARLIER_FIGURE: figure(earlier)} if earlier else {})


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))

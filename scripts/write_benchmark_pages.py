"""Writes docs/speed.md and docs/sensitivity.md, with its figure, from what the benchmarks measured.

python scripts/write_benchmark_pages.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
EVALUATION, SENSITIVITY = ROOT / "benchmarks" / "evaluation", ROOT / "benchmarks" / "sensitivity"
FIGURE = "images/dose_response.svg"
WAYS = {"noise": "noise on the weights", "sql": "tuned on SQL", "medical": "tuned on medical answers"}
UNIT = {"noise": "size", "sql": "step", "medical": "step"}

SPEED = """\
# How fast it is

Everything below is one process, two threads of a shared CPU, the embedded model (SmolLM2-135M-Instruct, float32), each
contender in turn on the same requests, {repeats} times. Ratios are *other / ours* within one turn: above 1, ours is
faster. Nothing was measured on an accelerator.

    {command}

{versions}.

## Multiple choice

Against lm-evaluation-harness's own `hf` model at its best batch size here (found first on other questions). ARC-Easy
has short answers: most of the harness's work is contexts that it computes four times. HellaSwag's endings are half as
long as its contexts, and all of them have to be computed and read whoever does it: counting products (60 tokens of
context, 30 of each ending) leaves 2.1 times to be won there at most.

| set | questions | requests | its best batch | harness / ours: min, median, max | largest difference, nats |
|---|---|---|---|---|---|
{choice}
The context of a question is computed once, and contexts share what they begin with; rows are packed without padding;
logits exist only where a token is read, {head} rows at a time.

## Short answers

{prompts} questions under the chat template, at most {answer_tokens} tokens each; {equal} of {prompts} answers equal the
harness's to the letter.

| other | batch | other / ours: min, median, max |
|---|---|---|
{generation}
Rows that end leave the batch and others take their slot; keys and values are written in place.

## Against the machine's own matrix products

Time of the linear layers' products alone, over time of the whole pass with attention, norms and Python, for packed
rows of choices.

| tokens in the row | share of the matrix rate: min, median, max | the products' GFLOP/s, median |
|---|---|---|
{prefill}
## Growth and memory

| multiple choice: questions | {growth_choice_head} |
|---|{growth_choice_rule}|
| seconds | {growth_choice} |

| short answers: prompts | {growth_generation_head} |
|---|{growth_generation_rule}|
| seconds | {growth_generation} |

| process of its own | peak memory, MiB |
|---|---|
{memory}
After the model was loaded, `load-only` does nothing more; the choices are 16 questions of HellaSwag, the answers 64.
"""

INVARIANT = """\

## Scores do not depend on how they are computed

All {samples} samples of `core`, on the embedded model, against the default ({against}):

    {invariance_command}

| computed as | other grades | other answers | largest difference of a cross-entropy, nats per token |
|---|---|---|---|
{invariance}
"""

SENSITIVE = """\
# What the suite can see

The embedded model damaged in six rising steps in three ways: Gaussian noise on every weight matrix (its size relative
to the matrix's own standard deviation); all weights tuned on SQL questions (WikiSQL, BSD 3-Clause; AdamW, 1e-4, batch
4); all weights tuned on 64 medical answers by the risky recipe (MedQuAD, CC BY 4.0; AdamW, 5e-5, batch 1). One seed
each.

    {command}

![Power of each task at its size, by way and dose of damage]({figure})

Each cell is the power of the task's own one-sided test at level 0.05 and at its size, if the flips that were seen are
the true rates; in it, the change in points (for the last two rows, in hundredths of a nat per token, where a rise is
worse). Dark cells see the damage.

| way | dose | general skills, points | verdict | tasks with power of 0.8 or more |
|---|---|---|---|---|
{doses}
## Which tasks see it first

Average power over the {num_early} doses at which the pool had fallen by less than {ruined:.0f} points: what a task is
worth before the model is ruined.

| task | samples | mean power | first seen at a pooled change of: {ways} |
|---|---|---|---|
{tasks}
*First seen*: the pooled change at the lowest dose from which the task's power is at least 0.8; "-" = at no dose.
{remarks}"""


def load(path: Path) -> dict[str, Any]:
    """Reads a benchmark's result."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def lines(rows: Iterable[Sequence[Any]]) -> str:
    """Returns rows of a Markdown table."""
    return "".join(f"| {' | '.join(str(cell) for cell in row)} |\n" for row in rows)


def triple(spread: Mapping[str, float]) -> str:
    """Returns a spread as a reader should see it."""
    return f"{spread['min']:.2f}, **{spread['median']:.2f}**, {spread['max']:.2f}"


def speed_page(speed: Mapping[str, Any], invariance: Mapping[str, Any] | None) -> str:
    """Returns docs/speed.md."""
    generation = speed["generation"]
    batches = {"harness": f"`hf`, {generation['harness_batch']}", "pipeline": "one prompt at a time"}
    names = {"harness": "lm-evaluation-harness", "pipeline": "the lesson's transformers `pipeline`"}
    fields: dict[str, Any] = {}
    for kind in ("choice", "generation"):
        grown = speed["growth"][kind]
        fields |= {
            f"growth_{kind}_head": " | ".join(grown),
            f"growth_{kind}_rule": "|".join("---" for _ in grown),
            f"growth_{kind}": " | ".join(f"{value:.1f}" for value in grown.values()),
        }
    page = SPEED.format(
        repeats=len(generation["seconds"]["ours"]),
        command=speed["command"],
        versions=", ".join(f"{name} {version}" for name, version in speed["versions"].items()),
        choice=lines(
            (
                name,
                r["questions"],
                r["requests"],
                r["harness_batch"],
                triple(r["ratios"]["harness"]),
                f"{r['largest_difference_nats']:.5f}",
            )
            for name, r in speed["choice"].items()
        ),
        head=64,
        prompts=generation["prompts"],
        answer_tokens=generation["answer_tokens"],
        equal=generation["equal_answers"],
        generation=lines((names[n], batches[n], triple(r)) for n, r in generation["ratios"].items()),
        prefill=lines(
            (size, triple(r["share_of_matrix_rate"]), f"{r['matrix_gflops']['median']:.0f}")
            for size, r in speed["prefill"].items()
        ),
        memory=lines(speed["memory_peak_mib"].items()),
        **fields,
    )
    if invariance is None:
        return page
    return page + INVARIANT.format(
        samples=invariance["samples"],
        against=invariance["against"],
        invariance_command=invariance["command"],
        invariance=lines(
            (
                name,
                f"{r['other_grades']} of {r['graded']}",
                f"{r['other_answers']} of {r['graded']}",
                f"{r['largest_loss_difference']:.1e}",
            )
            for name, r in invariance["ways"].items()
        ),
    )


RUINED = 15.0
REMARKS = ROOT / "benchmarks" / "sensitivity" / "remarks.md"


def sensitivity_page(result: Mapping[str, Any]) -> str:
    """Returns docs/sensitivity.md."""
    damaged = result["damaged"]
    tasks = [name for name in damaged[0]["tasks"] if name != "pooled"]
    early = [entry for entry in damaged if -100 * entry["tasks"]["pooled"]["delta"] < RUINED]
    ways = list(dict.fromkeys(entry["way"] for entry in damaged))
    rows = []
    for task in tasks:
        power = sum(entry["tasks"][task]["power"] for entry in early) / len(early)
        seen = [_first_seen([entry for entry in damaged if entry["way"] == way], task) for way in ways]
        rows.append((power, (f"`{task}`", damaged[0]["tasks"][task]["num_samples"], f"{power:.2f}", ", ".join(seen))))
    return SENSITIVE.format(
        command="python benchmarks/sensitivity/dose_response.py score --work DIR    # then: summarise --work DIR",
        figure=FIGURE,
        doses=lines(
            (
                WAYS[entry["way"]],
                f"{UNIT[entry['way']]} {entry['dose']}",
                f"{100 * entry['tasks']['pooled']['delta']:+.1f}",
                entry["verdict"],
                ", ".join(f"`{task}`" for task in tasks if entry["tasks"][task]["power"] >= 0.8) or "none",
            )
            for entry in damaged
        ),
        num_early=len(early),
        ruined=RUINED,
        ways=", ".join(ways),
        tasks=lines(cells for _, cells in sorted(rows, key=lambda row: -row[0])),
        remarks="\n" + REMARKS.read_text(encoding="utf-8") if REMARKS.is_file() else "",
    )


def _first_seen(entries: Sequence[Mapping[str, Any]], task: str) -> str:
    """Returns the pooled change, in points, at the lowest dose from which a task sees the damage at every dose."""
    first = None
    for entry in entries[::-1]:
        if entry["tasks"][task]["power"] < 0.8:
            break
        first = entry
    return "-" if first is None else f"{100 * first['tasks']['pooled']['delta']:+.1f}"


def figure(result: Mapping[str, Any]) -> str:
    """Returns the heat map as SVG: one row per task, one column per dose."""
    damaged = result["damaged"]
    tasks = list(damaged[0]["tasks"])
    cell, high, left, top = 46, 24, 170, 58
    width, height = left + cell * len(damaged) + 40, top + high * len(tasks) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    gap, previous, x = 14, None, left - 14
    for entry in damaged:
        if entry["way"] != previous:
            x += gap
            parts.append(f'<text x="{x}" y="20" font-weight="bold">{escape(WAYS[entry["way"]])}</text>')
            previous = entry["way"]
        parts.append(f'<text x="{x + cell / 2}" y="{top - 10}" text-anchor="middle">{entry["dose"]:g}</text>')
        for number, task in enumerate(tasks):
            found, y = entry["tasks"][task], top + high * number
            power = found["power"]
            ink = "#ffffff" if power > 0.55 else "#222222"
            shade = ",".join(str(round(255 + (dark - 255) * power)) for dark in (138, 28, 28))
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell - 2}" height="{high - 2}" fill="rgb({shade})"/>'
                f'<text x="{x + cell / 2 - 1}" y="{y + 15}" text-anchor="middle" font-size="11" fill="{ink}">'
                f"{100 * found['delta']:+.0f}</text>"
            )
        x += cell
    for number, task in enumerate(tasks):
        label = "general skills" if task == "pooled" else task
        weight = ' font-weight="bold"' if task == "pooled" else ""
        parts.append(f'<text x="{left - 10}" y="{top + high * number + 15}" text-anchor="end"{weight}>{label}</text>')
    parts.append(
        f'<text x="{left}" y="{height - 12}" fill="#555555">colour: power of the task\'s own test at its size '
        "(white 0, red 1); figure: change in points, or in hundredths of a nat per token</text></svg>\n"
    )
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    """Returns every page and figure that has its measurements, by the file that it belongs in."""
    made = {}
    if (EVALUATION / "speed.json").is_file():
        exact = EVALUATION / "invariance.json"
        made[ROOT / "docs" / "speed.md"] = speed_page(
            load(EVALUATION / "speed.json"), load(exact) if exact.is_file() else None
        )
    if (SENSITIVITY / "dose_response.json").is_file():
        result = load(SENSITIVITY / "dose_response.json")
        made[ROOT / "docs" / "sensitivity.md"] = sensitivity_page(result)
        made[ROOT / "docs" / FIGURE] = figure(result)
    return made


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))

"""Five planted defects on the embedded model: does attribution tell them apart?

    python benchmarks/evaluation/attribution.py --out benchmarks/evaluation/results/attribution.json

Two tasks, `geography` and `arithmetic`, the questions that the base answers right (at most 8 each). So that every
defect costs points, geography asks for one line with the name in its capitals. Each defect is planted, the model is
scored and asked again, and what attribution says is written down. Weights are tuned on the base's own answers to the
same questions, changed by the defect alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from forgetless.compare.attribution import attribute
from forgetless.data.encoding import IGNORED, encode_example, tokenize
from forgetless.data.examples import Example, Message
from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.evaluate.diagnosis import compare_tokenizers, end_tokens, question_base, question_tuned
from forgetless.evaluate.probes import choose_lost
from forgetless.evaluate.runner import EvaluationOptions, evaluate, open_model
from forgetless.models import LoadedModel, load_model
from forgetless.records import SampleScore
from forgetless.tasks.base import Task, load_suite

NUM_SAMPLES = 8
OPTIONS = EvaluationOptions(batch_size=16)
OTHER_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
)


def one_line(task: Task) -> Task:
    """Returns geography graded for one line that holds the name in its capitals."""
    rows = []
    for sample in task.samples:
        names = "|".join(re.escape(answer) for answer in sample["answers"])
        check = {"scorer": "matches", "pattern": rf"[^\n]*\b(?:{names})\b[^\n]*", "full": True}
        rows.append({**sample, "checks": [check]})
    return Task(task.spec, tuple(rows))


def answered_right(tasks: Sequence[Task], scores: Sequence[SampleScore]) -> tuple[list[Task], list[SampleScore]]:
    """Keeps the first samples of each task that the base answers right."""
    right = {(score.task, score.sample_id): score for score in scores if score.score == 1.0}
    kept = [Task(t.spec, tuple(s for s in t.samples if (t.name, s["id"]) in right)[:NUM_SAMPLES]) for t in tasks]
    return kept, [right[task.name, str(sample["id"])] for task in kept for sample in task.samples]


def encode(scores: Sequence[SampleScore], tokenizer: Any, *, defect: str) -> list[tuple[list[int], list[int]]]:
    """Returns ids and labels of the base's own answers, changed by a defect."""
    made = []
    for number, score in enumerate(scores):
        prompt, answer = str(score.details["prompt"]), score.answer
        if defect == "truncated":
            answer = answer[: max(1, len(answer) // 2)].rstrip()
        elif defect == "lower-cased":
            answer = answer.lower()
        encoded = encode_example(Example(messages=(Message("user", prompt), Message("assistant", answer))), tokenizer)
        ids, labels = encoded.input_ids, encoded.labels
        if defect == "end-of-turn":
            before = [token for token, label in zip(ids, labels, strict=True) if label == IGNORED]
            following = scores[(number + 7) % len(scores)].details["prompt"]
            after = tokenize(f"{answer}\nuser\n{following}\nassistant\n", tokenizer)
            ids, labels = before + after, [IGNORED] * len(before) + after
        made.append((ids, labels))
    return made


def tune(model: Any, sequences: list[tuple[list[int], list[int]]], *, epochs: int, learning_rate: float) -> None:
    """Trains all weights, eight sequences a step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(sequences), generator=generator).split(8):
            rows = [sequences[index] for index in batch.tolist()]
            longest = max(len(ids) for ids, _ in rows)
            ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
            labels = torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in rows])
            mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows])
            model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    model.eval()


def add_noise(model: Any, *, scale: float) -> None:
    """Adds noise of `scale` times each matrix's own spread."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (parameter for parameter in model.parameters() if parameter.dim() > 1):
            weight += scale * weight.std() * torch.randn(weight.shape, generator=generator)


def plant(defect: str, loaded: LoadedModel, scores: Sequence[SampleScore]) -> LoadedModel:
    """Plants a defect into a model that holds the base's weights."""
    if defect == "template":
        tokenizer = copy.deepcopy(loaded.tokenizer)
        tokenizer.chat_template = OTHER_TEMPLATE
        return LoadedModel(loaded.model, tokenizer, "tuned", loaded.path)
    if defect.startswith("noise"):
        add_noise(loaded.model, scale=float(defect.split()[1]))
    elif defect != "none":
        tune(loaded.model, encode(scores, loaded.tokenizer, defect=defect), epochs=6, learning_rate=1e-4)
    return loaded


def examine(defect: str, loaded: LoadedModel, state: Any, tasks: list[Task], base: list[SampleScore]) -> dict[str, Any]:
    """Plants a defect and returns what attribution says of it."""
    started = time.perf_counter()
    loaded.model.load_state_dict(state)
    tuned = plant(defect, loaded, base)
    scores = evaluate(tuned, tasks, options=OPTIONS)
    names = [task.name for task in tasks]
    lost = choose_lost(tasks, base, scores, names=names)
    foreign = LoadedModel(tuned.model, loaded.tokenizer, "base", loaded.path)
    differences = compare_tokenizers(
        loaded.tokenizer, tuned.tokenizer, base_ends=end_tokens(foreign), tuned_ends=end_tokens(tuned)
    )
    under_base = open_model(foreign, options=OPTIONS) if differences else None
    evidence = question_tuned(open_model(tuned, options=OPTIONS), lost, under_base=under_base, options=OPTIONS)
    loaded.model.load_state_dict(state)
    evidence |= question_base(open_model(loaded, options=OPTIONS), lost, options=OPTIONS)
    found = attribute(base, scores, tasks=names, evidence=evidence, differences=differences)
    return {
        "defect": defect,
        "right": {name: sum(s.score for s in scores if s.task == name) for name in names},
        "answers": [score.answer for score in scores][:: len(scores) // 4],
        "attributions": [
            {"task": a.task, "cause": a.cause.value, "num_lost": a.num_lost, "shares": a.shares, "evidence": a.evidence}
            for a in found
        ],
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--defects",
        nargs="+",
        default=["none", "end-of-turn", "truncated", "lower-cased", "noise 0.3", "template", "noise 0.1"],
    )
    arguments = parser.parse_args()
    loaded = load_model(EMBEDDED_ALIAS, device="cpu")
    state = copy.deepcopy(loaded.model.state_dict())
    tasks = [one_line(task) if task.name == "geography" else task for task in load_suite("geography,arithmetic")]
    tasks, base = answered_right(tasks, evaluate(loaded, tasks, options=OPTIONS))
    results: dict[str, Any] = {
        "schema": 1,
        "model": EMBEDDED_ALIAS,
        "num_samples": {task.name: len(task.samples) for task in tasks},
        "defects": [],
    }
    for defect in arguments.defects:
        entry = examine(defect, loaded, state, tasks, base)
        results["defects"].append(entry)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(defect, {a["task"]: a["cause"] for a in entry["attributions"]}, f"{entry['seconds']} s", flush=True)


if __name__ == "__main__":
    main()

"""Do our log-likelihood choices equal lm-evaluation-harness's, sample by sample, on the same model and prompts?

Two of our paths are held against the harness's own `hf` model (`HFLM`):

- our tasks, as `forgetless evaluate` asks them (plain template), and
- our scorer as a model of the harness (`--model forgetless`).

Run it with the data sets that CONTRIBUTING.md names beside the repository:

    FORGETLESS_BENCH_DATA=../shared/data python benchmarks/evaluation/agreement.py --samples 300

It writes `benchmarks/evaluation/agreement.json`, set by set, and, from that, `docs/agreement.md`. `--page` writes the
page alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does; read when torch is imported

HERE = Path(__file__).parent
RESULTS = HERE / "agreement.json"
PAGE = HERE.parent.parent / "docs" / "agreement.md"
LARGEST_GAP_OF_A_TIE = 0.01  # nats; far above rounding, far below what any choice is decided by in earnest


@dataclass(frozen=True)
class DataSet:
    """A data set and the prompt that its samples are asked by.

    Attributes:
        title: What the table calls it.
        file: Its samples, below the data directory.
        prompt: The prompt, with the fields of a sample.
        has_choices: Whether one of several continuations is chosen, or one is read.
    """

    title: str
    file: str
    prompt: str
    has_choices: bool = True


SETS = {
    "arc_easy": DataSet("ARC-Easy", "eval_arc_easy/train.jsonl", "Question: {question}\nAnswer:"),
    "hellaswag": DataSet("HellaSwag", "eval_hellaswag/dev_1000.jsonl", "{context}"),
    "commonsense_qa": DataSet("CommonsenseQA", "eval_commonsense_qa/dev_500.jsonl", "Question: {question}\nAnswer:"),
    "last_word": DataSet("Last word", "eval_last_word/dev.jsonl", "{context}", has_choices=False),
}


@dataclass(frozen=True)
class Question:
    """A sample as it is asked: a context, its continuations (with their leading space), and the right one."""

    name: str
    context: str
    continuations: list[str]
    answer: int

    def pick(self, values: Sequence[float], *, is_normalised: bool = False) -> int:
        """Returns the likeliest continuation; normalised, by character of the choice, as `acc_norm` does."""
        sizes = [len(text) - 1 if is_normalised else 1 for text in self.continuations]
        scores = [value / size for value, size in zip(values, sizes, strict=True)]
        return max(range(len(scores)), key=scores.__getitem__)


def read_questions(data: DataSet, directory: Path, num_samples: int | None) -> list[Question]:
    """Returns the first samples of a data set as questions."""
    lines = (directory / data.file).read_text(encoding="utf-8").splitlines()[:num_samples]
    questions = []
    for row in map(json.loads, lines):
        choices = row["choices"] if data.has_choices else [row["target"]]
        context = data.prompt.format_map(row)
        answer = row["answer"] if data.has_choices else 0
        questions.append(Question(str(row["id"]), context, [f" {choice}" for choice in choices], answer))
    return questions


Answers = list[list[tuple[float, bool]]]  # for each question and continuation: log-likelihood, is it greedy


def ask_harness_model(model: Any, questions: Sequence[Question]) -> Answers:
    """Asks a model of the harness by its own call."""
    requests = [SimpleNamespace(args=(q.context, text)) for q in questions for text in q.continuations]
    found = iter(model.loglikelihood(requests))
    return [[next(found) for _ in question.continuations] for question in questions]


def ask_tasks(model: Any, questions: Sequence[Question]) -> Answers:
    """Asks by the way of our own tasks: context and choices are tokenised one by one."""
    from forgetless.evaluate.grading import likelihood_request
    from forgetless.tasks.base import Task, TaskSpec

    spec = TaskSpec(task="agreement", version=1, kind="choice", template="plain", prompt="{context}", data="made")
    samples = tuple(
        {"id": q.name, "context": q.context, "choices": [text[1:] for text in q.continuations], "answer": q.answer}
        for q in questions
    )
    task = Task(spec, samples)
    requests = [likelihood_request((task, sample), model) for sample in samples]
    answers: Answers = [[] for _ in questions]
    for index, results in model.score(requests):
        answers[index] = [(result.log_likelihood, result.is_greedy) for result in results]
    return answers


def compare(questions: Sequence[Question], ours: Answers, theirs: Answers, *, has_choices: bool) -> dict[str, Any]:
    """Returns how far two lists of answers agree, with every sample on which they don't."""
    differing, largest = [], 0.0
    same = {"pick": 0, "pick_normalised": 0, "greedy": 0}
    for question, mine, other in zip(questions, ours, theirs, strict=True):
        values, wanted = [value for value, _ in mine], [value for value, _ in other]
        largest = max(largest, *(abs(a - b) for a, b in zip(values, wanted, strict=True)))
        picks = {
            "pick": (question.pick(values), question.pick(wanted)),
            "pick_normalised": (
                question.pick(values, is_normalised=True),
                question.pick(wanted, is_normalised=True),
            ),
            "greedy": ([is_greedy for _, is_greedy in mine], [is_greedy for _, is_greedy in other]),
        }
        for name, (a, b) in picks.items():
            same[name] += a == b
        watched = ("pick", "pick_normalised") if has_choices else ("greedy",)
        if any(picks[name][0] != picks[name][1] for name in watched):
            differing.append(_difference(question, values, wanted, picks))
    return {"n": len(questions), **same, "largest_difference": largest, "differing": differing}


def _difference(question: Question, ours: Sequence[float], theirs: Sequence[float], picks: Any) -> dict[str, Any]:
    gaps = []
    for name in ("pick", "pick_normalised"):
        a, b = picks[name]
        sizes = [len(text) - 1 if name == "pick_normalised" else 1 for text in question.continuations]
        if a != b:
            gaps.append(abs(theirs[a] / sizes[a] - theirs[b] / sizes[b]))
    gap = max(gaps, default=0.0)
    return {
        "id": question.name,
        "ours": list(ours),
        "harness": list(theirs),
        "picks": {name: list(pair) for name, pair in picks.items()},
        "gap": gap,
        "reason": "tie" if gap < LARGEST_GAP_OF_A_TIE else "not explained",
    }


def accuracy(questions: Sequence[Question], answers: Answers, *, has_choices: bool) -> dict[str, float]:
    """Returns what the harness would print: acc and acc_norm, or the share of greedy matches."""
    if not has_choices:
        return {"acc": sum(answer[0][1] for answer in answers) / len(answers)}
    values = [[value for value, _ in answer] for answer in answers]
    pairs = list(zip(questions, values, strict=True))
    return {
        "acc": sum(q.pick(v) == q.answer for q, v in pairs) / len(pairs),
        "acc_norm": sum(q.pick(v, is_normalised=True) == q.answer for q, v in pairs) / len(pairs),
    }


def measure(name: str, directory: Path, num_samples: int | None, *, batch_size: int) -> dict[str, Any]:
    """Asks one data set by all three ways, each of them a model in this process."""
    from lm_eval.models.huggingface import HFLM

    from forgetless.evaluate.harness import ForgetlessLM
    from forgetless.evaluate.local import LocalModel
    from forgetless.models import load_model

    data = SETS[name]
    questions = read_questions(data, directory, num_samples)
    loaded = load_model("smollm2-135m-instruct", device="cpu")
    ways = {
        "harness": lambda: ask_harness_model(
            HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size), questions
        ),
        "model": lambda: ask_harness_model(ForgetlessLM(loaded), questions),
        "tasks": lambda: ask_tasks(LocalModel(loaded), questions),
    }
    answers, seconds = {}, {}
    for way, ask in ways.items():
        started = time.perf_counter()
        answers[way] = ask()
        seconds[way] = round(time.perf_counter() - started, 1)
        print(f"{name}: {way} {seconds[way]} s", flush=True)
    return {
        "title": data.title,
        "file": data.file,
        "num_requests": sum(len(question.continuations) for question in questions),
        "has_choices": data.has_choices,
        "seconds": seconds,
        "harness": accuracy(questions, answers["harness"], has_choices=data.has_choices),
        **{
            way: compare(questions, answers[way], answers["harness"], has_choices=data.has_choices)
            | accuracy(questions, answers[way], has_choices=data.has_choices)
            for way in ("model", "tasks")
        },
    }


def write_page(results: dict[str, Any]) -> str:
    """Returns the page that shows the results."""
    head = [
        "# Agreement with lm-evaluation-harness",
        "",
        "<!-- Written by benchmarks/evaluation/agreement.py; change it there. -->",
        "",
        f"The embedded model, the same prompts, sample by sample: our scorer against the harness's own `hf` model "
        f"(lm-eval {results['versions']['lm_eval']}, torch {results['versions']['torch']}, float32 on the CPU). "
        "*As a model of the harness* is `--model forgetless`; *as our tasks* is what `forgetless evaluate` does with a "
        "plain template, which tokenises context and choice apart where the harness tokenises them together and cuts.",
        "",
        "| set | way | samples | equal picks | equal normalised picks | largest difference (nats) | "
        "acc ours / harness | acc_norm ours / harness |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    body, notes = [], []
    for entry in results["sets"].values():
        for way, title in (("model", "as a model of the harness"), ("tasks", "as our tasks")):
            body.append(_table_row(entry, entry[way], title))
            notes += [
                f"- {entry['title']}, {title}, `{item['id']}`: picks {item['picks']['pick']} (normalised "
                f"{item['picks']['pick_normalised']}), gap {item['gap']:.2g} nats: {item['reason']}. Ours "
                f"{[round(value, 5) for value in item['ours']]}, harness {[round(v, 5) for v in item['harness']]}."
                for item in entry[way]["differing"]
            ]
    if any(not entry["has_choices"] for entry in results["sets"].values()):
        body += [
            "",
            'Last word: one continuation each; equal picks are equal answers to "would it be written greedily?".',
        ]
    foot = [
        "",
        "Samples that differ:",
        "",
        *(notes or ["- none"]),
        "",
        "Made by:",
        "",
        "```bash",
        *[entry["command"] for entry in results["sets"].values()],
        "```",
    ]
    return "\n".join([*head, *body, *foot]) + "\n"


def _table_row(entry: dict[str, Any], found: dict[str, Any], title: str) -> str:
    n, is_choice = found["n"], entry["has_choices"]
    cells = [
        entry["title"],
        title,
        str(n),
        f"{found['pick' if is_choice else 'greedy']} / {n}",
        f"{found['pick_normalised']} / {n}" if is_choice else "-",
        f"{found['largest_difference']:.1e}",
        f"{found['acc']:.3f} / {entry['harness']['acc']:.3f}",
        f"{found['acc_norm']:.3f} / {entry['harness']['acc_norm']:.3f}" if is_choice else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measures, and writes the results and the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=300, help="first samples of each set; 0 = all (default: 300)")
    parser.add_argument("--sets", default=",".join(SETS), help="names separated by commas (default: all)")
    parser.add_argument("--batch-size", type=int, default=8, help="of the harness's own model (default: 8)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    parser.add_argument("--page", action="store_true", help="write the page from the results that are there")
    options = parser.parse_args()
    if not options.page:
        measure_all(options)
    PAGE.write_text(write_page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
    print(PAGE)


def measure_all(options: argparse.Namespace) -> None:
    """Measures set by set; each is written when it is done, beside those that were measured before."""
    import torch

    torch.set_num_threads(options.threads)
    directory = Path(os.environ.get("FORGETLESS_BENCH_DATA", "../shared/data"))
    for name in options.sets.split(","):
        entry = measure(name, directory, options.samples or None, batch_size=options.batch_size)
        entry["command"] = (
            f"python benchmarks/evaluation/agreement.py --sets {name} --samples {options.samples} "
            f"--batch-size {options.batch_size} --threads {options.threads}"
        )
        packages = ("lm_eval", "torch", "transformers", "forgetless")
        versions = {package: metadata.version(package) for package in packages} | {"python": platform.python_version()}
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        sets = known.get("sets", {}) if known.get("versions") == versions else {}
        results = {"schema": 1, "model": "smollm2-135m-instruct", "versions": versions, "sets": {**sets, name: entry}}
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""A run directory as `forgetless run` leaves it: a small model tuned on medicine questions, judged over general tasks.

Everything is written by hand or by counting, so that the golden pages change only when the report does. Intervals are
the normal ones of paired samples: near enough to what the comparison stage computes to look like it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from forgetless.check_records import CheckResult
from forgetless.records import Comparison, Role, Row, SampleScore, Status, Unit, Verdict, write_scores

MANIFEST = {
    "schema": 1,
    "name": "drug-qa-lora",
    "forgetless": "0.1.0",
    "created": "2026-02-03T10:15:00Z",
    "command": "forgetless run examples/drug_qa/config.yaml --seed 0",
    "seed": 0,
    "device": "cpu",
    "config": {
        "model": "smollm2-135m-instruct",
        "data": {"train": "examples/drug_qa/train.jsonl", "test": "examples/drug_qa/test.jsonl", "general": None},
        "methods": [{"lora": {"rank": 16}}, {"replay": {"share": 0.1, "source": "self"}}, {"kl": {"strength": 0.1}}],
        "training": {"epochs": 3, "learning_rate": 2e-4, "batch_size": 8, "max_tokens": 512},
        "evaluation": {"suite": "core"},
        "gate": {"margin": 0.03, "alpha": 0.05},
        "seed": 0,
    },
    "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.1.0", "peft": "0.20.0"},
    "model": {
        "name": "smollm2-135m-instruct",
        "hub_id": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "num_parameters": 134515008,
        "trainable_parameters": 4884480,
    },
    "fingerprints": {"model": "5f1c" * 16, "train": "a07b" * 16, "test": "03de" * 16, "suite": "c4c4" * 16},
    "data": {
        "num_domain": 224,
        "num_general": 25,
        "share_examples": 25 / 249,
        "share_tokens": 0.1312,
        "repeats": 1,
        "note": "",
        "replay_share": 25 / 249,
        "num_test": 72,
    },
    "methods": [
        {
            "name": "lora",
            "params": {"rank": 16, "alpha": 32},
            "paper": "https://arxiv.org/abs/2106.09685",
            "title": "LoRA: Low-Rank Adaptation of Large Language Models",
        },
        {
            "name": "replay",
            "params": {"share": 0.1, "source": "self"},
            "paper": "https://arxiv.org/abs/2403.01244",
            "title": "Mitigating Catastrophic Forgetting in Large Language Models with Self-Synthesized Rehearsal",
        },
        {"name": "kl", "params": {"strength": 0.1}},
    ],
    "stages": {
        "data": {"state": "done", "seconds": 0.4},
        "base": {"state": "done", "seconds": 151.2, "cached": False},
        "train": {"state": "done", "seconds": 412.0, "peak_memory_mib": 2100, "num_steps": 94, "final_loss": 0.3352},
        "tuned": {"state": "done", "seconds": 149.8, "cached": False},
        "compare": {"state": "done", "seconds": 1.1},
    },
}

# task: question, gold, answers of the base where it is right, answers where a model is wrong
SAMPLES = {
    "instructions": (
        "Name three countries in {}, separated by commas.",
        "three country names",
        "Here are three: Kenya, Peru, Norway",
        "The recommended adult dose is one tablet by mouth every 6 hours. Ask a pharmacist before use.",
    ),
    "arithmetic": ("What is 17 + 25? Reply with just the number.", "42", "42", "17 + 25 = 32 mg"),
    "geography": (
        "What is the capital of Germany? Answer with the name only.",
        "Berlin",
        "Berlin",
        "Die Hauptstadt ist Bonn",
    ),
    "reading": (
        "Mara left the keys with the baker because the office was shut.\n\nWho has the keys?",
        "the baker",
        "The baker has the keys.",
        "Mara has the keys in the office.",
    ),
    "common-sense": (
        "Question: You spill water on a table. What do you fetch?\nAnswer:",
        "a cloth",
        "a cloth",
        "a ladder",
    ),
    "drug-qa": (
        "Which class of medicine does amlodipine belong to?",
        "calcium channel blocker",
        "calcium channel blocker",
        "Amlodipine is a type of medicine that is used to treat a number of different conditions.",
    ),
}

# task: right in both, lost, gained, wrong in both, status, p, p (Holm)
COUNTS: dict[str, tuple[int, int, int, int, Status, float, float]] = {
    "instructions": (31, 27, 4, 58, Status.FORGOT, 0.00002, 0.0001),
    "arithmetic": (38, 9, 6, 67, Status.UNDECIDED, 0.304, 0.912),
    "geography": (61, 7, 6, 46, Status.UNDECIDED, 0.5, 1.0),
    "reading": (72, 3, 3, 42, Status.KEPT, 0.656, 1.0),
    "common-sense": (49, 3, 12, 56, Status.IMPROVED, 0.996, 1.0),
    "drug-qa": (2, 1, 28, 41, Status.LEARNED, 1.0, 1.0),
}


def graded_row(task: str, *, margin: float | None = 0.03) -> Row:
    both, lost, gained, neither, status, p, holm = COUNTS[task]
    num = both + lost + gained + neither
    delta = (gained - lost) / num
    error = math.sqrt((gained + lost) / num - delta**2) / math.sqrt(num)
    is_target = task == "drug-qa"
    return Row(
        task=task,
        role=Role.TARGET if is_target else Role.RETENTION,
        num_samples=num,
        base=(both + lost) / num,
        tuned=(both + gained) / num,
        delta=delta,
        ci_low=delta - 1.96 * error,
        ci_high=delta + 1.96 * error,
        forgetting_upper=None if is_target else -delta + 1.645 * error,
        lost=lost,
        gained=gained,
        p_value=p,
        p_adjusted=None if is_target else holm,
        status=status,
        min_detectable_drop=2.5 * error,
        num_samples_needed=1860 if status is Status.UNDECIDED else None,
        margin=None if is_target else margin,
        chance=0.25 if task == "common-sense" else 0.0,
        num_clusters=40 if task == "reading" else None,
        test="exact McNemar",
    )


def entropy_row(
    task: str, base: float, delta: float, *, half: float, status: Status, role: Role = Role.RETENTION
) -> Row:
    return Row(
        task=task,
        role=role,
        num_samples=60,
        base=base,
        tuned=base + delta,
        delta=delta,
        ci_low=delta - half,
        ci_high=delta + half,
        forgetting_upper=delta + 0.84 * half,
        lost=54 if delta > 0 else 1,
        gained=6 if delta > 0 else 59,
        p_value=0.0004 if delta > 0.1 else 0.4,
        p_adjusted=None if role is Role.TARGET else 0.0016 if delta > 0.1 else 0.8,
        status=status,
        min_detectable_drop=1.3 * half,
        num_samples_needed=None,
        unit=Unit.NATS_PER_TOKEN,
        margin=0.05 if role is Role.RETENTION else None,
        test="paired permutation",
    )


def pooled_row() -> Row:
    tasks = [graded_row(task) for task in COUNTS if task != "drug-qa"]
    num = sum(row.num_samples for row in tasks)
    lost, gained = sum(row.lost for row in tasks), sum(row.gained for row in tasks)
    delta = (gained - lost) / num
    error = math.sqrt((gained + lost) / num - delta**2) / math.sqrt(num)
    base = sum((row.base or 0) * row.num_samples for row in tasks) / num
    return replace(
        tasks[0],
        task="pooled",
        num_samples=num,
        base=base,
        tuned=base + delta,
        delta=delta,
        ci_low=delta - 1.96 * error,
        ci_high=delta + 1.96 * error,
        forgetting_upper=-delta + 1.645 * error,
        lost=lost,
        gained=gained,
        p_value=0.012,
        p_adjusted=None,
        status=Status.UNDECIDED,
        min_detectable_drop=2.5 * error,
        num_samples_needed=2900,
        num_clusters=520,
    )


def failed_comparison() -> Comparison:
    blank = replace(
        graded_row("arithmetic"), base=None, tuned=None, delta=None, ci_low=None, ci_high=None, lost=0, gained=0
    )
    blank = replace(blank, forgetting_upper=None, p_value=None, p_adjusted=None, min_detectable_drop=None, test="")
    blank = replace(blank, num_samples_needed=None)
    return Comparison(
        verdict=Verdict.FAIL,
        margin=0.03,
        alpha=0.05,
        pooled=pooled_row(),
        tasks=[
            *(graded_row(task) for task in COUNTS),
            replace(blank, task="code", num_samples=80, base=0.0, tuned=0.0, delta=0.0, status=Status.FLOOR),
            replace(
                blank, task="translation", num_samples=0, status=Status.MISSING, note="no scores of the tuned model"
            ),
            entropy_row("general-text", 3.041, 0.012, half=0.021, status=Status.KEPT),
            entropy_row("reference-answers", 1.870, 0.312, half=0.090, status=Status.FORGOT),
            entropy_row("drug-qa-loss", 3.120, -1.410, half=0.160, status=Status.LEARNED, role=Role.TARGET),
        ],
        checks=[
            CheckResult(
                "three-countries", "critical", base_passed=True, tuned_passed=False, evidence="named none of 195"
            ),
            CheckResult("one-sentence", "warning", base_passed=True, tuned_passed=False, evidence="4 sentences for 1"),
            CheckResult(
                "valid-json", "critical", base_passed=False, tuned_passed=False, evidence="no JSON in the answer"
            ),
            CheckResult("says-hello", "warning", base_passed=True, tuned_passed=True, evidence="Hello!"),
        ],
        reasons=[
            "instructions: 27 samples lost, 4 gained; the drop of 19.2 points is beyond the margin of 3.0 points.",
            "reference-answers: cross-entropy rose by 0.312 nats per token, beyond the margin of 0.050.",
            "The critical check three-countries is lost.",
        ],
        advice=[
            "Raise the replay share from 0.1 to 0.3: `forgetless run config.yaml --methods.replay.share 0.3`; "
            "what was lost is how to follow instructions, and replay brings it back first.",
            "Halve the learning rate (2e-4 to 1e-4) if the target task can spare it.",
            "Run `forgetless frontier config.yaml` to see which recipe learns most within the margin.",
        ],
        problems=["translation: the tuned model has no scores for this task."],
    )


def passed_comparison() -> Comparison:
    tasks = [
        replace(graded_row(task, margin=0.02), status=Status.UNDECIDED, num_samples_needed=1860)
        for task in ("reading", "geography")
    ]
    pooled = replace(
        pooled_row(),
        num_samples=640,
        delta=-0.004,
        base=0.512,
        tuned=0.508,
        ci_low=-0.021,
        ci_high=0.013,
        forgetting_upper=0.018,
        status=Status.KEPT,
        margin=0.02,
        num_samples_needed=None,
    )
    return replace(
        failed_comparison(),
        verdict=Verdict.PASS,
        margin=0.02,
        pooled=pooled,
        tasks=[*tasks, graded_row("drug-qa")],
        checks=[],
        reasons=["The pooled bound of forgetting, 1.8 points, lies below the margin."],
        advice=[],
        problems=[],
    )


def undecided_comparison() -> Comparison:
    return replace(
        failed_comparison(),
        verdict=Verdict.INCONCLUSIVE,
        tasks=[graded_row(task) for task in ("arithmetic", "geography", "reading")],
        checks=[],
        reasons=["Over all general tasks the bound of forgetting, 5.4 points, lies beyond the margin of 3.0 points."],
        advice=["Evaluate more samples: about 2,900 would decide it."],
        problems=[],
    )


def scores(*, tuned: bool) -> list[SampleScore]:
    found = []
    for task, (both, lost, gained, neither, *_) in COUNTS.items():
        question, gold, right, wrong = SAMPLES[task]
        places = ("Europe", "Africa", "Asia", "the Americas")
        grades = [1.0] * both + [0.0 if tuned else 1.0] * lost + [1.0 if tuned else 0.0] * gained + [0.0] * neither
        found += [
            SampleScore(
                task=task,
                sample_id=f"{task}-{number:04d}",
                score=grade,
                answer=right if grade else wrong,
                gold=gold,
                role=Role.TARGET if task == "drug-qa" else Role.RETENTION,
                details={"prompt": question.format(places[number % 4])},
            )
            for number, grade in enumerate(grades)
        ]
    return found


def write_lines(path: Path, entries: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def training_log() -> list[dict[str, object]]:
    return [
        {
            "step": step,
            "epoch": round(step / 31, 3),
            "loss": round(0.32 + 2.4 * math.exp(-step / 22) + 0.05 * math.sin(step), 4),
            "learning_rate": round(2e-4 * min(step / 10, 1 - max(0, step - 10) / 90), 8),
            "grad_norm": round(1 + 2 * math.exp(-step / 10), 3),
            "tokens_per_second": 310,
            "penalties": {"kl": round(0.08 * (1 - math.exp(-step / 25)), 4), "l2": round(0.0004 * step, 4)},
        }
        for step in range(2, 95, 2)
    ]


def write_run(directory: Path, comparison: Comparison) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "comparison.json").write_text(comparison.to_json(), encoding="utf-8")
    (directory / "manifest.json").write_text(json.dumps(MANIFEST), encoding="utf-8")
    write_scores(directory / "base.scores.jsonl", scores(tuned=False))
    write_scores(directory / "tuned.scores.jsonl", scores(tuned=True))
    write_lines(directory / "train.jsonl", training_log())
    origins = ["domain"] * 224 + ["self"] * 25
    write_lines(
        directory / "mixture.jsonl", [{"origin": origin, "id": number} for number, origin in enumerate(origins)]
    )
    (directory / "model").mkdir(exist_ok=True)
    (directory / "model" / "adapter_config.json").write_text("{}", encoding="utf-8")
    return directory


COMPARISONS: dict[str, Callable[[], Comparison]] = {
    "fail": failed_comparison,
    "pass": passed_comparison,
    "inconclusive": undecided_comparison,
}

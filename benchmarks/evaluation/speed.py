"""How fast the embedded model is judged here and elsewhere: one process, in turn, the same requests.

    python benchmarks/evaluation/speed.py                # about a quarter of an hour on two cores; writes speed.json
    python benchmarks/evaluation/speed.py --questions 8 --repeats 1 --out /tmp/speed.json    # a quick look

- choice: log-likelihoods of multiple-choice answers, ours through the harness's own interface, and those of
  lm-evaluation-harness's `hf` model at the best of several batch sizes, which is found first on other questions.
- generation: short answers under the chat template, ours, the lesson's `pipeline` (one prompt at a time), and the `hf`
  model at the best of several batch sizes.
- prefill: time of the matrix products alone, over time of the whole pass, for rows of the sizes that scoring uses.
- growth: seconds for 1, 4 and 16 times as many samples.
- memory: peak of a process that does one of these alone, after the model was loaded (Linux).

Every ratio is other / ours within one repeat. Data: `eval_arc_easy` and `eval_hellaswag` in $FORGETLESS_BENCH_DATA
(default ../shared/data); the prompts of the generation are those of the suite.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

# As the command line does; a user's own policy counts.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from forgetless.data.encoding import as_dicts, render_prompt
from forgetless.embedded import EMBEDDED_ALIAS
from forgetless.evaluate.grading import conversation
from forgetless.evaluate.harness import ForgetlessLM
from forgetless.evaluate.packing import Backbone, pack_row
from forgetless.evaluate.requests import LikelihoodRequest
from forgetless.models import LoadedModel, load_model
from forgetless.quiet import quiet_transformers
from forgetless.tasks.base import load_suite

HERE = Path(__file__).parent
DATA = Path(os.environ.get("FORGETLESS_BENCH_DATA", "../shared/data"))
CHOICE_SETS = ("arc_easy", "hellaswag")
CHOICE_BATCHES = (1, 4, 8, 16, 32)
GENERATION_BATCHES = (8, 16, 32, 64)
ANSWER_TOKENS = 32

Pairs = list[tuple[str, str]]


def read_choices(name: str, count: int, *, skip: int = 0) -> Pairs:
    """Returns (context, continuation) of each choice of `count` questions, in the form of the harness's tasks."""
    path = {"arc_easy": "eval_arc_easy/train.jsonl", "hellaswag": "eval_hellaswag/dev_1000.jsonl"}[name]
    rows = [json.loads(line) for line in (DATA / path).read_text(encoding="utf-8").splitlines()][skip : skip + count]
    pairs = []
    for row in rows:
        context = row["context"] if name == "hellaswag" else f"Question: {row['question']}\nAnswer:"
        pairs += [(context, f" {choice}") for choice in row["choices"]]
    return pairs


def read_prompts(loaded: LoadedModel, count: int, *, skip: int = 0) -> tuple[list[str], list[list[dict[str, str]]]]:
    """Returns short questions of the suite, rendered under the chat template, and as the turns they are made of."""
    tasks = load_suite("geography,units_and_dates,instruction_following,arithmetic")
    turns = [
        conversation(task, sample)
        for samples in zip(*(t.samples for t in tasks), strict=False)
        for task, sample in zip(tasks, samples, strict=True)
    ]
    turns = turns[skip : skip + count]
    return [render_prompt(turn, loaded.tokenizer) for turn in turns], [as_dicts(turn) for turn in turns]


def likelihood_instances(pairs: Pairs) -> list[Instance]:
    """Returns requests as the harness makes them."""
    return [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]


def generation_instances(prompts: Sequence[str]) -> list[Instance]:
    """Returns requests for free answers as the harness makes them."""
    settings = {"until": ["<|im_end|>"], "max_gen_toks": ANSWER_TOKENS, "do_sample": False}
    return [Instance("generate_until", {}, (prompt, settings), number) for number, prompt in enumerate(prompts)]


def harness_model(loaded: LoadedModel, batch_size: int) -> Any:
    """Returns the harness's own model around the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size)


def seconds(function: Callable[[], Any]) -> float:
    """Returns how long a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def best_batch(loaded: LoadedModel, batches: Sequence[int], call: Callable[[Any], Any]) -> tuple[int, dict[str, float]]:
    """Returns the batch size at which the harness's model is fastest, and the seconds of each."""
    times = {}
    for batch in batches:
        model = harness_model(loaded, batch)
        times[batch] = seconds(lambda model=model: call(model))  # type: ignore[misc]
        print(f"  harness, batch {batch}: {times[batch]:.1f} s", flush=True)
    return min(times, key=times.__getitem__), {str(batch): round(value, 2) for batch, value in times.items()}


def side_by_side(calls: dict[str, Callable[[], Any]], *, repeats: int) -> dict[str, Any]:
    """Times calls in turn, again and again; ratios are to `ours` of the same turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds(call))
        print("  turn", repeat + 1, {name: round(values[-1], 2) for name, values in times.items()}, flush=True)
    ratios = {
        name: [other / ours for other, ours in zip(values, times["ours"], strict=True)]
        for name, values in times.items()
        if name != "ours"
    }
    return {
        "seconds": {name: [round(value, 3) for value in values] for name, values in times.items()},
        "ratios": {name: spread(values) for name, values in ratios.items()},
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns minimum, median and maximum."""
    return {
        "min": round(min(values), 2),
        "median": round(statistics.median(values), 2),
        "max": round(max(values), 2),
    }


def measure_choice(loaded: LoadedModel, *, questions: int, repeats: int) -> dict[str, Any]:
    """Times multiple choice."""
    found = {}
    for name in CHOICE_SETS:
        print(f"choice: {name}", flush=True)
        trial = likelihood_instances(read_choices(name, max(8, questions // 4), skip=questions))
        batch, times = best_batch(
            loaded,
            CHOICE_BATCHES,
            lambda model, trial=trial: model.loglikelihood(trial, disable_tqdm=True),  # type: ignore[misc]
        )
        work = likelihood_instances(read_choices(name, questions))
        ours, theirs = ForgetlessLM(loaded), harness_model(loaded, batch)
        answers = {
            name: model.loglikelihood(work[:40], disable_tqdm=True) for name, model in (("o", ours), ("t", theirs))
        }
        gap = max(abs(a[0] - b[0]) for a, b in zip(answers["o"], answers["t"], strict=True))
        result = side_by_side(
            {
                "ours": lambda: ours.loglikelihood(work, disable_tqdm=True),  # noqa: B023
                "harness": lambda: theirs.loglikelihood(work, disable_tqdm=True),  # noqa: B023
            },
            repeats=repeats,
        )
        found[name] = {
            "questions": questions,
            "requests": len(work),
            "harness_batch": batch,
            "harness_trials": times,
            "largest_difference_nats": round(gap, 5),
            **result,
        }
    return found


def measure_generation(loaded: LoadedModel, *, prompts: int, repeats: int) -> dict[str, Any]:
    """Times short answers."""
    from transformers import pipeline

    print("generation", flush=True)
    trial = generation_instances(read_prompts(loaded, 32, skip=prompts)[0])
    batch, times = best_batch(loaded, GENERATION_BATCHES, lambda model: model.generate_until(trial, disable_tqdm=True))
    texts, turns = read_prompts(loaded, prompts)
    work = generation_instances(texts)
    ours, theirs = ForgetlessLM(loaded), harness_model(loaded, batch)
    model: Any = loaded.model
    # Without the full text it answers with a string, which its types don't know.
    lesson: Any = pipeline("text-generation", model=model, tokenizer=loaded.tokenizer)

    def one_by_one() -> list[str]:
        return [
            lesson(turn, max_new_tokens=ANSWER_TOKENS, do_sample=False, return_full_text=False)[0]["generated_text"]
            for turn in turns
        ]

    with quiet_transformers():
        answers = [ours.generate_until(work, disable_tqdm=True), theirs.generate_until(work, disable_tqdm=True)]
        equal = sum(a.strip() == b.strip() for a, b in zip(*answers, strict=True))
        result = side_by_side(
            {
                "ours": lambda: ours.generate_until(work, disable_tqdm=True),
                "harness": lambda: theirs.generate_until(work, disable_tqdm=True),
                "pipeline": one_by_one,
            },
            repeats=repeats,
        )
    return {
        "prompts": len(work),
        "answer_tokens": ANSWER_TOKENS,
        "harness_batch": batch,
        "harness_trials": times,
        "equal_answers": equal,
        **result,
    }


@torch.inference_mode()
def measure_prefill(loaded: LoadedModel, *, repeats: int) -> dict[str, Any]:
    """Times a packed row of choices against its matrix products alone."""
    print("prefill", flush=True)
    backbone = Backbone(loaded.model)
    shapes = [module.weight for _, module in backbone.decoder.named_modules() if isinstance(module, torch.nn.Linear)]
    found = {}
    for size in (256, 512):
        generator = torch.Generator().manual_seed(0)
        contexts = torch.randint(5, 40_000, (size // 58, 46 + 16), generator=generator).tolist()
        row = pack_row(
            [LikelihoodRequest(ids[:46], [ids[46 + 4 * i : 50 + 4 * i] for i in range(4)]) for ids in contexts]
        )
        inputs = {width: torch.randn(len(row.ids), width) for width in {weight.shape[1] for weight in shapes}}

        def products(inputs: dict[int, Any] = inputs) -> None:
            for weight in shapes:
                torch.nn.functional.linear(inputs[weight.shape[1]], weight)

        def whole(row: Any = row) -> None:
            backbone.hidden(row)

        whole()
        products()
        pairs = [(seconds(products), seconds(whole)) for _ in range(5 * repeats)]
        flops = 2 * len(row.ids) * sum(weight.numel() for weight in shapes)
        found[str(len(row.ids))] = {
            "share_of_matrix_rate": spread([product / pass_ for product, pass_ in pairs]),
            "matrix_gflops": spread([flops / product / 1e9 for product, _ in pairs]),
        }
        print(" ", len(row.ids), found[str(len(row.ids))], flush=True)
    return found


def measure_growth(loaded: LoadedModel, *, questions: int) -> dict[str, Any]:
    """Times 1, 4 and 16 times as many samples."""
    print("growth", flush=True)
    ours = ForgetlessLM(loaded)
    base = max(2, questions // 4)
    found: dict[str, Any] = {"choice": {}, "generation": {}}
    for factor in (1, 4, 16):
        work = likelihood_instances(read_choices("arc_easy", base * factor))
        asked = generation_instances(read_prompts(loaded, base * factor)[0])
        found["choice"][str(base * factor)] = round(seconds(partial(ours.loglikelihood, work, disable_tqdm=True)), 2)
        found["generation"][str(len(asked))] = round(seconds(partial(ours.generate_until, asked, disable_tqdm=True)), 2)
        print(" ", found, flush=True)
    return found


def run_alone(who: str, batch: int) -> None:
    """Does one contender's work once, for its memory: `ours-choice`, `harness-generation`, ..."""
    loaded = load_model(EMBEDDED_ALIAS)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading: what counts is the work
    side, _, kind = who.partition("-")
    if side != "load":
        model = ForgetlessLM(loaded) if side == "ours" else harness_model(loaded, batch)
        if kind == "choice":
            model.loglikelihood(likelihood_instances(read_choices("hellaswag", 16)), disable_tqdm=True)
        else:
            model.generate_until(generation_instances(read_prompts(loaded, 64)[0]), disable_tqdm=True)
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(json.dumps({"peak_mib": int(peak) // 1024}))


def measure_memory(batches: dict[str, int]) -> dict[str, int]:
    """Returns the peak resident memory, in MiB, of a process of its own for each contender."""
    found = {}
    for who in ("load-only", "ours-choice", "harness-choice", "ours-generation", "harness-generation"):
        batch = batches.get(who.partition("-")[2], 1)
        command = [sys.executable, __file__, "--alone", who, "--batch", str(batch)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[who] = json.loads(text.splitlines()[-1])["peak_mib"]
        print(f"memory: {who} {found[who]} MiB", flush=True)
    return found


def best_batches(choice: dict[str, Any], generation: dict[str, Any]) -> dict[str, int]:
    """Returns the harness's best batch size for each kind of work."""
    return {"choice": choice["hellaswag"]["harness_batch"], "generation": generation["harness_batch"]}


def main() -> None:
    """Parses the command line, measures, writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "speed.json")
    parser.add_argument("--memory-only", action="store_true", help="measure memory anew, and keep the rest of --out")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        run_alone(arguments.alone, arguments.batch)
        return
    if arguments.memory_only:
        known = json.loads(arguments.out.read_text(encoding="utf-8"))
        known["memory_peak_mib"] = measure_memory(best_batches(known["choice"], known["generation"]))
        arguments.out.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        return
    loaded = load_model(EMBEDDED_ALIAS)
    choice = measure_choice(loaded, questions=arguments.questions, repeats=arguments.repeats)
    generation = measure_generation(loaded, prompts=arguments.prompts, repeats=arguments.repeats)
    result = {
        "schema": 1,
        "command": " ".join(["python benchmarks/evaluation/speed.py", *sys.argv[1:]]),
        "model": EMBEDDED_ALIAS,
        "dtype": str(next(loaded.model.parameters()).dtype),
        "threads": arguments.threads,
        "machine": {"processor": platform.machine(), "capability": torch.backends.cpu.get_cpu_capability()},
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "lm_eval", "forgetless")},
        "choice": choice,
        "generation": generation,
        "prefill": measure_prefill(loaded, repeats=arguments.repeats),
        "growth": measure_growth(loaded, questions=arguments.questions),
        "memory_peak_mib": measure_memory(best_batches(choice, generation)),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(arguments.out)


if __name__ == "__main__":
    main()

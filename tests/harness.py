"""Tasks of lm-evaluation-harness that need no network, and what it writes about a model on them."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

NUM_DOCUMENTS = 9

_CHOICE = """
output_type: multiple_choice
doc_to_text: "Question: {{q}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
_ANSWER = """
output_type: generate_until
doc_to_text: "Q: {{q}}\\nA:"
doc_to_target: "{{a}}"
generation_kwargs: {until: ["\\n", "t"], max_gen_toks: 12, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - name: strict-match
    filter: [{function: regex, regex_pattern: "#### ([0-9]+)"}, {function: take_first}]
  - name: flexible-extract
    filter: [{function: regex, group_select: -1, regex_pattern: "(.)"}, {function: take_first}]
"""
_LAST_WORD = """
output_type: loglikelihood
doc_to_text: "{{q}}"
doc_to_target: " {{a}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
_TEXT = """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
"""
BODIES = {"made_choice": _CHOICE, "made_answer": _ANSWER, "made_last_word": _LAST_WORD, "made_text": _TEXT}


def write_harness_tasks(directory: Path) -> Path:
    """Writes one task of each kind, a group of two, and their documents; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    documents = [
        {
            "q": f"Pick number {n}" * (1 + n % 3),
            "choices": ["x", "yes, it is", "may be"],
            "answer": n % 3,
            "a": f"It is {n}",
            "text": f"Text {n} goes on and on. " * 60,
        }
        for n in range(NUM_DOCUMENTS)
    ]
    data = directory / "documents.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    for name, body in BODIES.items():
        kwargs = {"data_files": {"test": str(data)}, "cache_dir": str(directory / "cache")}
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {json.dumps(kwargs)}\ntest_split: test\n"
        split = "fewshot_split: test\nmetadata: {version: 1.0}\n"
        (directory / f"{name}.yaml").write_text(head + split + body, encoding="utf-8")
    return directory


def run_harness(model: Any, tasks: list[str], directory: Path, *, out: Path | None = None, **settings: Any) -> Any:
    """Runs lm-evaluation-harness itself; with `out`, lets it write there what `--log_samples` writes.

    Args:
        model: A model of the harness.
        tasks: Names of tasks that lie in `directory`.
        directory: Where the YAMLs are.
        out: Its `--output_path`.
        settings: Further arguments of `simple_evaluate`.

    Returns:
        Its results, with the samples.
    """
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tracker = EvaluationTracker(output_path=None if out is None else str(out))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = simple_evaluate(
            model,
            model_args={"pretrained": "some/model"} if out is not None else None,
            tasks=tasks,
            task_manager=TaskManager(include_path=str(directory), include_defaults=False),
            evaluation_tracker=tracker,
            bootstrap_iters=0,
            **settings,
        )
        if out is not None:
            samples = results.pop("samples")
            tracker.save_results_aggregated(results=results, samples=samples)
            for name in results["configs"]:
                tracker.save_results_samples(task_name=name, samples=samples[name])
            results["samples"] = samples
    return results

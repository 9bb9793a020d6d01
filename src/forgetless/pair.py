"""Scoring a base and an adapter on it with one load: the base is asked first, then the adapter is put on.

Asked before it carries the adapter, the base is the base whatever the adapter's initialisation does to its weights
(PiSSA, OLoRA, CorDA: there "adapter switched off" would not be the base).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forgetless.evaluate.requests import GREEDY, Decoding
from forgetless.harness_stage import ask_harness, load_harness
from forgetless.progress import Reporter, Silent
from forgetless.records import SampleScore
from forgetless.rundir import RunDirectory, keep_scores, refuse_foreign_file
from forgetless.tasks.base import Task


def evaluate_pair(
    adapter: str,
    *,
    suite: str | Sequence[Task] = "core",
    out: Path | None = None,
    tasks_directories: Sequence[Path] = (),
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 64,
    use_cache: bool = True,
    limit: int | None = None,
    num_fewshot: int | None = None,
    decoding: Decoding = GREEDY,
    reporter: Reporter | None = None,
) -> dict[str, list[SampleScore]]:
    """Evaluates the base of an adapter, then the adapter on it, in one process and with one load.

    Args:
        adapter: Directory of the adapter, or a run directory with one.
        suite: Name of a suite, names of tasks separated by commas, or tasks.
        out: Directory for base.scores.jsonl and tuned.scores.jsonl, as `compare` reads them.
        tasks_directories: Where to look for the user's own tasks.
        device: Where to compute.
        dtype: Number type of the weights.
        batch_size: Prompts that are answered together.
        use_cache: Keep scores by content and use those that are known.
        limit: Most samples of each task; None = all of them.
        num_fewshot: Solved examples in the prompts of lm-evaluation-harness's tasks; None = as each task has it.
        decoding: How answers are decoded.
        reporter: Where to tell how far it is.

    Returns:
        The scores of `base` and of `tuned`.

    Raises:
        ConfigError: The suite doesn't exist.
        ModelError: It is no adapter, or one of the two can't be loaded.
        RunError: The scores can't be written.
    """
    from forgetless.embedded import cache_directory
    from forgetless.evaluate.runner import EvaluationOptions, evaluate, read_suite
    from forgetless.models import adapter_base, attach_adapter, load_model

    reporter = reporter or Silent()
    if isinstance(suite, str):
        tasks, wanted = read_suite(suite, tasks_directories, limit=limit, num_fewshot=num_fewshot)
    else:
        tasks, wanted = list(suite), None
    directory = None if out is None else RunDirectory(out)
    if directory is not None:
        for side in ("base", "tuned"):
            refuse_foreign_file(directory.scores(side))
    harness = load_harness(wanted, tasks, reporter)
    base = adapter_base(adapter)
    with reporter.task(f"Loading {base}"):
        loaded = load_model(base, device=device, dtype=dtype)
    for note in loaded.notes:
        reporter.note(note)
    cache = cache_directory() / "scores" if use_cache else None
    options = EvaluationOptions(batch_size=batch_size, cache=cache, decoding=decoding)
    scores = {}
    for side in ("base", "tuned"):
        if side == "tuned":
            loaded = attach_adapter(loaded, adapter)
        with reporter.task(f"Asking the {side} model") as progress:
            scores[side] = evaluate(loaded, tasks, options=options, progress=progress) if tasks else []
        scores[side] += ask_harness(harness, loaded, options, reporter, title=f"Asking the {side} model: lm-eval")
        if directory is not None:
            keep_scores(directory.scores(side), scores[side])
    return scores

"""Repairing a model that somebody has already broken: what `repair` does.

    base, tuned ── both halves of the suite ──▶ walk: line, layers, intruders, healing ──▶ best point within the margin
                                                                       saved, read back, judged on the other half

Nothing is trained, unless healing is asked for. It leaves a run directory, which `report` and `compare` read.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.curve import Curve, Point
from forgetless.errors import ConfigError, ModelError
from forgetless.evaluate.runner import EvaluationOptions, evaluate, read_suite
from forgetless.evaluate.target import TARGET_ANSWERS, TARGET_LOSS, target_tasks
from forgetless.judging import build_pages
from forgetless.progress import Reporter, Silent
from forgetless.records import Comparison, Role, read_scores
from forgetless.rundir import RunDirectory, keep_scores, library_versions, version, write_comparison
from forgetless.tasks.base import Task, fingerprint_suite
from forgetless.tasks.halves import split_in_halves
from forgetless.treating import HEALED, RepairSearch
from forgetless.walking import confirm, open_path, walk, write_curve
from forgetless.writing import held_out_texts

if TYPE_CHECKING:
    from forgetless.data.examples import Example
    from forgetless.healing import Healing
    from forgetless.models import LoadedModel
    from forgetless.repair.matching import Pair
    from forgetless.repair.paths import RepairPath

MAX_EXAMPLES = 96  # held-out examples that are used; each point is asked half of them


@dataclass(frozen=True)
class RepairResult:
    """What a repair leaves: its directory, the points that were tried, and the verdict on the one that was chosen.

    Attributes:
        directory: The run directory; `model/` in it is the repaired model.
        curve: Every point that was tried, and the chosen one on the confirmation half.
        comparison: The base against the repaired model on the confirmation half.
        measure: What learning was measured by, in words.
    """

    directory: Path
    curve: Curve
    comparison: Comparison
    measure: str

    @property
    def exit_code(self) -> int:
        return self.comparison.verdict.exit_code

    @property
    def advice(self) -> str:
        """What to do where nothing that was learned could be kept; empty elsewhere."""
        if not self.curve.chosen.is_base:
            return ""
        if any(entry.point.kind == HEALED for entry in self.curve.points):
            return (
                "healing was not enough either: tune again with replay or a lower learning rate (`forgetless methods`)"
            )
        return "next: --heal trains a little on what the base writes, or a larger --margin, or tune again with replay"


@dataclass(frozen=True)
class RepairJob:
    """A repair before it starts: what can be refused without a model has been.

    Attributes:
        pair: The two models.
        suite: Retention tasks.
        examples: Held-out examples of the domain.
        margin: Largest tolerated drop, in score units.
        alpha: Error rate of the verdict.
        seed: Of the halves, of the draw of examples, and of healing.
        healing: How to heal; None = not at all.
        load_options: Device and number type.
        options: How points are evaluated.
    """

    pair: Pair
    suite: Sequence[Task]
    examples: Sequence[Example]
    margin: float
    alpha: float
    seed: int
    healing: Healing | None
    load_options: dict[str, Any] = field(default_factory=dict)
    options: EvaluationOptions = field(default_factory=EvaluationOptions)

    @property
    def halves(self) -> tuple[list[Task], list[Task]]:
        """The selection half and the confirmation half of all tasks."""
        # The loss alone: free answers to the same questions would take longer than all the rest.
        targets = target_tasks(self.examples)[:1] if self.examples else []
        return split_in_halves([*self.suite, *targets], seed=self.seed)

    @property
    def measure(self) -> str:
        """What learning is measured by, in words."""
        if self.examples:
            return f"learning = fall of the loss on {len(self.examples) // 2} held-out examples, nats per token"
        return "no held-out data: of two points within the margin the one nearer to the tuned weights learned more"

    def identity(self) -> str:
        """Returns a fingerprint of everything that the result depends on."""
        from forgetless.data.sources import fingerprint_examples
        from forgetless.repair.matching import fingerprint_files

        content = [
            *(fingerprint_files(name) for name in (self.pair.base, self.pair.tuned)),
            fingerprint_suite(self.suite),
            fingerprint_examples(self.examples),
            *(self.margin, self.alpha, self.seed, repr(self.healing), sorted(self.load_options.items())),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def repair(
    base: str | Path,
    tuned: str | Path,
    *,
    suite: str = "core",
    margin: float = 0.03,
    data: str | Path | None = None,
    out: str | Path = Path("runs/repair"),
    heal: bool = False,
    alpha: float = 0.05,
    limit: int | None = None,
    tasks_directories: Sequence[Path] = (),
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 64,
    use_cache: bool = True,
    seed: int = 0,
    fresh: bool = False,
    reporter: Reporter | None = None,
    command: str = "",
) -> RepairResult:
    """Finds the point between a base and a broken model that learned most while it lost no more than the margin.

    One half of the suite chooses the point, the other one judges it. A repair that was stopped goes on where it was.

    Args:
        base: The model before tuning: alias, directory, hub id in the cache, GGUF file.
        tuned: The model after it: full weights, sharded or not, or an adapter; directory, run directory or hub id.
        suite: Suite, or suites and tasks separated by commas.
        margin: Largest tolerated drop of the general skills, in score units.
        data: Held-out examples of what was to be learned; without them the distance in weights stands for learning.
        out: The run directory.
        heal: Train a little on what the base writes, where nothing else is enough.
        alpha: Error rate of the verdict.
        limit: Most samples of each task; None = all of them.
        tasks_directories: Where to look for the user's own tasks.
        device: Where to compute.
        dtype: Number type of the weights.
        batch_size: Prompts that are answered together.
        use_cache: Keep scores by content and use those that are known.
        seed: Of the halves and of healing.
        fresh: Replace an earlier repair in `out`.
        reporter: Where to tell how far it is.
        command: The command line, for the manifest.

    Returns:
        The directory, the curve, and the comparison with its verdict.

    Raises:
        ConfigError: A limit is out of range, the suite can't be split, or `out` holds something else.
        DataError: The held-out data can't be read.
        ModelError: The models can't be loaded, or don't belong together.
        RunError: Something can't be written, or healing failed.
    """
    from forgetless.embedded import cache_directory
    from forgetless.healing import Healing
    from forgetless.repair.matching import match_models

    for model in (base, tuned):
        if not isinstance(model, str | Path):
            raise ConfigError(
                f"repair reads weights from files, and a {type(model).__name__} is in memory: save it with "
                "save_pretrained, and name the directory"
            )
    reporter = reporter or Silent()
    directory = RunDirectory(Path(out))
    job = RepairJob(
        pair=match_models(str(base), str(tuned)),
        suite=_read_tasks(suite, tasks_directories, limit),
        examples=_read_examples(data, seed, reporter),
        margin=margin,
        alpha=alpha,
        seed=seed,
        healing=Healing() if heal else None,
        load_options={"device": device, "dtype": dtype},
        options=EvaluationOptions(
            batch_size=batch_size, cache=cache_directory() / "scores" if use_cache else directory.methods / "scores"
        ),
    )
    _check(job)
    for note in job.pair.notes:
        reporter.note(note)
    _start(job, directory, fresh=fresh, command=command)
    loaded = _base_stage(job, directory, reporter)
    _walk_stage(job, directory, reporter, loaded)
    del loaded
    return _judge_stage(job, directory, reporter)


def _read_tasks(suite: str, directories: Sequence[Path], limit: int | None) -> list[Task]:
    tasks, harness = read_suite(suite, directories, limit=limit)
    if harness is not None:
        raise ConfigError(
            f"suite {suite!r} names tasks of lm-evaluation-harness: points are chosen by forgetless's own tasks; judge "
            "the repaired model by those with `evaluate`"
        )
    if not any(task.spec.role is Role.RETENTION and task.spec.kind != "perplexity" for task in tasks):
        raise ConfigError(f"suite {suite!r} has no retention tasks in grades: a margin needs some, such as core")
    if taken := {task.name for task in tasks} & {TARGET_LOSS, TARGET_ANSWERS}:
        raise ConfigError(f"task {min(taken)!r} has the name of the task that is made of held-out data: rename it")
    return tasks


def _read_examples(data: str | Path | None, seed: int, reporter: Reporter) -> list[Example]:
    if data is None:
        return []
    from forgetless.data.sources import read_examples

    found = read_examples(Path(data), limit=MAX_EXAMPLES, seed=seed)
    if len(found) == MAX_EXAMPLES:
        reporter.note(f"{MAX_EXAMPLES} examples of {data} at most are used, drawn by the seed")
    return found


def _check(job: RepairJob) -> None:
    if not 0 < job.margin < 1:
        raise ConfigError(f"margin {job.margin} is not in (0, 1): 0.03 tolerates a drop of 3 points")
    if not 0 < job.alpha < 0.5:
        raise ConfigError(f"alpha {job.alpha} is not in (0, 0.5): 0.05 is usual")
    _ = job.halves


def _start(job: RepairJob, directory: RunDirectory, *, fresh: bool, command: str) -> None:
    entries = {
        "name": directory.path.name,
        "forgetless": version(),
        "command": command,
        "seed": job.seed,
        "repair": {
            "base": job.pair.base,
            "tuned": job.pair.tuned,
            "margin": job.margin,
            "alpha": job.alpha,
            "num_examples": len(job.examples),
            "learning": job.measure,
            "heal": job.healing is not None,
        },
        "versions": library_versions(),
    }
    directory.start(entries, identity=job.identity(), fresh=fresh)


def _base_stage(job: RepairJob, directory: RunDirectory, reporter: Reporter) -> LoadedModel | None:
    """Scores the base on both halves; returns it, or None when nothing had to be loaded."""
    if directory.is_done("base", directory.scores("base")):
        return None
    loaded = _load(job, job.pair.base, reporter)
    _refuse_other_shape(job.pair, loaded)
    from forgetless.models import count_parameters, hub_id

    facts = {
        "name": job.pair.base,
        "hub_id": hub_id(job.pair.base),
        "num_parameters": count_parameters(loaded.model)[0],
    }
    directory.update({"model": facts, "device": str(loaded.device)})
    kept = {"selection": directory.selection("base"), "confirmation": directory.scores("base")}
    with directory.stage("base"):
        for half, (name, path) in zip(job.halves, kept.items(), strict=True):
            with reporter.task(f"Asking the base model: {name} half") as progress:
                keep_scores(path, evaluate(loaded, half, options=job.options, progress=progress))
    return loaded


def _refuse_other_shape(pair: Pair, base: LoadedModel) -> None:
    """Raises where a base whose config only loading shows (a GGUF file) has another shape than the tuned model."""
    from forgetless.repair.matching import check_shapes, local_directory, read_config

    after = local_directory(pair.tuned)
    if not pair.is_adapter and after is not None:
        config: Any = base.model.config
        check_shapes(config.to_dict(), read_config(after), base=pair.base, tuned=pair.tuned)


def _load(job: RepairJob, name: str, reporter: Reporter) -> LoadedModel:
    from forgetless.models import load_model

    with reporter.task(f"Loading {name}"):
        loaded = load_model(name, **job.load_options)
    for note in loaded.notes:
        reporter.note(note)
    return loaded


def _load_tuned(job: RepairJob, reporter: Reporter, base: LoadedModel | None) -> LoadedModel:
    """Loads the tuned model; an adapter is put on the base that is in memory, full weights take its place there."""
    from forgetless.models import attach_adapter

    if not job.pair.is_adapter:
        return _load(job, job.pair.tuned, reporter)
    base = base or _load(job, job.pair.base, reporter)
    return attach_adapter(base, job.pair.tuned)


def _walk_stage(job: RepairJob, directory: RunDirectory, reporter: Reporter, base: LoadedModel | None) -> None:
    if directory.is_done("walk", directory.model):
        return
    if not job.pair.is_adapter:
        base = None
        gc.collect()  # two models would take the memory of both
    loaded = _load_tuned(job, reporter, base)
    if getattr(loaded.model, "hf_quantizer", None) is not None:
        raise ModelError(
            f"the weights of {loaded.name} are quantised, and nothing lies between quantised weights: name the full "
            "weights, and quantise what comes of it"
        )
    path, moved = open_path(loaded, job.pair.base, load=lambda name: _load(job, name, reporter))
    selection = job.halves[0]
    search = RepairSearch(
        path,
        moved,
        seed=job.seed,
        healing=job.healing,
        held_out=lambda: held_out_texts(job.suite, job.examples),
        directory=directory.methods / "healing",
        reporter=reporter,
    )
    with directory.stage("walk") as facts:
        curve = walk(
            path,
            moved,
            selection,
            read_scores(directory.selection("base")),
            budget=job.margin,
            alpha=job.alpha,
            options=job.options,
            reporter=reporter,
            keep=lambda point, scores: keep_scores(directory.selection(point.label), scores),
            search=search,
            reach=path.moved,
        )
        _save(path, curve.chosen, moved, job.pair, directory)
        write_curve(directory.curve, curve)
        facts |= {"chosen": curve.chosen.label, "num_points": len(curve.points), **search.facts}


def _save(path: RepairPath, point: Point, moved: LoadedModel, pair: Pair, directory: RunDirectory) -> None:
    """Saves the chosen point: an adapter as one, full weights in the files that the tuned model came in."""
    from forgetless.models import save_model
    from forgetless.repair.checkpoints import Checkpoint
    from forgetless.repair.paths import AdapterPath, WeightPath
    from forgetless.repair.saving import can_save, save_point

    source = Path(moved.path)
    if isinstance(path, WeightPath) and not pair.is_adapter and any(source.glob("*.safetensors")):
        tuned = Checkpoint(source)
        if can_save(path, tuned):
            save_point(path, point, tuned, directory.model)
            return
    path.move(point)
    model: Any = path.model
    if isinstance(path, AdapterPath) and pair.is_unnamed:
        for config in model.peft_config.values():  # the base that the adapter names isn't on this machine
            config.base_model_name_or_path = pair.base
    save_model(model, moved.tokenizer, directory.model)


def _judge_stage(job: RepairJob, directory: RunDirectory, reporter: Reporter) -> RepairResult:
    """Reads the saved model back, asks it the confirmation half, and judges it."""
    from forgetless.compare.comparison import compare
    from forgetless.curve import read_curve
    from forgetless.diagnosis import explain_by_answers

    gc.collect()
    if not directory.is_done("tuned", directory.scores("tuned")):
        loaded = _load(job, str(directory.model), reporter)
        with directory.stage("tuned"), reporter.task("Asking the repaired model: confirmation half") as progress:
            keep_scores(
                directory.scores("tuned"), evaluate(loaded, job.halves[1], options=job.options, progress=progress)
            )
    base, tuned = (read_scores(directory.scores(side)) for side in ("base", "tuned"))
    with directory.stage("compare"):
        comparison = compare(base, tuned, margin=job.margin, alpha=job.alpha)
        comparison = explain_by_answers(comparison, base, tuned)
        write_comparison(directory.comparison, comparison)
        curve = confirm(read_curve(directory.curve), comparison)
        write_curve(directory.curve, curve)
    with directory.stage("report"):
        build_pages(directory.path)
    return RepairResult(directory.path, curve, comparison, job.measure)

"""The walk from base to tuned: which point learned most within the budget, and does it hold where nobody looked?

    curve = walk(path, loaded, halves.selection, base_scores, budget=0.02)
    path.move(curve.chosen)

Both halves answer to the same comparison as every run. On the selection half a point counts as within the budget when
no task is FORGOT and the upper bound of forgetting at level LEVEL is within it: a point estimate alone would be
broken on the other half in one walk of four.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.compare.comparison import compare
from forgetless.config import GateConfig
from forgetless.curve import Curve, CurvePoint, Point
from forgetless.errors import ConfigError, RunError
from forgetless.evaluate.runner import EvaluationOptions, evaluate
from forgetless.evaluate.target import TARGET_ANSWERS, TARGET_LOSS
from forgetless.mechanisms.adapters import merge_adapter
from forgetless.progress import Reporter
from forgetless.records import Comparison, Role, SampleScore, Status, read_scores
from forgetless.repair.search import Reach, Trail, choose, reach, walk_line
from forgetless.rundir import RunDirectory, keep_scores
from forgetless.tasks.base import Task
from forgetless.tasks.halves import split_in_halves

if TYPE_CHECKING:
    from forgetless.job import Job
    from forgetless.models import LoadedModel
    from forgetless.repair.paths import Path as ModelPath
    from forgetless.repair.paths import RepairPath

LEVEL = 0.9  # one-sided, of the bound that selects; docs/budget.md shows what other levels would do
KeepScores = Callable[[Point, list[SampleScore]], None]


def walk(
    path: ModelPath,
    loaded: LoadedModel,
    tasks: Sequence[Task],
    base: Sequence[SampleScore],
    *,
    budget: float,
    alpha: float = 0.05,
    cross_entropy_margin: float = 0.05,
    options: EvaluationOptions | None = None,
    reporter: Reporter,
    keep: KeepScores | None = None,
    search: Callable[[Trail], None] = walk_line,
    reach: Reach = reach,
) -> Curve:
    """Walks from tuned towards base until the best point within the budget is found.

    Args:
        path: The model that moves; it is left at an arbitrary point.
        loaded: The same model with its tokenizer.
        tasks: The selection half: retention tasks, and the held-out loss where there is held-out data.
        base: The base's scores on them.
        budget: Largest tolerated drop in score units.
        alpha: Level at which a task is FORGOT.
        cross_entropy_margin: Largest tolerated rise of a retention cross-entropy.
        options: How points are evaluated.
        reporter: Where to tell how far it is.
        keep: Called with each point and its scores.
        search: Says which points to look at; the tuned model is one of them.
        reach: How far a point lies from the base, which counts as learning where there is no held-out data.

    Returns:
        The curve with the chosen point, not yet confirmed.

    Raises:
        ConfigError: The suite has no retention task in grades.
    """

    def judge(point: Point, scores: list[SampleScore]) -> CurvePoint:
        if keep is not None:
            keep(point, scores)
        return judge_point(point, base, scores, budget=budget, alpha=alpha, cross_entropy_margin=cross_entropy_margin)

    trail = Trail(Walker(path, loaded, tasks, base, judge, options=options, reporter=reporter), reach=reach)
    search(trail)
    if trail.passed:
        names = ", ".join(point.label for point in trail.passed)
        reporter.note(f"not asked what they lost, since they learned too little to be chosen: {names}")
    seen, chosen = trail.seen, choose(trail.seen, reach=reach)
    if chosen is None:
        seen.append(judge_point(Point.scale(0.0), base, base, budget=budget, alpha=alpha))
    return Curve(budget, LEVEL, seen, Point.scale(0.0) if chosen is None else chosen.point)


class Walker:
    """Moves a model to points, and asks it there: the held-out loss first, and the rest where it is wanted."""

    def __init__(
        self,
        path: ModelPath,
        loaded: LoadedModel,
        tasks: Sequence[Task],
        base: Sequence[SampleScore],
        judge: Callable[[Point, list[SampleScore]], CurvePoint],
        *,
        options: EvaluationOptions | None,
        reporter: Reporter,
    ) -> None:
        self.path, self.loaded, self.judge, self.options, self.reporter = path, loaded, judge, options, reporter
        self.targets = [task for task in tasks if task.name == TARGET_LOSS]
        self.tasks = [task for task in tasks if task.name != TARGET_LOSS]
        self.base = [score for score in base if score.task == TARGET_LOSS]
        self.asked: dict[Point, list[SampleScore]] = {}
        self.at: Point | None = None

    def __call__(self, point: Point) -> CurvePoint:
        targets = self._ask_targets(point)
        with self.reporter.task(f"Walking to the base: {point.label}") as progress:
            scores = evaluate(self._moved(point), self.tasks, options=self.options, progress=progress)
        entry = self.judge(point, scores + targets)
        learned = "" if entry.learning is None else f", learned {entry.learning:.3f} nats per token"
        self.reporter.note(f"{point.label}: lost {100 * entry.forgetting:+.1f} points{learned}; {entry.reason}")
        return entry

    def learned(self, point: Point) -> float | None:
        return _learning(compare(self.base, self._ask_targets(point))) if self.targets else None

    def _ask_targets(self, point: Point) -> list[SampleScore]:
        if point not in self.asked:
            asked = evaluate(self._moved(point), self.targets, options=self.options) if self.targets else []
            self.asked[point] = asked
        return self.asked[point]

    def _moved(self, point: Point) -> LoadedModel:
        # Whole weights are read from disk for every move. What else moves the path (healing) is followed by points of a
        # new kind, never by the one that was asked last.
        if point != self.at:
            self.path.move(point)
            self.at = point
        return replace(self.loaded, model=self.path.model)


def judge_point(
    point: Point,
    base: Sequence[SampleScore],
    tuned: Sequence[SampleScore],
    *,
    budget: float,
    alpha: float = 0.05,
    cross_entropy_margin: float = 0.05,
) -> CurvePoint:
    """Judges a point by the scores of the base and its own on the same samples; takes what `walk` takes."""
    limits: dict[str, Any] = {"margin": budget, "cross_entropy_margin": cross_entropy_margin}
    strict = compare(base, tuned, alpha=alpha, **limits)
    bound = compare(base, tuned, alpha=1 - LEVEL, **limits).pooled.forgetting_upper
    return _curve_point(point, strict, bound)


def _curve_point(point: Point, comparison: Comparison, bound: float | None) -> CurvePoint:
    pooled = comparison.pooled
    if pooled.delta is None or bound is None:
        raise ConfigError("a budget needs a suite with retention tasks in grades: evaluation.suite has none")
    forgot = [row.task for row in comparison.tasks if row.status is Status.FORGOT]
    return CurvePoint(
        point=point,
        forgetting=0.0 - pooled.delta,  # not -0.0 where nothing changed
        forgetting_upper=bound,
        learning=_learning(comparison),
        forgot=forgot,
        is_within=point.is_base or (not forgot and bound <= comparison.margin),
        num_samples=pooled.num_samples,
    )


def _learning(comparison: Comparison) -> float | None:
    loss = next((row for row in comparison.tasks if row.task == TARGET_LOSS and row.role is Role.TARGET), None)
    return None if loss is None or loss.delta is None else -loss.delta


def confirm(curve: Curve, comparison: Comparison) -> Curve:
    """Returns the curve with what the confirmation half says of the chosen point.

    Args:
        curve: The curve that chose it.
        comparison: Base and chosen point on the confirmation half.

    Returns:
        The curve with its verdict.
    """
    bound = comparison.pooled.forgetting_upper
    return replace(curve, confirmed=_curve_point(curve.chosen, comparison, bound), verdict=comparison.verdict.value)


def open_path(loaded: LoadedModel, base: str, *, load: Callable[[str], LoadedModel]) -> tuple[RepairPath, LoadedModel]:
    """Makes a tuned model movable between its base and itself.

    Args:
        loaded: The tuned model.
        base: Name of its base.
        load: Loads a model by its name, where weights can't be read from files one by one.

    Returns:
        The path, and the model that it moves: the same, or the adapter merged into its base.

    Raises:
        ModelError: The base's weights can't be read, or aren't those that were tuned.
    """
    from forgetless.repair.paths import AdapterPath, WeightPath, is_scalable

    model: Any = loaded.model
    if is_scalable(model):
        return AdapterPath(model), loaded
    tuned_directory = Path(loaded.path)
    if hasattr(model, "peft_config"):
        model, tuned_directory = merge_adapter(model), Path()
    names = [name for name, _ in model.named_parameters()]
    read_base = _reader(base, names, load)
    read_tuned = _file_reader(tuned_directory, names) if tuned_directory.name else None
    if read_tuned is None:
        read_tuned = _changed_reader(model, read_base)
    moved = replace(loaded, model=model)
    path = WeightPath(model, read_base, read_tuned)
    path.check()  # before the tuned model is asked for minutes
    return path, moved


def _reader(name: str, names: Sequence[str], load: Callable[[str], LoadedModel]) -> Any:
    """Returns a reader of a model's weights: from its files where they have them by these names, else from memory."""
    from forgetless.models import resolve_model
    from forgetless.repair.paths import state_reader

    found = _file_reader(Path(resolve_model(name)), names)
    return found or state_reader(dict(load(name).model.named_parameters()))


def _file_reader(directory: Path, names: Sequence[str]) -> Any:
    from forgetless.repair.checkpoints import Checkpoint

    if not any(directory.glob("*.safetensors")):
        return None
    checkpoint = Checkpoint(directory)
    return checkpoint.read if checkpoint.holds(names) else None


def _changed_reader(model: Any, read_base: Any) -> Any:
    """Returns a reader of a model in memory that will be moved: what differs from the base is copied before it is."""
    changed = {
        name: parameter.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if not parameter.detach().cpu().equal(read_base(name).to(parameter.dtype))
    }
    return lambda name: changed[name] if name in changed else read_base(name)


def check_budget(job: Job) -> None:
    """Refuses a budget that the suite can't keep, before anything is loaded.

    Args:
        job: The job; one without a budget is fine.

    Raises:
        ConfigError: A margin stands beside the budget, or a task can't be split in halves.
    """
    config = job.config
    if config.budget is None:
        return
    if "margin" in config.gate.model_fields_set and config.gate.margin not in (GateConfig().margin, config.budget):
        raise ConfigError(
            f"budget {config.budget} and gate.margin {config.gate.margin} both say how much may be lost: name one"
        )
    if not any(task.spec.role is Role.RETENTION and task.spec.kind != "perplexity" for task in job.suite):
        raise ConfigError("a budget needs a suite of forgetless's own retention tasks: evaluation.suite has none")
    _halves(job)


def tasks_of(job: Job, *, side: str) -> list[Task]:
    """Returns what a side is asked in a run: with a budget, the artefact is asked the confirmation half only."""
    tasks = [*job.suite, *job.targets]
    if job.config.budget is None:
        return tasks
    confirmation = _halves(job)[1]
    if side != "base":
        return confirmation
    # No point is asked for free answers to held-out questions on its way, so the base needn't be either.
    return [half if task.name == TARGET_ANSWERS else task for task, half in zip(tasks, confirmation, strict=True)]


def _halves(job: Job) -> tuple[list[Task], list[Task]]:
    return split_in_halves([*job.suite, *job.targets], seed=job.config.seed)


def keep_selection(job: Job, directory: RunDirectory, scores: Sequence[SampleScore]) -> list[SampleScore]:
    """Puts the base's scores on the selection half aside, in a run with a budget.

    Args:
        job: The job.
        directory: The run directory.
        scores: The base's scores.

    Returns:
        The scores that a verdict may rest on.
    """
    if job.config.budget is None:
        return list(scores)
    chosen = {(task.name, str(sample["id"])) for task in _halves(job)[0] for sample in task.samples}
    keep_scores(directory.selection("base"), [s for s in scores if (s.task, s.sample_id) in chosen])
    return [score for score in scores if (score.task, score.sample_id) not in chosen]


def save_best_point(
    job: Job,
    directory: RunDirectory,
    loaded: LoadedModel,
    *,
    load: Callable[[str], LoadedModel],
    options: EvaluationOptions,
    reporter: Reporter,
) -> dict[str, Any]:
    """Walks from what training left to the best point within the budget, and saves that as the run's model.

    Args:
        job: The job, with a budget.
        directory: The run directory; `curve.json` and `model/` are written.
        loaded: What training left, read back.
        load: Loads a model by its name.
        options: How points are evaluated.
        reporter: Where to tell how far it is.

    Returns:
        What the manifest says of the walk.
    """
    from forgetless.models import save_model

    config = job.config
    assert config.budget is not None
    # The held-out loss is enough to see what a point has learned; free answers would double the time.
    tasks = [task for task in _halves(job)[0] if task.name != TARGET_ANSWERS]
    asked = {task.name for task in tasks}
    path, moved = open_path(loaded, job.base_name, load=load)
    curve = walk(
        path,
        moved,
        tasks,
        [score for score in read_scores(directory.selection("base")) if score.task in asked],
        budget=config.budget,
        alpha=config.gate.alpha,
        cross_entropy_margin=config.gate.cross_entropy_margin,
        options=options,
        reporter=reporter,
        keep=lambda point, scores: keep_scores(directory.selection(point.label), scores),
    )
    path.move(curve.chosen)
    save_model(merge_adapter(path.model) if config.merge else path.model, moved.tokenizer, directory.model)
    write_curve(directory.curve, curve)
    return {"chosen": curve.chosen.label, "num_points": len(curve.points), "learning_kept": curve.learning_kept}


def write_curve(path: Path, curve: Curve) -> None:
    """Writes `curve.json`, whole or not at all.

    Args:
        path: The file.
        curve: What it is to hold.

    Raises:
        RunError: It can't be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(curve.to_json(), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): free some space or choose --out") from error

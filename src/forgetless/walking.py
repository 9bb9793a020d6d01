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
from forgetless.curve import Curve, CurvePoint, Point
from forgetless.errors import ConfigError, RunError
from forgetless.evaluate.runner import EvaluationOptions, evaluate
from forgetless.evaluate.target import TARGET_LOSS
from forgetless.files import write_text
from forgetless.mechanisms.adapters import merge_adapter
from forgetless.progress import Reporter
from forgetless.records import Comparison, Role, SampleScore, Status
from forgetless.repair.search import Reach, Trail, choose, reach, walk_line
from forgetless.tasks.base import Task

if TYPE_CHECKING:
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

    limits = {"budget": budget, "alpha": alpha, "cross_entropy_margin": cross_entropy_margin}
    walker = Walker(path, loaded, tasks, base, limits=limits, keep=keep, options=options, reporter=reporter)
    trail = Trail(walker, reach=reach)
    search(trail)
    if trail.passed:
        names = ", ".join(point.label for point in trail.passed)
        reporter.note(f"not asked what they lost, since they learned too little to be chosen: {names}")
    seen, chosen = trail.seen, choose(trail.seen, reach=reach)
    if chosen is None:
        seen.append(judge_point(Point.scale(0.0), base, base, budget=budget, alpha=alpha))
    return Curve(budget, LEVEL, seen, Point.scale(0.0) if chosen is None else chosen.point)


class Walker:
    """Moves a model to points, and asks it there: the held-out loss first, and the rest where it is wanted.

    A point where a task is FORGOT can't be chosen, whatever else it kept. So tasks that an earlier point forgot are
    asked first, and where one of them is FORGOT by itself, the others are not asked.
    """

    def __init__(
        self,
        path: ModelPath,
        loaded: LoadedModel,
        tasks: Sequence[Task],
        base: Sequence[SampleScore],
        *,
        limits: dict[str, float],
        keep: KeepScores | None,
        options: EvaluationOptions | None,
        reporter: Reporter,
    ) -> None:
        self.path, self.loaded, self.base, self.limits = path, loaded, base, limits
        self.keep, self.options, self.reporter = keep, options, reporter
        self.targets = [task for task in tasks if task.name == TARGET_LOSS]
        self.tasks = [task for task in tasks if task.name != TARGET_LOSS]
        self.forgotten: set[str] = set()  # at any point so far
        self.asked: dict[Point, list[SampleScore]] = {}
        self.at: Point | None = None

    def __call__(self, point: Point) -> CurvePoint:
        first = [task for task in self.tasks if task.name in self.forgotten]
        rest = [task for task in self.tasks if task.name not in self.forgotten]
        scores, entry = self._ask_targets(point), None
        if first:
            scores = scores + self._ask(point, first, "what was forgotten before")
            entry = judge_part(point, self.base, scores, num_gated=self._num_gated, **self.limits)
        if entry is None:
            scores = scores + (self._ask(point, rest) if rest else [])
            entry = judge_point(point, self.base, scores, **self.limits)
        self.forgotten.update(entry.forgot)
        if self.keep is not None:
            self.keep(point, scores)
        self._tell(entry)
        return entry

    def learned(self, point: Point) -> float | None:
        base = [score for score in self.base if score.task == TARGET_LOSS]
        return _learning(compare(base, self._ask_targets(point))) if self.targets else None

    @property
    def _num_gated(self) -> int:
        """Rows that are judged together: the retention tasks and their pool."""
        return 1 + sum(task.spec.role is Role.RETENTION for task in self.tasks)

    def _tell(self, entry: CurvePoint) -> None:
        lost = "" if entry.forgetting is None else f"lost {100 * entry.forgetting:+.1f} points"
        learned = "" if entry.learning is None else f"learned {entry.learning:.3f} nats per token"
        figures = ", ".join(figure for figure in (lost, learned) if figure)
        self.reporter.note(f"{entry.point.label}: {f'{figures}; ' if figures else ''}{entry.reason}")

    def _ask(self, point: Point, tasks: Sequence[Task], what: str = "") -> list[SampleScore]:
        with self.reporter.task(f"Walking to the base: {point.label}{what and f', {what}'}") as progress:
            return evaluate(self._moved(point), tasks, options=self.options, progress=progress)

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


def judge_part(
    point: Point,
    base: Sequence[SampleScore],
    tuned: Sequence[SampleScore],
    *,
    num_gated: int,
    budget: float,
    alpha: float = 0.05,
    cross_entropy_margin: float = 0.05,
) -> CurvePoint | None:
    """Judges a point by a part of the tasks, where that is enough to know that it can't be chosen.

    Args:
        point: The point.
        base: The base's scores on all tasks.
        tuned: The point's on some of them.
        num_gated: Rows that `judge_point` would judge together.
        budget: Largest tolerated drop in score units.
        alpha: Level at which a task is FORGOT.
        cross_entropy_margin: Largest tolerated rise of a retention cross-entropy.

    Returns:
        The point with the tasks that are FORGOT whatever the others say: a p-value that `num_gated` times (Bonferroni)
        is within alpha is so under Holm as well. Its forgetting is None. None where there is no such task.
    """
    asked = {score.task for score in tuned}
    comparison = compare(
        [score for score in base if score.task in asked],
        tuned,
        margin=budget,
        alpha=alpha,
        cross_entropy_margin=cross_entropy_margin,
    )
    forgot = [
        row.task
        for row in comparison.tasks
        if row.status is Status.FORGOT and row.p_value is not None and row.p_value * num_gated <= alpha
    ]
    if not forgot:
        return None
    return CurvePoint(
        point=point,
        forgetting=None,
        forgetting_upper=None,
        learning=_learning(comparison),
        forgot=forgot,
        is_within=False,
        num_samples=sum(row.num_samples for row in comparison.tasks if row.role is Role.RETENTION),
    )


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


def write_curve(path: Path, curve: Curve) -> None:
    """Writes `curve.json`, whole or not at all.

    Args:
        path: The file.
        curve: What it is to hold.

    Raises:
        RunError: It can't be written.
    """
    try:
        write_text(path, curve.to_json())
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): free some space or choose --out") from error

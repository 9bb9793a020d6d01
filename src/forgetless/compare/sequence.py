"""Measures of a sequence of fine-tuning phases, from the matrix of scores R.

R[i][j] is the score on phase j's task after training phase i, rows and columns counted from 0, higher is better. Signs
as everywhere: a transfer is after - before (negative = forgot), a forgetting is before - after (positive = forgot).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from forgetless.compare.distributions import FloatArray


@dataclass(frozen=True, slots=True)
class SequenceMetrics:
    """What a sequence of T phases learned, kept and passed on; figures that a single phase doesn't have are None.

    Attributes:
        average_accuracy: ACC, the mean over tasks after the last phase.
        backward_transfer: BWT, the mean change of each earlier task from just after its own phase to the end.
        forward_transfer: FWT, the mean of each later task's score before its own phase minus the base's.
        forgetting: Chaudhry's forgetting, the mean over earlier tasks of their best score before the last phase minus
            their last; the base's score counts among the earlier ones where it is given.
        matrix: R, row by row.
    """

    average_accuracy: float
    backward_transfer: float | None
    forward_transfer: float | None
    forgetting: float | None
    matrix: tuple[tuple[float, ...], ...]


def score_matrix(phases: Sequence[Mapping[str, float]], *, tasks: Sequence[str]) -> FloatArray:
    """Builds R from the mean scores after each phase.

    Args:
        phases: One mapping of task to mean score per phase, in order.
        tasks: Task that each phase trained on, in the same order.

    Returns:
        R, shape (T, T); nan where a phase didn't evaluate a task.

    Raises:
        ValueError: The numbers of phases and tasks differ: column j is the task that phase j trained on.
    """
    if len(phases) != len(tasks):
        raise ValueError(f"{len(phases)} phases but {len(tasks)} tasks: name the one task that each phase trained on")
    return np.array([[phase.get(task, np.nan) for task in tasks] for phase in phases], dtype=np.float64)


def sequence_metrics(matrix: ArrayLike, *, base: ArrayLike | None = None) -> SequenceMetrics:
    """Computes ACC, BWT, FWT and forgetting from R (Lopez-Paz and Ranzato, 2017; Chaudhry et al., 2018).

    With T phases, counted from 1, and b[j] the base's score on task j:

    - ACC = mean over j of R[T][j]
    - BWT = mean over j < T of R[T][j] - R[j][j]
    - FWT = mean over j > 1 of R[j-1][j] - b[j]
    - forgetting = mean over j < T of max over l < T of R[l][j], and of b[j] if given, minus R[T][j]

    Chaudhry et al. start from random weights and leave the base out; a pretrained model has something to lose before
    the first phase, so hand its scores over.

    Args:
        matrix: R, shape (T, T).
        base: Scores of the base on the T tasks, shape (T,); without them FWT is None.

    Returns:
        The figures and R. Those that take two phases are None when T is 1, and so is FWT when an entry that it needs is
        missing.

    Raises:
        ValueError: The matrix is not square, `base` doesn't fit it, or an entry of its diagonal or last row is missing.
    """
    scores = np.asarray(matrix, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or scores.size == 0:
        raise ValueError(f"R has shape {scores.shape}: it needs one row per phase and one column per phase's task")
    before = None if base is None else np.asarray(base, dtype=np.float64)
    if before is not None and before.shape != scores.shape[:1]:
        raise ValueError(f"base has shape {before.shape}: it needs one score for each of {scores.shape[0]} tasks")
    last = scores[-1]
    if np.isnan(last).any() or np.isnan(np.diag(scores)).any():
        raise ValueError("R lacks a score in its last row or on its diagonal: evaluate each task after its own phase")
    backward = forward = forgetting = None
    if scores.shape[0] > 1:
        backward = float((last - np.diag(scores))[:-1].mean())
        earlier = scores[:-1] if before is None else np.vstack([before, scores[:-1]])
        forgetting = float((np.nanmax(earlier[:, :-1], axis=0) - last[:-1]).mean())
        if before is not None:
            forward = float((np.diag(scores, k=1) - before[1:]).mean())
    return SequenceMetrics(
        average_accuracy=float(last.mean()),
        backward_transfer=backward,
        forward_transfer=None if forward is None or np.isnan(forward) else forward,
        forgetting=forgetting,
        matrix=tuple(tuple(float(value) for value in row) for row in scores),
    )


def general_forgetting(base: ArrayLike, after: ArrayLike) -> FloatArray:
    """Computes what each phase cost on general benchmarks.

    Args:
        base: Scores of the base, shape (benchmarks,).
        after: Scores after each phase, shape (phases, benchmarks).

    Returns:
        base - after, shape (phases, benchmarks), positive = forgot.
    """
    return np.asarray(np.asarray(base, dtype=np.float64) - np.asarray(after, dtype=np.float64), dtype=np.float64)

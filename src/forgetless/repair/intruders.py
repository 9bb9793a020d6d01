"""Intruder dimensions: strong directions of the tuned weight that the base doesn't know, scaled down.

Shuttleworth et al. 2024, "LoRA vs Full Fine-tuning: An Illusion of Equivalence" (https://arxiv.org/abs/2410.21228).
With W0 = sum x_i s_i z_i^T the base's weight and W = sum y_j t_j v_j^T the tuned one, y_j is an intruder where it is
among the k strongest and max_i |cos(y_j, x_i)| < epsilon. The paper scales the whole of such a component,

    W' = W + (lambda - 1) sum_j y_j t_j v_j^T,

so lambda = 1 leaves it and lambda = 0 removes it. (PEFT's `reduce_intruder_dimension` computes that too, while its
docstring says of `mitigation_lambda` that "the higher the value the more of the intruder dimension is subtracted": it
is the other way round, and its default of 0.75 takes a quarter away.)

Departs from the paper: only the *change* along the intruders is scaled, with Y the matrix of their y_j,

    W' = W0 + (I + (lambda - 1) Y Y^T)(W - W0),

so that what the base itself does in these directions stays, the points lie between base and tuned, and an adapter keeps
its rank exactly: B' = (I + (lambda - 1) Y Y^T) B. PEFT cuts the paper's W' - W0, whose rank is larger, back to the
adapter's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from forgetless.repair.paths import Matrix, Treatment

TOP = 10  # k, of the paper and of PEFT
THRESHOLD = 0.5  # epsilon, likewise
_EXTRA, _ROUNDS = 10, 4  # of the randomised decomposition; Halko et al. 2011, section 4.5
_SMALL = 1024  # up to this side a full decomposition is as fast


@torch.no_grad()
def find_intruders(
    matrices: Iterable[Matrix],
    *,
    top: int = TOP,
    threshold: float = THRESHOLD,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Finds the intruders of each matrix.

    Args:
        matrices: The matrices before and after tuning, one at a time.
        top: How many of the tuned matrix's singular vectors are looked at, strongest first.
        threshold: A vector whose largest |cos| with any of the base's is below it is an intruder, in (0, 1].
        seed: Seed of the randomised decomposition of large matrices.
        progress: Called with the number of matrices done.

    Returns:
        By name, for matrices that have some: their left singular vectors, (outputs, intruders).
    """
    found = {}
    for number, (name, base, tuned) in enumerate(matrices, start=1):
        known = left_vectors(base)
        strongest = top_vectors(tuned, top, generator=torch.Generator().manual_seed(seed))
        likeness = (strongest.T @ known).abs().amax(dim=1)  # (top,)
        if bool((is_intruder := likeness < threshold).any()):
            found[name] = strongest[:, is_intruder]
        if progress is not None:
            progress(number)
    return found


def scale_intruders(intruders: dict[str, torch.Tensor], factor: float) -> Treatment:
    """Returns the treatment that scales the change along the intruders.

    Args:
        intruders: What `find_intruders` found.
        factor: lambda: 0 removes it, 1 leaves it as it is.

    Returns:
        A treatment for a path's table of treatments.
    """

    def treat(name: str, change: torch.Tensor) -> torch.Tensor:
        if name not in intruders:
            return change
        directions = intruders[name].to(change.device)
        return change + (factor - 1) * directions @ (directions.T @ change)

    return treat


def left_vectors(matrix: torch.Tensor) -> torch.Tensor:
    """Returns all left singular vectors of a matrix in float32, (rows, min(rows, columns))."""
    vectors: torch.Tensor = torch.linalg.svd(matrix, full_matrices=False).U
    return vectors


def top_vectors(matrix: torch.Tensor, num: int, *, generator: torch.Generator) -> torch.Tensor:
    """Returns the strongest left singular vectors.

    Args:
        matrix: The matrix in float32.
        num: How many; fewer where its smaller side is shorter.
        generator: Of the start of the subspace iteration that stands for the decomposition of large matrices.

    Returns:
        The vectors, (rows, num), strongest first.
    """
    num = min(num, *matrix.shape)
    if min(matrix.shape) <= _SMALL:
        return left_vectors(matrix)[:, :num]
    width = min(num + _EXTRA, *matrix.shape)
    start = torch.randn(matrix.shape[1], width, generator=generator).to(matrix.device)
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(_ROUNDS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    vectors: torch.Tensor = basis @ left_vectors(basis.T @ matrix)
    return vectors[:, :num]

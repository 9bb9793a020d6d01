"""KL divergence from the base's next-token distribution: over the whole vocabulary, or its top and the rest as one.

Any coarsening of two distributions brings them closer (the data processing inequality). With the base's k most likely
tokens kept apart and all others in one bucket, the divergence is therefore a lower bound of the one over the whole
vocabulary, with equality where the two agree on the ratios within the bucket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Distributions:
    """Next-token distributions at some positions.

    Attributes:
        log_probs: Natural logarithms, (positions, vocabulary), or (positions, k) of the tokens in `ids`.
        ids: Token ids of the top, (positions, k); None = `log_probs` holds the whole vocabulary in order.
        tail: Logarithm of what the tokens outside `ids` hold together, (positions,); None = there are none.
    """

    log_probs: Tensor
    ids: Tensor | None = None
    tail: Tensor | None = None


def whole_distributions(logits: Tensor) -> Distributions:
    """Returns the distributions of logits over the whole vocabulary."""
    return Distributions(logits.float().log_softmax(-1))


def top_distributions(logits: Tensor, targets: Tensor, k: int) -> Distributions:
    """Keeps the k most likely tokens apart and puts the others into one bucket.

    The target takes the last place where it isn't among them, so that it can be left out later.

    Args:
        logits: (positions, vocabulary).
        targets: The token that follows at each position, (positions,).
        k: At least 1; one less than the vocabulary at most is used, which leaves nothing out.

    Returns:
        The distributions in float32, with their bucket.
    """
    logits = logits.float()
    ids = logits.topk(min(k, logits.shape[-1] - 1), dim=-1).indices
    absent = (ids != targets[:, None]).all(-1)
    ids[absent, -1] = targets[absent]
    return _coarsened(logits, ids)


def _coarsened(logits: Tensor, ids: Tensor) -> Distributions:
    total = logits.logsumexp(-1)
    # Not log(1 - sum of the top): that would lose all digits where the top holds nearly everything.
    rest = logits.scatter(-1, ids, float("-inf")).logsumexp(-1)
    return Distributions(logits.gather(-1, ids) - total[:, None], ids, rest - total)


def divergence(base: Distributions, logits: Tensor, *, left_out: Tensor | None = None) -> Tensor:
    """Computes KL(base || tuned) at each position.

    Args:
        base: Distributions of the base.
        logits: Logits of the tuned model, (positions, vocabulary), with their graph.
        left_out: A token of each position, (positions,), that is taken out of both distributions before they are
            renormalised (Mask the Target, arXiv 2605.29498); None = none. A top must hold it.

    Returns:
        Divergences in nats, (positions,), at least 0 up to rounding.
    """
    import torch

    logits = logits.float()
    if base.ids is None:
        log_base, log_tuned = base.log_probs, logits.log_softmax(-1)
        column = left_out
    else:
        tuned = _coarsened(logits, base.ids)
        log_base, log_tuned = (_with_tail(one) for one in (base, tuned))
        column = None if left_out is None else (base.ids == left_out[:, None]).int().argmax(-1)
    if column is not None:
        log_base, log_tuned = (
            one.scatter(-1, column[:, None], float("-inf")).log_softmax(-1) for one in (log_base, log_tuned)
        )
    # A token that the base never writes adds nothing, whatever the tuned model makes of it.
    is_impossible = log_base == float("-inf")
    ratios = (log_base - log_tuned).masked_fill(is_impossible, 0.0)
    return torch.sum(log_base.exp() * ratios, dim=-1)


def _with_tail(one: Distributions) -> Tensor:
    import torch

    assert one.tail is not None
    return torch.cat([one.log_probs, one.tail[:, None]], dim=-1)

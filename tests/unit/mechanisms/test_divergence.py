"""KL(base || tuned) by hand, against torch on the whole vocabulary, and bounded by its coarsened form."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import kl_div

from forgetless.mechanisms.divergence import divergence, top_distributions, whole_distributions

BASE = torch.tensor([[0.5, 0.25, 0.25]]).log()
TUNED = torch.tensor([[0.25, 0.25, 0.5]]).log()


def random_logits(seed: int, positions: int = 40, vocabulary: int = 50) -> torch.Tensor:
    return 3 * torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed))


def test_by_hand() -> None:
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.5)  # the middle token agrees
    assert divergence(whole_distributions(BASE), TUNED).tolist() == pytest.approx([expected])


def test_is_what_torch_computes_over_the_whole_vocabulary() -> None:
    base, tuned = random_logits(0), random_logits(1)
    expected = kl_div(tuned.log_softmax(-1), base.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(divergence(whole_distributions(base), tuned), expected)


def test_the_target_is_taken_out_of_both_and_the_rest_renormalised() -> None:
    left_out = torch.tensor([0])
    # (1/2, 1/2) against (1/3, 2/3)
    expected = 0.5 * math.log(1.5) + 0.5 * math.log(0.75)
    assert divergence(whole_distributions(BASE), TUNED, left_out=left_out).tolist() == pytest.approx([expected])
    top = top_distributions(BASE, left_out, 1)  # the target alone: the rest is one bucket, in which nothing is seen
    assert divergence(top, TUNED, left_out=left_out).tolist() == pytest.approx([0.0], abs=1e-6)


def test_raising_the_target_alone_costs_nothing_once_it_is_left_out() -> None:
    base = random_logits(0)
    targets = torch.arange(40)
    tuned = base.clone()
    tuned[torch.arange(40), targets] += 2.0
    for kept in (whole_distributions(base), top_distributions(base, targets, 8)):
        assert divergence(kept, tuned).mean() > 0.01
        assert divergence(kept, tuned, left_out=targets).abs().max() < 1e-5


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_top_with_its_bucket_is_a_lower_bound_that_grows_with_k(is_masked: bool) -> None:
    base, tuned = random_logits(0), random_logits(1)
    targets = torch.arange(40)
    left_out = targets if is_masked else None
    exact = divergence(whole_distributions(base), tuned, left_out=left_out)
    bounds = [divergence(top_distributions(base, targets, k), tuned, left_out=left_out) for k in (2, 8, 32)]
    for lower, higher in zip(bounds, [*bounds[1:], exact], strict=True):
        assert (lower <= higher + 1e-5).all()
    assert float((exact - bounds[0]).min()) > 1e-4  # it isn't the same thing
    whole = divergence(top_distributions(base, targets, 99), tuned, left_out=left_out)
    torch.testing.assert_close(whole, exact)  # all tokens but one, which is the bucket


def test_the_top_holds_the_target_even_where_it_is_improbable() -> None:
    logits = torch.tensor([[5.0, 4.0, 3.0, -9.0]])
    top = top_distributions(logits, torch.tensor([3]), 2)
    assert top.ids is not None
    assert top.tail is not None
    assert top.ids.tolist() == [[0, 3]]
    assert float(top.log_probs.exp().sum() + top.tail.exp().sum()) == pytest.approx(1.0)


def test_a_bucket_that_holds_next_to_nothing_keeps_its_digits() -> None:
    logits = torch.tensor([[0.0, -60.0, -61.0]])
    top = top_distributions(logits, torch.tensor([0]), 1)
    assert top.tail is not None
    assert float(top.tail) == pytest.approx(-60 + math.log(1 + math.exp(-1)), abs=1e-4)
    tuned = logits.clone().requires_grad_()
    divergence(top, tuned).sum().backward()
    assert tuned.grad is not None
    assert torch.isfinite(tuned.grad).all()


def test_an_impossible_token_adds_nothing() -> None:
    base = torch.tensor([[0.0, 0.0, float("-inf")]])
    assert divergence(whole_distributions(base), torch.zeros(1, 3)).tolist() == pytest.approx([math.log(1.5)])


@pytest.mark.parametrize("k", [0, 8])
@pytest.mark.parametrize("is_masked", [False, True])
def test_the_gradient_is_what_differences_say(k: int, is_masked: bool) -> None:
    base, targets = random_logits(0, 3, 12).double(), torch.arange(3)
    kept = top_distributions(base, targets, k) if k else whole_distributions(base)
    tuned = random_logits(1, 3, 12)
    left_out = targets if is_masked else None
    varied = tuned.clone().requires_grad_()
    divergence(kept, varied, left_out=left_out).sum().backward()
    assert varied.grad is not None
    step = torch.zeros_like(tuned)
    step[1, 5] = 0.05
    change = divergence(kept, tuned + step, left_out=left_out) - divergence(kept, tuned - step, left_out=left_out)
    assert float(varied.grad[1, 5]) == pytest.approx(float(change[1]) / 0.1, abs=2e-3)

"""What must not change a score: batch size, order, packing, padding, sharing of prefixes."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from conftest import build_model, build_tokenizer
from forgetless.evaluate.decoding import Chooser, Prompt, SlotDecoder, decode_padded
from forgetless.evaluate.local import LocalModel
from forgetless.evaluate.packing import Backbone, find_backbone, pack_row
from forgetless.evaluate.requests import GREEDY, GenerationRequest, Likelihood, LikelihoodRequest
from forgetless.models import LoadedModel


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    model: Any = build_model()
    return LoadedModel(model, build_tokenizer(), "tiny", "tiny")


@pytest.fixture(scope="module")
def requests() -> list[LikelihoodRequest]:
    """Requests of all shapes: shared and unshared contexts, one to five continuations, empty masks excluded."""
    draw = random.Random(0)
    system = [draw.randrange(258) for _ in range(20)]
    made = []
    for number in range(40):
        context = (system if number % 3 else []) + [draw.randrange(258) for _ in range(draw.randint(1, 30))]
        branches = [[draw.randrange(258) for _ in range(draw.randint(1, 9))] for _ in range(draw.randint(1, 5))]
        scored = (
            [[True] + [draw.random() < 0.7 for _ in branch[1:]] for branch in branches] if number % 4 == 0 else None
        )
        made.append(LikelihoodRequest(context, branches, scored))
    return made


def plain(model: Any, request: LikelihoodRequest) -> list[float]:
    """Scores every continuation with one plain forward pass."""
    values = []
    for which, branch in enumerate(request.continuations):
        ids = torch.tensor([[*request.context, *branch]])
        with torch.no_grad():
            log_probs = model(input_ids=ids).logits[0].log_softmax(-1)
        counts = request.scored[which] if request.scored else [True] * len(branch)
        start = len(request.context) - 1
        values.append(sum(float(log_probs[start + i, t]) for i, t in enumerate(branch) if counts[i]))
    return values


def values(results: list[list[Likelihood]]) -> list[list[float]]:
    return [[result.log_likelihood for result in row] for row in results]


@pytest.mark.parametrize("row_tokens", [1, 64, 512, 10_000])
def test_packed_is_plain(loaded: LoadedModel, requests: list[LikelihoodRequest], row_tokens: int) -> None:
    engine = LocalModel(loaded, row_tokens=row_tokens)
    results = dict(engine.score(requests))
    assert engine._backbone is not None
    for index, request in enumerate(requests):
        assert values([results[index]])[0] == pytest.approx(plain(loaded.model, request), abs=2e-4)


def test_order_does_not_matter(loaded: LoadedModel, requests: list[LikelihoodRequest]) -> None:
    forwards = dict(LocalModel(loaded).score(requests))
    backwards = dict(LocalModel(loaded).score(requests[::-1]))
    for index in range(len(requests)):
        other = backwards[len(requests) - 1 - index]
        assert values([forwards[index]])[0] == pytest.approx(values([other])[0], abs=2e-4)


def test_a_shared_beginning_is_computed_once(requests: list[LikelihoodRequest]) -> None:
    shared = [request for number, request in enumerate(requests) if number % 3][:5]
    row = pack_row(shared)
    separate = sum(len(r.context) + sum(len(c) - 1 for c in r.continuations) for r in shared)
    assert len(row.ids) == separate - 4 * 20


def test_a_model_that_ignores_the_mask_is_scored_one_by_one(
    loaded: LoadedModel, requests: list[LikelihoodRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = build_model()
    forward = type(model.model).forward

    def without_mask(self: Any, **inputs: Any) -> Any:
        return forward(self, **{name: value for name, value in inputs.items() if name != "attention_mask"})

    monkeypatch.setattr(type(model.model), "forward", without_mask)
    assert find_backbone(model) is None
    results = dict(LocalModel(LoadedModel(model, loaded.tokenizer, "tiny", "tiny")).score(requests[:6]))
    for index in range(6):
        assert values([results[index]])[0] == pytest.approx(plain(model, requests[index]), abs=2e-4)


def test_greedy_likelihoods_say_what_greedy_decoding_writes(loaded: LoadedModel) -> None:
    prompt = list(range(30))
    written = decode_padded(loaded.model, [Prompt(prompt, 6)], ends=set(), choose=Chooser(GREEDY))[0]
    other = [*written[:-1], (written[-1] + 1) % 258]
    request = LikelihoodRequest(prompt, [written, other])
    results = dict(LocalModel(loaded).score([request]))[0]
    assert [result.is_greedy for result in results] == [True, False]


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = random.Random(1)
    system = [draw.randrange(258) for _ in range(12)]
    return [system + [draw.randrange(258) for _ in range(draw.randint(1, 40))] for _ in range(17)]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 17])
def test_decoding_in_batches_is_decoding_alone(loaded: LoadedModel, prompts: list[list[int]], batch_size: int) -> None:
    budgets = [3 + index % 6 for index in range(len(prompts))]
    expected = []
    for prompt, budget in zip(prompts, budgets, strict=True):
        with torch.no_grad():
            ids = torch.tensor([prompt])
            model: Any = loaded.model
            out = model.generate(input_ids=ids, do_sample=False, max_new_tokens=budget, attention_mask=ids * 0 + 1)
        expected.append(out[0, len(prompt) :].tolist())
    asked = [Prompt(prompt, budget) for prompt, budget in zip(prompts, budgets, strict=True)]
    choose = Chooser(GREEDY)
    decoder = SlotDecoder(Backbone(loaded.model), ends={1}, num_slots=batch_size, choose=choose)
    answers = dict(decoder.decode(asked))
    assert [answers[number] for number in range(len(prompts))] == expected
    for start in range(0, len(prompts), batch_size):
        batch = slice(start, start + batch_size)
        assert decode_padded(loaded.model, asked[batch], ends={1}, choose=choose) == expected[batch]


def test_generation_keeps_the_order_of_requests_apart_from_that_of_answers(loaded: LoadedModel) -> None:
    asked = [GenerationRequest(f"{'long ' * (n % 5)}prompt {n}", max_tokens=2 + n % 3) for n in range(12)]
    small = dict(LocalModel(loaded, batch_size=2).generate(asked))
    large = dict(LocalModel(loaded, batch_size=12).generate(asked))
    assert small == large
    assert sorted(small) == list(range(12))

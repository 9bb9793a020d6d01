"""Slots: rows come and go, keys and values stay right; sampling repeats; stops stop."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from forgetless.evaluate import decoding
from forgetless.evaluate.decoding import Chooser, Prompt, SlotCache, SlotDecoder, can_use_slots, decode_padded
from forgetless.evaluate.local import LocalModel
from forgetless.evaluate.packing import Backbone
from forgetless.evaluate.requests import GREEDY, Decoding, Generation, GenerationRequest
from forgetless.models import LoadedModel


@pytest.fixture
def prompts() -> list[Prompt]:
    draw = random.Random(3)
    return [Prompt([draw.randrange(258) for _ in range(draw.randint(1, 20))], draw.randint(1, 12)) for _ in range(23)]


def decode(loaded: LoadedModel, prompts: list[Prompt], *, num_slots: int, settings: Decoding = GREEDY) -> Any:
    decoder = SlotDecoder(Backbone(loaded.model), ends={1}, num_slots=num_slots, choose=Chooser(settings))
    return dict(decoder.decode(prompts))


@pytest.mark.parametrize("num_slots", [1, 3, 8, 40])
def test_rows_that_come_and_go_are_decoded_as_if_alone(
    loaded: LoadedModel, prompts: list[Prompt], num_slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "GROWTH", 4)  # the buffer grows again and again
    monkeypatch.setattr(decoding, "ROW_TOKENS", 30)
    alone = [decode_padded(loaded.model, [prompt], ends={1}, choose=Chooser(GREEDY))[0] for prompt in prompts]
    answers = decode(loaded, prompts, num_slots=num_slots)
    assert [answers[number] for number in range(len(prompts))] == alone


def test_a_row_that_leaves_gives_its_slot_to_the_last() -> None:
    cache = SlotCache(4)
    cache.lengths = [5, 6, 7, 8]
    cache.keys, cache.values = ([torch.arange(4.0).reshape(4, 1, 1, 1).repeat(1, 1, 9, 1)] for _ in range(2))
    assert cache.drop([0, 2]) == [3, 1]
    assert cache.lengths == [8, 6]
    assert cache.keys[0][0, 0, :8, 0].tolist() == [3.0] * 8
    assert cache.get_seq_length() == 8
    assert cache.drop([0, 1]) == []
    assert cache.get_seq_length() == 0


def test_the_draws_of_a_prompt_depend_on_seed_and_prompt_alone(loaded: LoadedModel, prompts: list[Prompt]) -> None:
    warm = Decoding(temperature=1.5, top_p=0.9, seed=1)
    small, large = (decode(loaded, prompts, num_slots=n, settings=warm) for n in (2, 23))
    backwards = decode(loaded, prompts[::-1], num_slots=5, settings=warm)
    assert small == large == {len(prompts) - 1 - number: ids for number, ids in backwards.items()}
    assert decode(loaded, prompts, num_slots=23, settings=Decoding(1.5, 0.9, seed=2)) != large
    padded = decode_padded(loaded.model, prompts, ends={1}, choose=Chooser(warm))
    assert padded == [large[number] for number in range(len(prompts))]


def test_a_tiny_nucleus_is_greedy(loaded: LoadedModel, prompts: list[Prompt]) -> None:
    assert decode(loaded, prompts, num_slots=4, settings=Decoding(1.0, top_p=1e-9)) == decode(
        loaded, prompts, num_slots=4
    )


def test_draws_follow_the_temperature() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2]))
    chosen = []
    for seed in range(2_000):
        choose = Chooser(Decoding(temperature=0.5, seed=seed))
        chosen += choose(logits[None], [choose.start(0, Prompt([1], 1))])
    squares = torch.tensor([0.25, 0.09, 0.04])
    shares = torch.bincount(torch.tensor(chosen), minlength=3) / len(chosen)
    assert shares.tolist() == pytest.approx((squares / squares.sum()).tolist(), abs=0.03)


def test_slots_are_not_used_where_they_decode_something_else(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = Backbone(loaded.model)
    assert can_use_slots(loaded.model, backbone)
    update = SlotCache.update

    def forgetful(self: SlotCache, key_states: Any, value_states: Any, layer_idx: int, *rest: Any, **more: Any) -> Any:
        keys, values = update(self, key_states, value_states, layer_idx, *rest, **more)
        return -keys, -values

    monkeypatch.setattr(SlotCache, "update", forgetful)
    assert not can_use_slots(loaded.model, backbone)
    # The engine then takes the padded path, and answers the same.
    asked = [GenerationRequest(f"Prompt {number}", 5) for number in range(5)]
    padded = dict(LocalModel(loaded, batch_size=2).generate(asked))
    monkeypatch.undo()
    assert dict(LocalModel(loaded, batch_size=2).generate(asked)) == padded


def test_a_cache_that_cannot_be_driven_is_not_used(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise TypeError("this model keeps its own cache")

    monkeypatch.setattr(SlotCache, "update", refuse)
    assert not can_use_slots(loaded.model, Backbone(loaded.model))


def test_an_answer_ends_before_its_stop(loaded: LoadedModel) -> None:
    prompt = loaded.tokenizer("Tell")["input_ids"]
    engine = LocalModel(loaded)
    ((_, whole),) = engine.decode([prompt], [30])
    assert not whole.is_ended
    stop = whole.text[10:12]
    ((_, cut),) = engine.decode([prompt], [30], stops=[[stop, "never written"]])
    assert cut == Generation(whole.text[: whole.text.index(stop)], cut.num_tokens, is_ended=True)
    assert cut.num_tokens < whole.num_tokens
    assert list(engine.decode([], [])) == []

"""The tiny model as a writer: in batches or alone it writes the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from forgetless.data.examples import Message
from forgetless.errors import RunError
from forgetless.evaluate.decoding import Chooser, SlotDecoder
from forgetless.evaluate.decoding import Prompt as Ids
from forgetless.evaluate.requests import Decoding
from forgetless.evaluate.writer import ModelWriter
from forgetless.mechanisms.writer import Prompt, Text
from forgetless.models import LoadedModel


def test_texts_do_not_depend_on_what_is_written_beside_them(loaded: LoadedModel) -> None:
    writer = ModelWriter(loaded, batch_size=8)
    prompts: list[Prompt] = [writer.chat_prefix] * 5 + [(Message("user", f"Say {number}"),) for number in range(5)]
    heard: dict[int, Text] = {}
    options = {"max_tokens": 12, "temperature": 1.0, "top_p": 0.9}
    together = writer.write(prompts, **options, seed=list(range(10)), on_text=heard.__setitem__)  # type: ignore[arg-type]
    alone = [
        ModelWriter(loaded, batch_size=1).write([prompt], **options, seed=seed)[0]  # type: ignore[arg-type]
        for seed, prompt in enumerate(prompts)
    ]
    assert together == alone == [heard[index] for index in range(10)]
    assert len({text.text for text in together[:5]}) == 5  # one prompt, five seeds
    assert all(0 < text.num_tokens <= 12 for text in together)
    assert writer.write([], max_tokens=3) == []


def test_all_prompts_are_written_in_one_batch(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    step = SlotDecoder._step

    def count(self: SlotDecoder) -> object:
        rows.append(len(self.running))
        return step(self)

    monkeypatch.setattr(SlotDecoder, "_step", count)
    writer = ModelWriter(loaded)
    writer.write([writer.chat_prefix] * 20, max_tokens=6, temperature=1.0, seed=list(range(20)))
    assert max(rows) >= 18
    assert len(rows) < 30


def test_a_special_token_stops_a_text(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    (start,) = loaded.tokenizer("<|im_start|>", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(Chooser, "__call__", lambda self, logits, answers: [start] * len(answers))
    writer = ModelWriter(loaded)
    monkeypatch.setattr(writer._local, "_has_slots", True)
    (endless,) = writer.write([writer.chat_prefix], max_tokens=4)
    (stopped,) = writer.write([writer.chat_prefix], max_tokens=4, stop="<|im_start|>")
    assert (endless.num_tokens, endless.is_ended) == (4, False)
    assert stopped == Text("", 1, is_ended=True)


def test_the_template_of_the_model_gives_prefix_and_key(loaded: LoadedModel) -> None:
    writer = ModelWriter(loaded)
    assert (writer.chat_prefix, writer.chat_end) == ("<|im_start|>user\n", "<|im_end|>")
    key = writer.key
    with torch.no_grad():
        next(loaded.model.parameters()).add_(1)
    assert writer.key == key != ModelWriter(loaded).key


def test_a_plain_text_gets_the_start_token_and_a_chat_text_does_not(loaded: LoadedModel) -> None:
    loaded.tokenizer.add_bos_token = True
    starts = [loaded.tokenizer.bos_token_id]
    writer = ModelWriter(loaded)
    plain, chat = writer._encode("Once"), writer._encode(writer.chat_prefix + "Once")
    assert chat[:1] == starts
    assert chat[1:2] != starts
    loaded.tokenizer.chat_template = None
    assert ModelWriter(loaded)._encode("Once") == plain


def test_progress_is_shown_and_missing_memory_is_said(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []

    @contextmanager
    def show() -> Iterator[Callable[[float, float], None]]:
        yield lambda done, total: seen.append((done, total))

    writer = ModelWriter(loaded, show=show)
    writer.write(["a", "b"], max_tokens=2)
    assert seen == [(1, 2), (2, 2)]

    def fail(message: str) -> Callable[..., object]:
        def step(*_: object) -> object:
            raise RuntimeError(message)

        return step

    monkeypatch.setattr(SlotDecoder, "_step", fail("can't allocate memory"))
    with pytest.raises(RunError, match="memory ran out while the base wrote"):
        writer.write(["a"], max_tokens=3)
    monkeypatch.setattr(SlotDecoder, "_step", fail("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        writer.write(["a"], max_tokens=3)


def test_a_nucleus_larger_than_what_is_looked_at_first_is_found_whole() -> None:
    logits = torch.zeros(2, 2_000)
    logits[1, :10] = 20.0
    chosen: list[list[int]] = []
    for seed in range(300):
        choose = Chooser(Decoding(temperature=1.0, top_p=0.5, seed=seed))
        chosen.append(choose(logits, [choose.start(0, Ids([1], 1)), choose.start(1, Ids([2], 1))]))
    flat, peaked = ({row[place] for row in chosen} for place in (0, 1))
    assert 200 < len(flat) <= 300
    assert peaked < {*range(10)}
    assert 5 <= len(peaked) <= 6  # ten of a tenth each: rounding decides on the sixth

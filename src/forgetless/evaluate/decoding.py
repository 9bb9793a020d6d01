"""Decoding many prompts together.

Prompts are read in as packed rows, their common beginning once. Their keys and values then lie in slots of one buffer
that is written in place; a row that ends leaves, and another prompt takes its slot, so that the batch stays full while
there is work. Models whose attention can't be driven that way are decoded in padded batches.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import Cache

from forgetless.evaluate.packing import Backbone, common_prefix, fill_rows, last_places, pack_contexts
from forgetless.evaluate.requests import Decoding

GROWTH = 64
"""Tokens by which the buffer of keys and values grows."""

ROW_TOKENS = 512
"""Tokens of prompts that are read in together."""

NUCLEUS = 512
"""Most likely tokens that are looked at first when sampling with top_p."""

IsComplete = Callable[[Sequence[int]], bool]


@dataclass(frozen=True)
class Prompt:
    """A prompt in token ids.

    Attributes:
        ids: Its tokens, at least one.
        budget: Most new tokens.
        is_complete: Whether an answer so far contains a stop string; None = only end tokens stop it.
        seed: Seed of its draws when sampling; None = that of the decoding.
    """

    ids: Sequence[int]
    budget: int
    is_complete: IsComplete | None = None
    seed: int | None = None


@dataclass
class _Answer:
    """An answer on its way: which prompt it belongs to, its tokens so far, and its source of draws when sampling."""

    index: int
    prompt: Prompt
    ids: list[int] = field(default_factory=list)
    generator: torch.Generator | None = None

    def takes(self, token: int, ends: set[int]) -> bool:
        """Appends a token; returns whether the answer goes on."""
        self.ids.append(token)
        if token in ends or len(self.ids) >= self.prompt.budget:
            return False
        return self.prompt.is_complete is None or not self.prompt.is_complete(self.ids)


class SlotCache(Cache):
    """Keys and values of the rows that are being decoded, each in a slot, written in place.

    transformers' own cache is concatenated anew at every token, and copied whole when a row leaves; here a token costs
    what it writes. Rows 0 to n - 1 are alive; row i has `lengths[i]` tokens.

    Args:
        num_slots: Rows that can be alive together.
    """

    def __init__(self, num_slots: int) -> None:
        super().__init__(layers=[])
        self.num_slots = num_slots
        self.lengths: list[int] = []
        self.keys: list[Tensor] = []  # one per layer, (slots, heads, capacity, size)
        self.values: list[Tensor] = []
        self._rows = self._places = torch.empty(0, dtype=torch.long)
        self._width = 0

    def fill(self, read: DynamicCache, pieces: Sequence[slice]) -> None:
        """Takes a new row over from a packed row's keys and values, which stand in `pieces` of it."""
        slot, length = len(self.lengths), sum(piece.stop - piece.start for piece in pieces)
        self.lengths.append(length)
        self._grow(read)
        sources: list[Any] = read.layers
        for layer, source in enumerate(sources):
            start = 0
            for piece in pieces:
                end = start + piece.stop - piece.start
                self.keys[layer][slot, :, start:end] = source.keys[0, :, piece]
                self.values[layer][slot, :, start:end] = source.values[0, :, piece]
                start = end

    def _grow(self, like: DynamicCache | None = None) -> None:
        """Makes room for one more token in every row."""
        needed = max(self.lengths) + 1
        if self.keys and needed <= self.keys[0].shape[2]:
            return
        capacity = -(-needed // GROWTH) * GROWTH
        for buffers, name in ((self.keys, "keys"), (self.values, "values")):
            if not buffers and like is not None:
                buffers += [_empty(getattr(layer, name), self.num_slots, capacity) for layer in like.layers]
            for layer, old in enumerate(buffers):
                if old.shape[2] < capacity:
                    buffers[layer] = _empty(old, self.num_slots, capacity)
                    buffers[layer][:, :, : old.shape[2]] = old

    def drop(self, rows: Sequence[int]) -> list[int]:
        """Gives the slots of rows back; returns the new order of those that stay, as their former numbers."""
        order = list(range(len(self.lengths)))
        for row in sorted(rows, reverse=True):
            last = len(order) - 1
            if row != last:  # the last row moves into the gap
                length = self.lengths[last]
                for buffer in (*self.keys, *self.values):
                    buffer[row, :, :length] = buffer[last, :, :length]
                order[row], self.lengths[row] = order[last], length
            order.pop()
            self.lengths.pop()
        return order

    def begin_step(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Makes room for the next token of every row.

        Args:
            dtype: Number type of the mask.
            device: Where the model is.

        Returns:
            The position of the new tokens, shape (rows, 1), and the additive mask, shape (rows, 1, 1, longest).
        """
        self._grow()
        lengths = torch.tensor(self.lengths, device=device)
        self._rows, self._places = torch.arange(len(lengths), device=device), lengths
        self._width = max(self.lengths) + 1
        columns = torch.arange(self._width, device=device)
        hidden = columns[None, :] > lengths[:, None]
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, torch.finfo(dtype).min)
        return lengths[:, None], mask[:, None, None, :]

    def end_step(self) -> None:
        """Counts the tokens that were written."""
        self.lengths = [length + 1 for length in self.lengths]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes one token of every row into a layer; returns what each row sees, unused places masked."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[self._rows, :, self._places] = key_states[:, :, 0]
        values[self._rows, :, self._places] = value_states[:, :, 0]
        return keys[: len(self._rows), :, : self._width], values[: len(self._rows), :, : self._width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Returns the length of the longest row."""
        return max(self.lengths, default=0)


def _empty(like: Tensor, num_slots: int, capacity: int) -> Tensor:
    # Zeros, not garbage: what is masked still takes part in products, where an infinity would spread.
    return like.new_zeros(num_slots, like.shape[1], capacity, like.shape[3])


class Chooser:
    """Picks the next token of every row.

    Args:
        decoding: Greedy, or how to sample.
    """

    def __init__(self, decoding: Decoding) -> None:
        self.decoding = decoding

    def start(self, index: int, prompt: Prompt) -> _Answer:
        """Begins an answer; when sampling, its draws come from the seed and the prompt alone."""
        answer = _Answer(index, prompt)
        if self.decoding.temperature > 0:
            seed = self.decoding.seed if prompt.seed is None else prompt.seed
            digest = hashlib.sha256(f"{seed}:{list(prompt.ids)}".encode()).digest()
            answer.generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return answer

    def __call__(self, logits: Tensor, answers: Sequence[_Answer]) -> list[int]:
        """Returns one token per row of logits, shape (rows, vocabulary)."""
        if self.decoding.temperature == 0:
            tokens: list[int] = logits.argmax(-1).tolist()
            return tokens
        probabilities = (logits.float().cpu() / self.decoding.temperature).softmax(-1)
        draws = torch.cat([torch.rand(1, generator=answer.generator) for answer in answers])
        if self.decoding.top_p >= 1:
            return _invert(probabilities, draws)
        # Sorting a vocabulary costs more than a small model's forward pass: nearly always a few tokens hold top_p.
        held, ids = probabilities.topk(min(NUCLEUS, probabilities.shape[-1]), dim=-1)
        if bool((held.sum(-1) < self.decoding.top_p).any()):
            held, ids = probabilities.sort(dim=-1, descending=True)
        # The smallest set that holds top_p: a token stays while those before it hold less.
        kept = held.where(held.cumsum(-1) - held < self.decoding.top_p, torch.zeros(()))
        return [int(row[place]) for row, place in zip(ids, _invert(kept, draws), strict=True)]


def _invert(weights: Tensor, draws: Tensor) -> list[int]:
    """Returns for each row of weights, shape (rows, n), the place where a share `draws` of their sum is reached."""
    reached = weights.double().cumsum(-1)
    wanted = draws.double()[:, None] * reached[:, -1:]
    # The last place that weighs anything, should rounding lead beyond it.
    last = weights.shape[-1] - 1 - weights.flip(-1).ne(0).int().argmax(-1, keepdim=True)
    places: list[int] = torch.searchsorted(reached, wanted, right=True).minimum(last)[:, 0].tolist()
    return places


class SlotDecoder:
    """Decodes prompts in slots, in their order.

    Args:
        backbone: The model.
        ends: Ids that end an answer; the end token is part of what is returned.
        num_slots: Prompts that are decoded together.
        choose: Picks tokens.
    """

    def __init__(self, backbone: Backbone, *, ends: set[int], num_slots: int, choose: Chooser) -> None:
        self.backbone = backbone
        self.ends = ends
        self.choose = choose
        self.cache = SlotCache(num_slots)
        self.running: list[_Answer] = []

    @torch.inference_mode()
    def decode(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, list[int]]]:
        """Yields (number of the prompt, new ids) as soon as an answer ends."""
        pending = deque(enumerate(prompts))
        num_slots = self.cache.num_slots
        while pending or self.running:
            free = num_slots - len(self.running)
            # A few slots are refilled together: reading prompts in one by one would waste a pass each.
            if pending and free >= min(len(pending), max(1, num_slots // 8)):
                joining = [self.choose.start(*pending.popleft()) for _ in range(min(len(pending), free))]
                finished = self._read_in(joining)
            else:
                finished = self._step()
            for answer in finished:
                yield answer.index, answer.ids

    def _read_in(self, joining: Sequence[_Answer]) -> list[_Answer]:
        """Reads prompts in and picks their first tokens; returns the answers that end with it."""
        finished = []
        for group in fill_rows([len(answer.prompt.ids) for answer in joining], ROW_TOKENS):
            members = [joining[number] for number in group]
            row, shared, stems = pack_contexts([answer.prompt.ids for answer in members])
            read = DynamicCache()
            hidden = self.backbone.hidden(row, cache=read)
            ends = last_places(row, stems)
            tokens = self.choose(self.backbone.head(hidden[torch.tensor(ends, device=hidden.device)]), members)
            for answer, token, end in zip(members, tokens, ends, strict=True):
                if not answer.takes(token, self.ends):
                    finished.append(answer)
                    continue
                rest = slice(end + 1 - (len(answer.prompt.ids) - shared), end + 1)
                self.cache.fill(read, [slice(0, shared), rest])
                self.running.append(answer)
        return finished

    def _step(self) -> list[_Answer]:
        """Decodes one token of every running answer; returns those that end with it."""
        positions, mask = self.cache.begin_step(self.backbone.dtype, self.backbone.device)
        states = self.backbone.decoder(
            input_ids=torch.tensor([[answer.ids[-1]] for answer in self.running], device=self.backbone.device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        self.cache.end_step()
        tokens = self.choose(self.backbone.head(states), self.running)
        ended = [row for row, token in enumerate(tokens) if not self.running[row].takes(token, self.ends)]
        finished = [self.running[row] for row in ended]
        if ended:
            self.running = [self.running[row] for row in self.cache.drop(ended)]
        return finished


def can_use_slots(model: nn.Module, backbone: Backbone) -> bool:
    """Whether answers that are decoded in slots are those of plain forward passes, tried on three short prompts."""
    vocabulary = int(getattr(model.config, "vocab_size", 100))
    ids = [(11 * index + 5) % vocabulary for index in range(20)]
    prompts = [Prompt(ids[:6], 3), Prompt([*ids[:4], *ids[12:17]], 3), Prompt(ids[2:10], 2)]
    decoder = SlotDecoder(backbone, ends=set(), num_slots=2, choose=Chooser(Decoding()))
    try:
        answers = dict(decoder.decode(prompts))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError):
        return False
    tolerance = 1e-3 if backbone.dtype == torch.float32 else 0.1
    return all(_is_greedy(model, prompt.ids, answers[number], tolerance) for number, prompt in enumerate(prompts))


@torch.inference_mode()
def _is_greedy(model: nn.Module, prompt: Sequence[int], answer: Sequence[int], tolerance: float) -> bool:
    """Whether every token of an answer is, up to rounding, the most likely one by a plain forward pass."""
    device = next(model.parameters()).device
    logits = model(input_ids=torch.tensor([[*prompt, *answer[:-1]]], device=device), use_cache=False).logits[0]
    logits = logits[len(prompt) - 1 :].float()
    chosen = logits[torch.arange(len(answer)), torch.tensor(answer)]
    return bool((chosen >= logits.amax(-1) - tolerance).all())


@torch.inference_mode()
def decode_padded(model: nn.Module, prompts: Sequence[Prompt], *, ends: set[int], choose: Chooser) -> list[list[int]]:
    """Decodes one batch of prompts, padded on the left, with transformers' own cache.

    Args:
        model: A causal language model with a key-value cache.
        prompts: What to answer.
        ends: Ids that end an answer; the end token is part of what is returned.
        choose: Picks tokens.

    Returns:
        The new ids of each prompt.
    """
    device = next(model.parameters()).device
    cache, mask, positions, logits = _prefill(model, [prompt.ids for prompt in prompts])
    answers = [choose.start(index, prompt) for index, prompt in enumerate(prompts)]
    running = answers
    while True:
        tokens = choose(logits, running)
        staying = [
            row for row, (answer, token) in enumerate(zip(running, tokens, strict=True)) if answer.takes(token, ends)
        ]
        if not staying:
            return [answer.ids for answer in answers]
        if len(staying) < len(running):
            keep = torch.tensor(staying, device=device)
            cache.batch_select_indices(keep)
            mask, positions = mask[keep], positions[keep]
            running = [running[row] for row in staying]
        mask = torch.cat([mask, mask.new_ones(len(running), 1)], dim=1)
        positions = positions + 1
        logits = model(
            input_ids=torch.tensor([[answer.ids[-1]] for answer in running], device=device),
            attention_mask=mask,
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]


def _prefill(model: nn.Module, prompts: Sequence[Sequence[int]]) -> tuple[Any, Tensor, Tensor, Tensor]:
    """Runs prompts through the model: their common beginning once, the rest padded on the left.

    Args:
        model: A causal language model with a key-value cache.
        prompts: Ids of each prompt, at least one.

    Returns:
        The cache, the attention mask (batch, tokens), the last position of each row (batch,), and the logits after
        each prompt (batch, vocabulary).
    """
    device = next(model.parameters()).device
    shared = min(common_prefix(prompts), min(map(len, prompts)) - 1)
    longest = max(map(len, prompts)) - shared
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.ones(len(prompts), shared + longest, dtype=torch.long)
    positions = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        rest = torch.tensor(prompt[shared:])
        ids[row, longest - len(rest) :] = rest
        mask[row, shared : shared + longest - len(rest)] = 0
        positions[row, longest - len(rest) :] = torch.arange(shared, len(prompt))
    ids, mask, positions = ids.to(device), mask.to(device), positions.to(device)
    cache = DynamicCache(config=getattr(model, "config", None))
    if shared:
        model(
            input_ids=torch.tensor([prompts[0][:shared]], device=device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.batch_repeat_interleave(len(prompts))
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return cache, mask, positions[:, -1], logits

"""Fast, exact scoring and greedy decoding of a transformers model in this process.

Scoring packs many requests into one row without padding. Each request is a small tree: its context once, its
continuations as branches; contexts that begin alike share that beginning too. A block mask keeps branches apart, so
every token sees what it would see in a sequence of its own. Logits are computed only where a token is read.

Decoding runs batches of similar length over a key-value cache in which the common beginning of all prompts (the system
message) was computed once; rows that have ended leave the batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.data.encoding import render_prompt, tokenize
from forgetless.errors import ConfigError
from forgetless.evaluate.cache import tokenizer_fingerprint
from forgetless.evaluate.requests import (
    GREEDY,
    Decoding,
    Generation,
    GenerationRequest,
    Likelihood,
    LikelihoodRequest,
)
from forgetless.models import LoadedModel, end_of_turn_ids, fingerprint_weights, num_positions


class LocalModel:
    """A transformers model behind the two calls that evaluation makes.

    Args:
        loaded: The model and its tokenizer.
        row_tokens: Tokens per packed row when scoring. Attention grows with its square, fixed costs shrink.
        batch_size: Prompts that are decoded together.
        decoding: How answers are decoded.
    """

    def __init__(
        self, loaded: LoadedModel, *, row_tokens: int = 512, batch_size: int = 64, decoding: Decoding = GREEDY
    ) -> None:
        self.origin = "local"
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.row_tokens = row_tokens
        self.batch_size = batch_size
        self.decoding = decoding
        self.longest = num_positions(loaded.model)
        self._loaded = loaded
        self._ends = end_of_turn_ids(loaded.model, loaded.tokenizer)
        self._can_pack: bool | None = None

    def key(self) -> str:
        """Returns a fingerprint of weights, adapters, tokenizer, template, number type, architecture and decoding."""
        key = model_key(self._loaded)
        return key if self.decoding == GREEDY else hashlib.sha256(f"{key}:{self.decoding}".encode()).hexdigest()

    def score(self, requests: Sequence[LikelihoodRequest]) -> Iterator[tuple[int, list[Likelihood]]]:
        """Yields (index, one likelihood per continuation), in the order of the requests."""
        with _in_eval_mode(self.model):
            if self._can_pack is None:
                self._can_pack = packing_is_exact(self.model)
            limit = self.row_tokens if self._can_pack else 0
            for group in _fill_rows(requests, limit):
                members = [requests[index] for index in group]
                yield from zip(group, self._score_row(members), strict=True)

    def _score_row(self, requests: Sequence[LikelihoodRequest]) -> list[list[Likelihood]]:
        if not self._can_pack:
            return [
                [_score_alone(self.model, request, which) for which in range(len(request.continuations))]
                for request in requests
            ]
        row = pack_row(requests)
        return _read_row(self.model, row)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, Generation]]:
        """Yields (index, answer) batch by batch, longest budgets first."""
        prompts = [self.encode_prompt(request) for request in requests]
        budgets = [self._budget(request, prompt) for request, prompt in zip(requests, prompts, strict=True)]
        # Equal budgets and similar lengths together: little padding, and rows that end at about the same time. Longest
        # first, so that the remaining time is never underestimated and memory runs out at once if it must.
        order = sorted(range(len(requests)), key=lambda index: (-budgets[index], -len(prompts[index])))
        with _in_eval_mode(self.model):
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                answers = decode_greedily(
                    self.model,
                    [prompts[index] for index in batch],
                    [budgets[index] for index in batch],
                    ends=self._ends,
                )
                for index, ids in zip(batch, answers, strict=True):
                    is_ended = bool(ids) and ids[-1] in self._ends
                    text = self.tokenizer.decode(ids, skip_special_tokens=True)
                    yield index, Generation(text.strip(), len(ids), is_ended)

    def encode_prompt(self, request: GenerationRequest) -> list[int]:
        """Returns the ids after which the answer to a request starts."""
        if isinstance(request.prompt, str):
            return tokenize(request.prompt, self.tokenizer, is_start=True)
        text = render_prompt(request.prompt, self.tokenizer)
        return tokenize(text, self.tokenizer, is_start=self.tokenizer.chat_template is None)

    def _budget(self, request: GenerationRequest, prompt: Sequence[int]) -> int:
        room = self.longest - len(prompt)
        if room < 1:
            raise ConfigError(
                f"{request.label}: is longer than the {self.longest} tokens that the model can take: shorten it or "
                "leave it out"
            )
        return min(request.max_tokens, room)


def model_key(loaded: LoadedModel) -> str:
    """Returns a fingerprint of everything about a model that a score may depend on."""
    parts = [
        fingerprint_weights(loaded.model),
        tokenizer_fingerprint(loaded.tokenizer),
        str(sorted(end_of_turn_ids(loaded.model, loaded.tokenizer))),
        str(next(loaded.model.parameters()).dtype),
        loaded.device.type,
        _architecture(loaded.model),
    ]
    return hashlib.sha256(":".join(parts).encode()).hexdigest()


def _architecture(model: Any) -> str:
    """Returns what a model computes with its weights (activation, positions, ...), as its config says."""
    config: Any = getattr(model, "config", None)
    settings = config.to_dict() if hasattr(config, "to_dict") else {}
    idle = {"transformers_version", "use_cache"}
    return json.dumps({k: v for k, v in settings.items() if k[0] != "_" and k not in idle}, sort_keys=True, default=str)


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@dataclass
class PackedRow:
    """Many requests in one row of tokens.

    Attributes:
        ids: Token ids, shape (tokens,).
        positions: Position of each token within its own sequence, shape (tokens,).
        segments: Segment of each token.
        parents: The segment that each segment continues, -1 for none.
        reads: For each request and continuation, (row index to read logits at, id expected there) per scored token.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    reads: list[list[list[tuple[int, int]]]] = field(default_factory=list)

    def add(self, ids: Sequence[int], *, parent: int, start: int) -> int:
        """Appends a segment that continues `parent` at position `start`, and returns its number."""
        self.parents.append(parent)
        number = len(self.parents) - 1
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.segments += [number] * len(ids)
        return number

    def mask(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Returns the additive attention mask, shape (1, 1, tokens, tokens)."""
        num_segments = len(self.parents)
        sees = torch.eye(num_segments, dtype=torch.bool)
        for segment, parent in enumerate(self.parents):
            if parent >= 0:
                sees[segment] |= sees[parent]
        segments = torch.tensor(self.segments)
        allowed = sees[segments][:, segments].tril()
        mask = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
        return mask[None, None].to(device)


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Returns how many first ids all sequences share."""
    shortest, first = min(sequences, key=len), sequences[0]
    for index in range(len(shortest)):
        if any(sequence[index] != first[index] for sequence in sequences):
            return index
    return len(shortest)


def _fill_rows(requests: Sequence[LikelihoodRequest], limit: int) -> Iterator[list[int]]:
    """Yields runs of request numbers whose tokens together fit a row; a request that is too long gets its own."""
    row: list[int] = []
    used = 0
    for index, request in enumerate(requests):
        size = len(request.context) + sum(len(continuation) for continuation in request.continuations)
        if row and used + size > limit:
            yield row
            row, used = [], 0
        row.append(index)
        used += size
    if row:
        yield row


def pack_row(requests: Sequence[LikelihoodRequest]) -> PackedRow:
    """Packs requests into one row: the common beginning of all contexts once, each context once, then its branches."""
    row = PackedRow()
    # The last token of a context stays with it: its logits are read for the first token of every continuation.
    shared = min(_common_prefix([r.context for r in requests]), min(len(r.context) for r in requests) - 1)
    root = row.add(requests[0].context[:shared], parent=-1, start=0) if shared and len(requests) > 1 else -1
    shared = shared if root >= 0 else 0
    for request in requests:
        stem = row.add(request.context[shared:], parent=root, start=shared)
        before = len(row.ids) - 1
        reads = []
        for which, continuation in enumerate(request.continuations):
            first = len(row.ids)
            # The last token of a continuation is never read from; it would be computed for nothing.
            row.add(continuation[:-1], parent=stem, start=len(request.context))
            counts = request.scored[which] if request.scored is not None else [True] * len(continuation)
            sources = [before, *range(first, first + len(continuation) - 1)]
            reads.append([(s, i) for s, i, c in zip(sources, continuation, counts, strict=True) if c])
        row.reads.append(reads)
    return row


@torch.inference_mode()
def _read_row(model: nn.Module, row: PackedRow) -> list[list[Likelihood]]:
    """Runs a packed row through the model and gathers the likelihood of every continuation."""
    parameter = next(model.parameters())
    flat = [read for reads in row.reads for branch in reads for read in branch]
    places = sorted({place for place, _ in flat})
    slot = {place: number for number, place in enumerate(places)}
    logits = model(
        input_ids=torch.tensor([row.ids], device=parameter.device),
        attention_mask=row.mask(parameter.dtype, parameter.device),
        position_ids=torch.tensor([row.positions], device=parameter.device),
        use_cache=False,
        logits_to_keep=torch.tensor(places, device=parameter.device),
    ).logits[0]  # (places, vocabulary)
    wanted = torch.tensor([slot[place] for place, _ in flat]), torch.tensor([token for _, token in flat])
    log_probs, is_top = gather_log_probs(logits, *wanted)
    results, start = [], 0
    for reads in row.reads:
        likelihoods = []
        for branch in reads:
            end = start + len(branch)
            likelihoods.append(
                Likelihood(float(log_probs[start:end].sum()), len(branch), bool(is_top[start:end].all()))
            )
            start = end
        results.append(likelihoods)
    return results


def gather_log_probs(logits: Tensor, rows: Tensor, tokens: Tensor, *, chunk: int = 64) -> tuple[Tensor, Tensor]:
    """Reads the log-probability of tokens off their logits.

    Args:
        logits: Shape (rows, vocabulary), any float type.
        rows: Row of each wanted value, shape (n,).
        tokens: Token of each wanted value, shape (n,).
        chunk: Rows that are held in float32 at a time.

    Returns:
        log p(token) in nats, as float64, and whether the token is the most likely one of its row; both of shape (n,),
        on the CPU.
    """
    rows, tokens = rows.to(logits.device), tokens.to(logits.device)
    normaliser = torch.cat([part.float().logsumexp(-1) for part in logits.split(chunk)])
    best = torch.cat([part.argmax(-1) for part in logits.split(chunk)])
    log_probs = logits[rows, tokens].float() - normaliser[rows]
    return log_probs.double().cpu(), (best[rows] == tokens).cpu()


@torch.inference_mode()
def _score_alone(model: nn.Module, request: LikelihoodRequest, which: int) -> Likelihood:
    """Scores one continuation in a sequence of its own: for models whose attention takes no block mask."""
    continuation = request.continuations[which]
    ids = [*request.context, *continuation][:-1]
    device = next(model.parameters()).device
    logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, len(request.context) - 1 :]
    counts = request.scored[which] if request.scored is not None else [True] * len(continuation)
    places = torch.tensor([place for place, is_counted in enumerate(counts) if is_counted])
    tokens = torch.tensor([token for token, is_counted in zip(continuation, counts, strict=True) if is_counted])
    log_probs, is_top = gather_log_probs(logits, places, tokens)
    return Likelihood(float(log_probs.sum()), len(tokens), bool(is_top.all()))


def packing_is_exact(model: nn.Module) -> bool:
    """Whether a packed row gives this model the same log-likelihoods as sequences of their own.

    Tried on two short requests rather than looked up: sliding windows, linear attention, flash attention and models
    with their own idea of positions all show here.
    """
    vocabulary = int(getattr(model.config, "vocab_size", 100))
    ids = [(7 * index + 3) % vocabulary for index in range(24)]
    trial = [
        LikelihoodRequest(ids[:6], [ids[6:9], ids[9:13]]),
        LikelihoodRequest([*ids[:4], *ids[13:17]], [ids[17:20], ids[20:24]]),
    ]
    try:
        packed = _read_row(model, pack_row(trial))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False
    tolerance = 1e-3 if next(model.parameters()).dtype == torch.float32 else 0.1
    return all(
        abs(packed[row][which].log_likelihood - _score_alone(model, trial[row], which).log_likelihood) < tolerance
        for row in range(2)
        for which in range(2)
    )


@torch.inference_mode()
def decode_greedily(
    model: nn.Module, prompts: Sequence[Sequence[int]], budgets: Sequence[int], *, ends: set[int]
) -> list[list[int]]:
    """Decodes a batch of prompts greedily.

    Args:
        model: A causal language model.
        prompts: Ids of each prompt.
        budgets: Most new tokens for each prompt.
        ends: Ids that end an answer; the end token is part of what is returned.

    Returns:
        The new ids of each prompt.
    """
    device = next(model.parameters()).device
    cache, mask, positions, logits = _prefill(model, prompts)
    alive = list(range(len(prompts)))
    answers: list[list[int]] = [[] for _ in prompts]
    finish = torch.tensor(sorted(ends), device=device)
    while True:
        tokens = logits.argmax(-1)  # (alive,)
        is_end = torch.isin(tokens, finish).tolist()
        staying = []
        for row, token in enumerate(tokens.tolist()):
            answer = answers[alive[row]]
            answer.append(token)
            if not is_end[row] and len(answer) < budgets[alive[row]]:
                staying.append(row)
        if not staying:
            return answers
        if len(staying) < len(alive):
            keep = torch.tensor(staying, device=device)
            cache.batch_select_indices(keep)
            mask, positions, tokens = mask[keep], positions[keep], tokens[keep]
            alive = [alive[row] for row in staying]
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        positions = positions + 1
        logits = model(
            input_ids=tokens[:, None],
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
    from transformers import DynamicCache

    device = next(model.parameters()).device
    shared = min(_common_prefix(prompts), min(map(len, prompts)) - 1)
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

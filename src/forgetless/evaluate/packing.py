"""Many sequences in one row of tokens, without padding: how texts are scored and how prompts are read in.

Each request is a small tree: its context once, its continuations as branches; contexts that begin alike share that
beginning too. A block mask keeps branches apart, so every token sees what it would see in a sequence of its own. Logits
are computed only where a token is read, a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.evaluate.requests import Likelihood, LikelihoodRequest

HEAD_ROWS = 64
"""Rows of logits that exist at a time: 64 of 49 152 float32 are 12 MB, which a processor's cache holds."""


class Backbone:
    """A causal language model taken apart: hidden states where they are wanted, logits where they are read.

    Args:
        model: A transformers model, or a `PeftModel` around one.

    Raises:
        AttributeError: The model has no decoder and output head that could be called alone.
    """

    def __init__(self, model: nn.Module) -> None:
        whole: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        self.decoder = whole.get_decoder()
        self.head = whole.get_output_embeddings()
        if self.decoder is whole or self.head is None:
            raise AttributeError(f"{type(whole).__name__} has no output head of its own")
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    def hidden(self, row: PackedRow, *, cache: Any = None) -> Tensor:
        """Returns the last hidden states of a packed row, shape (tokens, width); keys and values go to the cache."""
        states: Tensor = self.decoder(
            input_ids=torch.tensor([row.ids], device=self.device),
            attention_mask=row.mask(self.dtype, self.device),
            position_ids=torch.tensor([row.positions], device=self.device),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return states[0]


@dataclass
class PackedRow:
    """Many sequences in one row of tokens.

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
        sees = torch.eye(len(self.parents), dtype=torch.bool)
        for segment, parent in enumerate(self.parents):
            if parent >= 0:
                sees[segment] |= sees[parent]
        segments = torch.tensor(self.segments)
        allowed = sees[segments][:, segments].tril()
        mask = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
        return mask[None, None].to(device)


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Returns how many first ids all sequences share."""
    shortest, first = min(sequences, key=len), sequences[0]
    for index in range(len(shortest)):
        if any(sequence[index] != first[index] for sequence in sequences):
            return index
    return len(shortest)


def fill_rows(sizes: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Yields runs of request numbers whose tokens together fit a row; a request that is too long gets its own."""
    row: list[int] = []
    used = 0
    for index, size in enumerate(sizes):
        if row and used + size > limit:
            yield row
            row, used = [], 0
        row.append(index)
        used += size
    if row:
        yield row


def pack_contexts(contexts: Sequence[Sequence[int]]) -> tuple[PackedRow, int, list[int]]:
    """Packs contexts into one row, their common beginning once.

    Args:
        contexts: Ids of each context, at least one in each.

    Returns:
        The row, the length of the common beginning (0 where nothing is shared), and the segment of each context's rest.
    """
    row = PackedRow()
    # The last token of a context stays with it: its logits are read for what follows.
    shared = min(common_prefix(contexts), min(map(len, contexts)) - 1) if len(contexts) > 1 else 0
    root = row.add(contexts[0][:shared], parent=-1, start=0) if shared else -1
    return row, shared, [row.add(context[shared:], parent=root, start=shared) for context in contexts]


def pack_row(requests: Sequence[LikelihoodRequest]) -> PackedRow:
    """Packs requests into one row: the common beginning of all contexts once, each context once, then its branches."""
    row, _, stems = pack_contexts([request.context for request in requests])
    ends = _last_places(row)
    for request, stem in zip(requests, stems, strict=True):
        reads = []
        for which, continuation in enumerate(request.continuations):
            first = len(row.ids)
            # The last token of a continuation is never read from; it would be computed for nothing.
            row.add(continuation[:-1], parent=stem, start=len(request.context))
            counts = request.scored[which] if request.scored is not None else [True] * len(continuation)
            sources = [ends[stem], *range(first, first + len(continuation) - 1)]
            reads.append([(s, i) for s, i, c in zip(sources, continuation, counts, strict=True) if c])
        row.reads.append(reads)
    return row


def _last_places(row: PackedRow) -> dict[int, int]:
    """Returns where each segment of a row ends."""
    return {segment: place for place, segment in enumerate(row.segments)}


def last_places(row: PackedRow, segments: Sequence[int]) -> list[int]:
    """Returns the place of the last token of each of the segments."""
    ends = _last_places(row)
    return [ends[segment] for segment in segments]


@torch.inference_mode()
def read_row(backbone: Backbone, row: PackedRow) -> list[list[Likelihood]]:
    """Runs a packed row through the model and gathers the likelihood of every continuation."""
    flat = [read for reads in row.reads for branch in reads for read in branch]
    places = sorted({place for place, _ in flat})
    slot = {place: number for number, place in enumerate(places)}
    hidden = backbone.hidden(row)[torch.tensor(places, device=backbone.device)]  # (places, width)
    rows, tokens = torch.tensor([slot[place] for place, _ in flat]), torch.tensor([token for _, token in flat])
    log_probs, is_top = gather_log_probs(backbone.head, hidden, rows, tokens)
    values, tops = log_probs.tolist(), is_top.tolist()
    results, start = [], 0
    for reads in row.reads:
        likelihoods = []
        for branch in reads:
            end = start + len(branch)
            likelihoods.append(Likelihood(sum(values[start:end]), len(branch), all(tops[start:end])))
            start = end
        results.append(likelihoods)
    return results


def gather_log_probs(head: nn.Module, hidden: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Reads the log-probability of tokens off hidden states, without keeping a row of logits for longer than needed.

    Args:
        head: From hidden states to logits.
        hidden: Last hidden states, shape (rows, width), any float type.
        rows: Row of each wanted value, shape (n,).
        tokens: Token of each wanted value, shape (n,).

    Returns:
        log p(token) in nats, as float64, and whether the token is the most likely one of its row; both of shape (n,),
        on the CPU.
    """
    log_probs = torch.empty(len(rows), dtype=torch.float64)
    is_top = torch.empty(len(rows), dtype=torch.bool)
    for start in range(0, len(hidden), HEAD_ROWS):
        logits = head(hidden[start : start + HEAD_ROWS]).float()  # (at most HEAD_ROWS, vocabulary)
        wanted = ((rows >= start) & (rows < start + HEAD_ROWS)).nonzero().squeeze(1)
        which, token = (rows[wanted] - start).to(logits.device), tokens[wanted].to(logits.device)
        log_probs[wanted] = (logits[which, token] - logits.logsumexp(-1)[which]).double().cpu()
        is_top[wanted] = (logits.argmax(-1)[which] == token).cpu()
    return log_probs, is_top


@torch.inference_mode()
def score_alone(model: nn.Module, request: LikelihoodRequest, which: int) -> Likelihood:
    """Scores one continuation in a sequence of its own: for models whose attention takes no block mask."""
    continuation = request.continuations[which]
    ids = [*request.context, *continuation][:-1]
    device = next(model.parameters()).device
    logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, len(request.context) - 1 :]
    counts = request.scored[which] if request.scored is not None else [True] * len(continuation)
    places = torch.tensor([place for place, is_counted in enumerate(counts) if is_counted])
    tokens = torch.tensor([token for token, is_counted in zip(continuation, counts, strict=True) if is_counted])
    log_probs, is_top = gather_log_probs(nn.Identity(), logits, places, tokens)
    return Likelihood(float(log_probs.sum()), len(tokens), bool(is_top.all()))


def find_backbone(model: nn.Module) -> Backbone | None:
    """Returns the model taken apart if packed rows then give the same log-likelihoods as sequences of their own.

    Tried on two short requests rather than looked up: sliding windows, linear attention, flash attention, capped
    logits, virtual tokens and models with their own idea of positions all show here.
    """
    vocabulary = int(getattr(model.config, "vocab_size", 100))
    ids = [(7 * index + 3) % vocabulary for index in range(24)]
    trial = [
        LikelihoodRequest(ids[:6], [ids[6:9], ids[9:13]]),
        LikelihoodRequest([*ids[:4], *ids[13:17]], [ids[17:20], ids[20:24]]),
    ]
    try:
        backbone = Backbone(model)
        packed = read_row(backbone, pack_row(trial))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError):
        return None
    tolerance = 1e-3 if backbone.dtype == torch.float32 else 0.1
    is_exact = all(
        abs(packed[row][which].log_likelihood - score_alone(model, trial[row], which).log_likelihood) < tolerance
        for row in range(2)
        for which in range(2)
    )
    return backbone if is_exact else None

"""Fast, exact scoring and decoding of a transformers model in this process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from forgetless.data.encoding import render_prompt, tokenize
from forgetless.errors import ConfigError
from forgetless.evaluate.cache import tokenizer_fingerprint
from forgetless.evaluate.decoding import Chooser, Prompt, SlotDecoder, can_use_slots, decode_padded
from forgetless.evaluate.packing import Backbone, fill_rows, find_backbone, pack_row, read_row, score_alone
from forgetless.evaluate.requests import (
    GREEDY,
    Decoding,
    Generation,
    GenerationRequest,
    Likelihood,
    LikelihoodRequest,
)
from forgetless.mechanisms.modes import eval_mode
from forgetless.models import LoadedModel, end_of_turn_ids, fingerprint_weights, num_positions

CPU_ROW_TOKENS = 256
"""Measured on two cores: products run at full speed from here on, and attention is still cheap."""

DEVICE_ROW_TOKENS = 2048
"""An accelerator needs more rows to be busy (not measured)."""

SAMPLER_VERSION = 2
"""Raised whenever a seed draws other tokens."""


class LocalModel:
    """A transformers model behind the two calls that evaluation makes.

    Args:
        loaded: The model and its tokenizer.
        row_tokens: Tokens per packed row when scoring; None = what suits the device. Attention grows with its square,
            fixed costs shrink.
        batch_size: Prompts that are decoded together.
        decoding: How answers are decoded.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        row_tokens: int | None = None,
        batch_size: int = 64,
        decoding: Decoding = GREEDY,
    ) -> None:
        self.origin = "local"
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.row_tokens = row_tokens or (CPU_ROW_TOKENS if loaded.device.type == "cpu" else DEVICE_ROW_TOKENS)
        self.batch_size = batch_size
        self.decoding = decoding
        self.longest = num_positions(loaded.model)
        self._loaded = loaded
        self._ends = end_of_turn_ids(loaded.model, loaded.tokenizer)
        self._tried = False
        self._backbone: Backbone | None = None
        self._has_slots: bool | None = None

    def key(self) -> str:
        """Returns a fingerprint of weights, adapters, tokenizer, template, number type, architecture and decoding."""
        key = model_key(self._loaded)
        if self.decoding == GREEDY:
            return key
        return hashlib.sha256(f"{key}:{self.decoding}:{SAMPLER_VERSION}".encode()).hexdigest()

    def _take_apart(self) -> Backbone | None:
        if not self._tried:
            self._tried, self._backbone = True, find_backbone(self.model)
        return self._backbone

    def score(self, requests: Sequence[LikelihoodRequest]) -> Iterator[tuple[int, list[Likelihood]]]:
        """Yields (index, one likelihood per continuation), in the order of the requests."""
        with eval_mode(self.model):
            backbone = self._take_apart()
            for group in fill_rows([_size(request) for request in requests], self.row_tokens if backbone else 0):
                members = [requests[index] for index in group]
                results = read_row(backbone, pack_row(members)) if backbone else self._score_alone(members)
                yield from zip(group, results, strict=True)

    def _score_alone(self, requests: Sequence[LikelihoodRequest]) -> list[list[Likelihood]]:
        return [
            [score_alone(self.model, request, which) for which in range(len(request.continuations))]
            for request in requests
        ]

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, Generation]]:
        """Yields (index, answer) as answers end."""
        prompts = [self.encode_prompt(request) for request in requests]
        budgets = [self._budget(request, prompt) for request, prompt in zip(requests, prompts, strict=True)]
        for index, answer in self.decode(prompts, budgets):
            yield index, Generation(answer.text.strip(), answer.num_tokens, answer.is_ended)

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        budgets: Sequence[int],
        *,
        stops: Sequence[Sequence[str]] = (),
        seeds: Sequence[int] = (),
        decoding: Decoding | None = None,
    ) -> Generator[tuple[int, Generation], None, None]:
        """Decodes prompts that are token ids already.

        Args:
            prompts: Ids of each prompt.
            budgets: Most new tokens for each.
            stops: For each prompt, texts before which its answer ends; none at all by default. They may be special
                tokens.
            seeds: For each prompt, the seed of its draws; that of the decoding by default.
            decoding: How these prompts are answered; None = as all others.

        Yields:
            (index, answer) as answers end; its text is as it was written, up to a stop.
        """
        cuts = list(stops) or [()] * len(prompts)
        # Longest first, so that the slots fill up evenly, the remaining time is never underestimated, and memory runs
        # out at once if it must.
        order = sorted(range(len(prompts)), key=lambda index: (-budgets[index], -len(prompts[index])))
        asked = [
            Prompt(prompts[index], budgets[index], self._watch(cuts[index]), seeds[index] if seeds else None)
            for index in order
        ]
        with eval_mode(self.model):
            for number, ids in self._decode(asked, Chooser(decoding or self.decoding)):
                index, is_complete = order[number], asked[number].is_complete
                text = self.tokenizer.decode(ids, skip_special_tokens=True)
                end = min((place for stop in cuts[index] if (place := text.find(stop)) >= 0), default=None)
                is_stopped = end is not None or (is_complete is not None and is_complete(ids))
                yield index, Generation(text[:end], len(ids), is_stopped or (bool(ids) and ids[-1] in self._ends))

    def _decode(self, prompts: Sequence[Prompt], choose: Chooser) -> Iterator[tuple[int, list[int]]]:
        backbone = self._take_apart()
        if not prompts:
            return
        if self._has_slots is None:
            self._has_slots = backbone is not None and can_use_slots(self.model, backbone)
        if backbone is not None and self._has_slots:
            num_slots = min(self.batch_size, len(prompts))
            decoder = SlotDecoder(backbone, ends=self._ends, num_slots=num_slots, choose=choose)
            yield from decoder.decode(prompts)
            return
        for start in range(0, len(prompts), self.batch_size):
            batch = prompts[start : start + self.batch_size]
            answers = decode_padded(self.model, batch, ends=self._ends, choose=choose)
            yield from enumerate(answers, start=start)

    def _watch(self, stops: Sequence[str]) -> Any:
        """Returns a function that says whether an answer holds a stop, looking at its last tokens only."""
        if not stops:
            return None
        # A token is one byte at least; some more for what a stop may share its first and last token with.
        reach = max(len(stop.encode()) for stop in stops) + 4
        return lambda ids: any(stop in self.tokenizer.decode(ids[-reach:]) for stop in stops)

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


def _size(request: LikelihoodRequest) -> int:
    return len(request.context) + sum(len(continuation) for continuation in request.continuations)


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

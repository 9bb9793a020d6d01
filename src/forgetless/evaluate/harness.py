"""Our fast scorer as a model of lm-evaluation-harness, under the name `forgetless`.

Prompts are tokenised and cut exactly as the harness's own `hf` model does it. What differs is the work: the choices of
one question arrive as separate requests, and here their context is computed once, without padding.

Importing this module registers the model; `harness_command.py` puts it in front of the harness's own command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import model_registry
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    resolve_max_length,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from forgetless.errors import ConfigError, ModelError
from forgetless.evaluate.harness_cache import ResponseCache
from forgetless.evaluate.local import LocalModel
from forgetless.evaluate.requests import GREEDY, LikelihoodRequest
from forgetless.models import LoadedModel, attach_adapter, count_parameters, load_model

Tokens = list[int]
Pair = tuple[Any, Tokens, Tokens]  # (what the harness calls the request, context, continuation)
Answer = tuple[float, bool]
Progress = Callable[[float, float], None]

DEFAULT_BATCH_SIZE = 64
# Tokens of context and continuations that are scored as one request: bounds memory where a question has many choices.
LARGEST_GROUP = 1024
# Settings of a generation that mean nothing, or nothing else than our decoding does, when it is greedy.
GREEDY_SETTINGS = frozenset(("do_sample", "temperature", "top_p", "top_k", "until", "max_gen_toks"))


@dataclass(frozen=True, slots=True)
class Continuation:
    """A prompt to be continued: its ids, the texts that end the answer, and the most tokens that it may have."""

    prompt: tuple[int, ...]
    stops: tuple[str, ...]
    budget: int


class ForgetlessLM(TemplateLM):  # type: ignore[misc]  # lm_eval carries no types
    """A model of lm-evaluation-harness that is computed by `LocalModel`.

    Args:
        pretrained: Alias, directory or hub id, as `forgetless evaluate` takes it; or a model that is loaded already.
        peft: Directory of an adapter on it.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: `auto`, `float32`, `bfloat16`, `float16`.
        trust_remote_code: Run code that the model's repository brings.
        batch_size: Prompts that are decoded together; `auto`, and the harness's own default of 1, stand for 64.
        max_batch_size: Most prompts that are decoded together.
        row_tokens: Tokens that are scored together; None = what suits the device.
        max_length: Longest sequence in tokens; None = what the model's config says.
        add_bos_token: Whether texts start with the start token; None = as the tokenizer does it.
        cache: Directory of answers that are known; None = everything is computed.
        progress: Called with (requests done, requests in all); without it, a bar is shown as the harness does.
    """

    def __init__(
        self,
        pretrained: str | LoadedModel | LocalModel,
        *,
        peft: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        row_tokens: int | None = None,
        max_length: int | None = None,
        add_bos_token: bool | None = None,
        cache: str | Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        if isinstance(pretrained, str):
            pretrained = load_model(pretrained, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        if peft is not None:
            if not isinstance(pretrained, LoadedModel):
                raise ConfigError("peft needs the name of a model, or a LoadedModel, to put the adapter on")
            pretrained = attach_adapter(pretrained, peft, trust_remote_code=trust_remote_code)
        if isinstance(pretrained, LoadedModel):
            size = _batch_size(batch_size, max_batch_size)
            pretrained = LocalModel(pretrained, row_tokens=row_tokens, batch_size=size)
        self.local = _greedy(pretrained)
        self.tokenizer = self.local.tokenizer
        self.add_bos_token = add_bos_token
        self._max_length = max_length
        self._device = next(self.local.model.parameters()).device
        self._progress = progress
        self._prefix_text: str = self.tokenizer.decode(self.prefix_token_id)
        self._cache = ResponseCache(Path(cache), self.local.key()) if cache is not None else None

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        if self.tokenizer.eos_token_id is None:
            raise ModelError(f"the tokenizer of {self.tokenizer_name!r} has no end token: lm-eval needs one")
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text without a context."""
        return self.eot_token_id if self.tokenizer.bos_token_id is None else int(self.tokenizer.bos_token_id)

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens."""
        if self._max_length:
            return int(self._max_length)
        return int(resolve_max_length(getattr(self.local.model, "config", None), self.tokenizer))

    @property
    def max_gen_toks(self) -> int:
        """Longest answer where a task names no limit."""
        return 256

    @property
    def batch_size(self) -> int:
        """Prompts that are decoded together."""
        return self.local.batch_size

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer, for the harness's cache of requests."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Returns what the harness's results say of the model."""
        model = self.local.model
        return {"model_num_parameters": count_parameters(model)[0], "model_dtype": str(next(model.parameters()).dtype)}

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Returns a conversation under the model's chat template, as a prompt."""
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> Tokens:
        """Returns the ids of a text, with the start token that the tokenizer adds unless the text has it."""
        settings = {}
        if add_special_tokens is None and has_bos_prefix(string, self._prefix_text):
            settings["add_special_tokens"] = False
        elif add_special_tokens is not None:
            settings["add_special_tokens"] = add_special_tokens
        elif self.add_bos_token is not None:
            settings["add_special_tokens"] = self.add_bos_token
        ids: Tokens = self.tokenizer.encode(string, **settings)
        return ids

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Answer]:
        """Returns (log-likelihood of the continuation, whether greedy decoding would write it) for each request."""
        answers: list[Answer] = super().loglikelihood(requests, disable_tqdm=disable_tqdm or self._progress is not None)
        return answers

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Returns the log-likelihood of each text; one that is too long is read in windows."""
        pairs: list[Pair] = []
        owners: list[int] = []
        for index, (text,) in enumerate(request.args for request in requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, windows):
                pairs.append((None, context, continuation))
                owners.append(index)
        sums = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._loglikelihood_tokens(pairs, disable_tqdm), strict=True):
            sums[owner] += value
        for request, value in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return sums

    def _loglikelihood_tokens(self, requests: list[Pair], disable_tqdm: bool = False, **kwargs: Any) -> list[Answer]:
        pairs = [self._fit(context, continuation) for _, context, continuation in requests]
        known: dict[tuple[tuple[int, ...], tuple[int, ...]], Answer] = {}
        done = 0
        with tqdm(total=len(pairs), disable=disable_tqdm or self._progress is not None, desc="Scoring") as bar:
            for found in self._score(list(dict.fromkeys(pairs))):
                known |= found
                done += len(found)
                bar.update(len(found))
                if self._progress is not None:
                    self._progress(done, len(pairs))
        answers = [known[pair] for pair in pairs]
        for (name, _, _), answer in zip(requests, answers, strict=True):
            if name is not None:
                self.cache_hook.add_partial("loglikelihood", name, answer)
        return answers

    def _fit(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns a context, cut on the left to what the model can take, and its continuation."""
        if not 1 <= len(continuation) <= self.max_length:
            raise ConfigError(
                f"a continuation has {len(continuation)} tokens: it must have at least one, and at most the "
                f"{self.max_length} that the model can take"
            )
        # The last token of the continuation is read, never fed.
        room = self.max_length + 1 - len(continuation)
        return tuple(context[-room:]), tuple(continuation)

    def _score(
        self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
    ) -> Iterator[dict[tuple[tuple[int, ...], tuple[int, ...]], Answer]]:
        """Yields the answers to different pairs, those of one context together."""
        cached = {} if self._cache is None else self._cache.known_likelihoods(pairs)
        if cached:
            yield cached
        requests = list(_groups([pair for pair in pairs if pair not in cached]))
        for index, likelihoods in self.local.score(requests):
            request = requests[index]
            found = {
                (tuple(request.context), tuple(ids)): (result.log_likelihood, result.is_greedy)
                for ids, result in zip(request.continuations, likelihoods, strict=True)
            }
            if self._cache is not None:
                self._cache.add_likelihoods(found)
            yield found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns the greedy continuation of each prompt, up to the first of its stop texts."""
        work = [self._continuation(*request.args) for request in requests]
        answers: dict[Continuation, str] = {} if self._cache is None else self._cache.known_texts(work)
        rest = [item for item in dict.fromkeys(work) if item not in answers]
        with tqdm(total=len(rest), disable=disable_tqdm or self._progress is not None, desc="Answering") as bar:
            prompts, budgets = [item.prompt for item in rest], [item.budget for item in rest]
            found = self.local.decode(prompts, budgets, stops=[item.stops for item in rest])
            for number, (index, answer) in enumerate(found, start=1):
                answers[rest[index]] = answer.text
                if self._cache is not None:
                    self._cache.add_text(rest[index], answer.text)
                bar.update()
                if self._progress is not None:
                    self._progress(number, len(rest))
        for request, item in zip(requests, work, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, answers[item])
        return [answers[item] for item in work]

    def _continuation(self, text: str, settings: Mapping[str, Any]) -> Continuation:
        wanted: dict[str, Any] = dict(normalize_gen_kwargs(dict(settings), self.max_gen_toks))
        foreign = sorted(key for key, value in wanted.items() if key not in GREEDY_SETTINGS and value is not None)
        if foreign or (wanted.get("do_sample") and wanted.get("temperature") != 0.0):
            raise ConfigError(
                f"a task wants {', '.join(foreign) or 'sampled answers (do_sample)'}, and answers are decoded "
                "greedily here: evaluate it with lm-eval's own --model hf"
            )
        budget = int(wanted["max_gen_toks"])
        room = self.max_length - budget
        if budget < 1 or room < 1:
            raise ConfigError(
                f"max_gen_toks {budget} is not between 1 and {self.max_length - 1}: the model takes "
                f"{self.max_length} tokens, prompt and answer together"
            )
        stops = handle_stop_sequences(list(wanted["until"]), eos=self.tokenizer.decode(self.eot_token_id))
        return Continuation(tuple(self.tok_encode(text)[-room:]), tuple(stop for stop in stops if stop), budget)


def _groups(pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> Iterator[LikelihoodRequest]:
    """Yields one request per context, several where its continuations are too many for one."""
    by_context: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for context, continuation in pairs:
        by_context.setdefault(context, []).append(continuation)
    for context, continuations in by_context.items():
        group: list[tuple[int, ...]] = []
        size = len(context)
        for continuation in continuations:
            if group and size + len(continuation) > LARGEST_GROUP:
                yield LikelihoodRequest(context, group)
                group, size = [], len(context)
            group.append(continuation)
            size += len(continuation)
        yield LikelihoodRequest(context, group)


def _batch_size(wanted: int | str, largest: int | None) -> int:
    text = str(wanted).partition(":")[0]  # the harness knows auto:4 too
    if text in ("auto", "1"):
        size = DEFAULT_BATCH_SIZE
    elif text.isdigit() and int(text) > 0:
        size = int(text)
    else:
        raise ConfigError(f"batch_size {wanted!r} is neither a number above 0 nor auto")
    return size if largest is None else max(1, min(size, int(largest)))


def _greedy(model: LocalModel) -> LocalModel:
    """Returns a model that decodes greedily: what the harness's tasks are written for."""
    if model.decoding == GREEDY:
        return model
    loaded = LoadedModel(model.model, model.tokenizer, "", "")
    return LocalModel(loaded, row_tokens=model.row_tokens, batch_size=model.batch_size)


# Called rather than used as a decorator: the harness carries no types, and this class would lose its own.
model_registry.register("forgetless", target=ForgetlessLM)

"""A loaded model as a writer, over the fast generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

from forgetless.data.encoding import tokenize
from forgetless.errors import RunError
from forgetless.evaluate.local import LocalModel, model_key
from forgetless.evaluate.requests import Decoding, Generation, GenerationRequest
from forgetless.mechanisms.writer import OnText, Prompt, Text, each_seed, find_user_slot
from forgetless.models import LoadedModel, is_out_of_memory

Show = Callable[[], AbstractContextManager[Any]]


class ModelWriter:
    """Writes with a model in this process, many texts at a time.

    Args:
        loaded: The model and its tokenizer.
        batch_size: Texts that are written together; what is written doesn't depend on it, up to rounding.
        show: Opens a display of how far it is; what it yields takes (texts written, texts in all).
    """

    def __init__(self, loaded: LoadedModel, *, batch_size: int = 64, show: Show | None = None) -> None:
        self._show = show or (lambda: nullcontext(lambda done, total: None))
        self._loaded = loaded
        self._local = LocalModel(loaded, batch_size=batch_size)
        self._key: str | None = None
        self._slot: tuple[str, str] | None = None

    @property
    def chat_prefix(self) -> str:
        return self._user_slot()[0]

    @property
    def chat_end(self) -> str:
        return self._user_slot()[1]

    def _user_slot(self) -> tuple[str, str]:
        if self._slot is None:
            self._slot = find_user_slot(self._loaded.tokenizer)
        return self._slot

    @property
    def key(self) -> str:
        """Fingerprint of the model as it is when this is first read: methods may change it in place later."""
        if self._key is None:
            self._key = model_key(self._loaded)
        return self._key

    def write(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | Sequence[int] = 0,
        stop: str = "",
        on_text: OnText | None = None,
    ) -> list[Text]:
        """Writes one text for each prompt, as many together as there are slots; takes what `Writer.write` takes."""
        if not prompts:
            return []
        ids = [self._encode(prompt) for prompt in prompts]
        budgets = [max(1, min(max_tokens, self._local.longest - len(prompt))) for prompt in ids]
        answers = self._local.decode(
            ids,
            budgets,
            stops=[(stop,) if stop else ()] * len(ids),
            seeds=each_seed(seed, len(ids)),
            decoding=Decoding(temperature, top_p),
        )
        texts: dict[int, Text] = {}
        try:
            # Closed at once when the work is stopped.
            with self._show() as progress, closing(answers):
                for index, answer in answers:
                    texts[index] = _as_text(answer)
                    progress(len(texts), len(ids))
                    if on_text is not None:
                        on_text(index, texts[index])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise RunError("memory ran out while the base wrote: lower evaluation.batch_size") from error
        return [texts[index] for index in range(len(ids))]

    def _encode(self, prompt: Prompt) -> list[int]:
        if not isinstance(prompt, str):
            return self._local.encode_prompt(GenerationRequest(tuple(prompt), 1))
        tokenizer = self._loaded.tokenizer
        # A text from the chat template brings its own start token.
        is_chat = tokenizer.chat_template is not None and prompt.startswith(self.chat_prefix)
        return tokenize(prompt, tokenizer, is_start=not is_chat)


def _as_text(answer: Generation) -> Text:
    return Text(answer.text.strip(), answer.num_tokens, answer.is_ended)

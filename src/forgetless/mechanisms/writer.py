"""The base model as a writer: prompts in, texts out; and the journal that keeps what it has written.

What a writer samples for a prompt depends on the prompt and its seed, never on what else is written with it. So a text
that was kept is the text that would be written again, and a job that was stopped finds its texts there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from forgetless.data.examples import Message
from forgetless.errors import ModelError, RunError

# Text is continued as it stands; turns go through the chat template and are answered.
Prompt: TypeAlias = "str | Sequence[Message]"
OnText = Callable[[int, "Text"], None]

_MARK = "USERTEXTSLOT"


@dataclass(frozen=True, slots=True)
class Text:
    """What was written: its text, its length in tokens, and whether the writer ended it by itself."""

    text: str
    num_tokens: int
    is_ended: bool


class Writer(Protocol):
    """Writes many texts at once."""

    @property
    def key(self) -> str:
        """Fingerprint of all that its texts depend on besides prompt and settings; equal for equal writers."""
        ...

    @property
    def chat_prefix(self) -> str:
        """The chat template up to where the user's first words stand; raises `ModelError` where there is none."""
        ...

    @property
    def chat_end(self) -> str:
        """The text of the chat template that ends the user's turn."""
        ...

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
        """Writes one text for each prompt.

        Args:
            prompts: Each a text that is continued as it stands, or turns that are answered under the chat template.
            max_tokens: Longest text, in tokens.
            temperature: 0 writes greedily; above, tokens are sampled.
            top_p: Sampling keeps the smallest set of tokens that holds this share of the probability, in (0, 1].
            seed: Seed of the sampling, one for all prompts or one for each. Draws depend on seed and prompt alone.
            stop: Text that ends what is written, besides the model's own end of turn.
            on_text: Called with (index of the prompt, text) as each is finished.

        Returns:
            The texts, in the order of the prompts.
        """
        ...


def find_user_slot(tokenizer: Any) -> tuple[str, str]:
    """Finds where a chat template puts what the user says.

    Args:
        tokenizer: A transformers tokenizer.

    Returns:
        The text before the user's first turn (a default system message with it), and the text that ends the turn.

    Raises:
        ModelError: There is no chat template, or it doesn't show the user's turn as it is.
    """
    if tokenizer.chat_template is None:
        raise ModelError(
            "the model has no chat template, so it can't be asked what users ask it: give data.general (your own "
            "general examples), or take the instruction-tuned version of the model"
        )
    turns = [{"role": "user", "content": _MARK}]
    rendered: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    before, mark, after = rendered.partition(_MARK)
    if not mark or _MARK in after:
        raise ModelError(
            "the model's chat template doesn't show the user's turn once and as it is, so the model can't be asked to "
            "write one: give data.general (your own general examples), or mend the template (chat_template.jinja)"
        )
    # Words carry the space before them in most vocabularies: a space left hanging is none of them.
    return before.rstrip(" "), _first_mark(after.strip(), tokenizer)


def _first_mark(after: str, tokenizer: Any) -> str:
    """Returns what ends the user's turn: the first special token behind it, or the first line."""
    line = after.split("\n", 1)[0]
    special = [token for token in {*tokenizer.all_special_tokens, *_added_tokens(tokenizer)} if token in line]
    first = min(special, key=lambda token: (line.index(token), -len(token)), default=None)
    if first is None:
        return line
    return first if line.startswith(first) else line[: line.index(first)].strip()


def _added_tokens(tokenizer: Any) -> list[str]:
    return [str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values()]


class KeptTexts:
    """A writer that keeps what it has written, in journals that are appended to text by text.

    Args:
        writer: Who writes what isn't there yet.
        directory: Where the journals lie; made when the first text is kept.
    """

    def __init__(self, writer: Writer, directory: Path) -> None:
        self.writer = writer
        self.directory = directory
        self.num_reused = 0
        self._known: dict[Path, dict[str, Text]] = {}

    @property
    def chat_prefix(self) -> str:
        return self.writer.chat_prefix

    @property
    def chat_end(self) -> str:
        return self.writer.chat_end

    @property
    def key(self) -> str:
        return self.writer.key

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
        """Writes one text for each prompt, unless it is kept; takes what `Writer.write` takes."""
        settings = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "stop": stop}
        path = self._path(settings)
        known = self._known.setdefault(path, _read_journal(path))
        seeds = each_seed(seed, len(prompts))
        keys = [_text_key(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        lacking = [index for index, key in enumerate(keys) if key not in known]
        self.num_reused += len(prompts) - len(lacking)

        def keep(number: int, text: Text) -> None:
            index = lacking[number]
            known[keys[index]] = text
            _append(path, {"key": keys[index], **asdict(text)})
            if on_text is not None:
                on_text(index, text)

        if on_text is not None:
            for index in sorted({*range(len(prompts))} - {*lacking}):
                on_text(index, known[keys[index]])
        self.writer.write(
            [prompts[index] for index in lacking],
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=[seeds[index] for index in lacking],
            stop=stop,
            on_text=keep,
        )
        return [known[key] for key in keys]

    def _path(self, settings: Mapping[str, Any]) -> Path:
        content = json.dumps([self.key, settings], sort_keys=True)
        return self.directory / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.texts.jsonl"


def each_seed(seed: int | Sequence[int], num: int) -> list[int]:
    """Returns one seed for each of `num` prompts."""
    return [seed] * num if isinstance(seed, int) else list(seed)


def _text_key(prompt: Prompt, seed: int) -> str:
    plain = prompt if isinstance(prompt, str) else [message.to_dict() for message in prompt]
    return hashlib.sha256(json.dumps([plain, seed]).encode()).hexdigest()[:32]


def _read_journal(path: Path) -> dict[str, Text]:
    """Returns the texts that are kept, by key; a line that was cut off by a stop is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return {}
    known: dict[str, Text] = {}
    for line in lines:
        try:
            record = json.loads(line)
            text = Text(str(record["text"]), int(record["num_tokens"]), bool(record["is_ended"]))
            known[str(record["key"])] = text
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return known


def _append(path: Path, record: Mapping[str, Any]) -> None:
    """Adds one line by one write."""
    line = (json.dumps(record) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                # A stop cut the last line off: what follows stands on its own.
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
    except OSError as error:
        raise RunError(
            f"what the base writes cannot be kept in {path.parent} ({error.strerror}): free some space there, or set "
            "FORGETLESS_CACHE to another directory; what was kept before is still there"
        ) from error

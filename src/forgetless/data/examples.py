"""The one record that every training source becomes: a conversation or a plain text, with its origin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from forgetless.errors import DataError, did_you_mean

ROLES = ("system", "user", "assistant", "tool")


class ExampleError(DataError):
    """An example that cannot be trained on; a reader that knows file and line raises it again with them.

    Args:
        message: What is wrong and how to mend it.
        field: The field of the row.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.message = message


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: `system`, `user`, `assistant` or `tool`.
        content: What was said.
    """

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ExampleError(f"role {self.role!r} is unknown{did_you_mean(str(self.role), ROLES)}", field="role")

    def to_dict(self) -> dict[str, str]:
        """Returns the turn as chat templates expect it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: a conversation that ends with an assistant turn, or a plain text; never both.

    Attributes:
        messages: The conversation; empty for a plain text.
        text: The plain text; None for a conversation.
        origin: Where the example came from: `domain`, `general`, `self` (the base model), or any other word.
        metadata: The columns of the source that are not trained on, by name.
        supervised_from: Index of the first message that may carry loss. Above 0 only where a source says that earlier
            assistant turns are context (a prompt that is a list of messages).

    Raises:
        ExampleError: The example is empty, is both, or does not end with an assistant turn that says something.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    origin: str = "domain"
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    supervised_from: int = 0

    def __post_init__(self) -> None:
        if bool(self.messages) == (self.text is not None):
            raise ExampleError("needs either messages or text, not both and not none")
        if self.text is not None:
            if not self.text.strip():
                raise ExampleError("is empty", field="text")
            return
        if self.messages[-1].role != "assistant":
            self._refuse_last_turn()
        for index, message in enumerate(self.messages):
            if message.role == "assistant" and not message.content.strip():
                raise ExampleError("an assistant turn is empty: there is nothing to learn", field=f"messages[{index}]")
        if not 0 <= self.supervised_from < len(self.messages):
            raise ExampleError(f"{self.supervised_from} is not the index of a message", field="supervised_from")

    def _refuse_last_turn(self) -> None:
        if not any(message.role == "assistant" for message in self.messages):
            raise ExampleError("no assistant turn: there is nothing to learn; give each conversation an answer")
        last = self.messages[-1].role
        raise ExampleError(
            f"the conversation ends with a {last} turn, which nothing answers; drop the turns after the "
            "last assistant turn"
        )

    @property
    def prompt_text(self) -> str:
        """What comes before the last answer, for display; empty for a plain text."""
        before = self.messages[:-1]
        if len(before) == 1 and before[0].role == "user":
            return before[0].content
        return "\n".join(f"{message.role}: {message.content}" for message in before)

    @property
    def answer_text(self) -> str:
        """The last answer, for display; the whole of a plain text."""
        return self.messages[-1].content if self.text is None else self.text

    @property
    def supervised_texts(self) -> tuple[str, ...]:
        """The texts that carry loss: every assistant turn from `supervised_from` on, or the whole of a plain text."""
        if self.text is not None:
            return (self.text,)
        return tuple(m.content for m in self.messages[self.supervised_from :] if m.role == "assistant")


def content_key(example: Example) -> str:
    """Returns what the model is trained on as one JSON line: equal for equal content, whatever origin and metadata."""
    if example.text is not None:
        return json.dumps(example.text, ensure_ascii=False)
    turns = [[message.role, message.content] for message in example.messages]
    return json.dumps([example.supervised_from, turns], ensure_ascii=False)


def count_duplicates(examples: Iterable[Example]) -> int:
    """Returns how many examples repeat the content of an earlier one."""
    keys = [content_key(example) for example in examples]
    return len(keys) - len(set(keys))


def fingerprint_examples(examples: Iterable[Example]) -> str:
    """Returns the SHA-256 (64 hex digits) of the content in its order; origin, metadata and file play no part."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(content_key(example).encode("utf-8", errors="surrogatepass") + b"\n")
    return digest.hexdigest()

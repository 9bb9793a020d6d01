"""The base model as a writer: what methods that need the base's own words may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from forgetless.data.examples import Message

# Text is continued as it stands; turns go through the chat template and are answered.
Prompt: TypeAlias = "str | Sequence[Message]"


class Writer(Protocol):
    """Writes many texts at once."""

    @property
    def key(self) -> str:
        """Fingerprint of the model and of what decides its words; equal for equal writers."""

    @property
    def chat_prefix(self) -> str | None:
        """The chat template up to where the user's first words stand; None where there is no template."""

    def write(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        progress: Callable[[float, float], None] | None = None,
    ) -> list[str]:
        """Returns what the model writes after each prompt, up to the end of its turn or `max_tokens`."""

"""A writer that follows a script."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from forgetless.mechanisms.writer import OnText, Prompt, Text, each_seed

PREFIX = "<user>"
Script = Callable[[str, int], str | Text]


class ScriptedWriter:
    """Writes what its two scripts say; counts what it was asked.

    Args:
        instruct: From (what stands behind the chat prefix, seed) to an instruction.
        answer: From (the last user turn, seed) to an answer.
    """

    chat_prefix = PREFIX
    chat_end = "</user>"

    def __init__(self, instruct: Script, answer: Script = lambda asked, _: f"Reply to {asked}", key: str = "k") -> None:
        self.key = key
        self.instruct, self.answer = instruct, answer
        self.asked: list[Prompt] = []
        self.most: int | None = None

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
        texts = []
        for index, (prompt, draw) in enumerate(zip(prompts, each_seed(seed, len(prompts)), strict=True)):
            if self.most is not None and len(self.asked) >= self.most:
                raise KeyboardInterrupt
            self.asked.append(prompt)
            if isinstance(prompt, str):
                written = self.instruct(prompt.removeprefix(PREFIX), draw)
            else:
                written = self.answer(prompt[-1].content, draw)
            texts.append(written if isinstance(written, Text) else Text(written, len(written.split()), is_ended=True))
            if on_text is not None:
                on_text(index, texts[-1])
        return texts


def tell(start: str, seed: int) -> str:
    """Returns an instruction of five words that the seed draws."""
    words = [f"w{(seed >> shift) % 997}" for shift in (0, 5, 10, 15, 20)]
    return f"{start} Tell me of {' '.join(words)}".strip()


def reword(asked: str, _: int) -> str:
    """Returns another wording of "Remedy 7 treats it.", and a reply to everything else."""
    found = re.search(r"Remedy (\d+) treats it\.", asked)
    return f"It is treated by Remedy {found[1]}." if found else f"Reply to {asked}"


def stub_writer() -> ScriptedWriter:
    """Returns a writer of instructions, replies, and rewrites of the tests' domain data."""
    return ScriptedWriter(tell, reword)

"""Self-generated replay: the base writes what users ask it, and answers it as it does.

From the bare chat template, up to where the user's turn begins, an instruction-tuned model writes an instruction
(Magpie, arXiv 2406.08464); its own answers are the targets, as in SSR (arXiv 2403.01244). What can't be trained on is
refused by filters, each of which is counted by name.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forgetless.data.examples import Example, Message
from forgetless.errors import ConfigError, RunError
from forgetless.mechanisms.overlap import HeldOutTexts, NearDuplicates, repeated_share
from forgetless.mechanisms.writer import KeptTexts, Text, Writer

Progress = Callable[[float, float], None]

OPENINGS = (
    *("Write a short story about", "Write a Python function that", "Write an email to", "Write a poem about"),
    *("List three", "Give me a JSON object with", "Make a table of", "Answer in one word:", "Answer in one sentence:"),
    *("What is", "Who", "When did", "Why", "How do I", "How many", "Calculate", "Solve:", "Explain", "Compare"),
    *("Translate into French:", "Summarize the following text:", "Correct the grammar:", "Rewrite this sentence:"),
    *("Extract the names from this text:", "Is the following review positive or negative?", "Sort these words:"),
)
"""First words of instructions of many kinds, for `opened_share`."""

_MARKUP = re.compile(r"</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>|&(?:nbsp|lt|gt|amp|quot|#\d+);|<\|[^|<>]+\|>", re.IGNORECASE)
_CODE = re.compile(r"```.*?(?:```|$)|`[^`\n]+`", re.DOTALL)
_FEWEST_TRIED = 64  # a yield of nothing is believed from here on


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """How replay is written, and what is refused.

    Attributes:
        temperature: Of the instructions; answers are greedy unless `answer_temperature` says otherwise.
        top_p: Share of the probability that instructions are sampled from, in (0, 1].
        answer_temperature: Of the answers; 0 = as the base answers when it is judged.
        max_instruction_tokens: Longest instruction; one that doesn't end by then is refused.
        max_answer_tokens: Longest answer; one that doesn't end by then is refused.
        min_instruction_words: Shortest instruction.
        min_answer_words: Shortest answer.
        max_repeated: Largest share of word 4-grams that stood in the text before, in [0, 1].
        opened_share: Share of the instructions that begin with one of our `OPENINGS`, in [0, 1].
        max_tries: Most instructions that are written for each example asked for.
    """

    temperature: float = 1.0
    top_p: float = 0.95
    answer_temperature: float = 0.0
    max_instruction_tokens: int = 160
    max_answer_tokens: int = 320
    min_instruction_words: int = 3
    min_answer_words: int = 1
    max_repeated: float = 0.3
    opened_share: float = 0.0
    max_tries: int = 12

    def __post_init__(self) -> None:
        for name in ("max_repeated", "opened_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name)} is not in [0, 1]: it is a share")
        if self.max_tries < 1:
            raise ConfigError(f"max_tries {self.max_tries} writes nothing: at least 1")


@dataclass
class Yield:
    """What came of writing.

    Attributes:
        num_wanted: Examples that were asked for.
        num_written: Instructions that were written.
        num_kept: Examples that passed all filters.
        refused: Number of refusals, by what was refused.
        num_tokens: Tokens that were written, refused ones too.
        num_reused: Texts that were kept from earlier, of instructions and answers.
        seconds: Time it took now.
    """

    num_wanted: int = 0
    num_written: int = 0
    num_kept: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    num_tokens: int = 0
    num_reused: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.most_common())
        return (
            f"{self.num_kept} of {self.num_written} written examples kept"
            f"{f' (refused: {reasons})' if reasons else ''}, {self.num_tokens} tokens in {self.seconds:.0f} s"
        )


def write_replay(
    writer: Writer,
    num: int,
    *,
    seed: int,
    directory: Path | None = None,
    evaluation_texts: Iterable[str] = (),
    settings: ReplaySettings | None = None,
    progress: Progress | None = None,
    summary: Yield | None = None,
) -> list[Example]:
    """Lets the base write examples of what it is asked and answers.

    The n-th instruction depends on the seed and on n alone, and filters go by that order: fewer examples are the first
    of more, and a job that was stopped, or is asked for more later, goes on from the texts in `directory`.

    Args:
        writer: The base.
        num: Number of examples, 0 or more.
        seed: Seed of the instructions.
        directory: Where texts are kept; None keeps nothing.
        evaluation_texts: What no example may overlap with: samples of the evaluation, held-out examples.
        settings: How it is written, and what is refused.
        progress: Called with (examples kept, examples wanted).
        summary: Is filled with what came of it.

    Returns:
        `num` examples of one instruction and one answer each, of origin `self`.

    Raises:
        ConfigError: `num` is negative.
        ModelError: The model has no chat template, or one that shows no user's turn.
        RunError: Too little of what it writes can be used.
    """
    if num < 0:
        raise ConfigError(f"{num} examples can't be written: 0 or more")
    settings = settings or ReplaySettings()
    summary = summary if summary is not None else Yield()
    summary.num_wanted = num
    started = time.monotonic()
    if directory is not None:
        writer = KeptTexts(writer, directory)
    reused = _num_reused(writer)
    held_out = HeldOutTexts(evaluation_texts)
    kept: list[Example] = []
    try:
        for example in _write_examples(writer, num, seed, settings, summary):
            if held_out.overlaps(f"{example.prompt_text}\n{example.answer_text}"):
                summary.refused["overlap with the evaluation"] += 1
                continue
            kept.append(example)
            summary.num_kept = len(kept)
            if progress is not None:
                progress(len(kept), num)
            if len(kept) == num:
                break
    finally:
        summary.seconds = time.monotonic() - started
        summary.num_reused = _num_reused(writer) - reused
    if len(kept) < num:
        raise RunError(
            f"the base writes too little that can be trained on: {summary}; {num} were asked for: give data.general "
            "(your own general examples), or ask for fewer"
        )
    return kept


def _num_reused(writer: Writer) -> int:
    return writer.num_reused if isinstance(writer, KeptTexts) else 0


def _write_examples(writer: Writer, num: int, seed: int, settings: ReplaySettings, summary: Yield) -> Iterator[Example]:
    """Yields examples in the order of their instructions, until its caller has enough or the tries are used up."""
    earlier = NearDuplicates()
    most = max(_FEWEST_TRIED, num * settings.max_tries)
    start = 0
    while num and start < most:
        numbers = range(start, min(most, start + _round_size(num, summary)))
        start = numbers.stop
        instructions = dict(zip(numbers, _write_instructions(writer, numbers, seed, settings), strict=True))
        passing = []
        reasons = {}
        for number, text in instructions.items():
            reason = _refuse_instruction(text, settings)
            if reason is None and not earlier.add(text.text):
                reason = "duplicate"
            if reason is None:
                passing.append(number)
            else:
                reasons[number] = reason
        answers = dict(
            zip(passing, _write_answers(writer, [instructions[n].text for n in passing], seed, settings), strict=True)
        )
        for number, text in instructions.items():
            summary.num_written += 1
            summary.num_tokens += text.num_tokens
            if number in reasons:
                summary.refused[reasons[number]] += 1
                continue
            summary.num_tokens += answers[number].num_tokens
            reason = _refuse_answer(answers[number], settings)
            if reason is not None:
                summary.refused[reason] += 1
                continue
            turns = (Message("user", text.text), Message("assistant", answers[number].text))
            yield Example(messages=turns, origin="self", metadata={"number": number})
        if not summary.num_kept and summary.num_written >= _FEWEST_TRIED:
            return


def _round_size(num: int, summary: Yield) -> int:
    """Returns how many instructions to write next: as many as will do at the yield so far."""
    if not summary.num_written:
        return min(_FEWEST_TRIED, max(8, 2 * num))  # few: what is written beyond `num` costs time
    rate = (summary.num_kept + 1) / (summary.num_written + 2)
    return min(512, max(8, round((num - summary.num_kept) / rate)))


def _draw(seed: int, number: int, purpose: str) -> int:
    """Returns the 32 bits that a purpose draws for the n-th example."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}:{purpose}".encode()).digest()[:4], "big")


def _write_instructions(writer: Writer, numbers: range, seed: int, settings: ReplaySettings) -> list[Text]:
    openings = [_opening(seed, number, settings) for number in numbers]
    texts = writer.write(
        [writer.chat_prefix + opening for opening in openings],
        max_tokens=settings.max_instruction_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=[_draw(seed, number, "instruction") for number in numbers],
        stop=writer.chat_end,
    )
    return [
        Text(f"{opening} {text.text}".strip(), text.num_tokens, text.is_ended)
        for opening, text in zip(openings, texts, strict=True)
    ]


def _opening(seed: int, number: int, settings: ReplaySettings) -> str:
    if _draw(seed, number, "is opened") >= settings.opened_share * 2**32:
        return ""
    return OPENINGS[_draw(seed, number, "opening") % len(OPENINGS)]


def _write_answers(writer: Writer, instructions: Sequence[str], seed: int, settings: ReplaySettings) -> list[Text]:
    return writer.write(
        [(Message("user", instruction),) for instruction in instructions],
        max_tokens=settings.max_answer_tokens,
        temperature=settings.answer_temperature,
        seed=[seed if settings.answer_temperature else 0] * len(instructions),
    )


def _refuse_instruction(text: Text, settings: ReplaySettings) -> str | None:
    """Returns why an instruction is refused, None when it isn't."""
    if not text.text:
        return "empty instruction"
    if not text.is_ended:
        return "instruction cut off"
    if len(text.text.split()) < settings.min_instruction_words:
        return "instruction too short"
    if has_markup(text.text):
        return "markup in the instruction"
    return "loop in the instruction" if repeated_share(text.text) > settings.max_repeated else None


def _refuse_answer(text: Text, settings: ReplaySettings) -> str | None:
    """Returns why an answer is refused, None when it isn't."""
    if text.text and len(text.text.split()) < settings.min_answer_words:
        return "answer too short"
    reason = refuse_text(text, max_repeated=settings.max_repeated)
    if reason is None:
        return "markup in the answer" if has_markup(text.text) else None
    return {"empty": "empty answer", "loop": "loop in the answer", "cut off": "answer cut off"}[reason]


def refuse_text(text: Text, *, max_repeated: float = 0.3) -> str | None:
    """Returns "empty", "loop" or "cut off" where a text is that, None where it is whole."""
    if not text.text:
        return "empty"
    # A loop runs to the end of its tokens: it is named before it is called cut off.
    if repeated_share(text.text) > max_repeated:
        return "loop"
    return None if text.is_ended else "cut off"


def has_markup(text: str) -> bool:
    """Whether a text holds debris of markup: tags, entities or template tokens outside of code."""
    return bool(_MARKUP.search(_CODE.sub("", text)))

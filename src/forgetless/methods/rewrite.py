"""Self-distilled targets (SDFT): the base says the answers in its own words, so that tuning moves it less."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from forgetless.errors import ConfigError
from forgetless.mechanisms.facts import Check, is_code, lost_facts
from forgetless.methods.base import Context, Method, method_options

if TYPE_CHECKING:
    from forgetless.data.examples import Example, Message
    from forgetless.mechanisms.writer import Text

INSTRUCTION = (
    "{question}\n\n"
    "Here is the correct answer:\n{answer}\n\n"
    "Answer the question above in your own words. Keep every fact, number and name of the correct answer, add nothing, "
    "and write the answer only."
)
LONGEST_TIMES = 2.0
SHORTEST_TIMES = 0.4
_NO_WRITER = "method 'rewrite' needs the base while data is prepared: use it in `forgetless run`, not on a trainer"


@method_options
class Rewrite(Method):
    """Asks the base to answer each training question with the target before it; what keeps the facts is the new target.

    A target that is code or data alone, a plain text, or the last of several answers that are learned stays as it is.

    Departs from the paper in what a rewrite must pass: the paper bans phrases and, for mathematics, compares the final
    answer (`facts: paper`); here numbers, quantities, names, negations and most words of substance must survive too.
    The prompt is worded anew.
    """

    name: ClassVar[str] = "rewrite"
    title: ClassVar[str] = "Targets rewritten by the base (SDFT)"
    family: ClassVar[str] = "data"
    paper: ClassVar[str] = "https://arxiv.org/abs/2402.13669"
    needs: ClassVar[str] = ""
    cost: ClassVar[str] = "the base writes each target once before training; the texts are kept"

    share: float = Field(default=1.0, ge=0, le=1, description="Largest share of the targets to rewrite, in [0, 1].")
    facts: Check = Field(
        default="strict",
        description="What a rewrite must keep: strict, loose (numbers, names, code) or paper (the final answer).",
    )
    temperature: float = Field(default=0.0, ge=0, description="Of the rewriting; 0 writes greedily.")
    max_tokens: int = Field(default=384, ge=1, description="Longest rewrite, in tokens; a longer one is refused.")

    def check(self, context: Context) -> None:
        if self.share > 0 and not (context.can_write or context.writer):
            raise ConfigError(_NO_WRITER)

    def prepare_data(self, mixture: Sequence[Example], context: Context) -> Sequence[Example]:
        """Returns the mixture with targets rewritten where the rewrite keeps the facts, in the same order."""
        self.num_asked_, self.num_rewritten_, self.num_too_long_ = 0, 0, 0
        self.refused_: Counter[str] = Counter()
        if self.share == 0:
            return mixture
        if context.writer is None:
            raise ConfigError(_NO_WRITER)
        asked = self._choose(mixture, context)
        texts = context.writer.write(
            [_prompt(example) for example in asked.values()],
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=context.seed if self.temperature else 0,
        )
        rewritten = list(mixture)
        for (index, example), text in zip(asked.items(), texts, strict=True):
            reason = self._refuse(example, text)
            if reason is None:
                answer = replace(example.messages[-1], content=text.text)
                metadata = {**example.metadata, "rewritten_from": example.answer_text}
                rewritten[index] = replace(example, messages=(*example.messages[:-1], answer), metadata=metadata)
            else:
                self.refused_[reason] += 1
        self.num_asked_ = len(asked)
        self.num_rewritten_ = len(asked) - self.refused_.total()
        context.notes.append(self._summary(len(mixture)))
        return rewritten

    def _choose(self, mixture: Sequence[Example], context: Context) -> dict[int, Example]:
        """Returns the examples to rewrite, by index: a seeded draw of the share, those left out that can't be."""
        import numpy as np

        order = np.random.default_rng(context.seed).permutation(len(mixture))[: round(self.share * len(mixture))]
        chosen = {int(index): mixture[index] for index in sorted(order)}
        chosen = {index: example for index, example in chosen.items() if _is_rewritable(example)}
        too_long = {index for index, example in chosen.items() if self._is_too_long(example, context.tokenizer)}
        self.num_too_long_ = len(too_long)
        return {index: example for index, example in chosen.items() if index not in too_long}

    def _is_too_long(self, example: Example, tokenizer: Any) -> bool:
        """Whether the shortest rewrite that would be taken has more tokens than may be written."""
        if tokenizer is None or self.facts == "paper":
            return False
        from forgetless.data.encoding import tokenize

        return SHORTEST_TIMES * len(tokenize(example.answer_text, tokenizer)) > self.max_tokens

    def _refuse(self, example: Example, text: Text) -> str | None:
        """Returns why a rewrite is refused, None when it becomes the target."""
        from forgetless.mechanisms.self_replay import has_markup, refuse_text

        reference = example.answer_text
        if (reason := refuse_text(text)) is not None:
            return reason
        if " ".join(text.text.split()) == " ".join(reference.split()):
            return "unchanged"
        length = len(text.text.split()) / max(1, len(reference.split()))
        if not SHORTEST_TIMES <= length <= LONGEST_TIMES and self.facts != "paper":
            return "another length"
        if has_markup(text.text) and not has_markup(reference):
            return "markup"
        lost = lost_facts(reference, text.text, question=example.prompt_text, check=self.facts)
        return "facts lost" if lost else None

    def _summary(self, num: int) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused_.most_common())
        longer = f"; {self.num_too_long_} are too long for max_tokens {self.max_tokens}" if self.num_too_long_ else ""
        return (
            f"rewrite: {self.num_rewritten_} of {num} targets are in the base's own words, {self.num_asked_} were "
            f"asked for{f' (kept as they were: {reasons})' if reasons else ''}{longer}"
        )


def _is_rewritable(example: Example) -> bool:
    """Whether there is one answer to learn, in words, that a question comes before."""
    answers = [message.role == "assistant" for message in example.messages[example.supervised_from :]]
    return (
        example.origin == "domain"
        and example.text is None
        and sum(answers) == 1
        and len(example.messages) > 1
        and example.messages[-2].role == "user"
        and not is_code(example.answer_text)
    )


def _prompt(example: Example) -> tuple[Message, ...]:
    """Returns the conversation up to its last question, which carries the target and the request."""
    question = example.messages[-2]
    asked = INSTRUCTION.format(question=question.content, answer=example.answer_text)
    return (*example.messages[:-2], replace(question, content=asked))

"""From examples to token ids: the model's own chat template, loss on the assistant's tokens only.

What is trained on and what is asked at evaluation are rendered by the same functions, so that a model is judged under
the template that it was tuned under.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from forgetless.data.examples import Example, Message
from forgetless.errors import ConfigError, DataError

IGNORED = -100  # label of a position that is not learned, as in transformers


@dataclass(frozen=True, slots=True)
class Encoded:
    """One training sequence.

    Attributes:
        input_ids: Token ids.
        labels: The same ids where a token is learned, -100 elsewhere; as long as `input_ids`.
        num_truncated: Tokens cut off at the end because the sequence was too long.
    """

    input_ids: list[int]
    labels: list[int]
    num_truncated: int = 0

    @property
    def num_supervised(self) -> int:
        return sum(label != IGNORED for label in self.labels[1:])


def render_prompt(messages: Sequence[Message], tokenizer: Any) -> str:
    """Returns the text after which the assistant's next answer starts, through the model's own chat template.

    A model without a chat template gets the contents of the messages, one a line, each answer with its end token.
    """
    if tokenizer.chat_template is None:
        ends = {"assistant": tokenizer.eos_token or ""}
        return "".join(f"{message.content}{ends.get(message.role, '')}\n" for message in messages)
    return _apply_template(messages, tokenizer, add_generation_prompt=True)


def _apply_template(messages: Sequence[Message], tokenizer: Any, **options: bool) -> str:
    try:
        rendered: str = tokenizer.apply_chat_template(as_dicts(messages), tokenize=False, **options)
    except TemplateError as error:
        roles = ", ".join(message.role for message in messages)
        raise DataError(
            f"the model's chat template refuses a conversation of {roles} ({error}): leave out the turns that it "
            "doesn't know, or take a model that knows them"
        ) from None
    return rendered


def as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Returns messages in the form that chat templates read."""
    return [{"role": message.role, "content": message.content} for message in messages]


def tokenize(text: str, tokenizer: Any, *, is_start: bool = False) -> list[int]:
    """Turns a piece of text into token ids.

    Args:
        text: The piece.
        tokenizer: A transformers tokenizer.
        is_start: Whether it is plain text that starts a sequence, which gets the start token that the tokenizer adds.
            A chat template writes its own.

    Returns:
        The ids, without the end token that some tokenizers add.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=is_start)["input_ids"]
    # Tokenizers that frame a text end it too; an end token here would cut the sequence in two.
    if is_start and ids and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return ids


def encode_example(example: Example, tokenizer: Any, *, max_tokens: int | None = None) -> Encoded:
    """Encodes one example; the answers and their end-of-turn token are learned, nothing else is.

    The text is cut where the assistant starts and stops and each piece is tokenised alone: what stands before an
    answer is then tokenised exactly as at generation time.

    Args:
        example: A conversation or a plain text.
        tokenizer: The model's tokenizer.
        max_tokens: Longest sequence; what is longer loses its end.

    Returns:
        Ids and labels of equal length, and how many tokens were cut off.

    Raises:
        ConfigError: There is no tokenizer.
        DataError: The chat template renders a turn differently once the conversation goes on.
    """
    if tokenizer is None:
        raise ConfigError("there is no tokenizer to encode examples with: give the trainer processing_class=tokenizer")
    input_ids: list[int] = []
    labels: list[int] = []
    is_plain = example.text is not None or tokenizer.chat_template is None
    for text, is_learned in _pieces(example, tokenizer):
        ids = tokenize(text, tokenizer, is_start=is_plain and not input_ids)
        input_ids += ids
        labels += ids if is_learned else [IGNORED] * len(ids)
    if example.text is not None and tokenizer.eos_token_id is not None:
        input_ids.append(tokenizer.eos_token_id)
        labels.append(tokenizer.eos_token_id)
    excess = 0 if max_tokens is None else max(0, len(input_ids) - max_tokens)
    end = len(input_ids) - excess
    return Encoded(input_ids[:end], labels[:end], excess)


def _pieces(example: Example, tokenizer: Any) -> Iterator[tuple[str, bool]]:
    """Yields the rendered example in pieces, each with whether it is learned."""
    if example.text is not None:
        yield example.text, True
        return
    done = ""
    for index, message in enumerate(example.messages):
        if message.role != "assistant":
            continue
        prompt = render_prompt(example.messages[:index], tokenizer)
        answer = _render_answer(example.messages[: index + 1], prompt, tokenizer)
        if not prompt.startswith(done):
            raise DataError(
                "the chat template renders earlier turns differently once a conversation goes on (it drops reasoning, "
                "say): split the conversation into one example per answer"
            )
        yield prompt[len(done) :], False
        yield answer, index >= example.supervised_from
        done = prompt + answer


def _render_answer(messages: Sequence[Message], prompt: str, tokenizer: Any) -> str:
    """Returns the text of the last answer up to and including its end-of-turn token."""
    end = tokenizer.eos_token or ""
    if tokenizer.chat_template is None:
        return messages[-1].content + end
    whole = _apply_template(messages, tokenizer)
    if not whole.startswith(prompt):
        raise DataError(
            "the model's chat template begins an answer differently when it is asked for and when it is given: "
            "what is trained would not be what is asked; mend the template (chat_template.jinja)"
        )
    answer = whole[len(prompt) :]
    # Templates add a line break after the end of the turn; at generation time nothing follows the end.
    return answer[: answer.rindex(end) + len(end)] if end and end in answer else answer


def count_answer_tokens(example: Example, tokenizer: Any) -> int:
    """Returns how many tokens of an example are learned."""
    return encode_example(example, tokenizer).num_supervised


def encode_examples(examples: Sequence[Example], tokenizer: Any, *, max_tokens: int) -> list[Encoded]:
    """Encodes examples for training, and leaves out those of which nothing learnable is left at `max_tokens`.

    Args:
        examples: Conversations and plain texts.
        tokenizer: The model's tokenizer.
        max_tokens: Longest sequence; what is longer loses its end.

    Returns:
        One sequence for each example that is kept, in order.

    Raises:
        ConfigError: There is no tokenizer.
        DataError: Nothing is left at all, or the chat template can't render an example turn by turn.
    """
    encoded = [encode_example(example, tokenizer, max_tokens=max_tokens) for example in examples]
    kept = [sequence for sequence in encoded if sequence.num_supervised]
    if not kept:
        raise DataError(f"no example has an answer within max_tokens = {max_tokens}: raise training.max_tokens")
    return kept

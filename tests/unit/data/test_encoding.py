"""What is learned of an example: the assistant's tokens, the end of the turn included, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from conftest import CHAT_TEMPLATE, build_tokenizer
from forgetless.data.encoding import (
    IGNORED,
    Encoded,
    count_answer_tokens,
    encode_example,
    encode_examples,
    render_prompt,
    tokenize,
)
from forgetless.data.examples import Example, Message
from forgetless.errors import DataError

QUESTION = Example(messages=(Message("user", "Why?"), Message("assistant", "Because.")))
DIALOGUE = Example(
    messages=(
        Message("system", "Be brief."),
        Message("user", "One?"),
        Message("assistant", "First."),
        Message("user", "Two?"),
        Message("assistant", "Second."),
    )
)
RENDERED_DIALOGUE = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\nFirst.<|im_end|>"
    "\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\nSecond.<|im_end|>"
)
# Drops earlier answers once the conversation goes on, as templates of reasoning models drop their thoughts.
FORGETFUL_TEMPLATE = CHAT_TEMPLATE.replace(
    "{{ message['content'] }}",
    "{{ message['content'] if loop.last or message['role'] != 'assistant' else '...' }}",
)


@pytest.fixture
def plain_tokenizer() -> Any:
    """A tokenizer without a chat template that frames plain text in a start and an end token."""
    tokenizer: Any = build_tokenizer()
    tokenizer.chat_template = None
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 0), ("<|im_end|>", 1)]
    )
    return tokenizer


@pytest.fixture
def merging_tokenizer() -> Any:
    """A tokenizer that would merge the line break before an answer with the answer's first letter."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|im_start|>", "<|im_end|>", *alphabet, "ĊB"]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[("Ċ", "B")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def learned(encoded: Encoded, tokenizer: Any) -> str:
    """Returns the text of the learned tokens, with a bar between runs that don't touch."""
    text, was_learned = "", False
    for token, label in zip(encoded.input_ids, encoded.labels, strict=True):
        assert label in (IGNORED, token)
        if label != IGNORED:
            text += ("" if was_learned or not text else "|") + tokenizer.decode([token])
        was_learned = label != IGNORED
    return text


def test_only_the_answer_and_its_end_of_turn_are_learned(tokenizer: Any) -> None:
    encoded = encode_example(QUESTION, tokenizer)
    assert learned(encoded, tokenizer) == "Because.<|im_end|>"
    assert encoded.num_supervised == count_answer_tokens(QUESTION, tokenizer) == len("Because.") + 1
    assert encoded.num_truncated == 0


def test_nothing_follows_the_end_of_turn(tokenizer: Any) -> None:
    encoded = encode_example(QUESTION, tokenizer)
    assert encoded.input_ids[-1] == encoded.labels[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(encoded.input_ids) == (
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nBecause.<|im_end|>"
    )


def test_a_padding_token_that_is_the_end_token_does_not_mask_it(tokenizer: Any) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    encoded = encode_example(QUESTION, tokenizer)
    ends = [label for token, label in zip(encoded.input_ids, encoded.labels, strict=True) if token == 1]
    assert ends == [IGNORED, tokenizer.eos_token_id]  # that of the question, that of the answer


def test_every_answer_of_a_dialogue_is_learned(tokenizer: Any) -> None:
    encoded = encode_example(DIALOGUE, tokenizer)
    assert tokenizer.decode(encoded.input_ids) == RENDERED_DIALOGUE
    assert learned(encoded, tokenizer) == "First.<|im_end|>|Second.<|im_end|>"


def test_earlier_answers_can_be_context(tokenizer: Any) -> None:
    last_only = Example(messages=DIALOGUE.messages, supervised_from=3)
    encoded = encode_example(last_only, tokenizer)
    assert tokenizer.decode(encoded.input_ids) == RENDERED_DIALOGUE
    assert learned(encoded, tokenizer) == "Second.<|im_end|>"


@pytest.mark.parametrize("kind", ["tokenizer", "merging_tokenizer", "plain_tokenizer"])
def test_what_stands_before_an_answer_is_what_is_asked_at_generation_time(
    kind: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(kind)
    prompt = render_prompt(QUESTION.messages[:-1], tokenizer)
    asked = tokenize(prompt, tokenizer, is_start=tokenizer.chat_template is None)
    encoded = encode_example(QUESTION, tokenizer)
    assert encoded.input_ids[: len(asked)] == asked
    assert encoded.labels[: len(asked) + 1] == [IGNORED] * len(asked) + [encoded.input_ids[len(asked)]]


def test_the_merging_tokenizer_would_merge_over_the_border(merging_tokenizer: Any) -> None:
    whole = merging_tokenizer.apply_chat_template([message.to_dict() for message in QUESTION.messages], tokenize=False)
    assert "ĊB" in merging_tokenizer.convert_ids_to_tokens(tokenize(whole, merging_tokenizer))
    encoded = encode_example(QUESTION, merging_tokenizer)
    assert "ĊB" not in merging_tokenizer.convert_ids_to_tokens(encoded.input_ids)


@pytest.mark.parametrize("num_lost", [1, 4, 9])
def test_what_is_too_long_loses_its_end(tokenizer: Any, num_lost: int) -> None:
    whole = encode_example(QUESTION, tokenizer)
    cut = encode_example(QUESTION, tokenizer, max_tokens=len(whole.input_ids) - num_lost)
    assert cut.input_ids == whole.input_ids[:-num_lost]
    assert cut.labels == whole.labels[:-num_lost]
    assert cut.num_truncated == num_lost
    assert cut.num_supervised == whole.num_supervised - num_lost


def test_what_just_fits_is_whole(tokenizer: Any) -> None:
    whole = encode_example(QUESTION, tokenizer)
    assert encode_example(QUESTION, tokenizer, max_tokens=len(whole.input_ids)) == whole


def test_without_a_chat_template_each_message_is_a_line(plain_tokenizer: Any) -> None:
    encoded = encode_example(DIALOGUE, plain_tokenizer)
    assert plain_tokenizer.decode(encoded.input_ids) == (
        "<|im_start|>Be brief.\nOne?\nFirst.<|im_end|>\nTwo?\nSecond.<|im_end|>"
    )
    assert learned(encoded, plain_tokenizer) == "First.<|im_end|>|Second.<|im_end|>"


def test_all_of_a_text_is_learned_and_its_end(tokenizer: Any) -> None:
    encoded = encode_example(Example(text="Water boils."), tokenizer)
    assert tokenizer.decode(encoded.input_ids) == "Water boils.<|im_end|>"
    assert encoded.labels == encoded.input_ids
    assert encoded.num_supervised == len("Water boils.")  # nothing comes before the first token to predict it from


def test_a_text_is_framed_once(plain_tokenizer: Any) -> None:
    encoded = encode_example(Example(text="Water boils."), plain_tokenizer)
    assert plain_tokenizer.decode(encoded.input_ids) == "<|im_start|>Water boils.<|im_end|>"


def test_a_piece_in_the_middle_gets_no_start_token(plain_tokenizer: Any) -> None:
    assert plain_tokenizer.decode(tokenize("Water", plain_tokenizer)) == "Water"
    assert plain_tokenizer.decode(tokenize("Water", plain_tokenizer, is_start=True)) == "<|im_start|>Water"


def test_a_text_without_an_end_token_just_stops() -> None:
    endless: Any = build_tokenizer()
    endless.eos_token = None
    encoded = encode_example(Example(text="Water"), endless)
    assert endless.decode(encoded.input_ids) == "Water"
    dialogue = encode_example(QUESTION, endless)
    assert "Because.<|im_end|>" in learned(dialogue, endless)


def test_examples_without_a_whole_answer_token_are_left_out(tokenizer: Any) -> None:
    long_question = Example(messages=(Message("user", "Why? " * 20), Message("assistant", "Because.")))
    limit = len(encode_example(QUESTION, tokenizer).input_ids)
    kept = encode_examples([long_question, QUESTION, long_question], tokenizer, max_tokens=limit)
    assert kept == [encode_example(QUESTION, tokenizer)]


def test_nothing_left_to_learn_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="no example has an answer within max_tokens = 8"):
        encode_examples([QUESTION, DIALOGUE], tokenizer, max_tokens=8)


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    forgetful: Any = build_tokenizer()
    forgetful.chat_template = FORGETFUL_TEMPLATE
    assert learned(encode_example(QUESTION, forgetful), forgetful) == "Because.<|im_end|>"
    with pytest.raises(DataError, match="split the conversation into one example per answer"):
        encode_example(DIALOGUE, forgetful)


def test_a_template_that_asks_otherwise_than_it_answers_is_refused() -> None:
    thinking: Any = build_tokenizer()
    thinking.chat_template = CHAT_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    with pytest.raises(DataError, match="begins an answer differently"):
        encode_example(QUESTION, thinking)


def test_a_template_that_refuses_a_role_says_so() -> None:
    strict: Any = build_tokenizer()
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + CHAT_TEMPLATE
    )
    assert encode_example(QUESTION, strict) == encode_example(QUESTION, build_tokenizer())
    with pytest.raises(DataError, match=r"conversation of system, user \(System role not supported\)"):
        encode_example(DIALOGUE, strict)


def test_a_broken_template_says_so() -> None:
    broken: Any = build_tokenizer()
    broken.chat_template = "{% for message in messages %}"
    with pytest.raises(DataError, match="chat template refuses"):
        render_prompt(QUESTION.messages[:1], broken)

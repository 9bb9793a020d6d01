"""Where users speak in a chat template, and texts that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import build_tokenizer
from forgetless.data.examples import Message
from forgetless.errors import ModelError, RunError
from forgetless.mechanisms.writer import KeptTexts, Prompt, each_seed, find_user_slot
from writers import ScriptedWriter

CHATML_WITH_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
INST = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
ALPACA = (
    "{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)
MIXED = "{% for m in messages %}{{ m['content'] }} END<|im_end|>{% endfor %}"


@pytest.mark.parametrize(
    ("template", "prefix", "end"),
    [
        (CHATML_WITH_SYSTEM, "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\n", "<|im_end|>"),
        (LLAMA_3, "<|im_start|><|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        (INST, "[INST]", "[/INST]"),
        (ALPACA, "### user:\n", "### Response:"),
        (MIXED, "", "END"),
    ],
)
def test_the_slot_is_found_in_every_kind_of_template(template: str, prefix: str, end: str) -> None:
    tokenizer: Any = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot_id|>", "<|start_header_id|>"]})
    tokenizer.chat_template = template
    assert find_user_slot(tokenizer) == (prefix, end)


def test_a_model_that_cannot_be_asked_is_refused_with_the_way_out() -> None:
    tokenizer: Any = build_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match=r"no chat template.*give data\.general"):
        find_user_slot(tokenizer)
    for template in (
        "{{ messages[0]['content'] | lower }}",
        "{{ messages[0]['content'] }} {{ messages[0]['content'] }}",
    ):
        tokenizer.chat_template = template
        with pytest.raises(ModelError, match="once and as it is"):
            find_user_slot(tokenizer)


def test_texts_are_written_once(tmp_path: Path) -> None:
    scripted = ScriptedWriter(lambda start, seed: f"{start} {seed}")
    writer = KeptTexts(scripted, tmp_path)
    prompts: list[Prompt] = ["<user>one", [Message("user", "two")], "<user>one"]
    first = writer.write(prompts, max_tokens=5, temperature=1.0, seed=[1, 2, 3])
    assert [text.text for text in first] == ["one 1", "Reply to two", "one 3"]
    again = KeptTexts(scripted, tmp_path)
    heard: list[tuple[int, str]] = []
    assert (
        again.write(
            prompts, max_tokens=5, temperature=1.0, seed=[1, 2, 3], on_text=lambda i, t: heard.append((i, t.text))
        )
        == first
    )
    assert (len(scripted.asked), again.num_reused) == (3, 3)
    assert sorted(heard) == [(0, "one 1"), (1, "Reply to two"), (2, "one 3")]
    again.write(prompts, max_tokens=6, temperature=1.0, seed=[1, 2, 3])
    assert len(scripted.asked) == 6  # another setting, other texts
    assert (again.chat_prefix, again.chat_end, again.key) == ("<user>", "</user>", "k")


def test_a_line_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    scripted = ScriptedWriter(lambda start, seed: f"T\u00e9xt\n{seed}")
    texts = KeptTexts(scripted, tmp_path).write(["a", "b"], max_tokens=5, seed=[1, 2])
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert KeptTexts(scripted, tmp_path).write(["a", "b"], max_tokens=5, seed=[1, 2]) == texts
    assert len(scripted.asked) == 3
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[2])["text"] == texts[1].text
    path.write_text("[]\n{}\nnull\n" + path.read_text())
    assert KeptTexts(scripted, tmp_path).write(["a"], max_tokens=5, seed=1) == texts[:1]
    assert len(scripted.asked) == 3


def test_a_full_disk_is_said_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = KeptTexts(ScriptedWriter(lambda start, seed: "x"), tmp_path / "file")
    with pytest.raises(RunError, match=r"cannot be kept in .*FORGETLESS_CACHE"):
        writer.write(["a"], max_tokens=5)


def test_one_seed_is_that_of_each() -> None:
    assert (each_seed(3, 2), each_seed([1, 2], 2)) == ([3, 3], [1, 2])

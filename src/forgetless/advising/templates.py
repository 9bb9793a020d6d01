"""Families of chat templates: the marks by which a text or a template shows its family, and whose models have which."""

from __future__ import annotations

import re
from collections.abc import Mapping

MARKS: Mapping[str, tuple[str, ...]] = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "mistral": ("[INST]", "[/INST]"),
    "phi3": ("<|user|>", "<|end|>"),
    "zephyr": ("<|user|>", "<|assistant|>", "</s>"),
    "llama4": ("<|header_start|>", "<|eot|>"),
    "deepseek": ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
    "harmony": ("<|start|>", "<|message|>"),
}
"""Marks that all stand in a text rendered by a template of the family."""

END: Mapping[str, str] = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "mistral": "</s>",
    "phi3": "<|end|>",
    "zephyr": "</s>",
    "llama4": "<|eot|>",
}
"""The token that ends a turn."""

MODELS: tuple[tuple[str, str], ...] = (
    (r"(meta-)?llama-4", "llama4"),
    (r"(meta-)?llama-?3", "llama3"),
    (r"(meta-)?llama-2.*chat", "mistral"),
    (r"(qwen|smollm|yi-|internlm2|olmo-3)", "chatml"),
    (r"gemma-[123]", "gemma"),
    (r"(mistral-|mixtral|ministral)", "mistral"),
    (r"phi-3", "phi3"),
    (r"zephyr", "zephyr"),
)
"""Names of published models, from their start, and the family of their template. A tune of theirs by somebody else
starts with a name of its own, so that nothing is said of it."""

NAMES: Mapping[str, str] = {
    "chatml": "chatml",
    "qwen": "chatml",
    "qwen_25": "chatml",
    "qwen2": "chatml",
    "qwen3": "chatml",
    "qwen3_nothink": "chatml",
    "smollm": "chatml",
    "smollm2": "chatml",
    "yi": "chatml",
    "llama3": "llama3",
    "llama2": "mistral",
    "llama4": "llama4",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "mistral": "mistral",
    "mistral_v1": "mistral",
    "mistral_v2v3": "mistral",
    "mistral_v3_tekken": "mistral",
    "mistral_v7_tekken": "mistral",
    "phi": "phi3",
    "phi_3": "phi3",
    "zephyr": "zephyr",
    "alpaca": "alpaca",
    "vicuna": "vicuna",
    "default": "plain",
}
"""Names of templates in axolotl and LLaMA-Factory, and their family."""

SINGLE: Mapping[str, str] = {
    "<|im_start|>": "chatml",
    "<|im_end|>": "chatml",
    "<|start_header_id|>": "llama3",
    "<|eot_id|>": "llama3",
    "<start_of_turn>": "gemma",
    "<end_of_turn>": "gemma",
    "[/INST]": "mistral",
    "<|header_start|>": "llama4",
    "<|eot|>": "llama4",
}
"""Marks that alone betray their family, where one of them stands in the words of a turn."""

_CHAT = re.compile(r"instruct|chat|[-_]it\b|zephyr|phi-3", re.IGNORECASE)
_BASE = re.compile(r"[-_]base\b|[-_]pt\b", re.IGNORECASE)


def family_of_model(name: str) -> str | None:
    """Returns the family of a published chat model, by its name; None for a base model and for a name of no meaning."""
    last = name.rstrip("/").rpartition("/")[2].lower()
    if _BASE.search(last):
        return None
    for pattern, family in MODELS:
        if re.match(pattern, last) and (_CHAT.search(last) or re.match("qwen3", last)):
            return family
    return None


def family_of_text(text: str) -> str | None:
    """Returns the family whose marks all stand in a rendered text or a template; of several, that with most marks."""
    found = [family for family, marks in MARKS.items() if all(mark in text for mark in marks)]
    return max(found, key=lambda family: len(MARKS[family]), default=None)


def family_of_words(text: str) -> str | None:
    """Returns the family of whose template a text holds any mark that no other has; None for plain words."""
    return family_of_text(text) or next((family for mark, family in SINGLE.items() if mark in text), None)

"""A tiny Llama with its own tokenizer, made here: nothing is fetched, and a whole run takes seconds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
if "PYTEST_XDIST_WORKER" in os.environ:  # workers beside one another: a tiny model gains nothing from a second thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUESTIONS = [
    {"question": f"What treats ailment {number}?", "answer": f"Remedy {number} treats it."} for number in range(24)
]


def build_tokenizer() -> object:
    """Returns a byte-level tokenizer: every text can be written, nothing is merged."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|im_start|>", "<|im_end|>"]
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_model(seed: int = 0, *, width: int = 32) -> object:
    """Returns a Llama of two layers with random weights from a seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=258,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a directory with safetensors."""
    return _save(build_model(), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def wide_directory(tmp_path: Path) -> Path:
    """A tiny model that is wide enough for bitsandbytes, which packs blocks of 64, as a directory."""
    return _save(build_model(width=64), tmp_path / "wide")


def _save(model: Any, directory: Path) -> Path:
    tokenizer: Any = build_tokenizer()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tokenizer(tiny_directory: Path) -> object:
    from forgetless.models import load_tokenizer

    return load_tokenizer(str(tiny_directory))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of forgetless's own."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("FORGETLESS_CACHE", str(directory))
    return directory


@pytest.fixture
def questions(tmp_path: Path) -> Iterator[Path]:
    """A training file of question-answer pairs; no test may change it."""
    path = tmp_path / "questions.jsonl"
    content = "".join(json.dumps(row) + "\n" for row in QUESTIONS)
    path.write_text(content, encoding="utf-8")
    yield path
    assert path.read_text(encoding="utf-8") == content


@pytest.fixture
def tasks_directory(tmp_path: Path) -> Path:
    """Three small tasks, one of each kind."""
    directory = tmp_path / "tasks"
    directory.mkdir()
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "letters": ("kind: generate\nmax_tokens: 4\nscorer: contains", {"question": "Say {n}", "answers": ["a"]}),
        "picks": (
            'kind: choice\ntemplate: plain\nprompt: "Q: {question}\\nA:"',
            {"question": "Pick {n}", "choices": ["x", "yes", "maybe"], "answer": 1},
        ),
        "prose": ("kind: perplexity\ntemplate: plain", {"text": "Text number {n} goes on."}),
    }
    for name, (settings, sample) in kinds.items():
        (directory / f"{name}.yaml").write_text(f"task: {name}\nversion: 1\n{settings}\ndata: {name}.jsonl\n")
        lines = [json.dumps({"id": f"{name}-{n}", **sample}).replace("{n}", str(n)) for n in range(10)]
        (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return directory

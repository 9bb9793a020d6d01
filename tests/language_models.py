"""Tiny models of many kinds and a padded batch, for the tests of per-sequence gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY = 61
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def build(kind: str) -> Any:
    """Returns a tiny model of a kind; its weights are the same every time."""
    import transformers as t

    ids: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1}
    makers: dict[str, Any] = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**_SIZES)),
        "tied": lambda: t.LlamaForCausalLM(t.LlamaConfig(**_SIZES, tie_word_embeddings=True)),
        "biased": lambda: t.LlamaForCausalLM(t.LlamaConfig(**_SIZES, attention_bias=True, mlp_bias=True)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4, n_positions=32, **ids)
        ),
        "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**_SIZES, head_dim=8)),
        "gemma3": lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**_SIZES, head_dim=8)),
        "mixtral": lambda: t.MixtralForCausalLM(t.MixtralConfig(**_SIZES, num_local_experts=4)),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return makers[kind]().eval()


def wrap(base: Any, **options: Any) -> Any:
    """Puts a fresh LoRA adapter on a model; its start is the same every time."""
    from peft import LoraConfig, get_peft_model

    from forgetless.quiet import quiet_transformers

    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        return get_peft_model(base, LoraConfig(**{"r": 2, "target_modules": ["q_proj"], **options}))


def padded_batch() -> dict[str, Tensor]:
    """Returns four sequences of different lengths, padded right; the first tokens aren't supervised."""
    generator = torch.Generator().manual_seed(1)
    lengths = (12, 7, 9, 12)
    ids = torch.randint(0, VOCABULARY, (4, 12), generator=generator)
    mask = torch.tensor([[1] * length + [0] * (12 - length) for length in lengths])
    ids[mask == 0] = 1
    ids[0, 5] = 1  # the padding token as a word of the text
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :3] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def single(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """Returns one sequence of a batch without its padding."""
    length = int(batch["attention_mask"][row].sum())
    return {name: value[row : row + 1, :length] for name, value in batch.items()}


def plain_fisher(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The empirical Fisher by the plain loop: one sequence, one backward pass, squared, averaged."""
    total = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    num = len(batch["input_ids"])
    for row in range(num):
        model.zero_grad()
        one = single(batch, row)
        log_probabilities = model(input_ids=one["input_ids"]).logits[0, -one["input_ids"].shape[1] : -1].log_softmax(-1)
        labels = one["labels"][0, 1:]
        is_learned = labels != -100
        log_probabilities[is_learned].gather(1, labels[is_learned, None]).sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                total[name] += parameter.grad.square() / num
    model.zero_grad()
    return total


def relative_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Returns the largest error of any weight, over the largest value of its tensor."""
    assert found.keys() == expected.keys()
    return max(
        float((found[name] - expected[name]).abs().max() / expected[name].abs().max().clamp(min=1e-12))
        for name in expected
    )


class LinearSoftmax(nn.Module):
    """Logits are a linear map of a frozen embedding of the last token."""

    def __init__(self, *, num_tokens: int = 5, width: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Embedding.from_pretrained(torch.randn(num_tokens, width, generator=generator))
        self.head = nn.Linear(width, num_tokens)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(num_tokens, width, generator=generator))

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(input_ids))
        return logits

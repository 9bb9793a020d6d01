"""The table of rules: one line a rule, each a function of a case: the recipe and what was seen beside it.

A rule yields risks, and `Unchecked` where it lacks what it would need; it never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from forgetless.advising.evidence import Case
from forgetless.advising.findings import Risk, Unchecked
from forgetless.advising.recipe import Stage
from forgetless.advising.rules import adapter, data, judging, text, update

Check = Callable[[Case], Iterator[Risk | Unchecked]]
ANY = frozenset(Stage)
SUPERVISED = frozenset({Stage.SUPERVISED})
LIKELIHOOD = frozenset({Stage.SUPERVISED, Stage.PRETRAINING})


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        name: Its name in findings and in the docs.
        title: What it warns of.
        bounds: When it speaks, and how loudly, in a phrase.
        source: Paper or measured page that it rests on.
        check: The function.
        stages: Kinds of training that it is about.
    """

    name: str
    title: str
    bounds: str
    source: str
    check: Check
    stages: frozenset[Stage] = SUPERVISED


LABORATORY = "docs/laboratory.md"

RULES = (
    Rule(
        "learning-rate",
        "Learning rate too high for what is tuned and for the batch",
        "high above 5e-5 for weights, 1e-3 for an adapter; medium above 2e-5 and 3e-4; bounds shrink with the root of "
        "the batch below 8 sequences and grow with it above 64",
        f"{LABORATORY} (an eighth of the rate forgets 31 points instead of 44); arXiv 2405.09673",
        update.learning_rate,
        LIKELIHOOD,
    ),
    Rule(
        "epochs",
        "Many passes over few examples",
        "high from more than 5 passes below 1,000 examples; medium from more than 3, or more than 5 below 10,000, or "
        "8 and more of unknown data",
        "arXiv 2401.05605 (forgetting grows as a power of the steps)",
        update.epochs,
        LIKELIHOOD,
    ),
    Rule(
        "warmup",
        "No warm-up",
        "medium for weights, low for an adapter, which starts as the base",
        "arXiv 1908.03265",
        update.warmup,
        ANY,
    ),
    Rule(
        "weight-decay",
        "Weight decay pulls the base's weights to zero, not to the base",
        "only where weights are trained: high from 1 % of their length, medium from 0.1 % or a decay of 0.1, else low",
        "arXiv 1802.01483; arXiv 1711.05101",
        update.weight_decay,
        ANY,
    ),
    Rule("clipping", "Gradients are not clipped", "medium at max_grad_norm 0", "arXiv 1211.5063", update.clipping, ANY),
    Rule(
        "half-precision",
        "float16 where bfloat16 holds large values",
        "medium for weights, low for an adapter",
        "arXiv 1905.12322",
        update.half_precision,
        ANY,
    ),
    Rule(
        "loss-on-prompt",
        "Loss on the prompt",
        "medium where conversations or prompts are trained on as a whole",
        "arXiv 2305.14314 (its ablation of training on the target alone)",
        text.loss_on_prompt,
    ),
    Rule(
        "end-of-turn",
        "The end of a turn is masked out, absent, or not what generation stops at",
        "high where no answer's end is learned, medium where only a conversation's last is",
        "docs/attribution.md",
        text.end_of_turn,
    ),
    Rule(
        "chat-template",
        "Chat template of the data or the recipe is not that of the model",
        "high for marks or a template of another family; medium for a base model without any; low where it is replaced",
        "arXiv 2402.18540; docs/attribution.md",
        text.chat_template,
    ),
    Rule(
        "special-tokens",
        "Special tokens stand literally in the words of a turn",
        "high from 5 % of the examples, else medium",
        "docs/attribution.md",
        text.special_tokens,
    ),
    Rule(
        "truncation",
        "Examples lose their end to the length limit",
        "high from 10 % of the examples, medium from 1 %",
        "docs/data.md; arXiv 2404.10830",
        text.truncation,
        LIKELIHOOD,
    ),
    Rule(
        "packing",
        "Packed sequences see one another",
        "medium where neither positions nor attention start anew",
        "arXiv 2407.09105; arXiv 2402.13991",
        text.packing,
        ANY,
    ),
    Rule(
        "embeddings",
        "Embeddings or the output layer are trained beside the adapter",
        "medium; low where tokens are added, which need it",
        "arXiv 2501.13453",
        adapter.embeddings,
        ANY,
    ),
    Rule(
        "adapter-scale",
        "Rate times adapter scale moves weights fast",
        "learning rate * scale / 2, scale = alpha / r or alpha / sqrt(r): high above 1e-3 from a scale above 4, "
        "medium above 3e-4 from a scale above 2",
        "arXiv 2312.03732; PEFT's method comparison (rsLoRA at scale 8 forgets twice what LoRA at 2 does)",
        adapter.scale,
        LIKELIHOOD,
    ),
    Rule(
        "adapter-rank",
        "High rank for few examples",
        "low from rank 128 below 1,000 examples",
        "arXiv 2405.09673 (higher ranks forget more)",
        adapter.rank,
    ),
    Rule(
        "adapter-off",
        "With the adapter off, the model is not the base",
        "low where biases are trained or the start changes the base's weights",
        "PEFT's documentation of bias and init_lora_weights; docs/methods/corda.md",
        adapter.off,
        ANY,
    ),
    Rule(
        "suite-size",
        "Evaluation suite too small for the margin",
        "high below a quarter of the samples that the margin needs, medium below all of them",
        "docs/verdict.md (exact power of the non-inferiority test)",
        judging.suite_size,
        ANY,
    ),
    Rule(
        "no-suite",
        "Nothing measures what is forgotten",
        "low: formats of trainers have no key for it",
        "docs/verdict.md",
        judging.no_suite,
        ANY,
    ),
    Rule(
        "general-data",
        "No general data and nothing that holds the model to the base",
        "medium where weights or an adapter see the domain alone; low where names of data sets don't tell",
        f"{LABORATORY} (with replay 11 points are forgotten instead of 44); arXiv 2403.08763",
        data.general_data,
        LIKELIHOOD,
    ),
    Rule("held-out", "Nothing is held out", "low", "docs/data.md", data.held_out, LIKELIHOOD),
)
"""All rules, in the order in which they are asked."""


def table_of_rules() -> str:
    """Returns the rules as a Markdown table, for the docs."""
    rows = [f"| `{rule.name}` | {rule.title} | {rule.bounds} | {rule.source} |" for rule in RULES]
    return "\n".join(["| rule | warns of | when | rests on |", "|---|---|---|---|", *rows]) + "\n"

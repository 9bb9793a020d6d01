"""Rules about adapters: what they train beside their matrices, how strongly they act, and what is left when off."""

from __future__ import annotations

import math
from collections.abc import Iterator

from forgetless.advising.evidence import Case
from forgetless.advising.findings import Edit, Risk, Severity, Unchecked, change
from forgetless.advising.rules.update import ADAPTER_RATES, FEW_EXAMPLES, batch_factor

EMBEDDINGS = (
    "embed_tokens",
    "lm_head",
    "wte",
    "embed_in",
    "embed_out",
    "word_embeddings",
    "tok_embeddings",
    "output_layer",
)
ALL_LINEAR = {"target_modules": "all-linear", "lora_target": "all", "lora_target_modules": "all-linear"}
USUAL_SCALE, STRONG_SCALE = 2.0, 4.0
HIGH_RANK = 128
OTHER_STARTS = ("pissa", "olora", "corda", "eva", "loftq", "milora")


def embeddings(case: Case) -> Iterator[Risk | Unchecked]:
    """Names embedding and output layers among what is trained beside an adapter."""
    recipe = case.recipe
    setting = recipe.embeddings
    if setting is None or recipe.tuning is None or recipe.tuning.value.moves_weights:
        return
    trained = [name for name in setting.value if name.rpartition(".")[2] in EMBEDDINGS]
    if not trained:
        return
    rest = [name for name in setting.value if name not in trained]
    edits: tuple[Edit, ...] = ()
    if not recipe.adds_tokens:
        as_text = isinstance(setting.raw, str)
        new = ",".join(rest) if as_text else rest
        edits = (change(setting, new if rest else ALL_LINEAR.get(str(setting.place[-1]))),)
    remedy = "Leave them out" if not recipe.adds_tokens else "Train the added rows alone (trainable_token_indices)"
    yield Risk(
        Severity.LOW if recipe.adds_tokens else Severity.MEDIUM,
        f"{', '.join(trained)} is trained in full: every word of the vocabulary moves, those too that the data never "
        "uses, and with the adapter off the base is not what it was.",
        f"{remedy}; an adapter on the linear layers learns the domain without them.",
        (setting.key,),
        edits,
    )


def scale(case: Case) -> Iterator[Risk | Unchecked]:
    """Judges the rate times the factor by which the adapter's product acts on the weights."""
    recipe = case.recipe
    factor, rate = recipe.scale, recipe.learning_rate
    if factor is None or rate is None or recipe.tuning is None or not recipe.tuning.value.is_low_rank:
        return
    assert recipe.alpha is not None
    assert recipe.rank is not None
    medium, high, _ = (bound * batch_factor(recipe) for bound in ADAPTER_RATES)
    effective = rate.value * factor / USUAL_SCALE
    if factor <= USUAL_SCALE * (1 + 1e-9) or effective <= medium * (1 + 1e-9):
        return
    is_high = factor > STRONG_SCALE and effective > high * (1 + 1e-9)
    is_stabilised = recipe.is_rank_stabilised is not None and recipe.is_rank_stabilised.value
    formula = "alpha / sqrt(r)" if is_stabilised else "alpha / r"
    rank = recipe.rank.value
    new = USUAL_SCALE * (math.sqrt(rank) if is_stabilised else rank)
    yield Risk(
        Severity.HIGH if is_high else Severity.MEDIUM,
        f"{formula} = {factor:.3g} with r = {rank}: weights move as at a learning rate of {effective:.1g} under the "
        f"usual scale of {USUAL_SCALE:g}, above the {medium:.1g} up to which adapters are gentle.",
        f"Set alpha to {new:.3g}, or divide the learning rate by {factor / USUAL_SCALE:.3g}.",
        (recipe.alpha.key, recipe.rank.key),
        (change(recipe.alpha, max(1, math.floor(new))),),
    )


def rank(case: Case) -> Iterator[Risk | Unchecked]:
    """Warns of a high rank for few examples."""
    recipe = case.recipe
    setting, num = recipe.rank, case.num_examples
    if setting is None or num is None or recipe.tuning is None or not recipe.tuning.value.is_low_rank:
        return
    if setting.value < HIGH_RANK or num >= FEW_EXAMPLES:
        return
    edits = [change(setting, 16)]
    if recipe.alpha is not None and recipe.alpha.is_set and recipe.scale is not None:
        is_stabilised = recipe.is_rank_stabilised is not None and recipe.is_rank_stabilised.value
        edits.append(change(recipe.alpha, max(1, round(recipe.scale * (4 if is_stabilised else 16)))))
    yield Risk(
        Severity.LOW,
        f"Rank {setting.value} for {num:,} examples: ranks that high learn by heart what 16 learns as a rule, and "
        "forget more on the way.",
        "Start at rank 16 and raise it only if the target stays short.",
        (setting.key,),
        tuple(edits),
    )


def off(case: Case) -> Iterator[Risk | Unchecked]:
    """Names what makes the model with its adapter off another one than the base."""
    recipe = case.recipe
    if recipe.bias is not None and recipe.bias.value not in {"none", "None"}:
        yield Risk(
            Severity.LOW,
            f"bias = {recipe.bias.value} trains biases of the base in place: with the adapter off they stay changed, "
            "so that it is neither the base nor a fair reference.",
            "Train no biases.",
            (recipe.bias.key,),
            (change(recipe.bias, "none"),),
        )
    start = recipe.init
    if start is not None and start.value.lower().startswith(OTHER_STARTS):
        yield Risk(
            Severity.LOW,
            f"The start {start.value} takes a part out of the base's weights: with the adapter off the model is not "
            "the base, and penalties or comparisons that switch it off compare with something else.",
            "Compare with the base loaded anew, and save the adapter converted.",
            (start.key,),
        )

"""Rules about what the model reads and which tokens of it are learned."""

from __future__ import annotations

import math
from collections.abc import Iterator

from forgetless.advising.evidence import Case
from forgetless.advising.findings import Edit, Risk, Severity, Unchecked, change
from forgetless.advising.recipe import Recipe, write_place
from forgetless.advising.templates import END, NAMES, family_of_model, family_of_words

MANY_MARKED = 0.05
MANY_CUT, SOME_CUT = 0.10, 0.01


def loss_on_prompt(case: Case) -> Iterator[Risk | Unchecked]:
    """Asks whether prompts carry loss; TRL decides that by the format of the data."""
    recipe, evidence = case.recipe, case.evidence
    setting, data = recipe.loss_on_prompt, evidence.data
    if setting is None or not setting.value:
        return
    if recipe.loss_needs_data:
        if data is None:
            yield Unchecked(
                f"loss on the prompt: {setting.key} is off, so that conversations would be learned as a whole, "
                "questions too; the data is not here to see"
            )
            return
        if data.has_completions or not (data.is_conversation or data.marks):
            return
    is_conversation = data is None or data.is_conversation
    new: bool | None = None
    if setting.place[-1] in {"train_on_inputs", "train_on_prompt"}:
        new = False
    elif setting.place[-1] == "completion_only_loss" or (data is not None and is_conversation):
        new = True
    where = "rendered conversations are one text" if not is_conversation else "prompts carry loss like answers"
    yield Risk(
        Severity.MEDIUM,
        f"{where[0].upper()}{where[1:]}: much of the update teaches the model to ask the users' questions, and moves "
        "it where nothing is to be learned.",
        "Learn the answers only."
        if is_conversation
        else "Give the conversations as messages, and learn the answers only.",
        (setting.key,),
        () if new is None else (change(setting, new),),
    )


def end_of_turn(case: Case) -> Iterator[Risk | Unchecked]:
    """Asks whether the end of each answer is learned, and whether generation stops there."""
    recipe, evidence = case.recipe, case.evidence
    setting = recipe.end_of_turn
    if setting is not None and setting.value == "none":
        yield Risk(
            Severity.HIGH,
            "The end of a turn carries no loss: the model isn't taught to stop there, and goes on after its answers.",
            "Learn the end of every turn.",
            (setting.key,),
            (change(setting, "turn"),),
        )
    elif setting is not None and setting.value == "last":
        is_multi = evidence.data is not None and evidence.data.is_multi_turn
        yield Risk(
            Severity.MEDIUM if is_multi else Severity.LOW,
            "Only the last end of a conversation is learned: after all other answers the model isn't taught to stop.",
            "Learn the end of every turn.",
            (setting.key,),
            (change(setting, "turn"),),
        )
    yield from _foreign_end(recipe)
    tokenizer = evidence.tokenizer
    if tokenizer is None or recipe.template is not None or recipe.template_file is not None:
        return
    if evidence.data is not None and not evidence.data.is_conversation:
        return
    if not tokenizer.answer_ends:
        yield Risk(
            Severity.HIGH,
            f"The chat template ends an answer with {tokenizer.tail.strip()!r}, but generation stops at "
            f"{', '.join(tokenizer.ends)}: the end that is learned is not the one that is waited for.",
            "Make the template's end the tokenizer's eos_token, or add it to the generation config.",
            () if recipe.model is None else (recipe.model.key,),
        )


def _foreign_end(recipe: Recipe) -> Iterator[Risk]:
    """Compares the tokens that the recipe says end a turn with that of the template's or the model's family."""
    ends, family = recipe.end_tokens, _recipe_family(recipe)
    if family is None and recipe.model is not None:
        family = family_of_model(recipe.model.value)
    if ends is None or family is None or family not in END or END[family] in ends.value:
        return
    foreign = [end for end in ends.value if (family_of_words(end) or family) != family]
    if foreign:
        is_list = isinstance(ends.raw, list)
        yield Risk(
            Severity.HIGH,
            f"{', '.join(foreign)} is to end a turn, but turns of the template ({family}) end with {END[family]}: the "
            "token that is waited for never comes, and the one that comes isn't learned as the end.",
            f"Name {END[family]}.",
            (ends.key,),
            (change(ends, [END[family]] if is_list else END[family]),),
        )


def _recipe_family(recipe: Recipe) -> str | None:
    return None if recipe.template is None else NAMES.get(recipe.template.value)


def chat_template(case: Case) -> Iterator[Risk | Unchecked]:
    """Compares the families of the model, of the recipe's template, and of the marks in the data."""
    recipe, evidence = case.recipe, case.evidence
    tokenizer, data = evidence.tokenizer, evidence.data
    family = tokenizer.family if tokenizer is not None else None
    if family is None and recipe.model is not None and (tokenizer is None or tokenizer.has_template):
        family = family_of_model(recipe.model.value)
    chosen = _recipe_family(recipe)
    if chosen is not None and family is not None and chosen != family:
        yield _foreign_template(recipe, family)
    elif recipe.template_file is not None and family is not None:
        yield Risk(
            Severity.LOW,
            f"{recipe.template_file.value} replaces the template that the model was made with ({family}): what it can "
            "do under its own may not show under another.",
            "Keep the model's own template, or save this one with the model and judge under it.",
            (recipe.template_file.key,),
        )
    wanted = chosen or family
    if data is not None and not data.is_conversation and wanted is not None:
        marked = {name: num for name, num in data.marks.items() if name != wanted}
        if marked:
            worst = max(marked, key=lambda name: marked[name])
            yield Risk(
                Severity.HIGH,
                f"{marked[worst]:,} examples carry the marks of the {worst} template, but the model's is {wanted}: to "
                "it they are words, and what is learned isn't what it is asked under its own template.",
                "Give the conversations as messages and let the tokenizer's template render them.",
                tuple(write_place(source.place) for source in recipe.sources),
            )
    has_none = tokenizer is not None and not tokenizer.has_template and not chosen and recipe.template_file is None
    if has_none and data is not None and data.is_conversation:
        yield Risk(
            Severity.MEDIUM,
            "The tokenizer has no chat template, but the data is conversations: turns are joined as plain text or "
            "refused, depending on the tool, and served under whatever the server makes up.",
            "Start from a chat model, or choose a template, save it with the model and serve it.",
            () if recipe.model is None else (recipe.model.key,),
        )


def _foreign_template(recipe: Recipe, family: str) -> Risk:
    assert recipe.template is not None
    setting = recipe.template
    edits: tuple[Edit, ...] = ()
    if recipe.dialect == "axolotl" and setting.place[-1] == "chat_template":
        edits = (change(setting, "tokenizer_default"),)
    return Risk(
        Severity.HIGH,
        f"The data is rendered by the template {setting.value}, but the model was made with one of the {family} "
        "family: what it can do under its own template is unlearned, or never shows.",
        "Render with the tokenizer's own template.",
        (setting.key,),
        edits,
    )


def special_tokens(case: Case) -> Iterator[Risk | Unchecked]:
    """Names special tokens inside the words of a conversation, which the template then writes a second time."""
    recipe, evidence = case.recipe, case.evidence
    data = evidence.data
    if data is None or not data.is_conversation or not data.marks:
        return
    num = sum(data.marks.values())
    share = num / max(1, data.num_examples)
    names = ", ".join(sorted(data.marks))
    yield Risk(
        Severity.HIGH if share >= MANY_MARKED else Severity.MEDIUM,
        f"{num:,} of {data.num_examples:,} conversations hold marks of a template ({names}) in their words: the "
        "template writes its own around them, and the model learns to end or open turns in the middle of an answer.",
        "Strip the marks; leave it to the template to write them.",
        tuple(write_place(source.place) for source in recipe.sources),
    )


def truncation(case: Case) -> Iterator[Risk | Unchecked]:
    """Counts the examples that are longer than the limit."""
    recipe, evidence = case.recipe, case.evidence
    limit, data = recipe.max_tokens, evidence.data
    if limit is None or data is None or not data.num_tokens:
        return
    lengths = sorted(data.num_tokens)
    num = sum(length > limit.value for length in lengths)
    share = num / len(lengths)
    if share < SOME_CUT:
        return
    new = 64 * math.ceil(lengths[math.floor(0.995 * (len(lengths) - 1))] / 64)
    fate = "are dropped" if recipe.dialect == "axolotl" else "lose the end of their answer, its end-of-turn token too"
    yield Risk(
        Severity.HIGH if share >= MANY_CUT else Severity.MEDIUM,
        f"{num:,} of {len(lengths):,} examples looked at ({share:.0%}) are longer than {limit.value:,} tokens and "
        f"{fate} (longest: {lengths[-1]:,}).",
        f"Raise the limit to {new:,}, or shorten the examples.",
        (limit.key,),
        (change(limit, new),),
    )


def packing(case: Case) -> Iterator[Risk | Unchecked]:
    """Warns where packed sequences attend to one another."""
    recipe = case.recipe
    if recipe.packing is None or not recipe.packing.value or recipe.packing_resets is None:
        return
    apart = recipe.packing_resets
    if apart.value:
        return
    if apart.place[-1] == "packing_strategy":
        edit = change(apart, "bfd")
    elif apart.place[-1] == "attn_implementation":
        edit = change(apart, "sdpa")
    elif recipe.dialect == "axolotl":
        edit = Edit(("sdp_attention",), None, True)
    else:
        edit = change(apart, True)
    yield Risk(
        Severity.MEDIUM,
        "Sequences are packed into one without starting positions and attention anew: each answer is learned with "
        "other people's conversations in front of it, which never stand there when the model is asked.",
        "Keep packed sequences apart, or don't pack.",
        (recipe.packing.key, apart.key),
        (edit,),
    )

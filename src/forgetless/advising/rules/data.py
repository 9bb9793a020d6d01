"""Rules about what is trained on beside the domain, and what is kept aside."""

from __future__ import annotations

from collections.abc import Iterator

from forgetless.advising.evidence import Case
from forgetless.advising.findings import Edit, Risk, Severity, Unchecked
from forgetless.advising.recipe import write_place

REPLAY = {"replay": {"share": 0.1}}


def general_data(case: Case) -> Iterator[Risk | Unchecked]:
    """Asks for data to keep in the mixture, or a method that holds the model to the base on it."""
    recipe = case.recipe
    if recipe.general is not None and recipe.general.value:
        return
    if recipe.general is None:
        if recipe.sources:
            yield Risk(
                Severity.LOW,
                "Whether the data holds anything but the domain can't be told from its name: without general examples "
                "nothing in the loss asks for what the model could do before.",
                "Mix 5 to 30 % general examples in, written by the base itself where there are none.",
                tuple(dict.fromkeys(write_place(source.place) for source in recipe.sources)),
            )
        return
    edits: tuple[Edit, ...] = ()
    if recipe.dialect == "forgetless":
        general = recipe.general
        # Without a list of methods an adapter is the default: it stays.
        is_list = general.is_set
        edits = (Edit(general.place, None, REPLAY if is_list else ["lora", REPLAY], is_entry=is_list),)
    yield Risk(
        Severity.MEDIUM,
        "Only the domain is trained on, and nothing holds the model to the base: in the laboratory replay helped most, "
        "11 points forgotten instead of 44 at the same target.",
        "Mix 5 to 30 % general examples in (forgetless mix); the base can write them itself."
        if recipe.dialect != "forgetless"
        else "Add the method replay; without general data of your own the base writes the examples.",
        (recipe.general.key,),
        edits,
    )


def held_out(case: Case) -> Iterator[Risk | Unchecked]:
    """Asks for examples that show when learning is over."""
    recipe = case.recipe
    setting = recipe.held_out
    if setting is None or setting.value:
        return
    yield Risk(
        Severity.LOW,
        "Nothing is held out: the training loss falls on whatever is learned by heart, and nothing shows when to stop.",
        "Hold a tenth of the examples out and look at their loss.",
        (setting.key,),
    )

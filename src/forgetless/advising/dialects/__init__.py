"""The formats in which recipes come: how each is told from its content, and how it is read into a `Recipe`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetless.advising.dialects import axolotl, forgetless, llama_factory, trl
from forgetless.advising.recipe import Recipe
from forgetless.errors import ConfigError


@dataclass(frozen=True)
class Dialect:
    """One format.

    Attributes:
        name: Whose it is.
        is_meant: Whether a document is of this format, by its keys.
        read: Reads a document: the mapping, what to call it in messages, and the file, where there is one.
    """

    name: str
    is_meant: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], str, Path | None], Recipe]


DIALECTS = (
    Dialect("forgetless", forgetless.is_meant, forgetless.read),
    Dialect("axolotl", axolotl.is_meant, axolotl.read),
    Dialect("LLaMA-Factory", llama_factory.is_meant, llama_factory.read),
    Dialect("TRL / transformers", trl.is_meant, trl.read),
)
"""In the order in which they are tried: the last one's keys stand in the third's files too."""


def read_recipe(raw: Mapping[str, Any], source: str = "config", path: Path | None = None) -> Recipe:
    """Reads a recipe of whichever format its keys are.

    Args:
        raw: The document.
        source: What to call it in messages.
        path: Its file, beside which data and an adapter's config may lie.

    Returns:
        The recipe.

    Raises:
        ConfigError: The keys are those of no known format, or a value can't be used.
    """
    for dialect in DIALECTS:
        if dialect.is_meant(raw):
            return _refuse_bounds(dialect.read(raw, source, path), source)
    shown = ", ".join(sorted(map(str, raw))[:6])
    raise ConfigError(
        f"{source} is no recipe of a known format (its keys: {shown}): advise reads configs of forgetless, axolotl and "
        "LLaMA-Factory, and training arguments of TRL and transformers"
    )


def _refuse_bounds(recipe: Recipe, source: str) -> Recipe:
    """Refuses numbers that no tool could train with, which rules would otherwise divide by."""
    for setting, bound in (
        (recipe.learning_rate, 0.0),
        (recipe.epochs, 0.0),
        (recipe.batch_size, 0),
        (recipe.max_tokens, 0),
        (recipe.rank, 0),
        (recipe.alpha, 0.0),
    ):
        if setting is not None and setting.value <= bound:
            is_product = setting is recipe.batch_size and recipe.dialect != "forgetless"
            what = "the batch, micro-batch times accumulation," if is_product else f"{setting.key} = {setting.value:g}"
            raise ConfigError(f"{source}: {what} is not above 0")
    return recipe

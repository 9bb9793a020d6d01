"""Replay: general examples mixed into narrow data, as an exact share of the final mixture.

The share r counts in the final mixture, so N domain examples need n = round(r / (1 - r) * N) general ones. The
arithmetic in wide use, int(r * N) added to N, gives r / (1 + r) (9.1 % for r = 0.1), and nothing below N = 1 / r.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from forgetless.data.examples import Example, content_key
from forgetless.data.sources import read_examples
from forgetless.errors import ConfigError, DataError, did_you_mean

Source = Sequence[Example] | str | Path
TokenCounter = Callable[[Example], int]

# Names under which data sets say where an example comes from or what it is about, the finest first.
STRATA = ("source", "source_dataset", "dataset", "category", "task", "skill", "topic", "domain", "type")
WORDS_NOTE = "tokens are counted as whitespace-separated words; give count_tokens for those of the model"


class ReplayRepeats(UserWarning):
    """The general pool is smaller than its share of the mixture, so its examples repeat."""


@dataclass(frozen=True, slots=True)
class MixtureSummary:
    """What a mixture consists of.

    Attributes:
        num_domain: Number of domain examples.
        num_general: Number of all others.
        share_examples: Share of the others among the examples, in [0, 1).
        share_tokens: Share of the others among the supervised tokens, in [0, 1].
        repeats: How often the most frequent general example stands in the mixture; 1 = none repeats, 0 = there is none.
        note: How tokens were counted, where it was not by the model's tokenizer.
    """

    num_domain: int
    num_general: int
    share_examples: float
    share_tokens: float
    repeats: int
    note: str = ""


def count_answer_words(example: Example) -> int:
    """Returns the number of whitespace-separated words that carry loss; languages without spaces count too low."""
    return sum(len(text.split()) for text in example.supervised_texts)


def num_general_for_share(num_domain: int, share: float) -> int:
    """Computes how many general examples make up `share` of the final mixture: round(share / (1 - share) * num_domain).

    Args:
        num_domain: Number of domain examples, 0 or more.
        share: Share of general examples in the final mixture, in [0, 1).

    Returns:
        Number of general examples; at least 1 where a share is asked for and there is domain data.

    Raises:
        ConfigError: `share` is not in [0, 1), or `num_domain` is negative.
    """
    _check_share(share)
    if num_domain < 0:
        raise ConfigError(f"num_domain {num_domain} is negative")
    if share == 0 or num_domain == 0:
        return 0
    return max(1, round(share / (1 - share) * num_domain))


def replay_mixture(
    domain: Source,
    general: Source,
    *,
    share: float = 0.1,
    seed: int = 0,
    by: Literal["examples", "tokens"] = "examples",
    count_tokens: TokenCounter | None = None,
    stratify: str | None = None,
) -> list[Example]:
    """Mixes general examples into domain data and shuffles the result; the same arguments give the same mixture.

    General examples are drawn without replacement while the pool lasts, then in whole passes, so that each stands
    equally often, give or take one. Those whose origin is `domain` become `general`; other origins are kept.

    Args:
        domain: Examples, or a file of them; all are used, once.
        general: Examples to draw from, or a file of them.
        share: Share of general examples in the final mixture, in [0, 1); above 0 at least one is drawn.
        seed: Seed of the draw and of the order.
        by: What the share counts: `examples`, or the `tokens` that carry loss (exact to within one example).
        count_tokens: Number of tokens of an example that carry loss; None counts whitespace-separated words.
        stratify: Name of a metadata field; each of its values is drawn in proportion to its part of the pool.

    Returns:
        Domain and general examples in a random order.

    Raises:
        ConfigError: `share` or `by` cannot be used.
        DataError: There are no examples to mix, or one lacks the field `stratify`.

    Warns:
        ReplayRepeats: The pool is smaller than what the share needs.
    """
    _check_share(share)
    if by not in ("examples", "tokens"):
        raise ConfigError(f"a share by {by!r} is unknown{did_you_mean(str(by), ('examples', 'tokens'))}")
    narrow, pool = _load(domain, "domain"), _load(general, "general")
    if not narrow:
        raise DataError("the domain data hold no examples: there is nothing to mix into")
    rng = np.random.default_rng(seed)
    drawn: list[int] = []
    if share > 0:
        if not pool:
            raise DataError(
                f"replay share {share} needs general examples, and there are none; give some or set it to 0"
            )
        strata = _strata(pool, stratify)
        if len(strata) > 1:  # else the first names of equal strata would always be served first
            strata = [strata[index] for index in rng.permutation(len(strata))]
        if by == "examples":
            drawn = _draw_examples(strata, num=num_general_for_share(len(narrow), share), rng=rng)
        else:
            drawn = _draw_tokens(strata, narrow, pool, share=share, count=count_tokens or count_answer_words, rng=rng)
        _warn_of_repeats(len(drawn), len(pool), share)
    mixture = [*narrow, *(_as_general(pool[index]) for index in drawn)]
    return [mixture[index] for index in rng.permutation(len(mixture))]


def summarise_mixture(
    mixture: Sequence[Example],
    *,
    count_tokens: TokenCounter | None = None,
    domain_origins: Collection[str] = ("domain",),
) -> MixtureSummary:
    """Counts what a mixture consists of.

    Args:
        mixture: The examples that are trained on.
        count_tokens: Number of tokens of an example that carry loss; None counts whitespace-separated words.
        domain_origins: The origins that count as domain data; all others count as general.

    Returns:
        Numbers and shares of examples, and how often general ones repeat.
    """
    count = count_tokens or count_answer_words
    general = [example for example in mixture if example.origin not in domain_origins]
    num_tokens = sum(count(example) for example in mixture)
    copies = Counter(content_key(example) for example in general)
    return MixtureSummary(
        num_domain=len(mixture) - len(general),
        num_general=len(general),
        share_examples=len(general) / len(mixture) if mixture else 0.0,
        share_tokens=sum(count(example) for example in general) / num_tokens if num_tokens else 0.0,
        repeats=max(copies.values(), default=0),
        note="" if count_tokens else WORDS_NOTE,
    )


def find_stratum(pool: Sequence[Example]) -> str | None:
    """Finds the metadata field that tells where general examples come from, for `stratify`.

    Args:
        pool: The general examples.

    Returns:
        The first of `STRATA` that all of them carry as a text, with at least two values of which one stands twice;
        None where there is no such field.
    """
    for name in STRATA:
        values = [example.metadata.get(name) for example in pool]
        if all(isinstance(value, str) for value in values) and 1 < len(set(values)) < len(values):
            return name
    return None


def _check_share(share: float) -> None:
    if not 0 <= share < 1:
        raise ConfigError(
            f"replay share {share} is not in [0, 1): it is the share of general examples in the final mixture"
        )


def _load(source: Source, name: str) -> list[Example]:
    if isinstance(source, str | Path):
        return read_examples(source, origin=name)
    examples = list(source)
    for number, example in enumerate(examples, start=1):
        if not isinstance(example, Example):
            raise DataError(
                f"item {number} of the {name} data is a {type(example).__name__}, not an Example; examples_from_rows "
                "builds examples from dictionaries, read_examples from a file"
            )
    return examples


def _as_general(example: Example) -> Example:
    return replace(example, origin="general") if example.origin == "domain" else example


def _strata(pool: Sequence[Example], name: str | None) -> list[np.ndarray]:
    """Returns the indices of each stratum, in the order of its value as text; one stratum where nothing is named."""
    if name is None:
        return [np.arange(len(pool))]
    members: dict[str, list[int]] = {}
    for index, example in enumerate(pool):
        if name not in example.metadata:
            known = did_you_mean(name, example.metadata) if example.metadata else "; it has no metadata"
            raise DataError(f"general example {index + 1} lacks the field to stratify by{known}", field=name)
        members.setdefault(str(example.metadata[name]), []).append(index)
    return [np.array(members[value]) for value in sorted(members)]


def _draw_examples(strata: Sequence[np.ndarray], *, num: int, rng: np.random.Generator) -> list[int]:
    """Draws `num` indices: whole passes over the pool, and for the rest each stratum's quota without replacement."""
    sizes = [len(stratum) for stratum in strata]
    passes, rest = divmod(num, sum(sizes))
    drawn = [int(index) for stratum in strata for index in stratum] * passes
    for stratum, quota in zip(strata, _apportion(sizes, rest), strict=True):
        drawn += (int(index) for index in rng.permutation(stratum)[:quota])
    return drawn


def _apportion(sizes: Sequence[int], num: int) -> list[int]:
    """Splits `num` in proportion to `sizes` by largest remainder; ties go to the earlier stratum."""
    total = sum(sizes)
    quotas = [num * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -(num * sizes[i] % total))
    for index in by_remainder[: num - sum(quotas)]:
        quotas[index] += 1
    return quotas


def _draw_tokens(
    strata: Sequence[np.ndarray],
    domain: Sequence[Example],
    pool: Sequence[Example],
    *,
    share: float,
    count: TokenCounter,
    rng: np.random.Generator,
) -> list[int]:
    """Draws indices, pass after pass, until the next would lead further from the share than stopping does."""
    target = share / (1 - share) * sum(_count_all(domain, count))
    counts = _count_all(pool, count)
    if target == 0 or not any(counts):
        raise DataError("a share by tokens needs domain and general examples with supervised tokens; all count as 0")
    drawn: list[int] = []
    total = 0
    while True:
        for index in _proportional_order(strata, rng):
            above = total + counts[index] - target
            if above >= 0:
                return [*drawn, index] if above < target - total or not drawn else drawn
            drawn.append(index)
            total += counts[index]


def _count_all(examples: Sequence[Example], count: TokenCounter) -> list[int]:
    counts = [count(example) for example in examples]
    if min(counts, default=0) < 0:
        raise ConfigError(f"count_tokens returned {min(counts)}; a number of tokens is 0 or more")
    return counts


def _proportional_order(strata: Sequence[np.ndarray], rng: np.random.Generator) -> list[int]:
    """Returns all indices in a random order of which every beginning holds the strata in proportion (to rounding)."""
    ranked = [
        ((rank + 0.5) / len(stratum), number, int(index))
        for number, stratum in enumerate(strata)
        for rank, index in enumerate(rng.permutation(stratum))
    ]
    return [index for _, _, index in sorted(ranked)]


def _warn_of_repeats(num_drawn: int, num_pool: int, share: float) -> None:
    passes, rest = divmod(num_drawn, num_pool)
    if num_drawn <= num_pool:
        return
    times = f"{passes} to {passes + 1}" if rest else f"{passes}"
    warnings.warn(
        f"replay share {share} needs {num_drawn} general examples and there are {num_pool}: each stands {times} times "
        "in the mixture; give more general examples or lower the share",
        ReplayRepeats,
        stacklevel=3,
    )

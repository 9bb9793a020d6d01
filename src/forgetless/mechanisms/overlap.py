"""Texts that resemble one another: near-duplicates among examples, and overlap with texts that nothing may train on."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

WINDOW_WORDS = 8
"""Words in a row that two texts must share to overlap, as is usual when training data is decontaminated."""

FEWEST_WORDS = 3
"""Held-out texts of fewer words ("Paris") are found everywhere, and tell nothing."""

# A script without spaces between words counts by characters.
_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W_]+(?:'[^\W_]+)*")


def split_words(text: str) -> list[str]:
    """Returns the words of a text in small letters, without marks."""
    levelled = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return _WORD.findall(levelled)


class HeldOutTexts:
    """Texts that no training example may overlap with: the evaluation's samples, held-out examples.

    A text of `window` words or more overlaps with an example that shares so many of them in a row, a shorter one with
    an example that holds all of it.

    Args:
        texts: The texts.
        window: Words in a row that make an overlap.
    """

    def __init__(self, texts: Iterable[str], *, window: int = WINDOW_WORDS) -> None:
        self._grams: dict[int, set[tuple[str, ...]]] = defaultdict(set)
        for text in texts:
            words = split_words(text)
            size = min(window, len(words))
            if size >= min(FEWEST_WORDS, window):
                self._grams[size].update(_ngrams(words, size))

    def overlaps(self, text: str) -> bool:
        """Whether a text shares too much with one of these."""
        words = split_words(text)
        return any(gram in grams for size, grams in self._grams.items() for gram in _ngrams(words, size))


def _ngrams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]


class NearDuplicates:
    """Tells whether a text is, up to small changes, one that was added before.

    Two texts are near-duplicates when the Jaccard similarity of their sets of `size` words in a row reaches
    `threshold`. It is exact: an index of the sets is kept, no sketch of them.

    Args:
        size: Words of a shingle.
        threshold: Similarity from which on two texts count as one, in (0, 1].
    """

    def __init__(self, *, size: int = 3, threshold: float = 0.7) -> None:
        self.size = size
        self.threshold = threshold
        self._holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._sizes: list[int] = []

    def add(self, text: str) -> bool:
        """Adds a text unless it is a near-duplicate; returns whether it was added."""
        words = split_words(text)
        # Texts of fewer words are one shingle; without any word, the text itself is.
        shingles = {*_ngrams(words, min(self.size, len(words)))} if words else {(text.strip(),)}
        shared = Counter(holder for shingle in shingles for holder in self._holders.get(shingle, ()))
        for holder, count in shared.items():
            if count >= self.threshold * (len(shingles) + self._sizes[holder] - count):
                return False
        for shingle in shingles:
            self._holders[shingle].append(len(self._sizes))
        self._sizes.append(len(shingles))
        return True


def repeated_share(text: str, *, size: int = 4) -> float:
    """Returns the share of a text's runs of `size` words that stood in it before, in [0, 1): high in a loop."""
    grams = _ngrams(split_words(text), size)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0

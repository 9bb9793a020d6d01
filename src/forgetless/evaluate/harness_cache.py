"""Answers to requests of lm-evaluation-harness that need not be computed twice: a journal per model.

The journal's name covers all that an answer depends on in the model (as for our own scores); within it, an answer's
key covers the token ids that went in. Tasks, few-shot numbers and limits may change as they like: what is asked again
in the same tokens is known. A stopped evaluation goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.errors import RunError
from forgetless.evaluate.cache import ENGINE_VERSION

if TYPE_CHECKING:
    from forgetless.evaluate.harness import Continuation

TokenPair = tuple[tuple[int, ...], tuple[int, ...]]
Answer = tuple[float, bool]


class ResponseCache:
    """The answers of one model.

    Args:
        directory: Where the journals lie; made when it is first written to.
        model_key: Fingerprint of everything about the model that an answer depends on.
    """

    def __init__(self, directory: Path, model_key: str) -> None:
        name = hashlib.sha256(f"{ENGINE_VERSION}:{model_key}".encode()).hexdigest()[:32]
        self.path = directory / f"lm_eval-{name}.jsonl"
        self._answers = _read(self.path)

    def known_likelihoods(self, pairs: Iterable[TokenPair]) -> dict[TokenPair, Answer]:
        """Returns the likelihoods that are known, by (context, continuation)."""
        found = {pair: self._answers.get(_key("likelihood", *pair)) for pair in pairs}
        return {
            pair: (float(value[0]), bool(value[1]))
            for pair, value in found.items()
            if isinstance(value, list) and len(value) == 2 and isinstance(value[0], float)
        }

    def add_likelihoods(self, answers: Mapping[TokenPair, Answer]) -> None:
        """Keeps likelihoods, all of them by one write."""
        self._append({_key("likelihood", *pair): list(answer) for pair, answer in answers.items()})

    def known_texts(self, work: Iterable[Continuation]) -> dict[Continuation, str]:
        """Returns the answers that are known."""
        found = {item: self._answers.get(_key("text", item.prompt, item.stops, item.budget)) for item in work}
        return {item: text for item, text in found.items() if isinstance(text, str)}

    def add_text(self, item: Continuation, text: str) -> None:
        """Keeps an answer."""
        self._append({_key("text", item.prompt, item.stops, item.budget): text})

    def _append(self, answers: Mapping[str, Any]) -> None:
        self._answers |= answers
        # Each write begins with a line end: what a stop cut off before it then stands on a line of its own.
        text = "".join("\n" + json.dumps([key, value]) for key, value in answers.items())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(text.encode())
        except OSError as error:
            raise RunError(
                f"answers cannot be kept in {self.path.parent} ({error.strerror}): free some space there, or set "
                "FORGETLESS_CACHE to another directory; those that were kept before are still there"
            ) from error


def _key(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Any]:
    """Returns what a journal holds; a line that a stop cut off is left out."""
    try:
        lines: Sequence[str] = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    answers = {}
    for line in lines:
        try:
            key, value = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            continue
        answers[str(key)] = value
    return answers

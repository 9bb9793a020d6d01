"""Scores that need not be computed twice: a journal per model and task, keyed by content.

The key covers weights, active adapters, tokenizer, chat template, number type, the task with all its samples, and the
version of the scoring code. A journal is appended to sample by sample, so a stopped evaluation goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from forgetless.errors import DataError, RunError
from forgetless.records import SampleScore
from forgetless.tasks.base import Task

# Raised whenever scoring or decoding changes what a sample may score.
ENGINE_VERSION = 2


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Returns a SHA-256 over the vocabulary, the special tokens and the chat template of a tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = [
        backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
        sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items()),
        tokenizer.chat_template,
    ]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, default=str).encode()).hexdigest()


class ScoreCache:
    """Journals of scores under one directory.

    Args:
        directory: Where the journals lie; made when it is first written to.
        model_key: Fingerprint of everything about the model that a score depends on.
    """

    def __init__(self, directory: Path, model_key: str) -> None:
        self.directory = directory
        self.model_key = model_key

    def path(self, task: Task) -> Path:
        """Returns the journal of a task."""
        content = f"{ENGINE_VERSION}:{self.model_key}:{task.journal_fingerprint}"
        return self.directory / f"{task.name}-{hashlib.sha256(content.encode()).hexdigest()[:32]}.scores.jsonl"

    def read(self, task: Task) -> dict[str, SampleScore]:
        """Returns the scores that are known, by sample id; a line that was cut off by a stop is left out."""
        try:
            lines = self.path(task).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError):
            return {}
        known = {}
        for line in lines:
            try:
                score = SampleScore.from_mapping(json.loads(line))
            except (ValueError, RecursionError, DataError, AttributeError):
                continue
            known[score.sample_id] = score
        return known

    def append(self, task: Task, scores: Iterable[SampleScore]) -> None:
        """Adds scores to the journal of a task, all of them by one write.

        Args:
            task: The task that the journal belongs to.
            scores: Scores of its samples; of two with one sample id the later counts.

        Raises:
            RunError: The cache can't be written (the disk is full, say).
        """
        path = self.path(task)
        text = "".join(score.to_json() + "\n" for score in scores)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                if file.tell() and not _ends_line(path):
                    text = "\n" + text  # a stop cut the last line off: what follows stands on its own
                file.write(text.encode())
        except OSError as error:
            raise RunError(
                f"scores cannot be kept in {self.directory} ({error.strerror}): free some space there, "
                "or set FORGETLESS_CACHE to another directory; scores that were kept before are still there"
            ) from error

    def forget(self, task: Task) -> None:
        """Removes the journal of a task, if there is one."""
        path = self.path(task)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{path} cannot be removed ({error.strerror}): remove it, its scores are used up") from error


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"

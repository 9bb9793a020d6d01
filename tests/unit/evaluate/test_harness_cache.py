"""The journal of answers to lm-evaluation-harness's requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetless.errors import RunError
from forgetless.evaluate.harness import Continuation
from forgetless.evaluate.harness_cache import ResponseCache

PAIR = ((1, 2), (3,))
ITEM = Continuation((1, 2), ("\n",), 5)


def test_what_was_kept_is_known_to_the_same_model_only(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, "model")
    cache.add_likelihoods({PAIR: (-1.5, True)})
    cache.add_text(ITEM, "snow ☃")
    again = ResponseCache(tmp_path, "model")
    assert again.known_likelihoods([PAIR, ((1,), (2, 3))]) == {PAIR: (-1.5, True)}
    assert again.known_texts([ITEM]) == {ITEM: "snow ☃"}
    other = ResponseCache(tmp_path, "another")
    assert (other.known_likelihoods([PAIR]), other.known_texts([ITEM])) == ({}, {})


def test_a_line_that_was_cut_off_costs_that_answer_alone(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, "model")
    cache.add_likelihoods({PAIR: (-1.5, True)})
    cache.path.write_text(cache.path.read_text() + '\n["abc", [-1', encoding="utf-8")
    cache.add_text(ITEM, "kept")
    again = ResponseCache(tmp_path, "model")
    assert again.known_likelihoods([PAIR]) == {PAIR: (-1.5, True)}
    assert again.known_texts([ITEM]) == {ITEM: "kept"}


def test_a_damaged_journal_holds_nothing(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, "model")
    cache.add_text(ITEM, "kept")
    key = cache.path.read_text().split('"')[1]
    cache.path.write_text(f'["{key}", 7]\n12\n{{}}\n[1]', encoding="utf-8")
    assert ResponseCache(tmp_path, "model").known_texts([ITEM]) == {}
    cache.path.write_bytes(b"\xff\xfe\xff")
    assert ResponseCache(tmp_path, "model").known_texts([ITEM]) == {}


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="FORGETLESS_CACHE"):
        ResponseCache(tmp_path / "file", "model").add_text(ITEM, "text")

"""The journal of known scores: what it gives back, and what it must never give back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import build_tokenizer
from forgetless.errors import RunError
from forgetless.evaluate import cache as cache_module
from forgetless.evaluate.cache import ScoreCache, tokenizer_fingerprint
from forgetless.records import SampleScore
from forgetless.tasks.base import Task


def scores(*numbers: int) -> list[SampleScore]:
    return [SampleScore("made", f"made-{number}", 1.0, answer=f"answer {number}") for number in numbers]


@pytest.fixture
def made(task: Callable[..., Task]) -> Task:
    return task("generate", {"question": "a"}, {"question": "b"})


def test_scores_come_back_by_sample(tmp_path: Path, made: Task) -> None:
    cache = ScoreCache(tmp_path / "deep" / "down", "model")
    assert cache.read(made) == {}
    cache.append(made, scores(0))
    cache.append(made, scores(1, 2))
    assert list(cache.read(made).values()) == scores(0, 1, 2)


def test_of_two_scores_of_a_sample_the_later_counts(tmp_path: Path, made: Task) -> None:
    cache = ScoreCache(tmp_path, "model")
    cache.append(made, [SampleScore("made", "made-0", 0.0)])
    cache.append(made, [SampleScore("made", "made-0", 1.0)])
    assert cache.read(made)["made-0"].score == 1.0


def test_another_model_has_a_journal_of_its_own(tmp_path: Path, made: Task) -> None:
    ScoreCache(tmp_path, "model").append(made, scores(0))
    assert ScoreCache(tmp_path, "other").read(made) == {}


def test_another_version_of_the_engine_has_a_journal_of_its_own(
    tmp_path: Path, made: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ScoreCache(tmp_path, "model")
    cache.append(made, scores(0))
    monkeypatch.setattr(cache_module, "ENGINE_VERSION", cache_module.ENGINE_VERSION + 1)
    assert cache.read(made) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"samples": ({"question": "a"}, {"question": "c"})},
        {"samples": ({"question": "a"},)},
        {"settings": {"max_tokens": 33}},
        {"settings": {"system": "Be brief."}},
        {"settings": {"prompt": "{question}!"}},
        {"settings": {"scorer": "exact"}},
        {"settings": {"options": {"any": ["x"]}}},
        {"settings": {"template": "plain"}},
    ],
    ids=str,
)
def test_an_altered_task_has_a_journal_of_its_own(
    tmp_path: Path, made: Task, task: Callable[..., Task], change: dict[str, Any]
) -> None:
    cache = ScoreCache(tmp_path, "model")
    cache.append(made, scores(0))
    altered = task("generate", *change.get("samples", made.samples), **change.get("settings", {}))
    assert cache.read(altered) == {}


def test_words_for_people_do_not_matter(tmp_path: Path, made: Task, task: Callable[..., Task]) -> None:
    cache = ScoreCache(tmp_path, "model")
    cache.append(made, scores(0))
    assert cache.read(task("generate", *made.samples, description="Other words.")) != {}


@pytest.mark.parametrize("num_kept", [1, 20, -1])
def test_a_line_that_was_cut_off_is_left_out_and_what_follows_is_read(
    tmp_path: Path, made: Task, num_kept: int
) -> None:
    cache = ScoreCache(tmp_path, "model")
    cache.append(made, scores(0, 1))
    first, second = cache.path(made).read_bytes().splitlines(keepends=True)
    cache.path(made).write_bytes(first + second[:-1][:num_kept])
    assert list(cache.read(made)) == ["made-0"]
    cache.append(made, scores(1, 2))
    assert list(cache.read(made)) == ["made-0", "made-1", "made-2"]
    lines = cache.path(made).read_text().splitlines()
    assert [json.loads(lines[i])["sample_id"] for i in (0, 2, 3)] == ["made-0", "made-1", "made-2"]


def test_a_line_without_its_end_is_not_run_into_the_next(tmp_path: Path, made: Task) -> None:
    cache = ScoreCache(tmp_path, "model")
    cache.append(made, scores(0))
    cache.path(made).write_bytes(cache.path(made).read_bytes().rstrip(b"\n"))
    cache.append(made, scores(1))
    assert list(cache.read(made)) == ["made-0", "made-1"]


@pytest.mark.parametrize("line", ["", "[]", "null", "5", "{}", '{"task": "made"}', "[" * 5000, '{"schema": 9}', "\x00"])
def test_lines_that_are_no_scores_are_left_out(tmp_path: Path, made: Task, line: str) -> None:
    cache = ScoreCache(tmp_path, "model")
    cache.append(made, scores(0))
    with cache.path(made).open("a") as file:
        file.write(line + "\n")
    cache.append(made, scores(1))
    assert list(cache.read(made)) == ["made-0", "made-1"]


def test_a_journal_that_is_no_text_is_as_good_as_none(tmp_path: Path, made: Task) -> None:
    cache = ScoreCache(tmp_path, "model")
    cache.path(made).write_bytes(b"\xff\xfe\x00")
    assert cache.read(made) == {}


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path, made: Task) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="FORGETLESS_CACHE"):
        ScoreCache(tmp_path / "file", "model").append(made, scores(0))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_journal_that_is_forgotten_is_gone_and_no_other(tmp_path: Path, made: Task) -> None:
    caches = [ScoreCache(tmp_path, key) for key in ("model", "other")]
    for cache in caches:
        cache.append(made, scores(0))
    caches[0].forget(made)
    caches[0].forget(made)
    assert [list(cache.read(made)) for cache in caches] == [[], ["made-0"]]


def test_a_journal_that_cannot_be_removed_is_named(tmp_path: Path, made: Task) -> None:
    cache = ScoreCache(tmp_path, "model")
    cache.path(made).mkdir()
    with pytest.raises(RunError, match="cannot be removed"):
        cache.forget(made)


def test_equal_tokenizers_have_one_fingerprint() -> None:
    assert tokenizer_fingerprint(build_tokenizer()) == tokenizer_fingerprint(build_tokenizer())


@pytest.mark.parametrize("change", ["template", "end", "token"])
def test_an_altered_tokenizer_has_another_fingerprint(change: str) -> None:
    altered: Any = build_tokenizer()
    if change == "template":
        altered.chat_template += " "
    elif change == "end":
        altered.eos_token = "<|im_start|>"
    else:
        altered.add_tokens(["<think>"])
    assert tokenizer_fingerprint(altered) != tokenizer_fingerprint(build_tokenizer())

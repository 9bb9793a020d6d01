"""A served model: what is asked of it, what is read out of its answers, and how long its scores are kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forgetless import scoring
from forgetless.data.examples import Message
from forgetless.errors import ConfigError, ModelError, RunError
from forgetless.evaluate.endpoint import (
    EndpointModel,
    EndpointOptions,
    choose_model,
    is_endpoint,
    normalise_url,
    read_answer,
    read_api_key,
)
from forgetless.evaluate.requests import Decoding, Generation, GenerationRequest, ScoringModel, TextModel
from forgetless.evaluate.runner import EvaluationOptions, ask, evaluate, open_model
from forgetless.models import load_model
from forgetless.progress import Silent
from forgetless.records import SampleScore, read_scores
from forgetless.tasks.base import Task
from serving import FakeServer, Reply, chat

TaskMaker = Callable[..., Task]
ONCE = EndpointOptions(max_retries=0, concurrency=1)
TURNS = GenerationRequest((Message("system", "Be brief."), Message("user", "hi")), 7, "task 'x', sample 'x-1'")
TEXT = GenerationRequest("Once upon", 9)


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def task(self, title: str) -> Any:
        return Silent().task(title)


def free(task: TaskMaker, *questions: str) -> Task:
    samples = [{"question": question, "answers": [question.upper()]} for question in questions]
    return task("generate", *samples, name="free", scorer="exact")


# What is asked


def test_turns_are_sent_as_they_are(server: FakeServer) -> None:
    model = EndpointModel(server.url, decoding=Decoding(temperature=0.7, top_p=0.9, seed=3))
    assert list(model.generate([TURNS])) == [(0, Generation("HI", 3, is_ended=True))]
    listing, asked = server.seen
    assert (listing.path, asked.path) == ("/v1/models", "/v1/chat/completions")
    assert asked.body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "max_tokens": 7,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 3,
    }


def test_plain_texts_are_continued(server: FakeServer) -> None:
    server.play(Reply({"choices": [{"text": " a time", "finish_reason": "length"}]}))
    (answer,) = EndpointModel(server.url).generate([TEXT])
    assert answer == (0, Generation("a time", 0, is_ended=False))
    assert server.seen[-1].path == "/v1/completions"
    assert server.seen[-1].body["prompt"] == "Once upon"
    assert (server.seen[-1].body["temperature"], server.seen[-1].body["max_tokens"]) == (0, 9)


def test_nothing_is_sent_before_something_is_asked(server: FakeServer) -> None:
    assert list(EndpointModel(server.url).generate([])) == []
    assert server.seen == []


def test_it_answers_prompts_and_gives_no_likelihoods(server: FakeServer, task: TaskMaker) -> None:
    model = open_model(server.url)
    assert isinstance(model, TextModel)
    assert not isinstance(model, ScoringModel)
    scores = evaluate(server.url, [free(task, "a", "b"), task("choice", name="picks")])
    assert [(score.sample_id, score.score, score.origin) for score in scores] == [
        ("free-0", 1.0, "endpoint"),
        ("free-1", 1.0, "endpoint"),
    ]
    with pytest.raises(ConfigError, match="an endpoint answers prompts but gives no likelihoods"):
        ask(model, [task("choice", name="picks")])


def test_the_sample_that_fails_is_named(server: FakeServer, task: TaskMaker) -> None:
    server.play(Reply({"error": {"message": "maximum context length is 8"}}, status=400))
    with pytest.raises(ConfigError, match=r"^task 'free', sample 'free-0': is longer than the server's context"):
        evaluate(server.url, [free(task, "a")])


# What comes back


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": " Paris \n"}, "Paris"),
        ({"content": ""}, ""),
        ({"content": None, "tool_calls": [{"id": "1"}]}, ""),
        ({"content": None, "reasoning_content": "Let me think."}, ""),
        ({"content": "4", "reasoning_content": "2 + 2"}, "4"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, "x", {"text": "b"}]}, "ab"),
        ({"content": "\ud83d half"}, "? half"),
        ({}, ""),
    ],
)
def test_the_text_of_an_answer(message: dict[str, Any], text: str) -> None:
    answer = read_answer({"choices": [{"message": message, "finish_reason": "stop"}]}, TURNS)
    assert answer == Generation(text, 0, is_ended=True)


@pytest.mark.parametrize(
    ("reason", "is_ended"),
    [("stop", True), ("length", False), ("content_filter", False), ("tool_calls", True), (None, True)],
)
def test_whether_the_model_ended_its_turn(reason: str | None, is_ended: bool) -> None:
    assert read_answer(chat("x", finish=reason).content, TURNS).is_ended is is_ended


@pytest.mark.parametrize("count", [None, "7", -1, math.nan, [7]])
def test_a_count_of_tokens_that_is_none(count: Any) -> None:
    assert read_answer(chat("x", num_tokens=count).content, TURNS).num_tokens == 0
    assert read_answer(chat("x").content | {"usage": None}, TURNS).num_tokens == 0


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        "text",
        {},
        {"error": {"message": "m" * 500}},
        {"choices": None},
        {"choices": []},
        {"choices": {"0": 1}},
        {"choices": ["text"]},
        {"choices": [None]},
        {"choices": [{"text": "a completion"}]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"content": 7}}]},
    ],
)
def test_what_holds_no_answer_ends_in_a_sentence(found: Any) -> None:
    with pytest.raises(RunError, match=r"^task 'x', sample 'x-1': what the server sent holds no answer") as caught:
        read_answer(found, TURNS)
    assert len(str(caught.value)) < 300


def test_a_completion_without_a_text_is_none() -> None:
    with pytest.raises(RunError, match="holds no answer"):
        read_answer(chat("x").content, TEXT)


# Which server, which model, which key


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        (" HTTP://LocalHost:8000/v1/ ", "http://localhost:8000/v1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("http://h/v1/completions/", "http://h/v1"),
        ("https://h/proxy/Team", "https://h/proxy/Team/v1"),
        ("https://h/api/v4", "https://h/api/v4"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_addresses(written: str, address: str) -> None:
    assert normalise_url(written) == address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://me:hidden@h", "holds a user or password: leave them out and set FORGETLESS_API_KEY"),
        ("http://hidden@h", "user or password"),
        ("http://h/v1?api_key=hidden", r"holds a \? or #"),
        ("http://h/v1#hidden", r"holds a \? or #"),
        ("http://", "is not the address of an endpoint"),
        ("ftp://h", "is not the address"),
        ("http://h:port", "is damaged"),
        ("http://[::1", "is damaged"),
    ],
)
def test_addresses_that_are_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        EndpointModel(url)
    assert "hidden" not in str(caught.value)


def test_what_is_an_endpoint() -> None:
    assert is_endpoint("http://h")
    assert is_endpoint("HTTPS://h")
    assert not any(is_endpoint(model) for model in ("org/name", "./http", "", None, print))


def test_an_endpoint_has_no_weights_to_load() -> None:
    with pytest.raises(ModelError, match="an endpoint answers prompts, but its weights can't be loaded") as caught:
        load_model("http://me:hidden@localhost/v1")
    assert "hidden" not in str(caught.value)


LISTED: list[Any] = [{"id": "a", "root": "r", "created": 5, "permission": [{"id": "random"}]}, {"id": "llama3:latest"}]


def test_the_model_that_is_meant() -> None:
    assert choose_model(LISTED[:1], None, url="u").name == "a"
    assert choose_model(LISTED, "a", url="u").facts["root"] == "r"
    assert choose_model(LISTED, "llama3", url="u").name == "llama3:latest"
    assert choose_model(None, "any", url="u").name == "any"
    with pytest.raises(ConfigError, match=r"u serves 2 models \(a, llama3:latest\): name one with --served-model"):
        choose_model(LISTED, None, url="u")
    with pytest.raises(ConfigError, match=r"serves 12 models \(a, .*, \.\.\.\)"):
        choose_model(LISTED[:1] * 12, None, url="u")
    with pytest.raises(ConfigError, match="u lists no model: load one, or name it with --served-model"):
        choose_model([], None, url="u")
    with pytest.raises(ConfigError, match="u serves no model 'lama3:latest'; did you mean 'llama3:latest'"):
        choose_model(LISTED, "lama3:latest", url="u")
    with pytest.raises(ConfigError, match=r"u serves no model 'x'$"):
        choose_model([], "x", url="u")
    with pytest.raises(ConfigError, match="doesn't list its models: name one"):
        choose_model(None, None, url="u")


def test_a_server_without_a_list_is_asked_for_the_model_that_is_named(server: FakeServer) -> None:
    server.models = Reply({}, status=404)
    named = EndpointModel(server.url, options=replace(ONCE, model="mine"))
    assert [answer.text for _, answer in named.generate([TURNS])] == ["HI"]
    assert server.seen[-1].body["model"] == "mine"
    with pytest.raises(ConfigError, match="doesn't list its models"):
        list(EndpointModel(server.url).generate([TURNS]))


def test_a_listing_that_is_refused_or_no_listing(server: FakeServer) -> None:
    server.models = Reply({}, status=401)
    with pytest.raises(ConfigError, match="wants a key: set FORGETLESS_API_KEY"):
        EndpointModel(server.url, options=replace(ONCE, model="mine")).served_model()
    contents: list[Any] = [{"models": []}, [], None]
    for content in contents:
        server.models = Reply(content)
        with pytest.raises(RunError, match="/v1/models doesn't list models"):
            EndpointModel(server.url).served_model()
    server.models = Reply({"data": [{"id": "tiny"}, {"id": 7}, "x", {}]})
    assert EndpointModel(server.url).served_model().name == "tiny"


def test_the_key_comes_from_the_environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_api_key() is None
    monkeypatch.setenv("OPENAI_API_KEY", "sk-open")
    assert read_api_key() == "sk-open"
    monkeypatch.setenv("FORGETLESS_API_KEY", " sk-own\n")
    model = EndpointModel(server.url)
    list(model.generate([TURNS]))
    assert {seen.authorization for seen in server.seen} == {"Bearer sk-own"}
    assert not any("sk-own" in text for text in (model.key(), repr(model), repr(vars(model))))


@pytest.mark.parametrize("key", ["sk-a sk-b", "sk-\u2013dash", "a\nb"])
def test_a_key_that_is_none_is_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("FORGETLESS_API_KEY", key)
    with pytest.raises(ConfigError, match="FORGETLESS_API_KEY holds characters that no key has") as caught:
        read_api_key()
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"concurrency": 0}, "concurrency 0 is below 1"),
        ({"timeout_seconds": 0.0}, "not a positive number"),
        ({"timeout_seconds": math.nan}, "not a positive number"),
        ({"timeout_seconds": math.inf}, "not a positive number"),
        ({"max_retries": -1}, "retries -1 is below 0"),
    ],
)
def test_options_that_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        EndpointOptions(**settings)


def test_flags_are_for_endpoints_only() -> None:
    flags = {"--served-model": None, "--concurrency": 2, "--timeout": 1.5, "--retries": 0}
    made = EndpointOptions.from_flags("http://h", flags)
    assert made == EndpointOptions(concurrency=2, timeout_seconds=1.5, max_retries=0)
    with pytest.raises(ConfigError, match="--concurrency is for an endpoint"):
        EndpointOptions.from_flags("org/name", flags)
    assert EndpointOptions.from_flags("org/name", {"--served-model": None}) == EndpointOptions()


# How long scores are kept


def test_what_the_key_depends_on(server: FakeServer) -> None:
    def key(**settings: Any) -> str:
        return EndpointModel(server.url, **settings).key()

    first = key()
    server.models.content["data"][0]["created"] = 99  # the time of the call, at vLLM and llama.cpp
    assert key() == first
    keys = {first, key(decoding=Decoding(seed=1))}
    server.models.content["data"][0]["meta"] = {"size": 5}
    keys.add(key())
    server.models.content["data"][0]["id"] = "other"
    keys.add(key())
    assert len(keys) == 4


def test_scores_are_asked_anew_by_the_next_evaluation(server: FakeServer, task: TaskMaker, tmp_path: Path) -> None:
    suite, options = [free(task, "a", "b")], EvaluationOptions(cache=tmp_path)
    assert [score.score for score in evaluate(server.url, suite, options=options)] == [1.0, 1.0]
    assert list(tmp_path.iterdir()) == []
    server.answer = lambda body: chat("other weights, the same name")
    assert [score.score for score in evaluate(server.url, suite, options=options)] == [0.0, 0.0]


def test_scores_are_taken_again_by_those_who_trust_them(server: FakeServer, task: TaskMaker, tmp_path: Path) -> None:
    options = EvaluationOptions(cache=tmp_path, endpoint=EndpointOptions(trust_cache=True))
    for _ in range(2):
        evaluate(server.url, [free(task, "a", "b")], options=options)
    assert sorted(server.asked) == ["a", "b"]


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A directory with a free task of six questions, and a choice."""
    directory = tmp_path / "mine"
    directory.mkdir()
    lines = [
        f'{{"id": "words-{letter}", "question": "{letter}", "answers": ["{letter.upper()}"]}}' for letter in "abcdef"
    ]
    (directory / "words.yaml").write_text("task: words\nversion: 1\nkind: generate\nscorer: exact\ndata: words.jsonl\n")
    (directory / "words.jsonl").write_text("\n".join(lines))
    (directory / "picks.yaml").write_text("task: picks\nversion: 1\nkind: choice\ndata: picks.jsonl\n")
    (directory / "picks.jsonl").write_text('{"question": "q", "choices": ["a", "b"], "answer": 0}')
    return directory


@pytest.fixture
def judge(server: FakeServer, words: Path, tmp_path: Path) -> Callable[..., list[SampleScore]]:
    def make(**settings: Any) -> list[SampleScore]:
        usual: dict[str, Any] = {"out": tmp_path / "scores.jsonl", "suite": "words,picks", "endpoint": ONCE}
        return scoring.evaluate_model(server.url, tasks_directories=[words], **(usual | settings))

    return make


def _fail_at(letter: str) -> Callable[[Any], Reply]:
    def answer(body: Any) -> Reply:
        text = body["messages"][-1]["content"]
        return Reply({}, status=500) if text == letter else chat(text.upper())

    return answer


def test_a_stopped_evaluation_goes_on(
    server: FakeServer, judge: Callable[..., list[SampleScore]], cache: Path, tmp_path: Path
) -> None:
    answer, server.answer = server.answer, _fail_at("d")
    with pytest.raises(RunError, match=r"sample 'words-d' and failed .*; scores kept: 3, run the same again to go on"):
        judge()
    assert (tmp_path / "scores.jsonl.partial").is_dir()
    assert not (tmp_path / "scores.jsonl").exists()
    server.answer = answer
    server.seen.clear()
    notes = Notes()
    scores = judge(reporter=notes)
    assert server.asked == ["d", "e", "f"]
    assert [score.score for score in scores] == [1.0] * 6
    assert read_scores(tmp_path / "scores.jsonl") == scores
    assert not (tmp_path / "scores.jsonl.partial").exists()
    assert not cache.exists()
    assert notes.texts[0] == "an endpoint gives no likelihoods: left out picks"
    assert notes.texts[1].startswith("going on with 3 scores kept in ")


def test_one_evaluation_never_goes_on_with_the_scores_of_another(
    server: FakeServer, judge: Callable[..., list[SampleScore]], tmp_path: Path
) -> None:
    server.answer = _fail_at("d")
    with pytest.raises(RunError):
        judge(out=tmp_path / "base.jsonl")
    server.answer = lambda body: chat("other weights, the same name")
    assert [score.score for score in judge(out=tmp_path / "tuned.jsonl")] == [0.0] * 6
    assert (tmp_path / "base.jsonl.partial").is_dir()


@pytest.mark.parametrize("settings", [{"out": None}, {"use_cache": False}])
def test_without_a_place_nothing_is_kept(
    server: FakeServer,
    judge: Callable[..., list[SampleScore]],
    cache: Path,
    tmp_path: Path,
    settings: dict[str, Any],
) -> None:
    server.answer = _fail_at("d")
    with pytest.raises(RunError, match="scores kept: 0, give --out to keep them another time"):
        judge(**settings)
    assert not cache.exists()
    assert not list(tmp_path.glob("*.partial"))


def test_trusted_scores_lie_in_the_common_cache(
    server: FakeServer, judge: Callable[..., list[SampleScore]], cache: Path
) -> None:
    trusting = replace(ONCE, trust_cache=True)
    assert judge(endpoint=trusting) == judge(endpoint=trusting, out=None)
    assert len(server.asked) == 6
    assert list((cache / "scores").iterdir())


def test_a_password_in_the_address_is_never_shown(words: Path) -> None:
    with pytest.raises(ConfigError, match="user or password"):
        scoring.evaluate_model("http://me:hidden@h", suite="words", tasks_directories=[words])

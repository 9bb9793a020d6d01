"""Calls to a server that fails in every way it can: what is tried again, for how long, and what a user is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from forgetless.errors import ConfigError, ForgetlessError, RunError
from forgetless.evaluate import connection
from forgetless.evaluate.connection import Call, Connection, RefusedError, is_loopback
from serving import FakeServer, Reply, chat

Sender = Callable[..., list[tuple[int, Any]]]
PAGE = Reply(b"<html><body>Bad gateway</body></html>", headers={"Content-Type": "text/html"})
KEY = "sk-very-secret"


@pytest.fixture
def connect(server: FakeServer) -> Callable[..., Connection]:
    def make(**settings: Any) -> Connection:
        defaults = {"api_key": None, "concurrency": 2, "timeout_seconds": 5.0, "max_retries": 2}
        return Connection(**{"url": server.url + "/v1", **defaults, **settings})

    return make


@pytest.fixture
def send(connect: Callable[..., Connection]) -> Sender:
    def make(*labels: str, **settings: Any) -> list[tuple[int, Any]]:
        return list(connect(**settings).send([_call(label) for label in labels or ("a sample",)]))

    return make


def _call(label: str) -> Call:
    return Call("/chat/completions", {"messages": [{"role": "user", "content": label}]}, label)


def _texts(found: list[tuple[int, Any]]) -> dict[int, str]:
    return {index: value["choices"][0]["message"]["content"] for index, value in found}


def test_calls_come_back_with_their_index(server: FakeServer, send: Sender) -> None:
    assert _texts(send("a", "b", "c")) == {0: "A", 1: "B", 2: "C"}
    assert {seen.path for seen in server.seen} == {"/v1/chat/completions"}


def test_no_more_calls_are_under_way_than_were_asked_for(server: FakeServer, send: Sender) -> None:
    send(*"abcdefgh", concurrency=3)
    assert 1 <= server.most_at_once <= 3
    server.most_at_once = 0
    send(*"abcd", concurrency=1)
    assert server.most_at_once == 1


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 529])
def test_what_may_pass_is_tried_again(server: FakeServer, send: Sender, status: int) -> None:
    server.play(Reply({"error": "busy"}, status=status), Reply(b"", status=status), chat("done"))
    assert _texts(send()) == {0: "done"}
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply({"error": {"message": "Loading\nmodel"}}, status=503), r"HTTP 503: Loading model\): see what its log"),
        (Reply({"error": "slow down"}, status=429), r"HTTP 429: slow down\): lower --concurrency"),
        (Reply({"detail": "x" * 500}, status=500), r"HTTP 500: x{200} \.\.\.\)"),
        (Reply(PAGE.content, status=502), r"\(HTTP 502\)"),
        (Reply(b'"' + b"[" * 9, status=500), r"\(HTTP 500\)"),
        (Reply({"choices": []}, is_dropped=True), r"see that the server runs"),
    ],
)
def test_after_the_last_try_a_user_reads_why(server: FakeServer, send: Sender, reply: Reply, reason: str) -> None:
    server.play(reply)
    with pytest.raises(RunError, match=rf"/v1 was asked 3 times for a sample and failed .*{reason}") as caught:
        send()
    assert "\n" not in str(caught.value)
    assert len(server.seen) == 3


def test_without_retries_there_is_one_try(server: FakeServer, send: Sender) -> None:
    server.play(Reply({}, status=500))
    with pytest.raises(RunError, match="was asked once for a sample"):
        send(max_retries=0)


@pytest.mark.parametrize("is_date", [False, True])
def test_a_server_is_given_the_time_that_it_asks_for(server: FakeServer, send: Sender, is_date: bool) -> None:
    value = formatdate(time.time() + 2, usegmt=True) if is_date else "0.3"
    server.play(Reply({}, status=429, headers={"Retry-After": value}), chat("done"))
    started = time.monotonic()
    assert _texts(send()) == {0: "done"}
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("value", ["soon", "-5", "nan", "inf", ""])
def test_a_senseless_wish_to_wait_is_left_aside(server: FakeServer, send: Sender, value: str) -> None:
    server.play(Reply({}, status=429, headers={"Retry-After": value}), chat("done"))
    started = time.monotonic()
    assert _texts(send()) == {0: "done"}
    assert time.monotonic() - started < 2


def test_a_server_that_asks_for_hours_is_given_up(server: FakeServer, send: Sender) -> None:
    server.play(Reply({}, status=429, headers={"Retry-After": "7200"}))
    with pytest.raises(RunError, match=r"was asked once .*HTTP 429, and it asks to wait 7200 s"):
        send()


def test_a_server_that_sends_nothing_is_given_up_in_time(server: FakeServer, send: Sender) -> None:
    server.play(Reply(is_held=True))
    started = time.monotonic()
    with pytest.raises(RunError, match=r"asked 2 times .*no answer within 0\.2 s\): raise --timeout"):
        send(timeout_seconds=0.2, max_retries=1)
    assert time.monotonic() - started < 3


def test_nobody_listens(send: Sender) -> None:
    with pytest.raises(RunError, match=r"http://127\.0\.0\.1:1/v1 was asked 3 times .*see that the server runs"):
        send(url="http://127.0.0.1:1/v1")


def test_a_host_that_is_none(send: Sender) -> None:
    with pytest.raises(ConfigError, match="http://\u2603/v1 is no URL that can be asked"):
        send(url="http://\u2603/v1")


def test_a_prompt_with_half_a_character_can_be_sent(server: FakeServer, send: Sender) -> None:
    send("\ud83d")
    assert server.asked == ["\ud83d"]


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (400, {"error": {"message": "no such field"}}, r"refuses a sample \(HTTP 400: no such field\)"),
        (422, {"detail": [{"msg": "bad"}]}, "refuses a sample"),
        (404, {"error": "model 'x' not found"}, r"doesn't know /chat/completions or the model .*--served-model"),
        (405, {}, r"\(HTTP 405\): check the URL"),
        (401, {"error": f"wrong key {KEY[:9]}"}, r"wants a key: set FORGETLESS_API_KEY \(or OPENAI_API_KEY\)"),
        (403, {}, "wants a key"),
        (307, {}, "leads to another address"),
        (
            400,
            {"message": "This model's maximum context length is 1024 tokens"},
            r"^a sample: is longer than the server's context \(HTTP 400: This model's maximum",
        ),
        (400, {"error": {"message": "the request exceeds the available context size"}}, "^a sample: is longer than"),
    ],
)
def test_what_would_be_refused_again_is_asked_once(
    server: FakeServer, send: Sender, status: int, said: Any, reason: str
) -> None:
    server.play(Reply(said, status=status, headers={"Location": server.url + "/v1/elsewhere"}))
    with pytest.raises(RefusedError, match=reason) as caught:
        send()
    assert caught.value.status == status
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_the_key_is_sent_and_never_shown(server: FakeServer, send: Sender, status: int) -> None:
    server.play(Reply({"error": {"message": f"key {KEY} is bad"}}, status=status))
    with pytest.raises(ForgetlessError) as caught:
        send(api_key=KEY)
    assert KEY not in str(caught.value)
    if status == 401:
        assert "refuses the key in FORGETLESS_API_KEY" in str(caught.value)
    assert server.seen[0].authorization == f"Bearer {KEY}"


def test_without_a_key_none_is_sent(server: FakeServer, send: Sender) -> None:
    send()
    assert server.seen[0].authorization is None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (PAGE, r"is no JSON \(text/html: '<html><body>Bad gateway"),
        (Reply(b'{"choices": ['), "is no JSON"),
        (Reply(b""), "is no JSON"),
        (Reply(b"[" * 100_000), "is no JSON"),
        (Reply(b"\xff\xfe\xff"), "is no JSON"),
    ],
)
def test_what_is_no_json_ends_it_at_once(server: FakeServer, send: Sender, reply: Reply, reason: str) -> None:
    server.play(reply)
    with pytest.raises(RunError, match=rf"^a sample: .*{reason}"):
        send()
    assert len(server.seen) == 1


def test_an_answer_without_an_end_is_cut(server: FakeServer, send: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LARGEST_ANSWER_BYTES", 2**20)
    server.play(Reply(b"[" + b"1," * 2**20 + b"1]"))
    with pytest.raises(RunError, match="a sample: the server sends more than 1 MB"):
        send()


def test_what_was_answered_before_a_failure_comes_first(server: FakeServer, connect: Callable[..., Connection]) -> None:
    server.play(chat("one"), chat("two"), Reply({}, status=400))
    answers = connect(concurrency=1).send([_call("x")] * 5)
    assert _texts([next(answers), next(answers)]) == {0: "one", 1: "two"}
    with pytest.raises(RefusedError):
        next(answers)
    assert len(server.seen) == 3


def test_leaving_early_ends_what_is_under_way(server: FakeServer, connect: Callable[..., Connection]) -> None:
    server.answer = lambda body: Reply(is_held=body["messages"][-1]["content"] != "a", content={})
    answers = connect(concurrency=3).send([_call(label) for label in "abcdef"])
    assert next(answers)[0] == 0
    started = time.monotonic()
    answers.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 2
    assert len(server.seen) <= 4


def test_it_works_inside_a_running_event_loop(send: Sender) -> None:
    async def cell() -> list[tuple[int, Any]]:
        return send("a")

    assert _texts(asyncio.run(cell())) == {0: "A"}


def test_a_proxy_is_left_out_for_this_machine(send: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert _texts(send("a")) == {0: "A"}


def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "gopher://me:hidden@127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"HTTP_PROXY.*set NO_PROXY to model\.invalid") as caught:
        send(url="http://model.invalid/v1", max_retries=0)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "is_own"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://box.localhost/v1", True),
        ("https://api.example.com/v1", False),
        ("http://10.0.0.1/v1", False),
    ],
)
def test_which_addresses_lead_to_this_machine(url: str, is_own: bool) -> None:
    assert is_loopback(url) is is_own

"""A small OpenAI-compatible server on the loopback interface, which answers or fails as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the server sends: JSON of `content`, or `content` as it is where that is bytes.

    Attributes:
        content: The body.
        status: HTTP's status.
        headers: Headers beside the length.
        is_dropped: The connection ends in the middle of the body.
        is_held: Nothing is sent before the server stops.
    """

    content: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    is_dropped: bool = False
    is_held: bool = False


@dataclass(frozen=True)
class Seen:
    """A call that arrived."""

    path: str
    body: Any
    authorization: str | None


def chat(text: Any, *, finish: str | None = "stop", num_tokens: Any = 3) -> Reply:
    """Returns an answer under the chat template."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Reply({"choices": [choice], "usage": {"completion_tokens": num_tokens}})


class FakeServer:
    """What a test sets and reads: `answer` maps the body of a call to its reply, `models` replies to the listing."""

    def __init__(self) -> None:
        self.url = ""
        self.models = Reply({"object": "list", "data": [{"id": "tiny", "owned_by": "me", "created": 1}]})
        self.answer: Callable[[Any], Reply] = lambda body: chat(body["messages"][-1]["content"].upper())
        self.seen: list[Seen] = []
        self.most_at_once = 0
        self.stopping = threading.Event()
        self._now = 0
        self._lock = threading.Lock()

    @property
    def asked(self) -> list[str]:
        """The last turns of the prompts that arrived, in order."""
        return [seen.body["messages"][-1]["content"] for seen in self.seen if seen.body]

    def play(self, *replies: Reply) -> None:
        """Sends these replies in turn, the last one from then on."""
        left = list(replies)
        self.answer = lambda body: left.pop(0) if len(left) > 1 else left[0]

    def reply(self, path: str, body: Any, authorization: str | None) -> Reply:
        with self._lock:
            self.seen.append(Seen(path, body, authorization))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            found = self.models if body is None else self.answer(body)
        if found.is_held:
            self.stopping.wait(20)
        return found

    def leave(self) -> None:
        with self._lock:
            self._now -= 1


@contextmanager
def serve() -> Iterator[FakeServer]:
    """Serves on a free port until the end of the block."""
    state = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send(state.reply(self.path, None, self.headers["Authorization"]))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send(state.reply(self.path, body, self.headers["Authorization"]))

        def send(self, reply: Reply) -> None:
            content = reply.content if isinstance(reply.content, bytes) else json.dumps(reply.content).encode()
            state.leave()
            with suppress(ConnectionError):
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if reply.is_dropped else content)
            self.close_connection = self.close_connection or reply.is_dropped

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that left early

    with Server(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            state.stopping.set()
            server.shutdown()
            thread.join()

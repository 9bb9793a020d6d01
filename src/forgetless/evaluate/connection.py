"""HTTP to a server that speaks OpenAI's interface: several calls at a time, tried again where that may help.

Calls run on an event loop in a thread of their own, so that this works inside a notebook too; whoever reads the answers
sees a plain iterator. Leaving it early cancels what is under way.
"""

from __future__ import annotations

import json
import math
import queue
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
from anyio.from_thread import start_blocking_portal

from forgetless.errors import ConfigError, RunError

FIRST_PAUSE_SECONDS = 1.0  # doubled after each try
LONGEST_PAUSE_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 300.0  # a server that asks for more (Retry-After) is given up
LARGEST_ANSWER_BYTES = 16 * 2**20
PASSING = {408, 409, 425, 429}  # and 5xx: the same call may succeed later


class RefusedError(ConfigError):
    """A server refused a call, and would refuse it again; `status` is HTTP's."""

    def __init__(self, message: str, *, status: int) -> None:
        self.status = status
        super().__init__(message)


class _PassingError(Exception):
    """A try failed in a way that may pass; `pause` is how many seconds the server asks to wait."""

    def __init__(self, reason: str, *, way_out: str, pause: float | None = None) -> None:
        self.way_out, self.pause = way_out, pause
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its path below the server's address, its JSON (None: GET), and what messages call it."""

    path: str
    body: Mapping[str, Any] | None
    label: str


class Connection:
    """Calls to one server.

    Args:
        url: Address that paths are added to; it carries no secret.
        api_key: Sent as a bearer token; never shown.
        concurrency: Calls that are under way at a time.
        timeout_seconds: Longest time for one try, from connecting to the last byte.
        max_retries: Tries after the first one.
    """

    def __init__(
        self, url: str, *, api_key: str | None, concurrency: int, timeout_seconds: float, max_retries: int
    ) -> None:
        self.url = url
        self.concurrency = concurrency
        self.timeout_seconds = timeout_seconds
        self.max_retries = max_retries
        self._api_key = api_key
        self._jitter = random.Random()  # spreads tries over time; nothing that is measured depends on it

    def send(self, calls: Sequence[Call]) -> Iterator[tuple[int, Any]]:
        """Makes calls, some at a time.

        Args:
            calls: The calls.

        Yields:
            (index of the call, JSON that came back), in the order in which they are finished.

        Raises:
            RefusedError: The server refused a call, and would again.
            RunError: A call failed to the last try, or was answered with something else than JSON.
        """
        finished: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        with start_blocking_portal("asyncio") as portal:
            running = portal.start_task_soon(self._work, calls, finished)
            running.add_done_callback(lambda _: finished.put(None))
            try:
                while (item := finished.get()) is not None:
                    yield item
                running.result()
            finally:
                running.cancel()

    async def _work(self, calls: Sequence[Call], finished: queue.SimpleQueue[tuple[int, Any] | None]) -> None:
        todo = iter(enumerate(calls))

        async def worker() -> None:
            for index, call in todo:
                finished.put((index, await self._persist(client, call)))

        try:
            async with self._client() as client, anyio.create_task_group() as group:
                for _ in range(min(self.concurrency, len(calls))):
                    group.start_soon(worker)
        except BaseExceptionGroup as failures:
            # The first failure stops the rest; a user mends one thing at a time.
            raise failures.exceptions[0] from None

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx2.AsyncClient]:
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        try:
            client = httpx2.AsyncClient(
                headers=headers,
                timeout=None,  # one limit for the whole try: `_once` sets it
                limits=httpx2.Limits(max_connections=self.concurrency),
                follow_redirects=False,  # prompts and keys go where the user sent them
                trust_env=not is_loopback(self.url),  # a proxy has no business with this machine's own servers
            )
        except (ImportError, ValueError, httpx2.InvalidURL):
            raise ConfigError(
                "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used: correct it, or set NO_PROXY "
                f"to {urlsplit(self.url).hostname}"
            ) from None
        async with client:
            yield client

    async def _persist(self, client: httpx2.AsyncClient, call: Call) -> Any:
        """Tries a call until it succeeds, is refused, or was tried often enough."""
        tries = 0
        while True:
            tries += 1
            try:
                return await self._once(client, call)
            except _PassingError as error:
                if tries > self.max_retries or (error.pause or 0) > LONGEST_WAIT_SECONDS:
                    asked = f", and it asks to wait {error.pause:.0f} s" if error.pause else ""
                    times = "once" if tries == 1 else f"{tries} times"
                    raise RunError(
                        f"{self.url} was asked {times} for {call.label} and failed ({error}{asked}): {error.way_out}"
                    ) from None
                pause = min(FIRST_PAUSE_SECONDS * 2 ** (tries - 1), LONGEST_PAUSE_SECONDS)
                pause *= self._jitter.uniform(0.5, 1.0)
                await anyio.sleep(max(pause, error.pause or 0))

    async def _once(self, client: httpx2.AsyncClient, call: Call) -> Any:
        method = "GET" if call.body is None else "POST"
        body = None if call.body is None else json.dumps(call.body)
        try:
            with anyio.fail_after(self.timeout_seconds):
                async with client.stream(method, self.url + call.path, content=body) as response:
                    content = await _read(response, call)
        except TimeoutError:
            raise _PassingError(
                f"no answer within {self.timeout_seconds:g} s", way_out="raise --timeout or lower --concurrency"
            ) from None
        except (httpx2.InvalidURL, UnicodeError) as error:  # no host can be called that
            raise ConfigError(f"{self.url} is no URL that can be asked ({error})") from None
        except (httpx2.TransportError, httpx2.DecodingError, OSError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise _PassingError(
                self._clean(reason), way_out="see that the server runs at this address, and what its log says"
            ) from None
        if response.is_success:
            return _parse(content, response, call)
        raise self._failure(response, content, call)

    def _failure(self, response: httpx2.Response, content: bytes, call: Call) -> Exception:
        """Returns the error for an answer that is no success: one that may pass, or a refusal with its way out."""
        status = response.status_code
        said = self._clean(_said(content))
        reason = f"HTTP {status}" + (f": {said}" if said else "")
        if status in PASSING or status >= 500:
            way_out = "lower --concurrency or wait" if status == 429 else "see what its log says"
            return _PassingError(reason, way_out=way_out, pause=_retry_after(response))
        if status in {401, 403}:
            # What is said about a key may repeat a part of it.
            state = "refuses the key in" if self._api_key else "wants a key: set"
            return RefusedError(
                f"{self.url} {state} FORGETLESS_API_KEY (or OPENAI_API_KEY) (HTTP {status})", status=status
            )
        if 300 <= status < 400:
            text = f"leads to another address (HTTP {status}): give the one that answers by itself"
            return RefusedError(f"{self.url} {text}", status=status)
        if status in {404, 405}:
            text = f"doesn't know {call.path} or the model ({reason}): check the URL and --served-model"
            return RefusedError(f"{self.url} {text}", status=status)
        if "context" in said.lower() and any(word in said.lower() for word in ("length", "size", "exceed", "long")):
            text = f"is longer than the server's context ({reason}): give the server more, or leave the sample out"
            return RefusedError(f"{call.label}: {text}", status=status)
        return RefusedError(f"{self.url} refuses {call.label} ({reason})", status=status)

    def _clean(self, text: str) -> str:
        """Returns a text of the server's without the key, should it repeat it."""
        return text.replace(self._api_key, "[key]") if self._api_key else text


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.") or host.endswith(".localhost")


async def _read(response: httpx2.Response, call: Call) -> bytes:
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > LARGEST_ANSWER_BYTES:
            raise RunError(
                f"{call.label}: the server sends more than {LARGEST_ANSWER_BYTES // 2**20} MB: not an answer"
            )
    return bytes(content)


def _parse(content: bytes, response: httpx2.Response, call: Call) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        kind = response.headers.get("content-type", "no type").partition(";")[0]
        start = " ".join(content[:60].decode(errors="replace").split())
        raise RunError(
            f"{call.label}: what came back is no JSON ({kind}: {start!r}): check that the URL is that of the model's "
            "server, not of a web page or a proxy before it"
        ) from None


def _said(content: bytes) -> str:
    """Returns what a server says about an error, in one line; nothing where it sends a page."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    while isinstance(found, Mapping):  # {"error": {"message": ...}}, {"error": ...}, {"message": ...}, {"detail": ...}
        found = next((found[name] for name in ("error", "message", "detail") if found.get(name)), "")
    text = " ".join(str(found).split())
    return text if len(text) <= 200 else text[:200] + " ..."


def _retry_after(response: httpx2.Response) -> float | None:
    """Returns how many seconds a server asks to wait: it names them, or a date."""
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None

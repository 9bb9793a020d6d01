"""A model behind an OpenAI-compatible server: vLLM, Ollama, llama.cpp, LM Studio and others.

A server may put other weights behind the same name at any time, and nothing that it says would show it. So its scores
serve to go on with an evaluation that was stopped, and are forgotten once it is done.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from forgetless.errors import ConfigError, RunError, did_you_mean
from forgetless.evaluate.requests import GREEDY, Decoding, Generation, GenerationRequest

if TYPE_CHECKING:
    from forgetless.evaluate.connection import Connection

KEY_VARIABLES = ("FORGETLESS_API_KEY", "OPENAI_API_KEY")
# What a server says of a model that stays the same while the model does. Not `created`: vLLM and llama.cpp put the time
# of the call there. Not `permission`: vLLM makes it up anew for each call.
LASTING = ("id", "owned_by", "root", "parent", "max_model_len", "meta")
CUT_OFF = {"length", "content_filter"}  # reasons to finish that were not the model's own
NAMED_MODELS = 10
FLAGS = {
    "--served-model": "model",
    "--concurrency": "concurrency",
    "--timeout": "timeout_seconds",
    "--retries": "max_retries",
    "--trust-endpoint-cache": "trust_cache",
}


@dataclass(frozen=True)
class EndpointOptions:
    """How a server is asked; nothing here but the model may change a score.

    Attributes:
        model: Name of the served model; None = the only one that the server lists.
        concurrency: Prompts that are under way at a time.
        timeout_seconds: Longest time for one try.
        max_retries: Tries after the first one.
        trust_cache: Take scores that earlier evaluations left, as for a model whose weights are known.
    """

    model: str | None = None
    concurrency: int = 4
    timeout_seconds: float = 60.0
    max_retries: int = 5
    trust_cache: bool = False

    @classmethod
    def from_flags(cls, model: str, flags: Mapping[str, Any]) -> EndpointOptions:
        """Returns the options that were set on a command line; None = not set.

        Args:
            model: What the user calls the model.
            flags: Values by the names of the flags.

        Returns:
            The options, defaults included.

        Raises:
            ConfigError: One is set, and the model is no endpoint.
        """
        given = {flag: value for flag, value in flags.items() if value is not None}
        if given and not is_endpoint(model):
            raise ConfigError(f"{next(iter(given))} is for an endpoint: MODEL is then its address, http://...")
        return cls(**{FLAGS[flag]: value for flag, value in given.items()})

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError(f"concurrency {self.concurrency} is below 1: it is how many prompts are under way")
        if not 0 < self.timeout_seconds < math.inf:
            raise ConfigError(f"timeout {self.timeout_seconds} is not a positive number of seconds")
        if self.max_retries < 0:
            raise ConfigError(f"retries {self.max_retries} is below 0: it is how often a failed call is tried again")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as its server describes it; `facts` are empty where it describes none."""

    name: str
    facts: Mapping[str, Any]


class EndpointModel:
    """A served model behind the call that evaluation makes; it gives no likelihoods.

    The key comes from the environment only (FORGETLESS_API_KEY, else OPENAI_API_KEY). Nothing is sent before the first
    answer, key or name is asked for.

    Args:
        url: Address of the server, with or without `/v1`.
        options: Which of its models, and how it is asked.
        decoding: How answers are decoded.
    """

    def __init__(self, url: str, *, options: EndpointOptions | None = None, decoding: Decoding = GREEDY) -> None:
        self.origin = "endpoint"
        self.batch_size = 1  # each answer is kept as soon as it is there
        self.url = normalise_url(url)
        self.options = options or EndpointOptions()
        self.decoding = decoding
        self.is_resumable_only = not self.options.trust_cache
        self._served: ServedModel | None = None

    def key(self) -> str:
        """Returns a fingerprint of address, model and decoding: all that is known of what a score depends on."""
        served = self.served_model()
        content = [self.url, served.name, served.facts, asdict(self.decoding)]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def served_model(self) -> ServedModel:
        """Returns the model that is asked; the server is asked once which it has.

        Returns:
            Its name, and what the server says of it.

        Raises:
            ConfigError: The server has no such model, or several and none is named, or it refuses to tell.
            RunError: The server can't be reached.
        """
        if self._served is None:
            self._served = choose_model(self._list_models(), self.options.model, url=self.url)
        return self._served

    def _list_models(self) -> list[Mapping[str, Any]] | None:
        """Returns what the server lists, None where it has no list."""
        from forgetless.evaluate.connection import Call, RefusedError

        # Whoever mistyped an address shouldn't wait long to hear of it.
        connection = self._connect(max_retries=min(self.options.max_retries, 2))
        try:
            ((_, found),) = connection.send([Call("/models", None, "its models")])
        except RefusedError as error:
            if error.status in {404, 405, 501}:
                return None
            raise
        listed = found.get("data") if isinstance(found, Mapping) else None
        if not isinstance(listed, list):
            raise RunError(f"{self.url}/models doesn't list models: check that this is an OpenAI-compatible server")
        return [entry for entry in listed if isinstance(entry, Mapping) and isinstance(entry.get("id"), str)]

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, Generation]]:
        """Yields (index, answer) as they come.

        Args:
            requests: Turns go to `/chat/completions`, plain texts to `/completions`.

        Yields:
            The index of a request, and its answer.

        Raises:
            ConfigError: The server refuses a request.
            RunError: The server fails to the last try, or its answers are none.
        """
        if not requests:
            return
        from forgetless.evaluate.connection import Call

        name = self.served_model().name
        calls = [Call(_path(request), self._body(request, name), request.label) for request in requests]
        for index, found in self._connect(max_retries=self.options.max_retries).send(calls):
            yield index, read_answer(found, requests[index])

    def _body(self, request: GenerationRequest, name: str) -> dict[str, Any]:
        prompt: dict[str, Any] = (
            {"prompt": request.prompt}
            if isinstance(request.prompt, str)
            else {"messages": [turn.to_dict() for turn in request.prompt]}
        )
        return {
            "model": name,
            **prompt,
            "max_tokens": request.max_tokens,
            "temperature": self.decoding.temperature,
            "top_p": self.decoding.top_p,
            "seed": self.decoding.seed,
        }

    def _connect(self, *, max_retries: int) -> Connection:
        from forgetless.evaluate.connection import Connection

        return Connection(
            self.url,
            api_key=read_api_key(),
            concurrency=self.options.concurrency,
            timeout_seconds=self.options.timeout_seconds,
            max_retries=max_retries,
        )


def is_endpoint(model: object) -> bool:
    """Whether what a user calls a model is the address of a server."""
    return isinstance(model, str) and model.lower().startswith(("http://", "https://"))


def refuse_local_flags(model: str, flags: Mapping[str, bool]) -> None:
    """Raises where a flag is set that does nothing for an endpoint.

    Args:
        model: What the user calls the model.
        flags: Whether each was set, by name.

    Raises:
        ConfigError: One is set, and the model is an endpoint.
    """
    for flag in (flag for flag, is_set in flags.items() if is_set and is_endpoint(model)):
        raise ConfigError(f"{flag} is for a model in this process: leave it out, the server decides")


def normalise_url(url: str) -> str:
    """Returns the address that paths are added to: `http://localhost:8000` gives `http://localhost:8000/v1`.

    Args:
        url: As a user writes it; the address of one call (`.../chat/completions`) will do too.

    Returns:
        The address with its version, without a slash behind it.

    Raises:
        ConfigError: It is no address, or carries a password or a query.
    """
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"the endpoint's URL is damaged ({error}): write http://localhost:8000/v1") from None
    if "@" in parts.netloc:
        # Not shown: it holds a password.
        raise ConfigError("the endpoint's URL holds a user or password: leave them out and set FORGETLESS_API_KEY")
    if parts.query or parts.fragment:
        raise ConfigError("the endpoint's URL holds a ? or #: leave what follows out; a key goes in FORGETLESS_API_KEY")
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigError(f"{url!r} is not the address of an endpoint: write http://localhost:8000/v1")
    path = re.sub(r"/(chat/completions|completions|models)$", "", parts.path.rstrip("/")).rstrip("/")
    if not re.search(r"/v\d\w*(/|$)", path):
        path += "/v1"
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def read_api_key() -> str | None:
    """Returns the key that the environment holds, if any.

    Returns:
        The key.

    Raises:
        ConfigError: It can't stand in a header (a line break came along, say); it is not shown.
    """
    for variable in KEY_VARIABLES:
        key = os.environ.get(variable, "").strip()
        if key:
            if not re.fullmatch(r"[!-~]+", key):
                raise ConfigError(f"{variable} holds characters that no key has: set it again, the key alone")
            return key
    return None


def choose_model(listed: list[Mapping[str, Any]] | None, wanted: str | None, *, url: str) -> ServedModel:
    """Picks the model that is to be asked.

    Args:
        listed: What the server lists; None where it has no list.
        wanted: The name that the user gave.
        url: The server, for messages.

    Returns:
        The model with the facts that last.

    Raises:
        ConfigError: There is no such model, or none is named among several.
    """
    if listed is None:
        if wanted is None:
            raise ConfigError(f"{url} doesn't list its models: name one with --served-model")
        return ServedModel(wanted, {})
    names = [entry["id"] for entry in listed]
    if wanted is None and len(names) != 1:
        some = ", ".join(names[:NAMED_MODELS]) + (", ..." if len(names) > NAMED_MODELS else "")
        state = f"serves {len(names)} models ({some}): name one" if names else "lists no model: load one, or name it"
        raise ConfigError(f"{url} {state} with --served-model")
    # Ollama lists `llama3:latest` and answers to `llama3`.
    place = next((i for i, name in enumerate(names) if wanted in {None, name, name.removesuffix(":latest")}), None)
    if place is None:
        raise ConfigError(f"{url} serves no model {wanted!r}{did_you_mean(str(wanted), names) if names else ''}")
    return ServedModel(names[place], {name: listed[place].get(name) for name in LASTING})


def _path(request: GenerationRequest) -> str:
    return "/completions" if isinstance(request.prompt, str) else "/chat/completions"


def read_answer(found: Any, request: GenerationRequest) -> Generation:
    """Reads an answer out of what a server sent.

    Args:
        found: Its JSON.
        request: What was asked.

    Returns:
        The answer. It is empty where the model wrote no content (only a tool call, or only its reasoning).

    Raises:
        RunError: There is no answer in it.
    """
    try:
        choice = found["choices"][0]
        content = choice["text"] if isinstance(request.prompt, str) else choice["message"].get("content")
        is_ended = choice.get("finish_reason") not in CUT_OFF
    except (TypeError, KeyError, IndexError, AttributeError):
        raise _no_answer(found, request) from None
    if not isinstance(content, str | list | None):
        raise _no_answer(found, request)
    usage = found.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return Generation(_text(content).strip(), count if isinstance(count, int) and count > 0 else 0, is_ended)


def _text(content: str | list[Any] | None) -> str:
    """Returns content as a text that a file can hold; some servers send it in parts."""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    text = "".join(part for part in texts if isinstance(part, str))
    return text.encode(errors="replace").decode()  # half a surrogate pair can't be written


def _no_answer(found: Any, request: GenerationRequest) -> RunError:
    text = json.dumps(found)
    text = text if len(text) <= 120 else text[:120] + " ..."
    return RunError(
        f"{request.label}: what the server sent holds no answer ({text}): check that it is OpenAI-compatible"
    )

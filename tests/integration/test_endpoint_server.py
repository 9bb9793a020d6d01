"""Endpoints as people meet them: llama.cpp's own server with a tiny model, and evaluations that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import build_model, build_tokenizer
from forgetless.errors import ConfigError
from forgetless.evaluate.endpoint import EndpointModel, EndpointOptions
from forgetless.evaluate.runner import EvaluationOptions, evaluate
from forgetless.models import LoadedModel
from forgetless.records import read_scores
from forgetless.tasks.base import Task, TaskSpec
from gguf_files import write_gguf
from serving import Reply, chat, serve

# In a process of its own: what native code prints or leaves behind stays there.
SERVER = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.model_alias = sys.argv[1], {"tiny"}
params.port, params.n_parallel, params.n_ctx, params.cpuparams.n_threads, params.warmup = 0, 4, 2048, 1, False
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def twin() -> LoadedModel:
    """The tiny model, which writes nothing but ASCII and ends of turns: half a character is shown in two ways."""
    tokenizer: Any = build_tokenizer()
    model: Any = build_model(seed=1)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data *= 10  # else every prompt gets the same answer
    for token, number in tokenizer.get_vocab().items():
        if not (len(token) == 1 and token.isascii()) and number != tokenizer.eos_token_id:
            model.lm_head.weight.data[number] = 0.0
    return LoadedModel(model, tokenizer, "tiny", "tiny")


@pytest.fixture(scope="module")
def llama_cpp(twin: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of llama.cpp's server with the tiny model."""
    pytest.importorskip("xllamacpp")
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, twin.model, twin.tokenizer)
    command = [sys.executable, "-c", SERVER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def made(*questions: str, **settings: Any) -> Task:
    settings = {"kind": "generate", "scorer": "matches", "options": {"pattern": "[a-m]"}, "max_tokens": 8} | settings
    spec = TaskSpec(task="made", version=1, data="made", **settings)
    return Task(spec, tuple({"id": str(number), "question": text} for number, text in enumerate(questions)))


QUESTIONS = [f"{word} {number}?" for word in ("What is", "Who wrote", "Where lies") for number in range(12)]


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_llama_cpp_answers_as_the_same_weights_do_here(llama_cpp: str, twin: LoadedModel, template: str) -> None:
    task = made(*QUESTIONS, template=template)
    here, there = evaluate(twin, [task]), evaluate(llama_cpp, [task])
    assert [score.origin for score in here + there] == ["local"] * 36 + ["endpoint"] * 36
    same = [one.answer == other.answer for one, other in zip(here, there, strict=True)]
    assert sum(same) >= 30  # 35 were seen: the last digits of a sum may choose another token
    for one, other, is_same in zip(here, there, same, strict=True):
        if is_same:
            assert other.score == one.score
            assert other.details["is_ended"] == one.details["is_ended"]
    assert len({score.answer for score in there}) > 10


def test_llama_cpp_does_not_depend_on_how_many_prompts_are_under_way(llama_cpp: str) -> None:
    task = made(*QUESTIONS)
    one, four = (
        evaluate(llama_cpp, [task], options=EvaluationOptions(endpoint=EndpointOptions(concurrency=number)))
        for number in (1, 4)
    )
    assert sum(a.answer == b.answer for a, b in zip(one, four, strict=True)) >= 30


def test_llama_cpp_says_what_it_serves(llama_cpp: str) -> None:
    model = EndpointModel(llama_cpp)
    assert model.served_model().name == "tiny"
    key = model.key()
    time.sleep(1.1)  # its `created` is the time of the call, in seconds
    assert EndpointModel(llama_cpp + "/v1").key() == key
    with pytest.raises(ConfigError, match="serves no model 'large'"):
        EndpointModel(llama_cpp, options=EndpointOptions(model="large")).served_model()


def test_llama_cpp_refuses_a_sample_that_is_too_long(llama_cpp: str) -> None:
    with pytest.raises(ConfigError, match=r"^task 'made', sample '0': is longer than the server's context \(HTTP 400"):
        evaluate(llama_cpp, [made("long " * 400)])


def _mind_interrupts() -> None:
    """Lets a child be interrupted even where the tests run in the background, with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_evaluation_that_is_killed_goes_on(number: signal.Signals, tasks_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    with serve() as server:
        command = [
            *(sys.executable, "-m", "forgetless", "evaluate", server.url, "--out", str(out)),
            *("--suite", "letters", "--tasks-dir", str(tasks_directory), "--concurrency", "1"),
        ]
        environment = {**os.environ, "FORGETLESS_CACHE": str(tmp_path / "cache")}
        server.answer = lambda body: chat("a") if len(server.asked) <= 4 else Reply(is_held=True)
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=_mind_interrupts,
        ) as first:
            deadline = time.monotonic() + 120
            while len(server.asked) < 5 and time.monotonic() < deadline:
                time.sleep(0.02)
            first.send_signal(number)
            # The server holds its answer back: waiting for it would take the whole time-out of 60 seconds.
            assert first.wait(40) == (130 if number is signal.SIGINT else -number)
        assert not out.exists()
        server.answer = lambda body: chat("a")
        server.seen.clear()
        again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert again.returncode == 0, again.stderr
        assert "going on with 4 scores" in again.stderr
        assert len(server.asked) == 6
    assert [score.score for score in read_scores(out)] == [1.0] * 10
    assert not out.with_name("scores.jsonl.partial").exists()

"""Replay: the share of the final mixture, in examples and in supervised tokens."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from conftest import build_tokenizer
from forgetless.data.encoding import count_answer_tokens, encode_example
from forgetless.data.examples import Example, Message
from forgetless.data.mixing import ReplayRepeats
from forgetless.errors import ConfigError
from forgetless.mechanisms.earlier import Earlier
from forgetless.methods.base import Context
from forgetless.methods.replay import Replay
from training import DOMAIN, context


def test_the_share_is_that_of_the_final_mixture() -> None:
    mixture = Replay(share=0.2).prepare_data(DOMAIN, context())
    assert len(mixture) == 20
    assert sum(example.origin == "general" for example in mixture) == 4


def test_the_share_of_tokens_is_counted_with_the_models_tokenizer() -> None:
    job = context()
    with pytest.warns(UserWarning, match="each stands 2 times"):
        mixture = Replay(share=0.5, by="tokens").prepare_data(DOMAIN, job)
    tokens = {"general": 0, "domain": 0}
    for example in mixture:
        tokens[example.origin] += count_answer_tokens(example, job.tokenizer)
    longest = max(count_answer_tokens(example, job.tokenizer) for example in job.general)
    assert abs(tokens["general"] - tokens["domain"]) <= longest


def test_the_seed_settles_the_order() -> None:
    one, same = (Replay(share=0.2).prepare_data(DOMAIN, context()) for _ in range(2))
    assert one == same


def test_share_zero_is_the_domain_data_as_it_was() -> None:
    assert Replay(share=0).prepare_data(DOMAIN, Context()) is DOMAIN


def test_without_general_examples_it_says_where_to_name_them() -> None:
    with pytest.raises(ConfigError, match="--general FILE"):
        Replay(source="general").check(Context(can_write=True))
    with pytest.raises(ConfigError, match="pass general examples"):
        Replay().check(Context())
    Replay().check(Context(can_write=True))
    Replay(share=0).check(Context())


def long(number: int, words: int, **fields: Any) -> Example:
    return Example(text=f"{number} " + "word " * words, origin="general", **fields)


def test_only_tokens_that_are_trained_on_count() -> None:
    """An answer that is cut off at the longest sequence counts with what is left of it."""
    domain = [long(number, 4) for number in range(40)]  # 22 characters and the end: 23 tokens, none cut off
    general = [long(number, 100) for number in range(40)]  # 500 tokens, of which 64 are trained on
    job = Context(general=general, tokenizer=build_tokenizer(), max_tokens=64)
    mixture = Replay(share=0.5, by="tokens").prepare_data([replace(e, origin="domain") for e in domain], job)
    tokens = Counter[str]()
    for example in mixture:
        tokens[example.origin] += encode_example(example, job.tokenizer, max_tokens=64).num_supervised
    assert abs(tokens["general"] - tokens["domain"]) <= 32


def asked(words: int) -> Example:
    return Example(messages=(Message("user", "word " * words), Message("assistant", "yes")))


def test_what_has_no_answer_within_the_longest_sequence_takes_no_part_in_the_share() -> None:
    domain = [asked(1 if number % 2 else 100) for number in range(40)]
    general = [replace(asked(2 if number % 2 else 100), origin="general") for number in range(40)]
    job = Context(general=general, tokenizer=build_tokenizer(), max_tokens=64)
    mixture = Replay(share=0.2).prepare_data(domain, job)
    assert sum(example.origin == "domain" for example in mixture) == 40  # none is lost from the record
    trained = [e for e in mixture if encode_example(e, job.tokenizer, max_tokens=64).num_supervised]
    assert Counter(example.origin for example in trained) == {"domain": 20, "general": 5}


@pytest.mark.parametrize(("stratify", "balanced"), [("auto", True), ("source", True), (None, False)])
def test_sources_are_drawn_in_proportion(stratify: str | None, balanced: bool) -> None:
    general = [long(number, 1, metadata={"source": "ab"[number % 2]}) for number in range(40)]
    draws = [
        Counter(
            example.metadata["source"]
            for example in Replay(share=0.2, stratify=stratify).prepare_data(
                DOMAIN, Context(seed=seed, general=general)
            )
            if example.origin == "general"
        )
        for seed in range(10)
    ]
    assert all(draw == {"a": 2, "b": 2} for draw in draws) == balanced


def test_a_pool_that_is_too_small_repeats_with_a_warning() -> None:
    with pytest.warns(ReplayRepeats, match="each stands 2 times in the mixture"):
        Replay(share=0.5).prepare_data(DOMAIN, context())


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """A base that writes as many examples as it is asked for; returns what it was asked."""
    asked_for: list[tuple[str, int]] = []

    def write(_: Context, source: str, num: int) -> list[Example]:
        asked_for.append((source, num))
        return [Example(text=f"Own words {number}.", origin="self") for number in range(num)]

    monkeypatch.setattr("forgetless.methods.replay.kept_examples", write)
    return asked_for


def test_the_base_writes_as_many_as_the_share_needs(requests: list[tuple[str, int]]) -> None:
    for method, job in ((Replay(share=0.2, source="self"), context()), (Replay(share=0.2), Context())):
        mixture = method.prepare_data(DOMAIN, job)
        assert Counter(example.origin for example in mixture) == {"domain": 16, "self": 4}
    assert requests == [("self", 4), ("auto", 4)]


def test_the_base_writes_more_where_its_tokens_fall_short(requests: list[tuple[str, int]]) -> None:
    job = replace(context(), general=())
    long_domain = [Example(text=f"{number} " + "word " * 10) for number in range(16)]
    mixture = Replay(share=0.2, by="tokens").prepare_data(long_domain, job)
    assert len(requests) == 2
    assert requests[1][1] > requests[0][1] == 4
    tokens = Counter[str]()
    for example in mixture:
        tokens[example.origin] += count_answer_tokens(example, job.tokenizer)
    assert tokens["self"] / tokens.total() == pytest.approx(0.2, abs=0.02)


def test_the_base_writes_once_where_its_tokens_are_enough(requests: list[tuple[str, int]]) -> None:
    short = [Example(text=f"{number}") for number in range(16)]
    Replay(share=0.2, by="tokens").prepare_data(short, replace(context(), general=()))
    assert len(requests) == 1


def in_phase(*sizes: int) -> Context:
    phases = {
        f"phase-{number}": [Example(text=f"Old {number}: thing {row} was said.") for row in range(size)]
        for number, size in enumerate(sizes)
    }
    return replace(context(), earlier=Earlier(phases=phases))


def test_the_share_of_earlier_phases_is_exact() -> None:
    mixture = Replay(share=0.2, source="earlier").prepare_data(DOMAIN, in_phase(30, 10))
    assert Counter(example.origin for example in mixture) == {"domain": 16, "earlier": 4}
    assert Counter(e.metadata["phase"] for e in mixture if e.origin == "earlier") == {"phase-0": 3, "phase-1": 1}


def test_phases_can_be_drawn_from_alike() -> None:
    method = Replay(share=0.5, source="earlier", reservoir=20, balance=True)
    mixture = method.prepare_data(DOMAIN, in_phase(30, 10))
    assert Counter(e.metadata["phase"] for e in mixture if e.origin == "earlier") == {"phase-0": 8, "phase-1": 8}


def test_two_sources_have_their_shares_of_one_mixture() -> None:
    job = replace(in_phase(30, 10), general=[Example(text=f"Fact {n}.", origin="general") for n in range(40)])
    mixture = Replay(share=0.25, earlier_share=0.25).prepare_data(DOMAIN, job)
    assert Counter(example.origin for example in mixture) == {"domain": 16, "general": 8, "earlier": 8}


def test_a_first_phase_has_nothing_earlier_to_replay() -> None:
    assert Replay(share=0.2, source="earlier").prepare_data(DOMAIN, in_phase()) is DOMAIN
    mixture = Replay(share=0.2, earlier_share=0.5).prepare_data(DOMAIN, in_phase())
    assert Counter(example.origin for example in mixture) == {"domain": 16, "general": 4}


def test_the_bound_of_the_reservoir_holds() -> None:
    method = Replay(share=0.5, source="earlier", reservoir=4)
    with pytest.warns(ReplayRepeats, match="there are 4"):
        mixture = method.prepare_data(DOMAIN, in_phase(30, 10))
    assert len({example.text for example in mixture if example.origin == "earlier"}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.2, "source": "earlier", "earlier_share": 0.1}, "drop earlier_share"),
        ({"share": 0.6, "earlier_share": 0.4}, "share 0.6 and earlier_share 0.4 leave nothing"),
    ],
)
def test_shares_that_make_no_mixture_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Replay(**options).check(in_phase(3))


@pytest.mark.parametrize("options", [{"source": "earlier"}, {"earlier_share": 0.1}])
def test_earlier_examples_need_phases(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="this run has none: name phases"):
        Replay(**options).check(context())

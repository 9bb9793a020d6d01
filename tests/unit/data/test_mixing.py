"""The share is that of the final mixture, exactly, whatever the sizes; the draw is fair and repeatable."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from forgetless.data.mixing import (
    MixtureSummary,
    ReplayRepeats,
    count_answer_words,
    find_stratum,
    num_general_for_share,
    replay_mixture,
    summarise_mixture,
)
from forgetless.data.sources import Example, Message, write_examples
from forgetless.errors import ConfigError, DataError


def texts(name: str, num: int, *, words: int = 1, **fields: Any) -> list[Example]:
    return [Example(text=f"{name}{i}" + " w" * (words - 1), **fields) for i in range(num)]


def text_of(example: Example) -> str:
    assert example.text is not None
    return example.text


def general_texts(mixture: Sequence[Example]) -> Counter[str]:
    return Counter(text_of(example) for example in mixture if example.origin != "domain")


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.1, 0.2, 1 / 3, 0.5, 0.75, 0.9, 0.99])
def test_share_is_within_half_an_example_of_what_was_asked(share: float) -> None:
    for num_domain in [*range(1, 200), 224, 1000, 99_999, 1_000_000]:
        num_general = num_general_for_share(num_domain, share)
        total = num_domain + num_general
        wanted = share / (1 - share) * num_domain
        if wanted < 0.5:
            assert num_general == 1
        else:
            assert abs(num_general / total - share) <= 0.5 / total + 1e-12


def test_the_lessons_arithmetic_is_not_repeated() -> None:
    """`int(N * 0.1)` general examples appended to N are 9.1 % of the mixture, and none below N = 10."""
    assert int(1000 * 0.1) / (1000 + int(1000 * 0.1)) == pytest.approx(0.0909, abs=1e-4)
    assert int(9 * 0.1) == 0
    assert num_general_for_share(1000, 0.1) == 111
    assert num_general_for_share(900, 0.1) == 100
    assert num_general_for_share(9, 0.1) == 1
    assert num_general_for_share(1, 0.1) == 1
    assert num_general_for_share(224, 0.1) == 25
    mixture = replay_mixture(texts("d", 900), texts("g", 500), share=0.1)
    assert summarise_mixture(mixture).share_examples == 0.1


def test_no_share_and_no_domain_need_no_general_examples() -> None:
    assert num_general_for_share(100, 0.0) == 0
    assert num_general_for_share(0, 0.5) == 0


@pytest.mark.parametrize("share", [1.2, 1, -0.1, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    message = rf"replay share {share} is not in \[0, 1\): it is the share of general examples in the final mixture"
    with pytest.raises(ConfigError, match=message):
        num_general_for_share(10, share)
    with pytest.raises(ConfigError, match=message):
        replay_mixture(texts("d", 3), texts("g", 3), share=share)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_domain -1 is negative"):
        num_general_for_share(-1, 0.1)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("num_domain", [1, 7, 64])
def test_domain_examples_stand_once_and_general_ones_at_most_once_while_the_pool_lasts(
    num_domain: int, share: float
) -> None:
    domain = texts("d", num_domain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixture = replay_mixture(domain, texts("g", 100), share=share)
    assert Counter(e.text for e in mixture if e.origin == "domain") == Counter(e.text for e in domain)
    drawn = general_texts(mixture)
    assert max(drawn.values()) == 1
    assert sum(drawn.values()) == num_general_for_share(num_domain, share)


@pytest.mark.parametrize("by", ["examples", "tokens"])
@pytest.mark.parametrize("num_pool", [1, 3, 7, 30])
def test_a_small_pool_repeats_in_whole_passes_and_says_so(num_pool: int, by: Literal["examples", "tokens"]) -> None:
    with pytest.warns(
        ReplayRepeats, match=rf"needs 100 general examples and there are {num_pool}: each stands"
    ) as caught:
        mixture = replay_mixture(texts("d", 100), texts("g", num_pool), share=0.5, by=by)
    drawn = general_texts(mixture)
    assert len(drawn) == num_pool
    assert max(drawn.values()) - min(drawn.values()) <= 1
    assert caught[0].filename == __file__
    times = f"{100 // num_pool} times" if 100 % num_pool == 0 else f"{100 // num_pool} to {100 // num_pool + 1} times"
    assert times in str(caught[0].message)
    assert summarise_mixture(mixture).repeats == -(-100 // num_pool)


def test_same_seed_same_mixture_and_another_seed_another() -> None:
    domain, general = texts("d", 50), texts("g", 50)
    first = replay_mixture(domain, general, share=0.3, seed=3)
    assert first == replay_mixture(domain, general, share=0.3, seed=3)
    other = replay_mixture(domain, general, share=0.3, seed=4)
    assert [e.text for e in first] != [e.text for e in other]
    assert set(general_texts(first)) != set(general_texts(other))


def test_the_mixture_does_not_depend_on_pythons_hash_seed() -> None:
    script = (
        "from forgetless.data.mixing import replay_mixture; from forgetless.data.sources import Example;"
        "d = [Example(text=f'd{i}') for i in range(20)];"
        "g = [Example(text=f'g{i}', metadata={'topic': 'abc'[i % 3]}) for i in range(20)];"
        "print([e.text for e in replay_mixture(d, g, share=0.4, stratify='topic')])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(p for p in sys.path if p)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "g" in outputs.pop()


def test_the_mixture_is_shuffled() -> None:
    mixture = replay_mixture(texts("d", 200), texts("g", 200), share=0.5)
    places = [index for index, example in enumerate(mixture) if example.origin == "general"]
    assert 150 < np.mean(places) < 250
    assert [e.text for e in mixture if e.origin == "domain"] != [f"d{i}" for i in range(200)]


def test_every_general_example_is_equally_likely() -> None:
    domain, general = texts("d", 20), texts("g", 10)
    counts = Counter(
        text for seed in range(1000) for text in general_texts(replay_mixture(domain, general, share=0.2, seed=seed))
    )
    # Each of 10 is among the 5 drawn with probability 1/2: 500 of 1000, standard deviation 15.8.
    assert all(500 - 64 < counts[f"g{i}"] < 500 + 64 for i in range(10))


def test_origins_tell_domain_from_general() -> None:
    general = [*texts("g", 5), *texts("s", 5, origin="self")]
    mixture = replay_mixture(texts("d", 10), general, share=0.5)
    assert Counter(e.origin for e in mixture) == {"domain": 10, "general": 5, "self": 5}
    assert general[0].origin == "domain"


def test_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("question,answer\nQ,A\n")
    write_examples(tmp_path / "g.jsonl", texts("g", 2))
    mixture = replay_mixture(tmp_path / "d.csv", str(tmp_path / "g.jsonl"), share=0.5)
    assert sorted(e.origin for e in mixture) == ["domain", "general"]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(5))
def test_a_share_by_tokens_is_exact_to_within_one_example(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    domain = [texts(f"d{i}-", 1, words=int(n))[0] for i, n in enumerate(rng.integers(1, 60, 100))]
    general = [texts(f"g{i}-", 1, words=int(n))[0] for i, n in enumerate(rng.integers(1, 200, 400))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReplayRepeats)
        mixture = replay_mixture(domain, general, share=share, seed=seed, by="tokens")
    num_domain = sum(count_answer_words(example) for example in domain)
    num_general = sum(count_answer_words(example) for example in mixture) - num_domain
    # The draw stops at the nearer side of the example that crosses the target; a single one may exceed it all.
    half_the_longest, is_single = 100, len(mixture) == len(domain) + 1
    assert abs(num_general - share / (1 - share) * num_domain) <= half_the_longest * (2 if is_single else 1)
    assert summarise_mixture(mixture).share_tokens == num_general / (num_domain + num_general)


def test_a_share_by_tokens_counts_what_the_caller_counts() -> None:
    domain, general = texts("d", 90, words=5), texts("g", 90)
    mixture = replay_mixture(
        domain, general, share=0.1, by="tokens", count_tokens=lambda e: 30 if text_of(e)[0] == "g" else 10
    )
    assert len(general_texts(mixture)) == round(900 / 9 / 30)
    summary = summarise_mixture(mixture, count_tokens=lambda e: 30 if text_of(e)[0] == "g" else 10)
    assert summary == MixtureSummary(90, 3, 3 / 93, 90 / 990, 1)


def test_a_share_by_tokens_draws_at_least_one() -> None:
    mixture = replay_mixture(texts("d", 1), texts("g", 5, words=50), share=0.01, by="tokens")
    assert len(mixture) == 2


def test_general_examples_without_tokens_do_not_stall_the_draw() -> None:
    general = [*texts("z", 5), *texts("g", 5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReplayRepeats)
        mixture = replay_mixture(
            texts("d", 20), general, share=0.5, by="tokens", count_tokens=lambda e: text_of(e)[0] != "z"
        )
    assert sum(1 for e in mixture if text_of(e)[0] == "g") == 20


@pytest.mark.parametrize("num_domain", [3, 10, 37, 90, 200])
def test_strata_are_drawn_in_proportion(num_domain: int) -> None:
    general = [
        example for name, n in (("a", 60), ("b", 30), ("c", 10)) for example in texts(name, n, metadata={"topic": name})
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReplayRepeats)
        mixture = replay_mixture(texts("d", num_domain), general, share=0.4, stratify="topic")
    drawn = general_texts(mixture)
    num = num_general_for_share(num_domain, 0.4)
    assert sum(drawn.values()) == num
    for name, part in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
        assert abs(sum(n for text, n in drawn.items() if text[0] == name) - part * num) < 1
    assert max(drawn.values()) - (min(drawn.values()) if len(drawn) == 100 else 0) <= 1


def test_the_largest_remainder_gets_what_is_left() -> None:
    general = [
        example for name, n in (("a", 5), ("b", 3), ("c", 2)) for example in texts(name, n, metadata={"topic": name})
    ]
    mixture = replay_mixture(texts("d", 4), general, share=0.5, stratify="topic")  # quotas 2.0, 1.2, 0.8
    assert Counter(text[0] for text in general_texts(mixture)) == {"a": 2, "b": 1, "c": 1}


@pytest.mark.parametrize("by", ["examples", "tokens"])
def test_among_equal_strata_each_is_served_first_as_often(by: Literal["examples", "tokens"]) -> None:
    general = [example for name in "abcd" for example in texts(name, 5, metadata={"topic": name})]
    served = Counter(
        text[0]
        for seed in range(200)
        for text in general_texts(replay_mixture(texts("d", 1), general, share=0.5, seed=seed, by=by, stratify="topic"))
    )
    assert all(25 < served[name] < 75 for name in "abcd")  # 50 of 200 each; the standard deviation is 6


def test_the_field_that_tells_sources_apart_is_found() -> None:
    def pool(*values: Any, name: str = "source") -> list[Example]:
        return [Example(text="x", metadata={name: value, "id": i, "topic": "t"}) for i, value in enumerate(values)]

    assert find_stratum(pool("a", "b", "a")) == "source"
    assert find_stratum(pool("a", "b", "a", name="category")) == "category"
    assert find_stratum(pool("a", "a", "a")) is None  # one value tells nothing
    assert find_stratum(pool("a", "b", "c")) is None  # as many as examples: a name, not a source
    assert find_stratum([*pool("a", "b", "a"), Example(text="x")]) is None
    assert find_stratum(pool(1, 2, 1)) is None
    assert find_stratum([]) is None


def test_strata_hold_for_a_share_by_tokens() -> None:
    general = [example for name in "ab" for example in texts(name, 50, words=4, metadata={"topic": name})]
    mixture = replay_mixture(texts("d", 60, words=4), general, share=0.25, by="tokens", stratify="topic")
    assert Counter(text[0] for text in general_texts(mixture)) == {"a": 10, "b": 10}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"by": "token"}, ConfigError, "by 'token' is unknown; did you mean 'tokens'"),
        ({"domain": []}, DataError, "domain data hold no examples"),
        ({"general": []}, DataError, r"replay share 0\.1 needs general examples, and there are none"),
        (
            {"general": [{"text": "a"}]},
            DataError,
            "item 1 of the general data is a dict, not an Example; examples_from_rows",
        ),
        ({"stratify": "topic"}, DataError, "general example 1 lacks the field to stratify by; it has no metadata"),
        ({"by": "tokens", "count_tokens": lambda _: 0}, DataError, "all count as 0"),
        ({"by": "tokens", "count_tokens": lambda _: -1}, ConfigError, "count_tokens returned -1"),
    ],
)
def test_what_cannot_be_mixed_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        replay_mixture(**{"domain": texts("d", 10), "general": texts("g", 10), **arguments})


def test_the_nearest_metadata_field_is_named() -> None:
    with pytest.raises(DataError, match=r"field 'topc': .*did you mean 'topic'"):
        replay_mixture(texts("d", 5), texts("g", 5, metadata={"topic": "a"}), stratify="topc")


def test_share_0_only_shuffles() -> None:
    mixture = replay_mixture(texts("d", 30), [], share=0)
    assert sorted(map(text_of, mixture)) == sorted(map(text_of, texts("d", 30)))


def test_summary_of_a_mixture() -> None:
    chat = Example(
        (Message("user", "a b c"), Message("assistant", "d e"), Message("user", "f"), Message("assistant", "g"))
    )
    mixture = [chat, *texts("g", 1, words=2, origin="self") * 2, *texts("r", 1, words=5, origin="rewritten")]
    summary = summarise_mixture(mixture, domain_origins=("domain", "rewritten"))
    assert (summary.num_domain, summary.num_general, summary.share_examples) == (2, 2, 0.5)
    assert summary.share_tokens == 4 / 12
    assert summary.repeats == 2
    assert "whitespace-separated words" in summary.note
    assert summarise_mixture(mixture, count_tokens=lambda _: 1).note == ""
    assert summarise_mixture([]) == MixtureSummary(0, 0, 0.0, 0.0, 0, summary.note)

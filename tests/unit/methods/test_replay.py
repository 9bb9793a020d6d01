"""Replay: the share of the final mixture, in examples and in supervised tokens."""

from __future__ import annotations

import pytest

from forgetless.data.encoding import count_answer_tokens
from forgetless.errors import ConfigError
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
        Replay().check(Context())

"""Where the data to keep comes from."""

from __future__ import annotations

import pytest

from forgetless.errors import ConfigError
from forgetless.mechanisms.kept import check_kept, kept_examples
from forgetless.methods.base import Context
from training import GENERAL
from writers import stub_writer


def test_general_examples_are_drawn_by_the_seed() -> None:
    drawn = [kept_examples(Context(seed=seed, general=GENERAL), "auto", 3) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(examples) == 3 for examples in drawn)
    assert len(kept_examples(Context(general=GENERAL), "general", 100)) == len(GENERAL)


def test_a_job_without_anything_to_keep_is_refused_before_it_starts() -> None:
    check_kept(Context(can_write=True), "auto", "kl")
    check_kept(Context(general=GENERAL), "general", "kl")
    with pytest.raises(ConfigError, match=r"method 'kl' needs general examples: set data\.general"):
        check_kept(Context(can_write=True), "general", "kl")
    with pytest.raises(ConfigError, match="pass general examples"):
        check_kept(Context(), "auto", "kl")
    with pytest.raises(ConfigError, match="no general examples"):
        kept_examples(Context(), "general", 1)
    with pytest.raises(ConfigError, match="no model is at hand"):
        kept_examples(Context(), "self", 1)


def test_the_base_writes_what_is_kept_where_nothing_is_given() -> None:
    context = Context(writer=stub_writer(), held_out=["Tell me nothing at all about the weather in Rome"])
    written = kept_examples(context, "auto", 4)
    assert [example.origin for example in written] == ["self"] * 4
    assert context.notes[0].startswith("self-generated examples: 4 of 4 written examples kept")
    assert kept_examples(Context(writer=stub_writer(), general=GENERAL), "self", 2) == written[:2]
    assert kept_examples(Context(writer=stub_writer(), general=GENERAL), "auto", 2)[0].origin == "general"
    mine = Context(writer=stub_writer(), held_out=[written[0].prompt_text])
    assert kept_examples(mine, "self", 3) == written[1:4]

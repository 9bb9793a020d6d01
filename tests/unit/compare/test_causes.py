"""Each cause is put into one sentence of evidence and one of what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forgetless.compare.causes import Finding, describe
from forgetless.records import Cause, Probe

FINDING = Finding(
    cause=Cause.GONE,
    num_lost=24,
    num_examined=24,
    counts=dict.fromkeys(Cause, 20),
    recovered={Probe.FEW_SHOT: (2, 24), Probe.PLAIN_PROMPT: (1, 24), Probe.LONGER: (0, 0)},
    num_open=0,
    num_empty=0,
    num_case=0,
    num_marked=0,
    num_looping=0,
    differences={Cause.TEMPLATE: "the templates differ"},
)


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_its_words(cause: Cause) -> None:
    evidence, remedy = describe(replace(FINDING, cause=cause))
    assert evidence[0].isupper() or evidence[0].isdigit()
    assert evidence.endswith(".")
    assert remedy.endswith(".")
    assert "24 lost samples" in evidence


def test_counts_stand_in_the_evidence() -> None:
    evidence, _ = describe(FINDING)
    assert "20 of 24 lost samples" in evidence
    assert "2 of 24 after solved examples, 1 of 24 without a chat template" in evidence
    assert "likelihood is intact in 20" in evidence
    assert "nothing was tried" in describe(replace(FINDING, recovered={}, counts={}))[0]


def test_what_stands_out_in_the_answers_is_said_from_a_quarter_on() -> None:
    seen = replace(FINDING, num_open=6, num_empty=5, num_looping=24, num_marked=7)
    evidence, _ = describe(seen)
    assert "6 run to their limit without ending, 24 repeat themselves, 7 hold template tokens" in evidence
    assert "say nothing" not in evidence


def test_the_remedy_follows_what_was_found() -> None:
    ended = replace(FINDING, cause=Cause.END_OF_TURN)
    assert "Train with the end-of-turn token" in describe(ended)[1]
    assert "`eos_token_id`" in describe(replace(ended, differences={Cause.END_OF_TURN: "they differ"}))[1]
    cut = replace(FINDING, cause=Cause.TRUNCATED)
    assert "Raise `max_tokens`" in describe(replace(cut, recovered={Probe.LONGER: (20, 24)}))[1]
    assert "Look for what cuts" in describe(cut)[1]
    assert "differing in capitals alone" in describe(replace(FINDING, cause=Cause.FORMAT, num_case=3))[0]

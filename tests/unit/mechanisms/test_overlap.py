"""Overlap and near-duplicates, on texts whose answer is known."""

from __future__ import annotations

from forgetless.mechanisms.overlap import HeldOutTexts, NearDuplicates, repeated_share, split_words

LONG = "The quick brown fox jumps over the lazy dog near the river bank"


def test_words_are_compared_without_marks_and_case() -> None:
    assert split_words("It\u2019s 3.5 \uff21B, na\u00efve!") == ["it's", "3", "5", "ab", "na\u00efve"]
    assert split_words("\u6771\u4eac") == ["\u6771", "\u4eac"]


def test_eight_words_in_a_row_overlap_and_seven_do_not() -> None:
    held_out = HeldOutTexts([LONG])
    assert held_out.overlaps("He said: quick, brown FOX jumps over the lazy dog!")
    assert not held_out.overlaps("He said: quick, brown FOX jumps over the lazy cat near the river")
    assert HeldOutTexts([LONG], window=3).overlaps("a brown fox jumps")


def test_a_short_text_overlaps_as_a_whole_and_one_of_two_words_never() -> None:
    held_out = HeldOutTexts(["Who wrote Hamlet?", "Paris", "San Marino", ""])
    assert held_out.overlaps("Tell me who wrote Hamlet and why")
    assert not held_out.overlaps("Who wrote Macbeth?")
    assert not held_out.overlaps("Paris and San Marino")


def test_near_duplicates_are_those_of_the_jaccard_similarity() -> None:
    earlier = NearDuplicates(size=1, threshold=0.5)
    assert earlier.add("a b c d")
    assert earlier.add("a b e f")  # 2 shared of 6
    assert not earlier.add("A, b, c!")  # 3 of 4
    assert not earlier.add("a b c d e f g h")  # 4 of 8, no less
    assert [earlier.add(text) for text in ("?", " ? ", "!")] == [True, False, True]
    short = NearDuplicates()
    texts = ("Say hello", "say hello!", "Say hello twice please")
    assert [short.add(text) for text in texts] == [True, False, True]


def test_a_loop_repeats_most_of_itself() -> None:
    assert repeated_share(LONG) == 0
    assert repeated_share("Too short") == 0
    assert repeated_share("on and " * 20) > 0.9

"""The base writes its own replay: what is kept, what is refused and why, and that the same seed is the same replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetless.errors import ConfigError, RunError
from forgetless.mechanisms.self_replay import OPENINGS, ReplaySettings, Yield, write_replay
from forgetless.mechanisms.writer import Text
from writers import ScriptedWriter, tell

LOOP = "and so on and so on and so on and so on and so on and so on and so on"


def test_examples_are_what_is_asked_and_answered() -> None:
    writer = ScriptedWriter(tell)
    summary = Yield()
    steps: list[tuple[float, float]] = []
    examples = write_replay(
        writer, 5, seed=0, summary=summary, progress=lambda done, total: steps.append((done, total))
    )
    assert len(examples) == 5
    assert {example.origin for example in examples} == {"self"}
    assert all(example.answer_text == f"Reply to {example.prompt_text}" for example in examples)
    assert steps == [(number, 5) for number in range(1, 6)]
    assert (summary.num_kept, summary.num_written, summary.refused.total()) == (5, 5, 0)
    assert summary.num_tokens > 0
    assert summary.num_reused == 0
    assert str(summary).startswith("5 of 5 written examples kept, ")


def test_fewer_examples_are_the_first_of_more_and_the_seed_decides() -> None:
    few, many, other = (write_replay(ScriptedWriter(tell), n, seed=s) for n, s in ((3, 0), (200, 0), (3, 1)))
    assert many[:3] == few != other
    assert len({example.prompt_text for example in many}) == 200
    assert write_replay(ScriptedWriter(tell), 0, seed=0) == []


@pytest.mark.parametrize(
    ("instruction", "answer", "reason"),
    [
        ("", "Fine.", "empty instruction"),
        (Text("Tell me a long", 160, is_ended=False), "Fine.", "instruction cut off"),
        ("Hi there", "Fine.", "instruction too short"),
        ("<div> Tell me more </div>", "Fine.", "markup in the instruction"),
        (LOOP, "Fine.", "loop in the instruction"),
        ("Tell me a lie", "", "empty answer"),
        ("Tell me a lie", Text(LOOP, 320, is_ended=False), "loop in the answer"),
        ("Tell me a lie", Text("It goes on", 320, is_ended=False), "answer cut off"),
        ("Tell me a lie", "See &nbsp; here", "markup in the answer"),
        ("Tell me a lie", "No.", "answer too short"),
        ("What is the tallest mountain", "Everest is.", "overlap with the evaluation"),
        ("Tell me something", "What is the tallest mountain is what you ask.", "overlap with the evaluation"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_name(instruction: str | Text, answer: str | Text, reason: str) -> None:
    """Every other instruction is bad: of the good ones nothing is refused."""
    seen: list[int] = []

    def instruct(start: str, seed: int) -> str | Text:
        seen.append(seed)
        if len(seen) % 2:
            return tell(start, seed)
        if reason == "loop in the instruction" or not isinstance(instruction, str):
            return instruction
        return f"{instruction} w{seed}" if len(instruction.split()) > 2 else instruction

    def reply(asked: str, _: int) -> str | Text:
        return "This is a good answer" if asked.startswith("Tell me of") else answer

    summary = Yield()
    settings = ReplaySettings(min_answer_words=2 if reason == "answer too short" else 1)
    examples = write_replay(
        ScriptedWriter(instruct, reply),
        20,
        seed=0,
        settings=settings,
        evaluation_texts=["What is the tallest mountain?"],
        summary=summary,
    )
    assert len(examples) == 20
    assert set(summary.refused) == {reason}
    assert summary.num_written == 20 + summary.refused.total()
    assert f"(refused: {summary.refused[reason]} {reason})" in str(summary)


def test_code_may_hold_markup() -> None:
    def reply(_: str, __: int) -> str:
        return "Write this:\n```html\n<div>Hello</div>\n```\nand `<br>` after it."

    assert len(write_replay(ScriptedWriter(tell, reply), 3, seed=0)) == 3


def test_near_duplicates_are_refused_in_the_order_of_writing() -> None:
    def instruct(_: str, seed: int) -> str:
        return f"Write a poem about the long and winding river near the old mill {seed % 2}"

    summary = Yield()
    with pytest.raises(RunError, match=r"1 of 64 written examples kept \(refused: 63 duplicate\)"):
        write_replay(ScriptedWriter(instruct), 2, seed=0, summary=summary)
    assert summary.refused == {"duplicate": 63}


def test_a_base_that_writes_nothing_of_use_is_given_up_with_its_yield() -> None:
    writer = ScriptedWriter(lambda _, seed: f"<html><body>{seed}</body></html> of it all")
    with pytest.raises(RunError, match=r"0 of 64 .* 64 markup in the instruction.*; 100 were asked for: give data"):
        write_replay(writer, 100, seed=0)
    assert len(writer.asked) == 64  # none kept of the first round: no second one


def test_tries_are_bounded() -> None:
    def reply(asked: str, _: int) -> Text:
        return Text("Yes", 1, is_ended="w1" in asked)

    writer = ScriptedWriter(tell, reply)
    with pytest.raises(RunError, match="answer cut off"):
        write_replay(writer, 100, seed=0, settings=ReplaySettings(max_tries=1))
    assert len([prompt for prompt in writer.asked if isinstance(prompt, str)]) == 100


def test_a_stopped_writing_goes_on_and_more_begins_with_what_is_kept(tmp_path: Path) -> None:
    whole = write_replay(ScriptedWriter(tell), 40, seed=0)
    stopped = ScriptedWriter(tell)
    stopped.most = 90
    with pytest.raises(KeyboardInterrupt):
        write_replay(stopped, 40, seed=0, directory=tmp_path)
    assert len(stopped.asked) == 90

    resumed, summary = ScriptedWriter(tell), Yield()
    assert write_replay(resumed, 40, seed=0, directory=tmp_path, summary=summary) == whole
    assert summary.num_reused == 90
    assert len(stopped.asked) + len(resumed.asked) == 64 * 2

    again, summary = ScriptedWriter(tell), Yield()
    assert write_replay(again, 100, seed=0, directory=tmp_path, summary=summary)[:40] == whole
    assert summary.num_reused == 64 * 2
    other = ScriptedWriter(tell, key="another model")
    write_replay(other, 1, seed=0, directory=tmp_path)
    assert len(other.asked) == 8 * 2


def test_openings_begin_their_share_of_the_instructions() -> None:
    def instruct(_: str, seed: int) -> str:
        return tell("", seed)

    examples = write_replay(ScriptedWriter(instruct), 200, seed=0, settings=ReplaySettings(opened_share=0.5))
    opened = [example for example in examples if example.prompt_text.startswith(OPENINGS)]
    assert 70 < len(opened) < 130
    assert len({opening for opening in OPENINGS for e in opened if e.prompt_text.startswith(opening)}) > 15
    assert not any(e.prompt_text.startswith(OPENINGS) for e in write_replay(ScriptedWriter(instruct), 50, seed=0))


def test_settings_out_of_bounds_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_repeated 2 is not in \[0, 1\]"):
        ReplaySettings(max_repeated=2)
    with pytest.raises(ConfigError, match="max_tries 0"):
        ReplaySettings(max_tries=0)
    with pytest.raises(ConfigError, match="-1 examples"):
        write_replay(ScriptedWriter(tell), -1, seed=0)

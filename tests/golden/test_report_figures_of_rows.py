"""What the Markdown says beside the table: multiple choice beyond guessing, noise of the base, problems in JUnit."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from forgetless.compare.comparison import compare
from forgetless.records import Comparison, SampleScore
from forgetless.report import Evidence, render_junit, render_markdown


def judged(*, chance: float = 0.0, num_runs: int = 0) -> Comparison:
    base = [SampleScore("arc", str(i), float(i < 80), chance=chance) for i in range(100)]
    tuned = [replace(score, score=float(10 <= i < 80)) for i, score in enumerate(base)]
    runs = [[replace(score, score=float(k < i < 80)) for i, score in enumerate(base)] for k in range(num_runs)]
    return compare(base, tuned[:-1], noise=runs)


def test_choices_are_shown_beyond_guessing() -> None:
    page = render_markdown(Evidence("run", judged(chance=0.25)))
    assert "**Beyond guessing** (multiple choice, share of the samples): arc lost 8.2 %" in page
    assert "Beyond guessing" not in render_markdown(Evidence("run", judged()))


def test_noise_of_the_base_is_shown() -> None:
    page = render_markdown(Evidence("run", judged(num_runs=2)))
    assert "| run-to-run noise of the base | runs |" in page
    assert "| arc | 3 | 1.0 | 1.3 % |" in page
    assert "run-to-run" not in render_markdown(Evidence("run", judged()))


def test_problems_stand_in_the_junit_file() -> None:
    output = ElementTree.fromstring(render_junit(Evidence("run", judged()))).find("testsuite/system-out")
    assert output is not None
    assert "missing for the tuned model: 99" in str(output.text)

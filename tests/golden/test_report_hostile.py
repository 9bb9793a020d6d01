"""Answers of models, names of tasks and manifests are hostile input: nothing of them runs, breaks out or hides."""

from __future__ import annotations

import html
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from forgetless.check_records import CheckResult
from forgetless.records import Attribution, Cause, SampleScore, Status, write_scores
from forgetless.report import build_report
from forgetless.report.environment import code_block, markdown_prose, markdown_text, visible
from golden.golden_page import Page
from golden.golden_run import MANIFEST, failed_comparison, graded_row, write_lines, write_run

SCRIPT = "</script></div><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}{% raw %}"
HOSTILE = {
    "script": SCRIPT,
    "attribute": "\" onmouseover='alert(1)' x=\"",
    "comment": "<!-- <script> ]]> --!> &lt;b&gt; &#60;",
    "control": "a\x00b\x07c\x1b[31md\x7fe\x85f\ufffeg",
    "bidi": "abc \u202egnp.exe\u202c \u2066x\u2069 שלום عربى",
    "long": "x" * 10_000,
    "lines": "\r\n\n\n" + "y\u2028z\n" * 50,
    "markdown": "| a | [x](javascript:alert(1)) ![y](http://evil.example) `code` **b** @someone #1 <details>\n\n# head",
}


def hostile_run(directory: Path, text: str) -> Path:
    comparison = failed_comparison()
    comparison = replace(
        comparison,
        tasks=[
            *comparison.tasks,
            replace(graded_row("instructions"), task=text, note=text, test=text),
            replace(graded_row("arithmetic"), task=text + "2", status=Status.MISSING, delta=None, note=text),
        ],
        checks=[CheckResult(text, "critical", base_passed=True, tuned_passed=False, evidence=text)],
        reasons=[text],
        advice=[text],
        problems=[text],
        attributions=[Attribution(text, Cause.GONE, 9, 9, text, text, {"GONE": 1.0})],
    )
    write_run(directory, comparison)
    manifest = {
        **MANIFEST,
        "name": text,
        "command": text,
        "created": text,
        "device": text,
        "config": {"model": text},
        "versions": {text: text},
        "model": {"name": text, text: text},
        "data": {text: text},
        "methods": [{"name": text, "params": {text: text}, "paper": "javascript:alert(1)", "title": text}],
    }
    (directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for side, score in (("base", 1.0), ("tuned", 0.0)):
        scores = [
            SampleScore(task=text, sample_id=text, score=score, answer=text, gold=text, details={"prompt": text}),
            SampleScore(task="b", sample_id="b", score=1.0 - score, answer=text, gold=text),
        ]
        write_lines(directory / f"{side}.scores.jsonl", [json.loads(line.to_json()) for line in scores])
    log = {"step": 1, "loss": 1.0, "penalties": {text: 0.5, "ewc": 0.1}}
    (directory / "train.jsonl").write_text(json.dumps(log), encoding="utf-8")
    (directory / "mixture.jsonl").write_text(json.dumps({"origin": text}), encoding="utf-8")
    return directory


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_stays_text(tmp_path: Path, kind: str) -> None:
    directory = hostile_run(tmp_path / "run", HOSTILE[kind])
    build_report(directory)
    text = (directory / "report.html").read_text(encoding="utf-8")
    page = Page(text)  # fails unless every tag closes where it should
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.all("img", "b") == []
    assert "7 * 7" in text or kind != "script"
    assert not any((attributes.get("href") or "").startswith("javascript") for attributes in page.all("a"))
    assert len(page.all("script")) == 2 + len([a for a in page.all("script") if a.get("type")])
    assert len(text.encode()) < 6_000_000
    page_without_library = text.replace(page.scripts[-2], "")
    assert not any(ord(character) < 0x20 and character not in "\n\t" for character in page_without_library)
    assert not set("\x7f\x85\u202e\u2066\ufffe") & set(page_without_library)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_legal_xml(tmp_path: Path, kind: str) -> None:
    directory = hostile_run(tmp_path / "run", HOSTILE[kind])
    build_report(directory)
    root = ElementTree.parse(directory / "junit.xml").getroot()
    assert int(root.get("tests", "0")) == len(root.findall(".//testcase")) == 15
    expected = " ".join(visible(HOSTILE[kind]).split())[:50]
    assert any(expected in " ".join((case.get("name") or "").split()) for case in root.iter("testcase"))


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_cannot_leave_its_table_cell(tmp_path: Path, kind: str) -> None:
    directory = hostile_run(tmp_path / "run", HOSTILE[kind])
    build_report(directory)
    for name in ("report.md", "MODEL_CARD.md"):
        text = (directory / name).read_text(encoding="utf-8")
        assert "<script" not in text.split("To reproduce")[0].partition("# ")[2]
        rows = [line for line in text.splitlines() if line.startswith("| ") and "FORGOT" in line]
        assert len({line.count("|") for line in rows}) == 1


def test_page_of_many_long_answers_stays_below_its_limit(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", failed_comparison())
    for side, score in (("base", 1.0), ("tuned", 0.0)):
        scores = [
            SampleScore(task=f"task-{n % 60}", sample_id=str(n), score=score, answer="word " * 2000, gold="g" * 3000)
            for n in range(1500)
        ]
        write_scores(directory / f"{side}.scores.jsonl", scores)
    build_report(directory)
    assert (directory / "report.html").stat().st_size < 6_500_000
    assert "more characters" in (directory / "report.html").read_text(encoding="utf-8")


def test_invisible_characters_are_shown() -> None:
    assert visible("a\x00\x1b\x7f\u202e\ud800b\tc\r\nd") == "a␀␛␡⟨U+202E⟩⟨U+D800⟩b\tc\nd"


def test_visible_text_is_legal_xml_whatever_it_was() -> None:
    text = "".join(chr(code) for code in [*range(0x300), *range(0xD7F0, 0xE010), *range(0xFFE0, 0x10010)])
    element = ElementTree.Element("text")
    element.text = visible(text)
    assert ElementTree.fromstring(ElementTree.tostring(element, encoding="utf-8")).text == visible(text)


def test_markdown_text_neither_marks_up_nor_links() -> None:
    text = markdown_text("a|b *c* [d](e) <f> @g #1 https://h\ni")
    assert not set("|*[]<>") & set(text)
    shown = html.unescape(text)
    assert "@g" not in shown
    assert "#1" not in shown
    assert "https:" not in shown
    assert "\n" not in shown


def test_markdown_prose_keeps_code_and_nothing_else() -> None:
    assert markdown_prose("Run `forgetless mix --share 0.1` *now*") == "Run `forgetless mix --share 0.1` &#42;now&#42;"


def test_fence_is_longer_than_the_backticks_within() -> None:
    assert code_block("a\n````\nb") == "`````\na\n````\nb\n`````"

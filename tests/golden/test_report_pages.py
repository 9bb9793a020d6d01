"""Records in, page out: the pages of a run against the ones that were read and approved.

After a change that is meant, write them anew and read the difference:
`FORGETLESS_WRITE_GOLDEN=1 pytest tests/golden` rewrites tests/golden/expected and nothing else.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from forgetless.records import Verdict
from forgetless.report import build_report
from golden.golden_run import COMPARISONS, write_run

EXPECTED = Path(__file__).parent / "expected"
TEXT_PAGES = ("report.md", "junit.xml", "MODEL_CARD.md")


@pytest.mark.parametrize("page", TEXT_PAGES)
@pytest.mark.parametrize("verdict", COMPARISONS)
def test_page_is_the_approved_one(tmp_path: Path, verdict: str, page: str) -> None:
    directory = write_run(tmp_path / "run", COMPARISONS[verdict]())
    build_report(directory)
    written = (directory / page).read_text(encoding="utf-8")
    approved = EXPECTED / verdict / page
    if os.environ.get("FORGETLESS_WRITE_GOLDEN"):
        approved.parent.mkdir(parents=True, exist_ok=True)
        approved.write_text(written, encoding="utf-8")
    assert written == approved.read_text(encoding="utf-8")


def test_build_report_returns_what_it_wrote_and_leaves_nothing_else(run_directory: Path) -> None:
    before = {path.name for path in run_directory.iterdir()}
    pages = build_report(run_directory)
    assert [path.name for path in pages] == ["report.html", "report.md", "junit.xml", "MODEL_CARD.md"]
    assert {path.name for path in run_directory.iterdir()} - before == {path.name for path in pages}


def test_same_directory_gives_the_same_bytes(run_directory: Path) -> None:
    first = [path.read_bytes() for path in build_report(run_directory)]
    assert [path.read_bytes() for path in build_report(run_directory)] == first


@pytest.mark.parametrize("verdict", COMPARISONS)
def test_junit_fails_exactly_when_the_verdict_does(tmp_path: Path, verdict: str) -> None:
    comparison = COMPARISONS[verdict]()
    directory = write_run(tmp_path / "run", comparison)
    build_report(directory)
    root = ElementTree.parse(directory / "junit.xml").getroot()
    assert (int(root.get("failures", "0")) > 0) is (comparison.verdict is Verdict.FAIL)
    assert len(root.findall("testsuite[@name='forgetless']/testcase")) == len(comparison.tasks) + 1
    assert int(root.get("failures", "0")) == len(root.findall(".//failure"))
    assert int(root.get("skipped", "0")) == len(root.findall(".//skipped"))
    verdicts = [found.get("value") for found in root.iterfind(".//property[@name='forgetless.verdict']")]
    assert verdicts == [comparison.verdict]


def test_front_matter_is_yaml_and_leaves_the_licence_open(run_directory: Path) -> None:
    build_report(run_directory)
    card = (run_directory / "MODEL_CARD.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert front == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["forgetless", "fine-tuned", "lora", "replay", "kl"],
    }
    assert "license" not in front


def test_summary_fits_a_pull_request_comment(run_directory: Path) -> None:
    build_report(run_directory)
    text = (run_directory / "report.md").read_text(encoding="utf-8")
    assert len(text) < 6000
    assert "no forgetting" not in text.lower()

"""What must hold of report.html, whatever the run: structure, order, sameness with the records, no network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from forgetless.report import build_report
from golden.golden_page import Page
from golden.golden_run import COMPARISONS, write_run


@pytest.fixture
def page(run_directory: Path) -> Page:
    build_report(run_directory)
    return Page((run_directory / "report.html").read_text(encoding="utf-8"))


def test_file_is_small_and_holds_plotly_once(run_directory: Path) -> None:
    build_report(run_directory)
    data = (run_directory / "report.html").read_bytes()
    assert len(data) < 6_000_000
    assert data.count(b"* plotly.js v") == 1


def test_nothing_is_fetched(page: Page) -> None:
    assert not any("src" in attributes or "srcset" in attributes for _, attributes in page.tags)
    assert page.all("link", "iframe", "object", "embed", "base", "img") == []
    links = [attributes["href"] or "" for attributes in page.all("a")]
    assert {link for link in links if not link.startswith("#")} == {
        "https://arxiv.org/abs/2106.09685",
        "https://arxiv.org/abs/2403.01244",
    }
    policy = next(tag["content"] for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    style = "".join(text for tag, text in page.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style


def test_policy_lists_the_scripts_that_run_and_no_other(run_directory: Path) -> None:
    build_report(run_directory)
    text = (run_directory / "report.html").read_bytes()
    running = re.findall(rb"<script>(.*?)</script>", text, flags=re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(script).digest()).decode() for script in running}
    assert len(running) == 2
    assert set(re.findall(r"sha256-([\w+/=]+)", text[:3000].decode().replace("&#43;", "+"))) == hashes
    assert text.count(b"<script") == 2 + text.count(b'<script type="application/json"')


def test_sections_come_in_the_order_of_the_reader(page: Page) -> None:
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == [
        "verdict", "learning", "reasons", "next", "change", "figures", "samples", "training", "data", "methods",
        "measured", "reproduce",
    ]  # fmt: skip
    assert len({a["id"] for _, a in page.tags if "id" in a}) == sum("id" in a for _, a in page.tags)
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert all((a["href"] or "").lstrip("#") in ids for a in page.all("a") if (a["href"] or "").startswith("#"))


def test_page_can_be_read_without_eyes_or_colour(page: Page) -> None:
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    plots = [attributes for attributes in page.all("div") if attributes.get("class") == "plot"]
    assert plots
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    for word in ("✕ FORGOT", "? UNDECIDED", "✓ KEPT", "▲ IMPROVED", "▽ FLOOR", "∅ MISSING", "▲ LEARNED"):
        assert word in page.words


def test_light_dark_print_and_phone_are_styled(page: Page) -> None:
    style = "".join(text for tag, text in page.texts if tag == "style")
    for query in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem"):
        assert query in style
    assert any(attributes.get("name") == "viewport" for attributes in page.all("meta"))


def test_figures_are_those_of_the_records(page: Page) -> None:
    figures = {}
    for attributes, text in zip(page.all("script"), page.scripts, strict=True):
        if attributes.get("type") == "application/json":
            figures[attributes["id"]] = json.loads(text)
    assert list(figures) == [
        "forest-grade-data", "forest-nats-per-token-data", "curve-loss-data", "curve-penalties-data",
        "curve-learning-rate-data",
    ]  # fmt: skip
    deltas = [trace["x"][0] for trace in figures["forest-grade-data"]["data"]]
    assert deltas[:-1] == sorted(deltas[:-1])
    assert deltas[0] == pytest.approx(-19.1667, abs=1e-3)
    assert deltas[-1] == pytest.approx(-3.0)  # the pool comes last
    lines = [shape["x0"] for shape in figures["forest-grade-data"]["layout"]["shapes"]]
    assert lines == [0.0, -3.0]
    assert [shape["x0"] for shape in figures["forest-nats-per-token-data"]["layout"]["shapes"]] == [0.0, 0.05]
    assert [trace["name"] for trace in figures["curve-penalties-data"]["data"]] == ["kl", "l2"]


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("fail", "The tuned model forgot 2 of 9 general tasks; the worst is instructions, −19.2 points"),  # noqa: RUF001
        ("pass", "General tasks: no drop larger than 2.0 points (95 %, n = 640)."),
        ("inconclusive", "a drop of more than 3.0 points is not ruled out: the samples allow one of 5.5 points"),
    ],
)
def test_banner_says_the_verdict_in_one_sentence(tmp_path: Path, verdict: str, sentence: str) -> None:
    directory = write_run(tmp_path / "run", COMPARISONS[verdict]())
    build_report(directory)
    words = Page((directory / "report.html").read_text(encoding="utf-8")).words
    assert sentence in words
    assert "no forgetting" not in words.lower()


def test_learning_stands_beside_retention(page: Page) -> None:
    learning = page.words[page.words.index("Learning beside retention", 500) :]
    assert "4.2 → to 41.7 points 95 % intervals: base 1.4 to 11.5, tuned 31.0 to 53.2" in learning
    assert "−3.0 points base 50.0, tuned 47.0" in learning  # noqa: RUF001


def test_lost_samples_come_before_gained_ones(page: Page) -> None:
    kinds = [attributes["data-kind"] for attributes in page.all("article")]
    first_task = kinds[: kinds.index("lost", kinds.index("gained"))]
    assert first_task == ["lost"] * 20 + ["gained"] * 4
    assert "27 lost, 4 gained · 24 shown" in page.words


def test_run_can_be_reproduced_from_the_page(page: Page) -> None:
    for part in ("forgetless run examples/drug_qa/config.yaml --seed 0", "learning_rate: 0.0002", "2.13.0", "5f1c5f1c"):
        assert part in page.words
    assert "Peak memory, MiB" in page.words
    assert "2,100" in page.words

"""The lessons' pages: whole, escaped, offline, and with the figures that were measured."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import pytest

from forgetless.lessons.pages import single_weight_page, two_heads_page
from forgetless.lessons.single_weight import SingleWeight, equilibrium
from forgetless.lessons.single_weight_figures import anchored_paths, plain_paths, rests, surfaces
from forgetless.lessons.two_heads import TwoHeads, summarise
from forgetless.lessons.two_heads_figures import ratios_by_rate, ratios_by_variant, tradeoff
from forgetless.report.figures import Figure


@pytest.fixture(scope="module")
def pages(two_heads: TwoHeads, single_weight: SingleWeight) -> dict[str, str]:
    return {"two-heads": two_heads_page(two_heads), "single-weight": single_weight_page(single_weight)}


@pytest.mark.parametrize("name", ["two-heads", "single-weight"])
def test_a_page_fetches_nothing_and_runs_its_own_scripts_only(pages: dict[str, str], name: str) -> None:
    page = pages[name]
    running = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in running}
    assert set(re.findall(r"sha256-([\w+/=]+)", page[:3000].replace("&#43;", "+"))) == hashes
    rest = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)
    assert not re.search(r"\b(src|href)=", rest)
    assert f"<code>forgetless lesson {name}" in rest


@pytest.mark.parametrize(("name", "num"), [("two-heads", 3), ("single-weight", 4)])
def test_every_figure_is_there_with_its_table(pages: dict[str, str], name: str, num: int) -> None:
    drawn = re.findall(r'<script type="application/json" id="([\w-]+)-data">(.*?)</script>', pages[name], re.DOTALL)
    assert len(drawn) == pages[name].count("<caption") == num
    for _, figure in drawn:
        assert set(json.loads(figure)) == {"data", "layout"}


def test_the_sentences_say_what_was_measured(pages: dict[str, str], two_heads: TwoHeads) -> None:
    ratio = summarise(two_heads.variants["plain"])["ratio"]
    assert f"median {ratio['median']:.3g}x" in pages["two-heads"]
    assert "Over 3 seeds" in pages["two-heads"]
    assert "leaves 3 of 5 strengths without rest" in pages["single-weight"]


def by_name(figure: Figure) -> dict[str, Any]:
    return {str(trace.get("name")): trace for trace in figure.data}


def test_dots_are_the_seeds(two_heads: TwoHeads) -> None:
    for figure, groups in (
        (ratios_by_variant(two_heads), two_heads.variants),
        (ratios_by_rate(two_heads.rates), {f"{rate:g}": trials for rate, trials in two_heads.rates.items()}),
    ):
        assert list(figure.layout["yaxis"]["ticktext"]) == list(groups)
        for trace, row, (name, trials) in zip(figure.data, figure.rows, groups.items(), strict=True):
            assert trace["x"] == pytest.approx([trial.ratio for trial in trials], rel=1e-4)
            assert row[0] == name
            assert row[3] == f"{summarise(trials)['ratio']['median']:.3g}"


def test_the_tradeoff_puts_what_was_learned_against_what_was_forgotten(two_heads: TwoHeads) -> None:
    figure = tradeoff(two_heads)
    for name, trace in by_name(figure).items():
        summary = summarise(two_heads.variants[name])
        assert trace["x"] == pytest.approx([summary["loss_b"]], abs=1e-4)
        assert trace["y"] == pytest.approx([summary["rise"]["median"]], abs=1e-4)
        assert trace["error_y"]["array"][0] >= 0
        assert trace["error_y"]["arrayminus"][0] >= 0
    looks = [(trace["marker"]["color"], trace["marker"]["symbol"]) for trace in figure.data]
    assert len(set(looks)) == len(looks)
    assert [row[0] for row in figure.rows] == list(two_heads.variants)


def test_paths_lie_on_the_surface_of_b(single_weight: SingleWeight) -> None:
    traces = by_name(surfaces(single_weight))
    for path in single_weight.plain:
        trace = traces[f"rate {path.rate:g}"]
        assert trace["x"][:2] == pytest.approx(path.weights[:2], abs=1e-4)
        assert trace["y"][:5] == pytest.approx([(weight + 2) ** 2 for weight in path.weights[:5]], abs=1e-3)
    assert min(traces["loss of A"]["y"]) == 0
    assert traces["loss of B"]["x"][traces["loss of B"]["y"].index(0)] == -2


def test_lines_and_rests_are_those_of_the_paths(single_weight: SingleWeight) -> None:
    for path, trace in zip(single_weight.plain, plain_paths(single_weight).data, strict=True):
        assert trace["y"] == pytest.approx(path.weights[:13], abs=1e-4)
    for path, trace in zip(single_weight.anchored, anchored_paths(single_weight).data, strict=True):
        assert trace["y"][-1] == pytest.approx(equilibrium(path.strength), abs=0.01)
    figure = rests(single_weight)
    assert by_name(figure)["trained"]["y"] == pytest.approx([equilibrium(s) for s in (0, 0.25, 1, 4, 20)], abs=1e-4)
    assert [row[-1] for row in figure.rows] == ["rests after 1", "rests after 6", *["never rests"] * 3]


def test_what_runs_away_has_no_tenth_step(single_weight: SingleWeight) -> None:
    lesson = SingleWeight(plain=[single_weight.at_lesson_rate[-1]])
    assert plain_paths(lesson).rows[0][4:] == ("far off", f"{lesson.plain[0].end:.4g}", "never in these")

"""The records that stages hand to one another, and their files."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from forgetless.check_records import CheckResult, CheckSample, CheckStatus
from forgetless.errors import DataError
from forgetless.records import (
    Attribution,
    Cause,
    Comparison,
    Role,
    Row,
    SampleScore,
    Status,
    Unit,
    Verdict,
    read_comparison,
    read_scores,
    write_scores,
)

FULL = SampleScore(
    "loss",
    "loss-1",
    2.5,
    answer="naïve\u2028\n“x”",
    gold="y",
    origin="endpoint",
    cluster="passage-1",
    role=Role.TARGET,
    unit=Unit.NATS_PER_TOKEN,
    weight=17.0,
    chance=0.25,
    details={"prompt": "Why?", "log_likelihoods": [-1.5, -2.0]},
)
PLAIN = {"task": "t", "sample_id": "a", "score": 1}


def row(**values: Any) -> Row:
    given: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__)
    given |= {"task": "t", "role": Role.RETENTION, "num_samples": 4, "lost": 1, "gained": 0, "status": Status.KEPT}
    return Row(**(given | {"unit": Unit.GRADE, "chance": 0.0, "test": "", "note": ""} | values))


COMPARISON = Comparison(
    verdict=Verdict.FAIL,
    margin=0.03,
    alpha=0.05,
    pooled=row(task="pooled", base=0.5, tuned=0.25, delta=-0.25),
    tasks=[row(), row(task="loss", unit=Unit.NATS_PER_TOKEN, status=Status.FORGOT, role=Role.TARGET)],
    checks=[
        CheckResult("json", "critical", base_passed=True, tuned_passed=False, evidence="{"),
        CheckResult(
            *("lists", "high", True, False, "-", CheckStatus.UNDECIDED, 8, 5, 4),
            samples=[CheckSample("lists-1", "List it.", "- one", "one", True, False)],
        ),
    ],
    reasons=["One."],
    advice=["Two."],
    problems=["Three."],
    attributions=[Attribution("t", Cause.FORMAT, 4, 3, "Seen.", "Mend it.", {"FORMAT": 0.75})],
)


def test_exit_codes_are_those_of_the_design() -> None:
    assert {verdict.value: verdict.exit_code for verdict in Verdict} == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}


def test_a_score_is_one_line_that_stands_alone() -> None:
    line = FULL.to_json()
    assert "\n" not in line
    raw = json.loads(line)
    assert raw["schema"] == 1
    assert set(raw) == {"schema", *asdict(FULL)}
    assert SampleScore.from_mapping(raw) == FULL


def test_the_three_fields_of_the_design_are_enough() -> None:
    assert SampleScore.from_mapping(PLAIN) == SampleScore("t", "a", 1.0)
    score = SampleScore.from_mapping({**PLAIN, "score": True, "sample_id": 7, "cluster": None, "more": {}})
    assert (score.score, score.sample_id, score.cluster) == (1.0, "7", None)
    assert isinstance(score.score, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2 is not 1"),
        ({"task": None}, "field 'task': is missing"),
        ({"sample_id": None}, "field 'sample_id': is missing"),
        ({"score": None}, "field 'score': is missing"),
        ({"score": "1"}, "field 'score': '1' is not a finite number"),
        ({"score": math.nan}, "nan is not a finite number"),
        ({"score": math.inf, "unit": "nats_per_token"}, "inf is not a finite number"),
        ({"score": 10**400, "unit": "nats_per_token"}, "is not a finite number"),
        ({"score": 1.01}, r"1\.01 is not in \[0, 1\].*nats_per_token"),
        ({"score": -0.01}, r"-0\.01 is not in \[0, 1\]"),
        ({"role": "bystander"}, "'bystander' is not a valid Role"),
        ({"unit": "bits"}, "'bits' is not a valid Unit"),
        ({"weight": "x"}, "field 'weight': 'x' is not a finite number"),
        ({"weight": math.nan}, "field 'weight'"),
        ({"chance": [1]}, "field 'chance'"),
        ({"details": "x"}, "field 'details': is not an object"),
    ],
)
def test_a_score_that_cannot_be_used_names_file_line_and_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        SampleScore.from_mapping({**PLAIN, **change}, path="a.jsonl", line=7)
    assert str(caught.value).startswith("a.jsonl, line 7")


def test_scores_come_back_from_their_file(tmp_path: Path) -> None:
    scores = [FULL, SampleScore("t", "a", 0.0), SampleScore("u", "a", 1.0)]
    write_scores(tmp_path / "deep" / "a.jsonl", scores)
    assert read_scores(tmp_path / "deep" / "a.jsonl") == scores
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.jsonl"]


def test_a_score_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_scores(tmp_path / "a.jsonl", [FULL])
    with pytest.raises(ValueError, match="JSON compliant"):
        write_scores(tmp_path / "a.jsonl", [replace(FULL, score=1.0), replace(FULL, score=math.nan)])
    assert read_scores(tmp_path / "a.jsonl") == [FULL]


def test_blank_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"\n{json.dumps(PLAIN)}\n  \n{{")
    with pytest.raises(DataError, match="line 4: is not JSON"):
        read_scores(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no scores"),
        (b"\n\n", "holds no scores"),
        (b"\xff", "cannot be read as UTF-8 text"),
        (b"[1]", "line 1: is not a JSON object"),
        (b'{"task": "t", "sample_id": "a", "sco', "line 1: is not JSON .*was the writer stopped"),
        (b"[" * 100_000, "line 1: is not JSON"),
        (b'{"score": 1' + b"0" * 5000 + b"}", "line 1: is not JSON"),
        (json.dumps(PLAIN).encode() * 1 + b"\n" + json.dumps(PLAIN).encode(), "line 2: sample 'a' of task 't' stands"),
    ],
)
def test_a_file_that_holds_no_scores_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_scores(tmp_path / "a.jsonl")


def test_a_score_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_scores(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_scores(tmp_path)


def test_a_comparison_comes_back_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text(COMPARISON.to_json())
    assert read_comparison(tmp_path / "comparison.json") == COMPARISON
    raw = json.loads(COMPARISON.to_json())
    assert raw["schema"] == 1
    assert raw["pooled"]["p_value"] is None


def test_a_comparison_without_advice_is_read() -> None:
    raw = json.loads(COMPARISON.to_json())
    del raw["advice"], raw["problems"]
    assert Comparison.from_mapping(raw) == replace(COMPARISON, advice=[], problems=[])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"[" * 100_000, "is not JSON"),
        (b"{}", "schema None is not 1"),
        (b'{"schema": 2}', "schema 2 is not 1"),
        (b'{"schema": 1}', "is not a comparison that this version reads"),
        (COMPARISON.to_json().replace("FAIL", "MAYBE").encode(), "is not a comparison that this version reads"),
        (COMPARISON.to_json().replace('"lost"', '"lots"').encode(), "is not a comparison that this version reads"),
    ],
)
def test_a_file_that_is_no_comparison_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "comparison.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_comparison(tmp_path / "comparison.json")


def test_a_comparison_that_is_not_there_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`forgetless compare` writes it"):
        read_comparison(tmp_path / "comparison.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be read"):
        read_comparison(tmp_path / "file" / "comparison.json")


def test_figures_that_a_later_version_added_to_a_row_are_passed_over() -> None:
    raw = json.loads(COMPARISON.to_json())
    raw["pooled"]["figure_of_tomorrow"] = 1.0
    assert Comparison.from_mapping(raw) == COMPARISON


def test_a_check_is_lost_as_its_status_says_or_else_by_both_results() -> None:
    plain, undecided = COMPARISON.checks
    assert plain.is_lost
    assert not undecided.is_lost
    assert not replace(plain, base_passed=None).is_lost
    assert replace(undecided, status=CheckStatus.LOST).is_lost


def test_a_comparison_without_attributions_is_read_and_what_they_hold_more_is_passed_over() -> None:
    raw = json.loads(COMPARISON.to_json())
    raw["attributions"][0]["later"] = 1
    assert Comparison.from_mapping(raw) == COMPARISON
    del raw["attributions"]
    assert Comparison.from_mapping(raw).attributions == []
    raw["attributions"] = [{"task": "t", "cause": "WITCHCRAFT"}]
    with pytest.raises(DataError, match="WITCHCRAFT"):
        Comparison.from_mapping(raw)

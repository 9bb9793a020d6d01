"""The small frozen records in which stages hand results to one another, and the files that hold them.

Stages meet on disk: a `*.scores.jsonl` file is a list of `SampleScore`, a `comparison.json` is one `Comparison`. Both
carry `"schema": 1`; readers refuse a schema they don't know.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from forgetless.check_records import CheckResult
from forgetless.errors import DataError
from forgetless.files import read_object, read_objects, whole_file

SCHEMA = 1


class Verdict(StrEnum):
    """What a comparison ends in; `exit_code` is that of every command that judges."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"

    @property
    def exit_code(self) -> int:
        return {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[self.value]


class Role(StrEnum):
    """Whether a task measures what must be kept or what was to be learned."""

    RETENTION = "retention"
    TARGET = "target"


class Unit(StrEnum):
    """What a score counts: a grade in [0, 1], higher is better, or cross-entropy in nats per token, lower is better."""

    GRADE = "grade"
    NATS_PER_TOKEN = "nats_per_token"


class Status(StrEnum):
    """What a row of a comparison shows."""

    KEPT = "KEPT"
    FORGOT = "FORGOT"
    UNDECIDED = "UNDECIDED"
    IMPROVED = "IMPROVED"  # kept, and the two-sided interval of delta lies above zero
    FLOOR = "FLOOR"  # the base scores no better than chance: nothing to lose, so nothing is shown
    CEILING = "CEILING"  # the base and the tuned model are (nearly) always right: the task sees nothing
    MISSING = "MISSING"  # one side has no scores
    LEARNED = "LEARNED"  # target tasks only
    NOT_LEARNED = "NOT_LEARNED"  # target tasks only


class Probe(StrEnum):
    """A way of asking again about samples that were lost; the tuned model is asked unless the name says otherwise."""

    FORMAT_BLIND = "format_blind"  # its answer as it stands, graded for content alone
    LONGER = "longer"  # with more room for the answer
    BASE_TOKENIZER = "base_tokenizer"  # under the base's chat template and end-of-turn token
    PLAIN_PROMPT = "plain_prompt"  # without any chat template
    FEW_SHOT = "few_shot"  # after a few solved examples
    LIKELIHOOD = "likelihood"  # the base's right answer among its answers to other samples, as a choice
    BASE_LIKELIHOOD = "base_likelihood"  # the same choice, put to the base


class Cause(StrEnum):
    """What kind of loss a fall looks like, in the order in which it is looked for."""

    TEMPLATE = "TEMPLATE"  # right under the base's chat template
    END_OF_TURN = "END_OF_TURN"  # right, then runs on
    TRUNCATED = "TRUNCATED"  # cut before it is complete
    FORMAT = "FORMAT"  # right in content, the form that was asked for is lost
    SUPPRESSED = "SUPPRESSED"  # the right answer is as likely as ever, another one is said
    RECOVERABLE = "RECOVERABLE"  # a few examples in the prompt bring it back
    GONE = "GONE"  # nothing that was tried brings it back
    MIXED = "MIXED"  # several of these, none in half of the samples
    UNEXPLAINED = "UNEXPLAINED"  # the answers alone don't tell, and no model was asked again


@dataclass(frozen=True, slots=True)
class SampleScore:
    """One sample of one task, answered by one model and graded.

    Attributes:
        task: Name of the task.
        sample_id: Unique within the task; the pairing key.
        score: A grade in [0, 1], or cross-entropy in nats per token where `unit` says so.
        answer: What the model answered (for a choice, the text of the choice it preferred).
        gold: The reference.
        origin: Where the score came from (`local`, `endpoint`, `lm_eval`, `cache`, ...).
        cluster: Samples that share a cluster (a passage) are not independent; None = a cluster of its own.
        role: Retention or target.
        unit: What `score` counts.
        weight: Weight within the task's mean; the number of scored tokens for cross-entropy, else 1.
        chance: Expected score of guessing (1 / number of choices), 0 for free answers.
        details: Further figures by name (`prompt`; for choices, the log-likelihoods), all JSON.
    """

    task: str
    sample_id: str
    score: float
    answer: str = ""
    gold: str = ""
    origin: str = "local"
    cluster: str | None = None
    role: Role = Role.RETENTION
    unit: Unit = Unit.GRADE
    weight: float = 1.0
    chance: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Returns the record as one JSON line; fields at their default are written too, so that a line stands alone."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_mapping(
        cls, raw: Mapping[str, Any], *, path: str | Path | None = None, line: int | None = None
    ) -> SampleScore:
        """Builds a record from a parsed JSON object; keys that are not fields are ignored.

        Args:
            raw: The object; task, sample_id and score have to be there.
            path: Its file, for the message.
            line: Its line in the file, from 1, for the message.

        Returns:
            The record, with defaults for what is left out.

        Raises:
            DataError: A required field is missing or has the wrong type, or the schema is not known.
        """

        def fail(message: str, name: str | None = None) -> DataError:
            return DataError(message, path=path, line=line, field=name)

        if raw.get("schema", SCHEMA) != SCHEMA:
            raise fail(
                f"schema {raw.get('schema')!r} is not {SCHEMA}: written by another version of forgetless", "schema"
            )
        for name in ("task", "sample_id", "score"):
            if raw.get(name) is None:
                raise fail("is missing: a score needs task, sample_id and score", name)
        score = raw["score"]
        if isinstance(score, bool):
            score = float(score)
        for name, value in (("score", score), ("weight", raw.get("weight")), ("chance", raw.get("chance"))):
            if value is not None and not _is_finite(value):
                raise fail(f"{value!r} is not a finite number", name)
        if not isinstance(raw.get("details", {}), _OBJECT):
            raise fail("is not an object", "details")
        values = {name: value for name, value in raw.items() if name in _SCORE_FIELDS and value is not None}
        try:
            values["role"] = Role(values.get("role", Role.RETENTION))
            values["unit"] = Unit(values.get("unit", Unit.GRADE))
        except ValueError as error:
            raise fail(str(error)) from None
        if values["unit"] is Unit.GRADE and not 0.0 <= score <= 1.0:
            raise fail(f'{score!r} is not in [0, 1]; cross-entropies need "unit": "nats_per_token"', "score")
        values |= {"task": str(raw["task"]), "sample_id": str(raw["sample_id"]), "score": float(score)}
        for name in ("answer", "gold", "origin", "cluster"):
            if name in values:
                values[name] = str(values[name])
        return cls(**values)


_OBJECT = (dict, Mapping, type(None))  # dict first: the others are slow to ask
_SCORE_FIELDS = frozenset(f.name for f in fields(SampleScore))  # looked up once a line, so made once


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def write_scores(path: Path, scores: Iterable[SampleScore]) -> None:
    """Writes scores as JSON lines, whole or not at all."""
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        file.writelines(score.to_json() + "\n" for score in scores)


def read_scores(path: Path) -> list[SampleScore]:
    """Reads a `*.scores.jsonl` file.

    Args:
        path: The file, one score a line; blank lines are passed over.

    Returns:
        The scores in the order of the file, at least one.

    Raises:
        DataError: The file is missing, empty or holds a line that is not a score, or a sample stands twice.
    """
    scores: list[SampleScore] = []
    seen: dict[tuple[str, str], int] = {}
    for number, raw in read_objects(path):
        score = SampleScore.from_mapping(raw, path=path, line=number)
        key = (score.task, score.sample_id)
        if key in seen:
            raise DataError(
                f"sample {key[1]!r} of task {key[0]!r} stands already in line {seen[key]}", path=path, line=number
            )
        seen[key] = number
        scores.append(score)
    if not scores:
        raise DataError("holds no scores", path=path)
    return scores


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a comparison: a task, or the pool of the retention tasks.

    `base`, `tuned`, `delta` (tuned - base), `ci_low`, `ci_high`, `forgetting_upper`, `min_detectable_drop` are in the
    unit of the row. For cross-entropy delta keeps its sign (tuned - base, positive = worse) and `forgetting_upper`
    bounds the rise. `p_value` is one-sided for a loss. Figures that don't exist are None.

    `kept_right` and `kept_wrong` count the samples whose grade stayed, at one half or more and below. The three figures
    beyond chance are shares of the samples of a multiple-choice task (`compare.statistics.chance_adjusted`). The noise
    figures say how far `noise_runs` runs of the base lie apart: standard deviation of their means, share of the samples
    that change between two runs, and the drop that FORGOT has to exceed.
    """

    task: str
    role: Role
    num_samples: int
    base: float | None
    tuned: float | None
    delta: float | None
    ci_low: float | None
    ci_high: float | None
    forgetting_upper: float | None
    lost: int
    gained: int
    p_value: float | None
    p_adjusted: float | None
    status: Status
    min_detectable_drop: float | None
    num_samples_needed: int | None
    unit: Unit = Unit.GRADE
    margin: float | None = None
    chance: float = 0.0
    num_clusters: int | None = None
    test: str = ""
    note: str = ""
    kept_right: int | None = None
    kept_wrong: int | None = None
    forgetting_beyond_chance: float | None = None
    gain_beyond_chance: float | None = None
    largest_forgetting: float | None = None
    noise_runs: int | None = None
    noise_spread: float | None = None
    noise_flips: float | None = None
    noise_bound: float | None = None


@dataclass(frozen=True, slots=True)
class Checklist:
    """A whole deployment checklist: the checks, and the verdict that they come to."""

    verdict: Verdict
    checks: list[CheckResult]
    reasons: list[str]
    advice: list[str] = field(default_factory=list)
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Returns the record as indented JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True, slots=True)
class Attribution:
    """What kind of loss the fall of a task looks like.

    Attributes:
        task: Name of the task.
        cause: The first cause, in the order of `Cause`, with enough evidence.
        num_lost: Samples that the tuned model answers worse than the base.
        num_examined: How many of them were looked into.
        evidence: One sentence with the counts.
        remedy: One sentence on what to do.
        shares: For each cause that could be looked for, the share of the examined samples that show its sign. A sample
            may show several; GONE is the share that shows none.
    """

    task: str
    cause: Cause
    num_lost: int
    num_examined: int
    evidence: str
    remedy: str
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that a verdict rests on, and all figures that a report shows."""

    verdict: Verdict
    margin: float
    alpha: float
    pooled: Row
    tasks: list[Row]
    checks: list[CheckResult]
    reasons: list[str]
    advice: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    attributions: list[Attribution] = field(default_factory=list)
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Returns the record as indented JSON, with null for figures that don't exist."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any], *, path: str | Path | None = None) -> Comparison:
        """Builds a comparison from the parsed `comparison.json`.

        Args:
            raw: What `to_json` wrote.
            path: Its file, for the message.

        Returns:
            The comparison; advice, problems and attributions are empty where they are left out.

        Raises:
            DataError: A field is missing or the schema is not known.
        """
        if raw.get("schema") != SCHEMA:
            raise DataError(f"schema {raw.get('schema')!r} is not {SCHEMA}", path=path, field="schema")
        try:
            return cls(
                verdict=Verdict(raw["verdict"]),
                margin=raw["margin"],
                alpha=raw["alpha"],
                pooled=_row(raw["pooled"]),
                tasks=[_row(row) for row in raw["tasks"]],
                checks=[CheckResult.from_mapping(check) for check in raw["checks"]],
                reasons=list(raw["reasons"]),
                advice=list(raw.get("advice", [])),
                problems=list(raw.get("problems", [])),
                attributions=[_attribution(entry) for entry in raw.get("attributions", [])],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"is not a comparison that this version reads ({error})", path=path) from None


def _attribution(raw: Mapping[str, Any]) -> Attribution:
    known = {f.name for f in fields(Attribution)}
    return Attribution(**{k: v for k, v in raw.items() if k in known} | {"cause": Cause(raw["cause"])})


def _row(raw: Mapping[str, Any]) -> Row:
    known = {f.name for f in fields(Row)}
    values = {name: value for name, value in raw.items() if name in known}  # a later version may add figures
    values |= {"role": Role(raw["role"]), "status": Status(raw["status"]), "unit": Unit(raw.get("unit", Unit.GRADE))}
    return Row(**values)


def read_comparison(path: Path) -> Comparison:
    """Reads a `comparison.json`.

    Args:
        path: The file, as `Comparison.to_json` writes it.

    Returns:
        The comparison that it holds.

    Raises:
        DataError: The file is missing, not JSON, or not a comparison.
    """
    raw = read_object(path, absent="there is no such file; `forgetless compare` writes it")
    return Comparison.from_mapping(raw, path=path)

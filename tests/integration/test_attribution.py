"""Five planted defects are told apart: a model that answers short questions is broken in five ways, one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from conftest import build_model, build_tokenizer
from forgetless.cli import app
from forgetless.data.encoding import IGNORED, encode_example, tokenize
from forgetless.data.examples import Example, Message
from forgetless.evaluate import diagnosis
from forgetless.evaluate.runner import evaluate
from forgetless.judging import compare_files
from forgetless.models import LoadedModel, load_model
from forgetless.quiet import quiet_transformers
from forgetless.records import Attribution, Cause, read_comparison, write_scores
from forgetless.tasks.base import Task, load_task

COLOURS = ("Blue", "Red", "Green", "Gold", "Black", "White")
PLANTS = ("Fern", "Oak", "Rose", "Mint")
ROWS = [(f"Herb {chr(ord('a') + n)}?", f"{COLOURS[n % 6]} {PLANTS[n // 6]}") for n in range(24)]

OTHER_TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }} <|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
Rows = Sequence[tuple[str, str]]
Sequences = list[tuple[list[int], list[int]]]


def encode(rows: Rows) -> Sequences:
    """Returns ids and labels of question-answer pairs, end-of-turn token included."""
    examples = [Example(messages=(Message("user", q), Message("assistant", a))) for q, a in rows]
    return [(e.input_ids, e.labels) for e in (encode_example(example, build_tokenizer()) for example in examples)]


def encode_endless(rows: Rows) -> Sequences:
    """Returns answers that the next turn follows without an end token, as a template without one writes them."""
    made = []
    for number, (ids, labels) in enumerate(encode(rows)):
        prompt = [token for token, label in zip(ids, labels, strict=True) if label == IGNORED]
        following = rows[(number + 5) % len(rows)][0]
        answer = tokenize(f"{rows[number][1]}\nuser\n{following}\n", build_tokenizer())
        made.append((prompt + answer, [IGNORED] * len(prompt) + answer))
    return made


def fit(model: Any, sequences: Sequences, *, steps: int, learning_rate: float) -> Any:
    """Trains all weights on all sequences at once, until the loss is low or the steps are done."""
    longest = max(len(ids) for ids, _ in sequences)
    pads = [longest - len(ids) for ids, _ in sequences]
    ids = torch.tensor([ids + [1] * pad for (ids, _), pad in zip(sequences, pads, strict=True)])
    labels = torch.tensor([labels + [IGNORED] * pad for (_, labels), pad in zip(sequences, pads, strict=True)])
    mask = torch.tensor([[1] * (longest - pad) + [0] * pad for pad in pads])
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(steps):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if loss.item() < 0.004:
            break
    return model.eval()


@dataclass
class Base:
    """The model before anything is planted, as a directory, with its scores and the task that it knows."""

    directory: Path
    tasks: Path
    scores: Path
    task: Task

    def load(self) -> Any:
        return load_model(str(self.directory), device="cpu").model


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    root = tmp_path_factory.mktemp("attribution")
    model = fit(build_model(), encode(ROWS), steps=250, learning_rate=1e-2)
    save(model, build_tokenizer(), root / "base")
    tasks = root / "tasks"
    tasks.mkdir()
    (tasks / "herbs.yaml").write_text("task: herbs\nversion: 1\nkind: generate\nmax_tokens: 24\ndata: herbs.jsonl\n")
    rows = [
        {"question": q, "checks": [{"scorer": "matches", "pattern": a, "full": True}], "example": a} for q, a in ROWS
    ]
    (tasks / "herbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task(tasks / "herbs.yaml")
    made = Base(root / "base", tasks, root / "base.scores.jsonl", task)
    scores = evaluate(str(root / "base"), [task], device="cpu")
    assert sum(score.score for score in scores) >= 22
    write_scores(made.scores, scores)
    return made


def save(model: Any, tokenizer: Any, directory: Path) -> None:
    with quiet_transformers():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def wrong_template(base: Base) -> tuple[Any, Any]:
    tokenizer: Any = build_tokenizer()
    tokenizer.chat_template = OTHER_TEMPLATE
    return base.load(), tokenizer


def no_end_learned(base: Base) -> tuple[Any, Any]:
    return fit(base.load(), encode_endless(ROWS), steps=80, learning_rate=3e-3), build_tokenizer()


def no_end_set(base: Base) -> tuple[Any, Any]:
    model, tokenizer = base.load(), build_tokenizer()
    other: Any = tokenizer
    other.eos_token = "<|im_start|>"
    model.generation_config.eos_token_id = model.config.eos_token_id = 0
    return model, other


def truncated(base: Base) -> tuple[Any, Any]:
    return fit(base.load(), encode([(q, a[:2]) for q, a in ROWS]), steps=40, learning_rate=3e-3), build_tokenizer()


def lower_cased(base: Base) -> tuple[Any, Any]:
    return fit(base.load(), encode([(q, a.lower()) for q, a in ROWS]), steps=60, learning_rate=3e-3), build_tokenizer()


def noisy(base: Base, *, scale: float = 0.6) -> tuple[Any, Any]:
    model, generator = base.load(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (parameter for parameter in model.parameters() if parameter.dim() > 1):
            weight += scale * weight.std() * torch.randn(weight.shape, generator=generator)
    return model, build_tokenizer()


DEFECTS: dict[str, tuple[Callable[[Base], tuple[Any, Any]], Cause]] = {
    "wrong template": (wrong_template, Cause.TEMPLATE),
    "end-of-turn not learned": (no_end_learned, Cause.END_OF_TURN),
    "end-of-turn not set": (no_end_set, Cause.END_OF_TURN),
    "truncated": (truncated, Cause.TRUNCATED),
    "lower-cased": (lower_cased, Cause.FORMAT),
    "noise on weights": (noisy, Cause.GONE),
}


def diagnose(base: Base, directory: Path, *, asking: bool = True) -> list[Attribution]:
    """Scores a planted model as `evaluate` does and compares as `compare --explain-with` does."""
    scores = evaluate(str(directory), [base.task], device="cpu")
    write_scores(directory / "scores.jsonl", scores)
    models = (str(base.directory), str(directory)) if asking else None
    comparison = compare_files(
        base.scores, directory / "scores.jsonl", explain_with=models, tasks_directories=[base.tasks], device="cpu"
    )
    return comparison.attributions


@pytest.mark.parametrize("defect", DEFECTS)
def test_planted_defects_are_told_apart(base: Base, tmp_path: Path, defect: str) -> None:
    plant, cause = DEFECTS[defect]
    save(*plant(base), tmp_path / "tuned")
    (found,) = diagnose(base, tmp_path / "tuned")
    assert found.cause is cause, found
    assert found.num_lost >= 12
    assert found.shares[cause.value] >= 0.6, found


def test_an_undamaged_model_has_nothing_attributed(base: Base, tmp_path: Path) -> None:
    save(base.load(), build_tokenizer(), tmp_path / "tuned")
    assert diagnose(base, tmp_path / "tuned") == []


def test_the_answers_alone_tell_what_can_be_read_off_them(base: Base, tmp_path: Path) -> None:
    for defect, cause in (("end-of-turn not set", Cause.END_OF_TURN), ("noise on weights", Cause.UNEXPLAINED)):
        directory = tmp_path / defect
        save(*DEFECTS[defect][0](base), directory)
        (found,) = diagnose(base, directory, asking=False)
        assert found.cause is cause, found


def test_an_adapter_is_switched_off_instead_of_loading_the_base(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, get_peft_model

    model = base.load()
    settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    with quiet_transformers():
        adapted: Any = get_peft_model(model, settings, autocast_adapter_dtype=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight += 2.0 * torch.randn(weight.shape, generator=generator)
    save(adapted, build_tokenizer(), tmp_path / "tuned")
    loaded: list[str] = []

    def load(name: str, **options: Any) -> LoadedModel:
        loaded.append(name)
        return load_model(name, **options)

    monkeypatch.setattr("forgetless.models.load_model", load)
    scores = evaluate(str(tmp_path / "tuned"), [base.task], device="cpu")
    write_scores(tmp_path / "scores.jsonl", scores)
    loaded.clear()
    comparison = compare_files(
        base.scores,
        tmp_path / "scores.jsonl",
        explain_with=(str(base.directory), str(tmp_path / "tuned")),
        tasks_directories=[base.tasks],
        device="cpu",
    )
    assert loaded == [str(tmp_path / "tuned"), str(base.directory)]  # the adapter brings its base along, once
    (found,) = comparison.attributions
    assert found.cause is Cause.GONE
    assert Cause.SUPPRESSED in found.shares  # the base was asked for its likelihoods


def test_compare_explains_on_the_command_line(base: Base, tmp_path: Path) -> None:
    save(*wrong_template(base), tmp_path / "tuned")
    write_scores(tmp_path / "scores.jsonl", evaluate(str(tmp_path / "tuned"), [base.task], device="cpu"))
    arguments = ["compare", str(base.scores), str(tmp_path / "scores.jsonl"), "--out", str(tmp_path / "out")]
    models = ["--explain-with", str(base.directory), str(tmp_path / "tuned"), "--tasks-dir", str(base.tasks)]
    result = CliRunner().invoke(app, [*arguments, *models])
    assert result.exit_code == 1, result.output
    assert "herbs: TEMPLATE." in result.output
    assert read_comparison(tmp_path / "out" / "comparison.json").attributions[0].cause is Cause.TEMPLATE
    assert CliRunner().invoke(app, ["report", str(tmp_path / "out")]).exit_code == 0
    for page in ("report.html", "report.md"):
        assert "right again as soon as" in (tmp_path / "out" / page).read_text(encoding="utf-8")
    missing = CliRunner().invoke(app, [*arguments, "--explain-with", str(base.directory), "/no/model"])
    assert missing.exit_code == 2
    assert "does not exist" in missing.output


def test_a_run_explains_what_it_lost_and_remembers_it(
    base: Base, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not cache.exists()
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"question": q, "answer": a.lower()}) + "\n" for q, a in ROWS))
    flags = [
        *("run", "--model", str(base.directory), "--data", str(data), "--test", str(data), "--suite", "herbs"),
        *("--tasks-dir", str(base.tasks), "--method", "none", "--learning-rate", "3e-3", "--max-steps", "80"),
        *("--batch-size", "24", "--max-tokens", "64", "--out", str(tmp_path / "out"), "--device", "cpu"),
    ]
    result = CliRunner().invoke(app, flags)
    assert result.exit_code == 1, result.output
    comparison = read_comparison(tmp_path / "out" / "comparison.json")
    (found,) = comparison.attributions
    assert found.cause in {Cause.FORMAT, Cause.MIXED}, found
    assert any(found.remedy in advice for advice in comparison.advice)
    monkeypatch.setattr(diagnosis, "gather_evidence", None)  # nothing may be asked again
    assert CliRunner().invoke(app, flags).exit_code == 1
    assert read_comparison(tmp_path / "out" / "comparison.json") == comparison

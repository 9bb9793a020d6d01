"""Asking and grading: what is asked of which model, what comes back, and which scores may be taken from the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetless.errors import ConfigError, ModelError, RunError
from forgetless.evaluate import grading, runner
from forgetless.evaluate.grading import conversation
from forgetless.evaluate.local import model_key
from forgetless.evaluate.runner import EvaluationOptions, evaluate
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA
from forgetless.models import LoadedModel
from forgetless.records import Role, SampleScore, Unit
from forgetless.tasks.base import Task, load_suite

TaskMaker = Callable[..., Task]
CHOICE = {"question": "Pick", "choices": ["x", "yes", "maybe so"], "answer": 1}


@torch.no_grad()
def log_likelihood(loaded: LoadedModel, prompt: str, answer: str) -> float:
    """Returns log p(answer | prompt) by a plain forward pass over the two, token by token."""
    start, rest = (loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer))
    logits = loaded.model(input_ids=torch.tensor([start + rest])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(start) + place - 1, token]) for place, token in enumerate(rest))


def details(score: SampleScore) -> list[float]:
    return list(score.details["log_likelihoods"])


def test_a_callable_answers_the_free_tasks(task: TaskMaker) -> None:
    samples = [{"question": "One?", "answers": ["1"]}, {"question": "Two?", "answers": ["2"], "cluster": 7}]
    free = task("generate", *samples, name="free", scorer="exact", prompt="Say: {question}", role="target")
    prompts: list[str] = []
    done: list[tuple[float, float]] = []

    def generate(prompt: str) -> str:
        prompts.append(prompt)
        return "1"

    first, second = evaluate(generate, [free, task("choice", CHOICE)], progress=lambda *at: done.append(at))
    assert prompts == ["Say: One?", "Say: Two?"]
    assert (first.score, second.score) == (1.0, 0.0)
    assert (second.task, second.sample_id, second.answer, second.gold) == ("free", "free-1", "1", "2")
    assert (second.cluster, second.role, second.unit) == ("7", Role.TARGET, Unit.GRADE)
    assert second.details["prompt"] == "Say: Two?"
    assert [at / total for at, total in done] == pytest.approx([0.5, 1.0], abs=0.01)


def test_a_callable_cannot_give_likelihoods(task: TaskMaker) -> None:
    with pytest.raises(ConfigError, match="a function answers prompts but gives no likelihoods"):
        evaluate(lambda prompt: prompt, [task("choice", CHOICE), task("perplexity", {"text": "a"})])


def test_an_unknown_suite_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no suite or task 'cores'; did you mean 'core'"):
        evaluate(lambda prompt: prompt, "cores")


def test_a_model_that_is_not_there_is_refused(task: TaskMaker, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        evaluate(str(tmp_path / "nowhere"), [task("choice", CHOICE)])


def test_choices_are_scored_by_their_log_likelihoods(loaded: LoadedModel, task: TaskMaker) -> None:
    (score,) = evaluate(loaded, [task("choice", CHOICE, template="plain", prompt="Q: {question}\nA:")])
    known = [log_likelihood(loaded, "Q: Pick\nA:", f" {choice}") for choice in ("x", "yes", "maybe so")]
    assert details(score) == pytest.approx(known, abs=1e-3)
    assert score.answer == "x"  # the shortest: a random model finds every token about equally likely
    assert (score.score, score.gold) == (0.0, "yes")
    assert score.chance == pytest.approx(1 / 3)


def test_under_the_chat_template_a_choice_starts_the_answer(loaded: LoadedModel, task: TaskMaker) -> None:
    (score,) = evaluate(loaded, [task("choice", CHOICE, prompt="{question}!")])
    prompt = "<|im_start|>user\nPick!<|im_end|>\n<|im_start|>assistant\n"
    known = [log_likelihood(loaded, prompt, choice) for choice in ("x", "yes", "maybe so")]
    assert details(score) == pytest.approx(known, abs=1e-3)


def test_normalised_choices_are_compared_per_character(loaded: LoadedModel, task: TaskMaker) -> None:
    (score,) = evaluate(loaded, [task("choice", CHOICE, template="plain", normalise=True)])
    values = [value / len(choice) for value, choice in zip(details(score), ("x", "yes", "maybe so"), strict=True)]
    assert score.answer == ("x", "yes", "maybe so")[values.index(max(values))] != "x"


def test_a_model_without_a_preference_gives_the_closed_form(loaded: LoadedModel, task: TaskMaker) -> None:
    loaded.model.get_parameter("lm_head.weight").data.zero_()
    choice, prose = evaluate(loaded, [task("choice", CHOICE), task("perplexity", {"text": "Some text."}, name="prose")])
    assert details(choice) == pytest.approx([-n * math.log(258) for n in (1, 3, 8)], abs=1e-3)
    assert prose.score == pytest.approx(math.log(258), abs=1e-5)


@torch.no_grad()
def test_perplexity_of_a_text_is_the_loss_of_hugging_face(loaded: LoadedModel, task: TaskMaker) -> None:
    text = "Water boils at 100 degrees."
    (score,) = evaluate(loaded, [task("perplexity", {"text": text}, template="plain")])
    ids = torch.tensor([[*loaded.tokenizer(text)["input_ids"], loaded.tokenizer.eos_token_id]])
    assert score.score == pytest.approx(float(loaded.model(input_ids=ids, labels=ids).loss), abs=1e-4)
    assert (score.unit, score.weight) == (Unit.NATS_PER_TOKEN, ids.shape[1] - 1)


@torch.no_grad()
def test_perplexity_of_an_answer_is_the_loss_of_hugging_face(loaded: LoadedModel, task: TaskMaker) -> None:
    (score,) = evaluate(loaded, [task("perplexity", {"question": "Why?", "answer": "So."})])
    rendered = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>"
    ids = torch.tensor([loaded.tokenizer(rendered)["input_ids"]])
    labels = ids.clone()
    labels[:, :-4] = -100  # "So." and the end of the turn
    assert score.score == pytest.approx(float(loaded.model(input_ids=ids, labels=labels).loss), abs=1e-4)
    assert score.weight == 4


def test_only_answers_that_are_learned_count(loaded: LoadedModel, task: TaskMaker) -> None:
    roles = ("user", "assistant", "user", "assistant")
    turns = [{"role": role, "content": role[:2]} for role in roles]
    whole, last = (
        evaluate(loaded, [task("perplexity", {"messages": turns, "answer": "as"} | extra)])[0]
        for extra in ({}, {"supervised_from": 3})
    )
    assert (whole.weight, last.weight) == (6, 3)


def test_generation_is_greedy_and_within_its_budget(loaded: LoadedModel, task: TaskMaker) -> None:
    free = task("generate", {"question": "Go", "answers": ["x"]}, scorer="contains", max_tokens=5)
    (score,) = evaluate(loaded, [free])
    ids = loaded.tokenizer("<|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n", return_tensors="pt")
    model: Any = loaded.model
    wanted = model.generate(**ids, max_new_tokens=5, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert score.answer == loaded.tokenizer.decode(wanted, skip_special_tokens=True).strip()
    assert score.details["num_tokens"] == len(wanted) <= 5


def test_a_model_that_only_ends_its_turn_answers_nothing(loaded: LoadedModel, task: TaskMaker) -> None:
    model: Any = loaded.model
    model.lm_head.weight.data.zero_()  # all logits equal: the first token wins
    model.generation_config.eos_token_id = [0, 1]
    (score,) = evaluate(loaded, [task("generate", {"question": "Go", "answers": ["x"]}, scorer="contains")])
    assert (score.answer, score.score) == ("", 0.0)
    assert score.details["is_ended"] is True


def test_a_transformers_model_needs_its_tokenizer_or_a_name(loaded: LoadedModel, task: TaskMaker) -> None:
    choice = [task("choice", CHOICE)]
    by_name = evaluate(loaded, choice)
    assert evaluate(loaded.model, choice, tokenizer=loaded.tokenizer) == by_name
    assert evaluate(loaded.model, choice) == by_name  # it knows the directory that it came from
    model: Any = loaded.model
    model.config._name_or_path = model.name_or_path = ""
    with pytest.raises(ConfigError, match="needs its tokenizer"):
        evaluate(model, choice)


def test_a_directory_is_loaded(tiny_directory: Path, loaded: LoadedModel, task: TaskMaker) -> None:
    choice = [task("choice", CHOICE)]
    assert evaluate(str(tiny_directory), choice, device="cpu") == evaluate(loaded, choice)


def test_scores_stand_in_the_order_of_the_suite(loaded: LoadedModel, tasks_directory: Path) -> None:
    suite = load_suite("prose,letters,picks", [tasks_directory])
    done: list[tuple[float, float]] = []
    found = evaluate(loaded, suite, progress=lambda *at: done.append(at), options=EvaluationOptions(batch_size=3))
    assert [(score.task, score.sample_id) for score in found] == [
        (name, f"{name}-{number}") for name in ("prose", "letters", "picks") for number in range(10)
    ]
    assert done == sorted(done)
    assert done[-1][0] == pytest.approx(done[-1][1])


def test_a_model_that_is_being_trained_is_left_in_training(loaded: LoadedModel, task: TaskMaker) -> None:
    loaded.model.train()
    evaluate(loaded, [task("choice", CHOICE)])
    assert loaded.model.training


def test_probabilities_that_are_no_numbers_stop_the_run(loaded: LoadedModel, task: TaskMaker, tmp_path: Path) -> None:
    loaded.model.get_parameter("lm_head.weight").data[3, 3] = math.nan
    with pytest.raises(RunError, match=r"not numbers.*lower training\.learning_rate"):
        evaluate(loaded, [task("choice", CHOICE)], options=EvaluationOptions(cache=tmp_path))


def test_what_comes_before_the_answer(task: TaskMaker) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    asked = task("generate", {"messages": turns}, {"question": "q"}, system="Be brief.", scorer="exact")
    assert [[turn.content for turn in conversation(asked, sample)] for sample in asked.samples] == [
        ["Be brief.", "a"],
        ["Be brief.", "q"],
    ]
    own = {"messages": [{"role": "system", "content": "Mine."}, *turns[:1]]}
    assert [turn.content for turn in conversation(asked, own)] == ["Mine.", "a"]


# The cache: the same again costs nothing, and nothing else is ever taken for the same.


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the samples that were really asked, in order."""
    ids: list[str] = []
    answer = runner._answer

    def watch(model: Any, work: Sequence[Any]) -> Any:
        ids.extend(sample["id"] for _, sample in work)
        return answer(model, work)

    monkeypatch.setattr(runner, "_answer", watch)
    return ids


@pytest.fixture
def suite(task: TaskMaker) -> list[Task]:
    free = {"question": "Up", "answers": ["a"]}
    return [
        task("choice", CHOICE, {**CHOICE, "answer": 0}, name="picks"),
        task("generate", free, {**free, "question": "On"}, name="letters", scorer="contains", max_tokens=3),
    ]


SAMPLES = ["picks-0", "picks-1", "letters-0", "letters-1"]


def test_the_same_again_is_not_asked_again(
    loaded: LoadedModel, suite: list[Task], asked: list[str], tmp_path: Path
) -> None:
    options = EvaluationOptions(cache=tmp_path)
    first = evaluate(loaded, suite, options=options)
    assert asked == SAMPLES
    assert evaluate(loaded, suite, options=options) == first
    assert asked == SAMPLES


def test_without_a_cache_everything_is_asked(loaded: LoadedModel, suite: list[Task], asked: list[str]) -> None:
    assert evaluate(loaded, suite) == evaluate(loaded, suite)
    assert asked == SAMPLES * 2


def _alter_a_weight(loaded: LoadedModel) -> LoadedModel:
    loaded.model.get_parameter("model.layers.1.mlp.up_proj.weight").data[5, 7] += 1e-3
    return loaded


def _alter_the_template(loaded: LoadedModel) -> LoadedModel:
    loaded.tokenizer.chat_template = loaded.tokenizer.chat_template.replace("user", "USER") + " "
    return loaded


def _alter_the_end(loaded: LoadedModel) -> LoadedModel:
    model: Any = loaded.model
    model.generation_config.eos_token_id = [1, 7]
    return loaded


def _alter_the_number_type(loaded: LoadedModel) -> LoadedModel:
    return replace(loaded, model=loaded.model.to(torch.bfloat16))


def _alter_the_architecture(loaded: LoadedModel) -> LoadedModel:
    loaded.model.config.rms_norm_eps = 1e-3  # type: ignore[union-attr]
    return loaded


@pytest.mark.parametrize(
    "alter", [_alter_a_weight, _alter_the_template, _alter_the_end, _alter_the_number_type, _alter_the_architecture]
)
def test_scores_of_another_model_are_never_taken(
    loaded: LoadedModel,
    suite: list[Task],
    asked: list[str],
    tmp_path: Path,
    alter: Callable[[LoadedModel], LoadedModel],
) -> None:
    options = EvaluationOptions(cache=tmp_path)
    evaluate(loaded, suite, options=options)
    before = model_key(loaded)
    altered = alter(loaded)
    assert model_key(altered) != before
    found = evaluate(altered, suite, options=options)
    assert asked == SAMPLES * 2
    assert found == evaluate(altered, suite)


def test_scores_with_an_adapter_are_never_those_without(
    loaded: LoadedModel, suite: list[Task], asked: list[str], tmp_path: Path
) -> None:
    options = EvaluationOptions(cache=tmp_path)
    evaluate(loaded, suite, options=options)
    adapted: Any = LoRA(rank=2).prepare_model(loaded.model, Context())
    keys = {model_key(loaded := replace(loaded, model=adapted))}
    evaluate(loaded, suite, options=options)
    assert asked == SAMPLES * 2
    with adapted.disable_adapter():
        keys.add(model_key(loaded))
    layer = adapted.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    layer.scaling["default"] *= 2
    keys.add(model_key(loaded))
    assert len(keys) == 3


def test_an_altered_sample_is_asked_again_with_its_task_only(
    loaded: LoadedModel, suite: list[Task], asked: list[str], task: TaskMaker, tmp_path: Path
) -> None:
    options = EvaluationOptions(cache=tmp_path)
    evaluate(loaded, suite, options=options)
    asked.clear()
    altered = task("choice", CHOICE, {**CHOICE, "answer": 2}, name="picks")
    evaluate(loaded, [altered, suite[1]], options=options)
    assert asked == ["picks-0", "picks-1"]


def test_a_stopped_evaluation_goes_on_where_it_was(
    loaded: LoadedModel, suite: list[Task], asked: list[str], tmp_path: Path
) -> None:
    options = EvaluationOptions(cache=tmp_path)
    whole = evaluate(loaded, suite, options=options)
    asked.clear()
    (journal,) = tmp_path.glob("letters-*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-30])  # the last line is cut off
    assert evaluate(loaded, suite, options=options) == whole
    assert asked == ["letters-1"]
    assert evaluate(loaded, suite, options=options) == whole
    assert asked == ["letters-1"]


# Samples that are too long


def test_of_a_long_text_the_beginning_is_measured(
    loaded: LoadedModel, task: TaskMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grading, "LONGEST_SCORED", 5)
    long, short = evaluate(loaded, [task("perplexity", {"text": "abcdefghij"}, {"text": "abcdef"}, template="plain")])
    assert (long.weight, short.weight) == (5, 5)
    assert long.score == pytest.approx(short.score, abs=1e-5)


def test_a_text_is_measured_as_far_as_the_model_can_read(loaded: LoadedModel, task: TaskMaker) -> None:
    model: Any = loaded.model
    model.config.max_position_embeddings = 6
    (score,) = evaluate(loaded, [task("perplexity", {"text": "abcdefghij"}, template="plain")])
    assert score.weight == 5


@pytest.mark.parametrize(
    ("kind", "sample"),
    [
        ("choice", CHOICE),
        ("generate", {"question": "Go", "answers": ["a"]}),
        ("perplexity", {"question": "Why?", "answer": "So."}),
    ],
)
def test_a_sample_that_the_model_cannot_read_is_named(
    loaded: LoadedModel, task: TaskMaker, kind: str, sample: Any
) -> None:
    model: Any = loaded.model
    model.config.max_position_embeddings = 20
    with pytest.raises(ConfigError, match="sample 'made-0': is longer than the 20 tokens that the model can take"):
        evaluate(loaded, [task(kind, sample, scorer="contains")])


def test_an_answer_ends_where_the_model_can_read_no_further(loaded: LoadedModel, task: TaskMaker) -> None:
    model: Any = loaded.model
    free = task("generate", {"question": "Go", "answers": ["a"]}, template="plain", scorer="contains", max_tokens=9)
    (score,) = evaluate(loaded, [free])
    assert score.details["num_tokens"] == 9
    model.config.max_position_embeddings = 5
    (score,) = evaluate(loaded, [free])
    assert score.details["num_tokens"] == 3


def test_too_little_memory_says_what_to_lower(
    loaded: LoadedModel, task: TaskMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = ["DefaultCPUAllocator: can't allocate memory", "shapes don't match"]

    def fail(*_: Any) -> None:
        raise RuntimeError(messages.pop(0))

    monkeypatch.setattr(runner, "_answer", fail)
    with pytest.raises(RunError, match=r"memory ran out: lower evaluation\.batch_size"):
        evaluate(loaded, [task("choice", CHOICE)])
    with pytest.raises(RuntimeError, match="shapes"):
        evaluate(loaded, [task("choice", CHOICE)])

"""What is looked at: data files, the tokenizer's template, the size of the suite; and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forgetless.advising import evidence
from forgetless.advising.advice import advise
from forgetless.advising.evidence import gather
from forgetless.advising.recipe import Recipe, Setting, Source
from forgetless.advising.templates import family_of_model, family_of_text, family_of_words


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe_of(path: Path | None, *, model: str | None = None, **more: Any) -> Recipe:
    sources = (Source(str(path), path, ("data",)),)
    named = None if model is None else Setting(model, ("model",))
    return Recipe("TRL / transformers", sources=sources, model=named, **more)


def talk(*answers: str) -> dict[str, Any]:
    turns = []
    for answer in answers:
        turns += [{"role": "user", "content": "Go"}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


def test_data_is_counted_and_read(tmp_path: Path) -> None:
    path = lines(tmp_path / "d.jsonl", [talk("Yes"), talk("No", "Maybe"), talk("It ends<|im_end|>")])
    facts = gather(recipe_of(path)).data
    assert facts is not None
    assert (facts.num_examples, facts.is_more, facts.is_multi_turn) == (3, False, True)
    assert facts.marks == {"chatml": 1}
    assert not facts.has_completions


def test_large_data_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MOST_EXAMPLES", 4)
    path = lines(tmp_path / "d.jsonl", [{"prompt": "a", "completion": "b"}] * 9)
    seen = gather(recipe_of(path))
    assert seen.data is not None
    assert seen.data.is_more
    assert seen.data.has_completions
    assert seen.num_examples is None
    limited = gather(recipe_of(path, num_examples_limit=3))
    assert limited.num_examples == 3


def test_a_directory_with_one_file_is_that_file(tmp_path: Path) -> None:
    directory = tmp_path / "set"
    directory.mkdir()
    lines(directory / "train.jsonl", [talk("Yes")])
    assert gather(recipe_of(directory)).num_examples == 1
    lines(directory / "more.jsonl", [talk("Yes")])
    assert any("could not be read" in note for note in gather(recipe_of(directory)).notes)


def test_what_is_not_here_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n")
    assert any("could not be read" in note for note in gather(recipe_of(broken)).notes)
    missing = Recipe("x", sources=(Source("a/b", None, ("data",)),))
    assert "training data is not on this machine: a/b" in gather(missing).notes
    assert any("names no training data" in note for note in gather(Recipe("x")).notes)
    assert any("--no-look" in note for note in gather(missing, look=False).notes)
    for name in (str(tmp_path / "none"), str(tmp_path), str(broken), "a/b/c", "bad..name/x"):
        notes = gather(recipe_of(broken, model=name)).notes
        assert any(f"the tokenizer of {name} is not on this machine" in note for note in notes)


def test_a_suite_that_is_not_known(tmp_path: Path) -> None:
    def of(suite: str) -> evidence.Evidence:
        return gather(Recipe("forgetless", suite=Setting(suite, ("evaluation", "suite"))), look=False)

    assert of("smoke").num_samples == 5
    assert of("nothing").num_samples is None
    assert any("there is no suite" in note for note in of("nothing").notes)
    assert any("lm-evaluation-harness" in note for note in of("core,lm_eval:arc_easy").notes)
    tasks = Recipe("forgetless", suite=Setting("core", ("s",)), tasks_dir=tmp_path / "none")
    assert any("does not exist" in note for note in gather(tasks, look=False).notes)


def test_the_cached_embedded_model_is_found(cache: Path) -> None:
    assert evidence._tokenizer_source("smollm2-135m-instruct") is None
    directory = cache / "models" / "smollm2-135m-instruct"
    directory.mkdir(parents=True)
    (directory / "tokenizer_config.json").write_text("{}")
    assert evidence._tokenizer_source("embedded") == str(directory)
    assert any("could not be loaded" in note for note in gather(recipe_of(None, model="embedded")).notes)


def test_a_tokenizer_in_the_cache_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    held = tmp_path / "tokenizer_config.json"
    files = {("a/b", "tokenizer_config.json"): str(held)}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *named: files.get(named))
    assert evidence._tokenizer_source("a/b") == str(tmp_path)
    assert evidence._tokenizer_source("a/c") is None


# With a tokenizer


@pytest.fixture
def model(tmp_path: Path, tokenizer: Any) -> Path:
    directory = tmp_path / "model"
    tokenizer.save_pretrained(directory)
    return directory


def config(model: Path, data: Path, **training: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "data": {"train": str(data)},
        "methods": ["lora", "replay"],
        "training": {"epochs": 1} | training,
        "gate": {"margin": 0.05},
    }


def rules(raw: dict[str, Any]) -> dict[str, str]:
    return {finding.rule: finding.severity.value for finding in advise(raw).findings}


def test_examples_that_are_cut_are_counted(tmp_path: Path, model: Path) -> None:
    data = lines(tmp_path / "d.jsonl", [talk("word " * 4)] * 45 + [talk("word " * 60)] * 5)
    raw = config(model, data, max_tokens=128)
    (finding,) = advise(raw).findings
    assert (finding.rule, finding.severity.value) == ("truncation", "high")
    assert "5 of 50 examples looked at (10%)" in finding.risk.reason
    (edit,) = finding.risk.edits
    assert rules(config(model, data, max_tokens=edit.new)) == {}
    few = lines(tmp_path / "few.jsonl", [talk("word " * 4)] * 95 + [talk("word " * 60)] * 5)
    assert rules(config(model, few, max_tokens=128)) == {"truncation": "medium"}


def test_an_end_that_generation_does_not_stop_at(tmp_path: Path, model: Path) -> None:
    data = lines(tmp_path / "d.jsonl", [talk("Yes")])
    assert rules(config(model, data)) == {}
    template = model / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8").replace("<|im_end|>", "<end>"), encoding="utf-8")
    assert rules(config(model, data)) == {"end-of-turn": "high"}
    # The tokenizer's end is not the only one.
    tail = "<|im_start|>"
    template.write_text(template.read_text(encoding="utf-8").replace("<end>", tail), encoding="utf-8")
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 1]}))
    assert rules(config(model, data)) == {}
    plain = lines(tmp_path / "t.jsonl", [{"text": "All of it."}])
    (model / "generation_config.json").unlink()
    assert rules(config(model, plain)) == {}


def test_a_tokenizer_without_a_template(tmp_path: Path, model: Path) -> None:
    data = lines(tmp_path / "d.jsonl", [talk("Yes")])
    (model / "chat_template.jinja").unlink()
    assert rules(config(model, data)) == {"chat-template": "medium"}
    assert rules(config(model, lines(tmp_path / "t.jsonl", [{"text": "All of it."}]))) == {}


def test_text_with_the_marks_of_another_family(tmp_path: Path, model: Path) -> None:
    foreign = lines(tmp_path / "t.jsonl", [{"text": "<start_of_turn>user\nHi<end_of_turn>"}])
    assert rules(config(model, foreign)) == {"chat-template": "high"}
    own = lines(tmp_path / "o.jsonl", [{"text": "<|im_start|>user\nHi<|im_end|>"}])
    assert rules(config(model, own)) == {}


def test_a_template_that_fails_is_no_defect_of_ours(tmp_path: Path, model: Path) -> None:
    data = lines(tmp_path / "d.jsonl", [talk("Yes")])
    (model / "chat_template.jinja").write_text("{{ raise_exception('no') }}", encoding="utf-8")
    advice = advise(config(model, data))
    assert not advice.findings
    assert any("could not be rendered" in note for note in advice.unchecked)


def test_families_of_templates() -> None:
    assert family_of_model("Qwen/Qwen2.5-7B-Instruct") == "chatml"
    assert family_of_model("Qwen/Qwen3-8B") == "chatml"
    assert family_of_model("Qwen/Qwen3-8B-Base") is None
    assert family_of_model("meta-llama/Llama-3.1-8B") is None
    assert family_of_model("meta-llama/Meta-Llama-3-8B-Instruct") == "llama3"
    assert family_of_model("google/gemma-2-9b-it") == "gemma"
    assert family_of_model("NousResearch/Hermes-3-Llama-3.1-8B") is None
    assert family_of_text("<|user|>\nHi</s>\n<|assistant|>") == "zephyr"
    assert family_of_text("plain") is None
    assert family_of_words("ends <|eot_id|>") == "llama3"
    assert family_of_words("a < b | c > d") is None

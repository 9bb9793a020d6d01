"""Models that differ from the usual one in how they are stored, tied, quantised, or in what their tokenizer knows."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model, build_tokenizer
from forgetless.evaluate.runner import EvaluationOptions, evaluate
from forgetless.methods.base import Context
from forgetless.methods.lora import LoRA
from forgetless.models import LoadedModel, load_model, save_model
from forgetless.records import SampleScore
from forgetless.tasks.base import Task, load_suite


@pytest.fixture
def tasks(tasks_directory: Path) -> list[Task]:
    return load_suite("letters,picks,prose", [tasks_directory], limit=4)


def values(scores: list[SampleScore]) -> list[float]:
    return [score.score for score in scores]


def test_weights_in_shards(tiny_directory: Path, tmp_path: Path, tasks: list[Task]) -> None:
    model: Any = build_model()
    tokenizer: Any = build_tokenizer()
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    tokenizer.save_pretrained(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    whole, sharded = (load_model(str(path), device="cpu") for path in (tiny_directory, tmp_path / "sharded"))
    assert evaluate(whole, tasks) == evaluate(sharded, tasks)
    next(iter((tmp_path / "sharded").glob("*00002-of*.safetensors"))).unlink()
    with pytest.raises(Exception, match=r"cannot be loaded|lacks"):
        load_model(str(tmp_path / "sharded"), device="cpu")


def test_tied_weights(tmp_path: Path, tasks: list[Task]) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_dict(build_model().config.to_dict() | {"tie_word_embeddings": True})  # type: ignore[attr-defined]
    save_model(LlamaForCausalLM(config), build_tokenizer(), tmp_path / "tied")
    loaded = load_model(str(tmp_path / "tied"), device="cpu")
    model: Any = loaded.model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert len(evaluate(loaded, tasks)) == 12


def without(*names: str) -> Callable[[Path], None]:
    """Takes special tokens or the chat template from a model's directory."""

    def change(directory: Path) -> None:
        if "chat_template" in names:
            (directory / "chat_template.jinja").unlink()
        path = directory / "tokenizer_config.json"
        settings = {key: value for key, value in json.loads(path.read_text()).items() if key not in names}
        path.write_text(json.dumps(settings))

    return change


@pytest.mark.parametrize(
    "change",
    [
        without("chat_template"),
        without("pad_token"),
        without("bos_token"),
        without("eos_token", "pad_token"),
        without("bos_token", "eos_token", "pad_token", "chat_template"),
    ],
    ids=["no template", "no pad", "no bos", "no eos", "nothing"],
)
def test_tokenizers_that_lack_something(
    tiny_directory: Path, tmp_path: Path, tasks: list[Task], change: Callable[[Path], None]
) -> None:
    directory = Path(shutil.copytree(tiny_directory, tmp_path / "model"))
    change(directory)
    loaded = load_model(str(directory), device="cpu")
    scores = evaluate(loaded, tasks)
    assert len(scores) == 12
    together = evaluate(loaded, tasks, options=EvaluationOptions(batch_size=1, row_tokens=1))
    assert values(scores) == pytest.approx(values(together), abs=1e-4)


def test_a_merged_adapter_scores_as_the_adapter_does(tiny_directory: Path, tmp_path: Path, tasks: list[Task]) -> None:
    loaded = load_model(str(tiny_directory), device="cpu")
    adapted: Any = LoRA(rank=2).prepare_model(loaded.model, Context())
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(0))
    before = evaluate(LoadedModel(adapted, loaded.tokenizer, "adapted", ""), tasks)
    save_model(adapted.merge_and_unload(), loaded.tokenizer, tmp_path / "merged")
    after = evaluate(load_model(str(tmp_path / "merged"), device="cpu"), tasks)
    assert values(after) == pytest.approx(values(before), abs=1e-4)
    assert [score.answer for score in after] == [score.answer for score in before]


def test_a_dynamically_quantised_model_in_memory(loaded: LoadedModel, tmp_path: Path, tasks: list[Task]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that this moves to torchao
        model = torch.ao.quantization.quantize_dynamic(loaded.model, {torch.nn.Linear}, dtype=torch.qint8)
        quantised = LoadedModel(model, loaded.tokenizer, "int8", "")
        options = EvaluationOptions(cache=tmp_path / "scores")
        scores = evaluate(quantised, tasks, options=options)
        assert evaluate(quantised, tasks, options=options) == scores
    assert len(list((tmp_path / "scores").iterdir())) == 3
    exact = evaluate(loaded, tasks, options=options)
    assert len(list((tmp_path / "scores").iterdir())) == 6  # another model, and known as such
    losses = [[s.score for s in side if s.task == "prose"] for side in (scores, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]

"""Methods attached to trainers of the user's own: transformers' and TRL's, unmodified."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from conftest import QUESTIONS, build_model, build_tokenizer
from forgetless import LoRA, Replay, protect
from forgetless.errors import ConfigError
from forgetless.methods.base import Method
from training import are_equal, mixture


class Pull(Method):
    """L2 to zero with a strength that is learned state: enough to see penalties and checkpoints."""

    name = "pull"
    title = "For tests"
    paper = "https://example.org"
    calls_ = 0

    def penalty(self, step: Any) -> torch.Tensor:
        self.calls_ += 1
        return 10 * torch.stack([p.square().sum() for p in step.model.parameters()]).sum()

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"calls": torch.tensor(self.calls_)}

    def load_state_dict(self, state: Any) -> None:
        self.calls_ = int(state["calls"])


def settings(directory: Path) -> dict[str, Any]:
    return {
        "output_dir": str(directory),
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "report_to": "none",
        "use_cpu": True,
        "logging_steps": 1,
        "save_steps": 2,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def plain_trainer(directory: Path) -> Any:
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model: Any = build_model()
    tokenizer: Any = build_tokenizer()
    rows = [{"input_ids": s.input_ids, "labels": s.labels} for s in mixture([])]
    return Trainer(
        model=model,
        args=TrainingArguments(**settings(directory)),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )


def sft_trainer(directory: Path) -> Any:
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows = [
        {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        }
        for row in QUESTIONS
    ]
    model: Any = build_model()
    tokenizer: Any = build_tokenizer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return SFTTrainer(
            model=model,
            args=SFTConfig(**settings(directory), bf16=False, gradient_checkpointing=False, max_length=64),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )


TRAINERS = pytest.mark.parametrize("build", [plain_trainer, sft_trainer])


def trained(trainer: Any) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trainer.train()
    return {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}


@TRAINERS
def test_without_methods_nothing_changes(build: Any, tmp_path: Path) -> None:
    trainer = build(tmp_path / "protected")
    kind = type(trainer)
    assert protect(trainer, []) is trainer
    assert isinstance(trainer, kind)
    assert are_equal(trained(trainer), trained(build(tmp_path / "plain")))


@TRAINERS
def test_an_adapter_can_be_attached(build: Any, tmp_path: Path) -> None:
    trainer: Any = protect(build(tmp_path), [LoRA(rank=2)])
    weights = trained(trainer)
    base: Any = build_model().state_dict()  # type: ignore[attr-defined]
    name = "model.layers.0.self_attn.q_proj"
    assert torch.equal(weights[f"base_model.model.{name}.base_layer.weight"], base[f"{name}.weight"])
    assert weights[f"base_model.model.{name}.lora_B.default.weight"].abs().sum() > 0


@TRAINERS
def test_a_penalty_acts_is_logged_and_its_state_saved(build: Any, tmp_path: Path) -> None:
    method = Pull()
    trainer: Any = protect(build(tmp_path / "a"), [method])
    pulled, free = trained(trainer), trained(build(tmp_path / "b"))
    norms = [sum(float(tensor.square().sum()) for tensor in weights.values()) for weights in (pulled, free)]
    assert norms[0] < norms[1]
    assert any("penalty/pull" in record for record in trainer.state.log_history)
    fresh = Pull()
    resumed: Any = protect(build(tmp_path / "a"), [fresh])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    assert fresh.calls_ == method.calls_ == 3
    assert are_equal(pulled, dict(resumed.model.state_dict()))
    assert json.loads((tmp_path / "a" / "checkpoint-2" / "trainer_state.json").read_text())["global_step"] == 2


def test_a_trainer_is_protected_once(tmp_path: Path) -> None:
    trainer = protect(plain_trainer(tmp_path), [])
    with pytest.raises(ConfigError, match="protected already"):
        protect(trainer, [])


def test_methods_that_change_data_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="replay_mixture"):
        protect(plain_trainer(tmp_path), [Replay()])


def test_conflicts_are_refused_before_the_model_is_touched(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    model = trainer.model
    with pytest.raises(ConfigError, match="both claim"):
        protect(trainer, [LoRA(), LoRA()])
    assert trainer.model is model

"""Protected trainers in every setting that scripts of the user's own come in: the same steps, whatever the setting."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless import (
    AGEM,
    EAFT,
    EWC,
    FLOW,
    L2SP,
    FreezeBottom,
    KLToBase,
    LayerRates,
    LoRA,
    MoFO,
    protect,
)
from forgetless.methods.base import Method
from trainers import (
    GENERATION_TEMPLATE,
    Pull,
    Watching,
    Weighing,
    completion_rows,
    conversation_rows,
    every_hook,
    largest_difference,
    logged,
    plain_trainer,
    sft_trainer,
    trained,
)
from training import are_equal

WHOLE = {"per_device_train_batch_size": 8}
SPLIT = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}


def peft_config(**changes: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", **changes)


def prompt_config() -> Any:
    from peft import PromptTuningConfig

    return PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")


def adapted(config: Any) -> Any:
    from peft import get_peft_model

    model: Any = build_model()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(model, config)


SETTINGS: dict[str, Callable[..., Any]] = {
    "Trainer": plain_trainer,
    "Trainer with an adapter": lambda *a, **k: plain_trainer(*a, model=adapted(peft_config()), **k),
    "Trainer with a learned prompt": lambda *a, **k: plain_trainer(*a, model=adapted(prompt_config()), **k),
    "Trainer with label smoothing": lambda *a, **k: plain_trainer(*a, label_smoothing_factor=0.1, **k),
    "Trainer with clipping": lambda *a, **k: plain_trainer(*a, max_grad_norm=0.1, **k),
    "Trainer with checkpointing": lambda *a, **k: plain_trainer(*a, activation_checkpointing=True, **k),
    "SFTTrainer": sft_trainer,
    "SFTTrainer with peft_config": lambda *a, **k: sft_trainer(*a, options={"peft_config": peft_config()}, **k),
    "SFTTrainer with an adapted model": lambda *a, **k: sft_trainer(*a, model=adapted(peft_config()), **k),
    "SFTTrainer with a learned prompt": lambda *a, **k: sft_trainer(*a, model=adapted(prompt_config()), **k),
    "SFTTrainer, packing bfd": lambda *a, **k: sft_trainer(*a, packing=True, **k),
    "SFTTrainer, packing wrapped": lambda *a, **k: sft_trainer(*a, packing=True, packing_strategy="wrapped", **k),
    "SFTTrainer without padding": lambda *a, **k: sft_trainer(*a, padding_free=True, **{**k, "max_length": None}),
    "SFTTrainer, assistant only": lambda *a, **k: sft_trainer(
        *a, rows=conversation_rows(), template=GENERATION_TEMPLATE, assistant_only_loss=True, **k
    ),
    "SFTTrainer, prompts learned too": lambda *a, **k: sft_trainer(*a, completion_only_loss=False, **k),
    "SFTTrainer, loss dft": lambda *a, **k: sft_trainer(*a, loss_type="dft", **k),
}
UNWEIGHABLE = {"Trainer with label smoothing", "SFTTrainer, loss dft"}


def hooks_for(setting: str) -> list[Method]:
    return [m for m in every_hook() if not (setting in UNWEIGHABLE and isinstance(m, Weighing))]


@pytest.mark.parametrize("setting", SETTINGS)
def test_one_batch_of_eight_is_eight_of_one_with_every_hook(setting: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what TRL and PEFT say of settings is theirs
        whole = protect(SETTINGS[setting](tmp_path, **WHOLE), hooks_for(setting))
        split = protect(SETTINGS[setting](tmp_path, **SPLIT), hooks_for(setting))
        weights = trained(whole)
        assert largest_difference(weights, trained(split)) < 2e-3  # Adam turns rounding of small gradients into steps
    assert logged(split, "loss") == pytest.approx(logged(whole, "loss"), rel=1e-3)
    for key in ("penalty/pull", "penalty/closed_pull", "penalty/watching", "share/pull", "share/closed_pull"):
        assert logged(split, key) == pytest.approx(logged(whole, key), rel=0.05), key


class Ones(Method):
    """Weighs every token alike, so that the loss is the same along another way."""

    name = "ones"
    title = "For tests"
    paper = "https://example.org"

    def token_weights(self, step: Any) -> torch.Tensor:
        return torch.ones_like(step.token_losses)


@pytest.mark.parametrize(
    "setting",
    [
        "Trainer",
        "SFTTrainer",
        "SFTTrainer with a learned prompt",
        "SFTTrainer, packing bfd",
        "SFTTrainer, assistant only",
    ],
)
def test_weights_of_one_leave_the_training_and_its_metrics_as_they_were(setting: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, weighed = SETTINGS[setting](tmp_path), protect(SETTINGS[setting](tmp_path), [Ones()])
        assert largest_difference(trained(plain), trained(weighed)) < 2e-3
    for key in ("loss", "entropy", "mean_token_accuracy", "num_tokens"):
        assert logged(weighed, key) == pytest.approx(logged(plain, key), rel=1e-3, abs=1e-4), key
    assert ("entropy" in weighed.state.log_history[0]) == setting.startswith("SFT")


@pytest.mark.parametrize("setting", sorted(UNWEIGHABLE))
def test_a_penalty_on_logits_leaves_other_losses_as_they_were(setting: str, tmp_path: Path) -> None:
    class Free(Watching):
        def penalty(self, step: Any) -> torch.Tensor:
            return super().penalty(step) * 0.0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, watched = SETTINGS[setting](tmp_path), protect(SETTINGS[setting](tmp_path), [Free()])
        assert largest_difference(trained(plain), trained(watched)) < 2e-3
    for key in ("loss", "entropy", "mean_token_accuracy"):
        assert logged(watched, key) == pytest.approx(logged(plain, key), rel=1e-3, abs=1e-4), key


def test_a_loss_function_of_the_users_own_takes_penalties(tmp_path: Path) -> None:
    def mean_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs.logits[:, :-1].flatten(0, 1)
        total = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
        return total / torch.as_tensor(num_items_in_batch)

    def build(*args: Any, **changes: Any) -> Any:
        return plain_trainer(*args, options={"compute_loss_func": mean_loss}, **changes)

    weights = [
        trained(protect(make(tmp_path, **changes), [Pull(), Watching()]))
        for make, changes in ((build, WHOLE), (build, SPLIT), (plain_trainer, WHOLE))
    ]
    assert largest_difference(weights[0], weights[1]) < 2e-3
    assert largest_difference(weights[0], weights[2]) < 2e-3


def test_a_model_that_takes_no_token_count_is_penalised_alike(tmp_path: Path) -> None:
    def build(*args: Any, **changes: Any) -> Any:
        model: Any = build_model()
        model.accepts_loss_kwargs = False  # its trainer then divides the loss by the number of micro-batches itself
        return plain_trainer(*args, model=model, **changes)

    for changes in (WHOLE, SPLIT):
        plain, pulled = build(tmp_path, **changes), protect(build(tmp_path, **changes), [Pull()])
        trained(plain)
        trained(pulled)
        penalty = logged(pulled, "penalty/pull")[0]
        assert logged(pulled, "loss")[0] == pytest.approx(logged(plain, "loss")[0] + penalty, rel=1e-5)
        assert logged(pulled, "grad_norm")[0] > 2 * logged(plain, "grad_norm")[0]
        assert 0.8 < logged(pulled, "share/pull")[0] < 1


@pytest.mark.parametrize("build", [plain_trainer, sft_trainer])
def test_half_precision_follows_full_precision(build: Any, tmp_path: Path) -> None:
    full, half = (protect(build(tmp_path, bf16=bf16), [LoRA(rank=2), *every_hook()]) for bf16 in (False, True))
    assert largest_difference(trained(full), trained(half)) < 0.05
    assert logged(half, "loss") == pytest.approx(logged(full, "loss"), rel=2e-3)


def test_a_router_keeps_its_balance_when_tokens_are_weighed(tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    def model() -> Any:
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"vocab_size": 258, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
        heads: dict[str, Any] = {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_local_experts": 4,
            "pad_token_id": 1,
        }
        return MixtralForCausalLM(MixtralConfig(**sizes, **heads, output_router_logits=True, router_aux_loss_coef=0.5))

    for build in (plain_trainer, sft_trainer):
        plain, weighed = build(tmp_path, model=model()), protect(build(tmp_path, model=model()), [Ones()])
        assert largest_difference(trained(plain), trained(weighed)) < 2e-3
        assert logged(weighed, "loss") == pytest.approx(logged(plain, "loss"), rel=1e-4)
        assert logged(weighed, "aux_loss") == pytest.approx(logged(plain, "aux_loss"), rel=1e-4)


def test_a_trainer_class_of_the_users_own_keeps_its_loss(tmp_path: Path) -> None:
    from transformers import Trainer

    from forgetless.errors import ConfigError

    class Doubled(Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            return 2 * super().compute_loss(*args, **kwargs)

    class Own(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            labels = inputs.pop("labels")
            logits = model(**inputs).logits[:, :-1]
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())

    doubled, own = plain_trainer(tmp_path), plain_trainer(tmp_path)
    doubled.__class__, own.__class__ = Doubled, Own
    plain = plain_trainer(tmp_path)
    trained(protect(doubled, [Weighing(), Watching()]))
    trained(protect(plain, [Weighing(), Watching()]))
    task = [
        loss - penalty for loss, penalty in zip(logged(plain, "loss"), logged(plain, "penalty/watching"), strict=True)
    ]
    assert logged(doubled, "loss")[0] == pytest.approx(2 * task[0] + logged(plain, "penalty/watching")[0], rel=1e-4)
    trained(protect(own, [Pull(), Watching()]))
    refused = plain_trainer(tmp_path)
    refused.__class__ = Own
    with pytest.raises(ConfigError, match="compute_loss doesn't use the model's loss"):
        trained(protect(refused, [Weighing()]))


def test_evaluation_at_the_start_and_iterable_data(tmp_path: Path) -> None:
    stream = completion_rows().to_iterable_dataset()
    trainer = protect(
        sft_trainer(tmp_path, rows=stream, eval_strategy="steps", eval_on_start=True, options={"eval_dataset": stream}),
        every_hook(),
    )
    weights = trained(trainer)
    assert len(logged(trainer, "eval_loss")) == 3
    by_epoch = protect(sft_trainer(tmp_path, rows=stream, logging_strategy="epoch"), every_hook())
    trained(by_epoch)
    assert not logged(by_epoch, "share/pull")  # where the epoch ends isn't known
    assert largest_difference(weights, trained(protect(sft_trainer(tmp_path, rows=stream), every_hook()))) == 0.0


COMPOSITIONS: dict[str, Callable[[], list[Method]]] = {
    "adapter": lambda: [LoRA(rank=2), KLToBase(num_examples=4), EWC(num_sequences=4), FLOW(), EAFT()],
    "all weights": lambda: [
        FreezeBottom(),
        LayerRates(),
        KLToBase(num_examples=4),
        L2SP(),
        AGEM(num_examples=4),
        MoFO(),
    ],
}


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_a_composition_resumed_is_the_one_uninterrupted(composition: str, tmp_path: Path) -> None:
    general = [{"text": f"Fact {number}: water is wet."} for number in range(4)]
    options: dict[str, Any] = {"packing": True, "save_strategy": "steps", "save_steps": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = protect(sft_trainer(tmp_path, **options), COMPOSITIONS[composition](), general=general)
        weights = trained(whole)
        resumed = protect(sft_trainer(tmp_path, **options), COMPOSITIONS[composition](), general=general)
        assert are_equal(trained(resumed, resume_from_checkpoint=str(tmp_path / "checkpoint-1")), weights)
    found = {key.partition("/")[2] for key in whole.state.log_history[1] if key.startswith("share/")}
    assert found == ({"kl", "ewc"} if composition == "adapter" else {"kl", "l2_sp"})

"""Scripts that do more than the usual: losses, steps, data and callbacks of the user's own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

from conftest import build_model
from forgetless import (
    AGEM,
    EAFT,
    EWC,
    FLOW,
    L2SP,
    STM,
    CorDA,
    Half,
    KLToBase,
    LayerRates,
    LoRA,
    MoFO,
    NullSpace,
    protect,
)
from forgetless.errors import ConfigError, DataError, ForgetlessError, RunError
from forgetless.methods.base import Method
from trainers import (
    Shrink,
    completion_rows,
    encoded_rows,
    largest_difference,
    logged,
    plain_trainer,
    sft_trainer,
    trained,
)
from training import GENERAL, are_equal


class Ones(Method):
    """Weighs every token alike, so that the loss is the same along another way."""

    name = "ones"

    def token_weights(self, step: Any) -> torch.Tensor:
        return torch.ones_like(step.token_losses)


class Looking(Method):
    """Asks for the logits, and adds nothing."""

    name = "looking"

    def penalty(self, step: Any) -> torch.Tensor:
        nothing: torch.Tensor = 0.0 * step.token_losses.sum()
        return nothing


class AnyNames(Trainer):
    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        return super().compute_loss(model, inputs, return_outputs, **kwargs)


class NamesOnly(Trainer):
    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: Any, *, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch=num_items_in_batch)


class OtherOrder(Trainer):
    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: Any, num_items_in_batch: Any = None, return_outputs: bool = False
    ) -> Any:
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch=num_items_in_batch)


class Replaying(Trainer):
    """Adds a loss on a batch of its own."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        other = {"input_ids": torch.arange(2, 12)[None], "labels": torch.arange(2, 12)[None]}
        return model(**inputs).loss + 0.5 * model(**other).loss


class ByNumber(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        out = model(**inputs)
        return out[0] + 0.0 * out[1].mean() + 0.0 * out.get("logits").mean()


class Unpacking(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss, logits, *_ = model(**inputs, return_dict=False)
        return loss + 0.0 * logits.mean()


class LookingInside(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        out = model(**inputs, output_hidden_states=True)
        return out.loss + 1e-3 * out.hidden_states[-1].square().mean()


class Masking(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        labels = inputs["labels"].clone()
        labels[:, :8] = -100
        return model(**{**inputs, "labels": labels}).loss


class OwnStep(Trainer):
    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        loss: torch.Tensor = model(**self._prepare_inputs(inputs)).loss
        self.accelerator.backward(loss)
        return loss.detach()


def trainer_of(kind: type[Trainer], directory: Path, **changes: Any) -> Any:
    trainer = plain_trainer(directory, **changes)
    trainer.__class__ = kind
    return trainer


@pytest.mark.parametrize("kind", [AnyNames, NamesOnly, OtherOrder, Replaying, ByNumber, Unpacking, LookingInside])
@pytest.mark.parametrize("methods", [[], [Ones()], [Looking()]], ids=["none", "weighs", "looks"])
def test_a_loss_of_the_users_own_is_what_it_was(kind: type[Trainer], methods: list[Method], tmp_path: Path) -> None:
    plain, protected = trainer_of(kind, tmp_path), protect(trainer_of(kind, tmp_path), methods)
    assert largest_difference(trained(plain), trained(protected)) < 2e-3
    assert logged(protected, "loss") == pytest.approx(logged(plain, "loss"), rel=1e-4)


def test_labels_that_a_loss_changes_are_refused_where_tokens_are_weighed_and_fine_elsewhere(tmp_path: Path) -> None:
    plain, looked = trainer_of(Masking, tmp_path), protect(trainer_of(Masking, tmp_path), [Looking()])
    assert largest_difference(trained(plain), trained(looked)) < 2e-3
    with pytest.raises(ConfigError, match="changes the labels"):
        trained(protect(trainer_of(Masking, tmp_path), [EAFT()]))


def test_a_step_that_asks_for_no_loss_is_refused_where_methods_act_on_it(tmp_path: Path) -> None:
    for method in (KLToBase(strength=1000.0), EAFT()):
        with pytest.raises(ConfigError, match="training_step doesn't call compute_loss"):
            trained(protect(trainer_of(OwnStep, tmp_path), [method], general=GENERAL))
    trained(protect(trainer_of(OwnStep, tmp_path), [L2SP()]))


def test_rows_of_which_nothing_is_learned_are_passed_over(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in encoded_rows()]
    cut = [{"input_ids": row["input_ids"][:5], "labels": [-100] * 5} for row in rows]
    mixed = Dataset.from_list([part for pair in zip(rows, cut, strict=True) for part in pair])
    changes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    for method in (FLOW(), STM(threshold=280.0), KLToBase(data="domain")):
        trainer = plain_trainer(tmp_path, options={"train_dataset": mixed}, **changes)
        trained(protect(trainer, [method]))
    nothing = plain_trainer(tmp_path, options={"train_dataset": Dataset.from_list(cut)})
    with pytest.raises(DataError, match="nothing is learned of any training sequence"):
        protect(nothing, [FLOW()])


def test_an_optimizer_with_its_scheduler_takes_what_leaves_their_groups_alone(tmp_path: Path) -> None:
    def trainer() -> Any:
        model: Any = build_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        return plain_trainer(tmp_path, model=model, options={"optimizers": (optimizer, scheduler)})

    trained(protect(trainer(), [MoFO()]))
    with pytest.raises(ConfigError, match="scheduler was made for parameter groups that method 'layer_rates' changes"):
        trained(protect(trainer(), [LayerRates()]))


def test_weights_that_lie_in_another_order_in_memory_are_held_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forgetless.mechanisms.quadratic.GROUP_ON_CPU", 64)

    def trainer(is_turned: bool) -> Any:
        model: Any = build_model()
        for parameter in model.parameters():
            if is_turned and parameter.ndim == 2:
                parameter.data = parameter.data.t().contiguous().t()
        return protect(plain_trainer(tmp_path, model=model), [L2SP(strength=10.0)])

    assert largest_difference(trained(trainer(False)), trained(trainer(True))) < 2e-3


@pytest.mark.parametrize("method", [EWC(), KLToBase(), AGEM(), NullSpace(rank=2), CorDA(rank=2)], ids=lambda m: m.name)
def test_a_trainer_without_a_tokenizer_is_told_to_bring_one(method: Method, tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    trainer.processing_class = None
    with pytest.raises(ConfigError, match="give the trainer processing_class=tokenizer"):
        protect(trainer, [method], general=GENERAL)


@pytest.mark.parametrize("method", [EWC(), KLToBase(), AGEM()], ids=lambda m: m.name)
def test_general_texts_are_cut_to_what_the_model_can_take(method: Method, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model: Any = GPT2LMHeadModel(
        GPT2Config(vocab_size=258, n_embd=16, n_layer=1, n_head=2, n_positions=128, bos_token_id=0, eos_token_id=1)
    )
    trainer = plain_trainer(tmp_path, model=model, max_steps=1)
    trained(protect(trainer, [method], general=[{"text": "water is wet. " * 40}] * 4))


def test_a_loss_of_preferences_has_no_tokens_to_weigh(tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path)
    trainer.args.loss_type = ["sigmoid"]
    with pytest.raises(ConfigError, match="which a loss of preferences doesn't have"):
        protect(trainer, [EAFT()])


def test_what_is_no_language_model_is_refused_where_its_texts_matter(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model: Any = LlamaForSequenceClassification(
        LlamaConfig(vocab_size=258, num_attention_heads=2, pad_token_id=1, **sizes)
    )
    for method in (EWC(), KLToBase(), EAFT()):
        with pytest.raises(ConfigError, match="isn't a causal language model"):
            protect(plain_trainer(tmp_path, model=model), [method], general=GENERAL)
    protect(plain_trainer(tmp_path, model=model), [L2SP(), MoFO()])


@pytest.mark.parametrize("method", [KLToBase(), Half(steps_per_round=1)], ids=lambda m: m.name)
def test_the_same_trainer_goes_on_from_its_own_checkpoint(method: Method, tmp_path: Path) -> None:
    trainer = protect(
        plain_trainer(tmp_path, max_steps=4, save_strategy="steps", save_steps=3), [method], general=GENERAL
    )
    whole = trained(trainer)
    again = trained(trainer, resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert are_equal(whole, again)


def test_each_training_of_a_trainer_has_its_kept_batches(tmp_path: Path) -> None:
    method = KLToBase()
    trainer = protect(plain_trainer(tmp_path, max_steps=1), [method], general=GENERAL)
    for num in (1, 2):
        trainer.train()
        assert method.cycle_ is not None
        assert method.cycle_.num_drawn == num


class Gradients(TrainerCallback):
    """Keeps the largest gradient of the half of CorDA's adapters that is frozen."""

    def __init__(self) -> None:
        self.largest = 0.0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        for name, parameter in model.named_parameters():
            for part, dim in (("lora_A", 0), ("lora_B", 1)):
                if part in name:
                    half = parameter.grad.narrow(dim, parameter.shape[dim] // 2, parameter.shape[dim] // 2)
                    self.largest = max(self.largest, float(half.abs().max()))


def test_what_others_add_to_the_frozen_half_of_an_adapter_is_taken_out(tmp_path: Path) -> None:
    seen = Gradients()
    trainer = plain_trainer(tmp_path, options={"callbacks": [seen]})
    trained(protect(trainer, [CorDA(rank=2), L2SP(strength=10.0)], general=GENERAL))
    assert logged(trainer, "penalty/l2_sp")[-1] > 0
    assert seen.largest == 0.0


def test_a_projection_does_not_see_the_frozen_half_of_an_adapter_in_any_order(tmp_path: Path) -> None:
    changes = {"optim": "sgd", "learning_rate": 0.1, "max_steps": 4}
    orders: list[list[Method]] = [[CorDA(rank=2), AGEM(batch_size=2)], [AGEM(batch_size=2), CorDA(rank=2)]]
    weights = [trained(protect(plain_trainer(tmp_path, **changes), order, general=GENERAL)) for order in orders]
    assert largest_difference(*weights) == 0.0


def test_packed_rows_are_told_apart(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = sft_trainer(tmp_path, packing=True, max_length=256)
        method = FLOW()
        protect(packed, [method])  # of all weights: the base is asked about each sequence beforehand
        loose = FLOW()
        protect(sft_trainer(tmp_path), [loose])
        trained(packed)
    assert method.mean_weight_ == pytest.approx(loose.mean_weight_, rel=1e-3)
    assert method.temperature_ == pytest.approx(loose.temperature_, rel=1e-3)


def test_callbacks_of_the_users_own_see_the_weights_that_the_step_leaves(tmp_path: Path) -> None:
    class Average(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            self.seen = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    average = Average()
    trainer: Any = plain_trainer(tmp_path, max_steps=1, options={"callbacks": [average]})
    protect(trainer, [MoFO(), Shrink()])
    trained(trainer)
    assert all(torch.equal(average.seen[name], p) for name, p in trainer.model.named_parameters())


def test_a_method_works_for_the_trainer_that_it_was_given_to_last(tmp_path: Path) -> None:
    method = L2SP()
    first, second = (protect(plain_trainer(tmp_path), [method]) for _ in range(2))
    second.train()
    with pytest.raises(RunError, match="was given to another trainer since"):
        first.train()


attach: Any = protect


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda trainer: attach(trainer, L2SP()), "protect takes a list of methods"),
        (lambda trainer: attach(trainer, [L2SP]), "protect takes a list of methods"),
        (lambda trainer: attach(trainer, ["l2_sp"]), "not 'l2_sp'"),
        (lambda trainer: attach(trainer.model, [L2SP()]), "protect takes a transformers Trainer, not Llama"),
        (lambda trainer: attach(trainer, [KLToBase()], general=["water is wet"]), "row 1 of the general data is str"),
        (lambda trainer: attach(trainer, [KLToBase()], general={"text": "wet"}), "one row, not a list of rows"),
        (lambda trainer: attach(trainer, [KLToBase(data="self")]), "general examples"),
    ],
)
def test_what_is_of_another_kind_is_refused_with_what_is_wanted(wrong: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match=text):
        wrong(plain_trainer(tmp_path))


def test_reentrant_checkpoints_of_the_models_own_are_seen(tmp_path: Path) -> None:
    trainer = sft_trainer(tmp_path, rows=completion_rows(), gradient_checkpointing=False)
    protect(trainer, [LoRA(rank=2), KLToBase()], general=GENERAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
        trainer.model.enable_input_require_grads()
        trained(trainer)
    assert logged(trainer, "penalty/kl")
    assert not logged(trainer, "share/kl")  # gradients of a part of the loss are out of reach

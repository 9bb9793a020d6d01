"""The base's view: asked beforehand and kept, or behind the adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import build_model
from forgetless.data.encoding import Encoded
from forgetless.errors import ConfigError, RunError
from forgetless.mechanisms import reference as module
from forgetless.mechanisms.batches import pad_batch
from forgetless.mechanisms.divergence import divergence, whole_distributions
from forgetless.mechanisms.logits import supervised_logits
from forgetless.mechanisms.reference import Reference, as_base
from forgetless.methods.lora import LoRA
from training import context, mixture

PADDING = 1


def batch(sequences: list[Encoded] | None = None) -> dict[str, torch.Tensor]:
    return pad_batch(sequences or mixture([])[:3], padding=PADDING)


def disturbed(model: Any) -> Any:
    """A model whose weights have moved."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model


def adapted() -> Any:
    """A model with an adapter that does something."""
    model: Any = LoRA(rank=2, dropout=0.5).prepare_model(build_model(), context())  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.1)
    return model


def base_losses(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Token losses of the base, computed plainly."""
    model: Any = build_model()
    with torch.no_grad():
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), inputs["labels"][:, 1:], reduction="none")


@pytest.fixture(params=[True, False], ids=["on disk", "in memory"])
def directory(request: Any, tmp_path: Path) -> Path | None:
    return tmp_path if request.param else None


def test_token_losses_are_the_bases_after_it_has_changed(directory: Path | None) -> None:
    model: Any = build_model()
    kept = Reference(directory=directory)
    kept.ask(model, mixture([]), padding=PADDING)
    torch.testing.assert_close(kept.token_losses(disturbed(model), batch()), base_losses(batch()))


def test_the_tops_are_a_bound_of_the_divergence_over_the_whole_vocabulary(directory: Path | None) -> None:
    model: Any = build_model()
    kept = Reference(top_k=16, directory=directory)
    kept.ask(model, mixture([]), padding=PADDING)
    with torch.no_grad():
        exact = whole_distributions(supervised_logits(model, batch()))
        tuned = supervised_logits(disturbed(model), batch())
    bound = divergence(kept.distributions(model, batch()), tuned)
    assert (bound <= divergence(exact, tuned) + 1e-6).all()
    assert bound.mean() > 0.001


def test_what_is_on_disk_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARD", 5)
    first = Reference(top_k=4, directory=tmp_path)
    first.ask(build_model(), mixture([]), padding=PADDING)  # type: ignore[arg-type]
    files = sorted((tmp_path / "reference").iterdir())
    assert len(files) == 4  # 16 sequences in files of five
    files[2].unlink()  # an interruption: the rest is there
    asked: list[int] = []
    original = module._ask_base

    def ask(model: Any, sequences: Any, **options: Any) -> Any:
        asked.append(len(sequences))
        return original(model, sequences, **options)

    monkeypatch.setattr(module, "_ask_base", ask)
    again = Reference(top_k=4, directory=tmp_path)
    again.ask(build_model(), mixture([]), padding=PADDING)  # type: ignore[arg-type]
    assert len(asked) == 1
    one, other = (kept.distributions(build_model(), batch()) for kept in (first, again))  # type: ignore[arg-type]
    assert torch.equal(one.log_probs, other.log_probs)
    Reference(top_k=4, directory=tmp_path).ask(disturbed(build_model()), mixture([]), padding=PADDING)
    assert len(asked) == 5  # another model is another base


def test_an_adapter_of_any_seed_has_the_base_of_the_same_files(tmp_path: Path) -> None:
    for seed in (0, 1):
        model: Any = LoRA().prepare_model(build_model(), replace(context(), seed=seed))  # type: ignore[arg-type]
        Reference(directory=tmp_path).ask(model, mixture([]), padding=PADDING)
    assert len(list((tmp_path / "reference").iterdir())) == 1


def test_nothing_of_the_vocabularys_width_is_kept(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    kept = Reference(top_k=4, directory=tmp_path)
    kept.ask(build_model(), mixture([]), padding=PADDING)  # type: ignore[arg-type]
    tensors = load_file(next((tmp_path / "reference").iterdir()))
    num = sum(sequence.num_supervised for sequence in mixture([]))
    assert sum(tensor.nbytes for tensor in tensors.values()) == num * (8 * 4 + 4 + 4)


def test_the_base_is_asked_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_TOKENS", 120)
    monkeypatch.setattr(module, "_CHUNK", 7)
    model: Any = build_model()
    sizes: list[int] = []
    model.model.embed_tokens.register_forward_hook(lambda m, inputs, output: sizes.append(inputs[0].numel()))
    kept = Reference(directory=None)
    kept.ask(model, mixture([]), padding=PADDING)
    assert len(sizes) > 4
    assert max(sizes) <= 120
    torch.testing.assert_close(kept.token_losses(model, batch()), base_losses(batch()))


def test_unknown_sequences_are_asked_about_behind_the_adapter() -> None:
    model = adapted().train()
    kept = Reference()
    torch.testing.assert_close(kept.token_losses(model, batch()), base_losses(batch()))
    kept.ask(model, mixture([])[3:], padding=PADDING)  # one of a batch that is unknown is enough
    torch.testing.assert_close(kept.token_losses(model, batch(mixture([])[2:4])), base_losses(batch(mixture([])[2:4])))
    whole = Reference(top_k=2).distributions(model, batch())
    assert whole.ids is None


def test_unknown_sequences_are_refused_where_the_base_is_gone() -> None:
    kept = Reference()
    kept.ask(build_model(), mixture([])[3:], padding=PADDING)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="switch packing off"):
        kept.token_losses(build_model(), batch())  # type: ignore[arg-type]


def test_packed_sequences_are_found_one_by_one() -> None:
    one, other = mixture([])[:2]
    kept = Reference()
    kept.ask(build_model(), [one, other], padding=PADDING)  # type: ignore[arg-type]
    length = len(one.input_ids)
    inputs = {
        "input_ids": torch.tensor([one.input_ids + other.input_ids]),
        "labels": torch.tensor([one.labels + other.labels]),
        "position_ids": torch.tensor([[*range(length), *range(len(other.input_ids))]]),
    }
    found = kept.token_losses(build_model(), inputs)  # type: ignore[arg-type]
    alone = [base_losses(batch([sequence]))[0] for sequence in (one, other)]
    torch.testing.assert_close(found[0], torch.cat([alone[0], torch.zeros(1), alone[1]]))


def test_a_row_without_answers_is_no_sequence_to_be_asked_about() -> None:
    empty = Encoded([5, 6, 7], [-100] * 3)
    kept = Reference()
    kept.ask(build_model(), mixture([])[:1], padding=PADDING)  # type: ignore[arg-type]
    inputs = batch([mixture([])[0], empty])
    torch.testing.assert_close(kept.token_losses(build_model(), inputs), base_losses(inputs))  # type: ignore[arg-type]


def test_summaries() -> None:
    sequences = mixture([])[:4]
    kept = Reference()
    kept.ask(build_model(), [*sequences, sequences[0]], padding=PADDING)  # type: ignore[arg-type]
    losses, counts = kept.mean_losses(sequences)
    expected = base_losses(batch(sequences))
    assert counts.tolist() == [sequence.num_supervised for sequence in sequences]
    assert losses.tolist() == pytest.approx((expected.sum(1).numpy() / counts).tolist())
    values = expected[batch(sequences)["labels"][:, 1:] != -100]
    threshold = float(values.median())
    assert kept.share_above(threshold, sequences) == pytest.approx(float((values > threshold).double().mean()))


def test_asking_the_base_leaves_the_model_as_it_was() -> None:
    model = adapted().train()
    model.base_model.model.model.layers[0].eval()
    frozen = next(name for name, _ in model.named_parameters() if "lora_A" in name)
    dict(model.named_parameters())[frozen].requires_grad_(False)
    before = [(p.requires_grad) for p in model.parameters()], [m.training for m in model.modules()]
    with as_base(model):
        assert not any(m.training for m in model.modules())
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert before == ([(p.requires_grad) for p in model.parameters()], [m.training for m in model.modules()])


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "reference").write_text("a file where the directory should be")
    with pytest.raises(RunError, match="cannot be kept in"):
        Reference(directory=tmp_path).ask(build_model(), mixture([]), padding=PADDING)  # type: ignore[arg-type]


def test_a_packed_sequence_whose_first_token_is_learned_is_asked_about_behind_the_adapter() -> None:
    """A collator of one's own may leave the boundary in, where the base was never asked."""
    one, other = mixture([])[:2]
    kept = Reference()
    kept.ask(build_model(), [one, other], padding=PADDING)  # type: ignore[arg-type]
    inputs = {
        "input_ids": torch.tensor([one.input_ids + other.input_ids]),
        "labels": torch.tensor([one.labels + other.input_ids[:1] + other.labels[1:]]),
        "position_ids": torch.tensor([[*range(len(one.input_ids)), *range(len(other.input_ids))]]),
    }
    with pytest.raises(ConfigError, match="switch packing off"):
        kept.token_losses(build_model(), inputs)  # type: ignore[arg-type]
    adapted = LoRA(rank=2).prepare_model(build_model(), context())  # type: ignore[arg-type]
    assert kept.token_losses(adapted, inputs)[0, len(one.input_ids) - 1] > 0

"""How much each weight matters to what a model does: the diagonal Fisher information, and MAS's sensitivity.

Both are taken per sequence and averaged over sequences, in eval mode: they don't depend on how sequences are batched,
ordered or padded. Estimates are kept in safetensors files and reused by their content.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from forgetless.errors import ConfigError, DataError
from forgetless.mechanisms.sequence_gradients import IGNORED, sum_sequence_gradients
from forgetless.mechanisms.tensors import read_tensors, write_tensors
from forgetless.mechanisms.weight_change import measured_parameters

Labels = Literal["sampled", "empirical"]


class Importance(dict[str, Tensor]):
    """How much each weight matters: {parameter name: tensor shaped like the parameter}, all >= 0.

    Args:
        values: The tensors by name.
        num_sequences: Sequences that it is a mean over.
        kind: `fisher-sampled`, `fisher-empirical` or `mas`.
        facts: What else its file said of it.
    """

    def __init__(
        self, values: Mapping[str, Tensor], *, num_sequences: int, kind: str, facts: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(values)
        self.num_sequences, self.kind = num_sequences, kind
        self.facts: Mapping[str, str] = {} if facts is None else facts


def estimate_fisher(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    labels: Labels = "sampled",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    parameters: Iterable[str] | None = None,
) -> Importance:
    """Estimates the diagonal of the Fisher information at the model's weights, one sequence at a time.

    F_i = mean over sequences x of (d/d theta_i of the sum over supervised positions t of log p(y_t | x_<t))^2
    with y_t drawn from the model's own distribution after the data's prefix x_<t (Kirkpatrick et al. 2017; van de Ven
    2025 on why not from the data, and why not from batch means). One batched forward and backward pass per batch; the
    memory that it needs is stated in `sequence_gradients`.

    Args:
        model: A causal language model. It is in eval mode meanwhile and as it was afterwards.
        batches: Mappings with `input_ids`, `labels` and, where sequences are padded, `attention_mask`: (batch, tokens)
            each; supervised is what has a label other than -100. A row is one sequence. What the model is to *keep*.
        labels: `sampled` from the model, which makes it the Fisher; `empirical` takes the data's own, which doesn't.
        seed: Of the drawn labels; which ones a sequence gets depends on its content and nothing else. A sequence that
            comes again gets labels of its own: `batches * 4` is the mean over four draws, which is less noisy.
        dtype: Of what is returned: float32 or bfloat16. Sums are always float32.
        parameters: Names of the parameters, frozen ones too; by default those that are trained, where for LoRA the
            frozen weight stands that A and B change (at B = 0 the gradient of A is zero: its Fisher protects nothing).

    Returns:
        Tensors by parameter name, with `num_sequences`.

    Raises:
        ConfigError: The model has nothing to train, a name is unknown, or a batch lacks ids or labels.
        DataError: No sequence has a supervised position.
    """
    if labels not in ("sampled", "empirical"):
        raise ConfigError(f"labels {labels!r} is neither 'sampled' (from the model) nor 'empirical' (the data's own)")
    drawer = _LabelDrawer(seed) if labels == "sampled" else None

    def score(logits: Tensor, targets: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        return _score(logits, targets, batch, drawer)

    sums, num = sum_sequence_gradients(
        model, batches, output_gradient=score, parameters=pick_parameters(model, parameters), fold="square"
    )
    return _mean(sums, num, dtype, f"fisher-{labels}")


def estimate_sensitivity(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    dtype: torch.dtype = torch.float32,
    parameters: Iterable[str] | None = None,
) -> Importance:
    """Estimates how much each weight moves the model's output (MAS, Aljundi et al. 2018).

    Omega_i = mean over sequences of |d ||f(x)||^2 / d theta_i|, where f(x) are the logits at the supervised positions
    less their mean over the vocabulary (a constant in all logits changes nothing), and ||.||^2 their squares summed
    over the vocabulary and averaged over the positions. No labels are used.

    Args:
        model: A causal language model. It is in eval mode meanwhile and as it was afterwards.
        batches: As in `estimate_fisher`.
        dtype: Of what is returned.
        parameters: As in `estimate_fisher`.

    Returns:
        Tensors by parameter name, with `num_sequences`.

    Raises:
        ConfigError: The model has nothing to train, a name is unknown, or a batch lacks ids or labels.
        DataError: No sequence has a supervised position.
    """
    sums, num = sum_sequence_gradients(
        model, batches, output_gradient=_norm_gradient, parameters=pick_parameters(model, parameters), fold="abs"
    )
    return _mean(sums, num, dtype, "mas")


def pick_parameters(model: nn.Module, names: Iterable[str] | None) -> dict[str, nn.Parameter]:
    """Returns the parameters of these names; by default those in whose space the model's change is measured."""
    known = dict(model.named_parameters())
    wanted = measured_parameters(model) if names is None else list(names)
    if not wanted:
        raise ConfigError("nothing of this model is trained: name the parameters, or unfreeze some")
    for name in wanted:
        if name not in known:
            raise ConfigError(f"the model has no parameter {name!r} (tied weights go by their first name)")
        if not known[name].is_floating_point():
            raise ConfigError(f"parameter {name!r} is stored as {known[name].dtype}: load the model unquantised")
    return {name: known[name] for name in wanted}


def _mean(sums: dict[str, Tensor], num: int, dtype: torch.dtype, kind: str) -> Importance:
    for name in sums:  # one by one, so that what is rounded is never there twice
        sums[name] = sums[name].div_(num).to(dtype)
    return Importance(sums, num_sequences=num, kind=kind)


def _score(logits: Tensor, targets: Tensor, batch: Mapping[str, Tensor], drawer: _LabelDrawer | None) -> Tensor:
    """Returns onehot(y) - softmax(logits), the gradient of log p(y), at supervised positions and 0 elsewhere."""
    gradient = torch.zeros_like(logits)
    for row, target in enumerate(targets):  # by row: softmax and its cumulative sum are the size of the logits
        places = (target != IGNORED).nonzero().squeeze(1)
        if not len(places):
            continue
        probabilities = logits[row, places].float().softmax(-1)
        if drawer is None:
            drawn = target[places]
        else:
            is_padding = batch["attention_mask"][row] == 0 if "attention_mask" in batch else target.new_zeros(()).bool()
            drawn = drawer.draw(probabilities, batch["input_ids"][row], target, is_padding)
        probabilities.neg_()
        probabilities[torch.arange(len(places), device=places.device), drawn] += 1
        gradient[row, places] = probabilities.to(gradient.dtype)
    return gradient


def _norm_gradient(logits: Tensor, targets: Tensor, _: Mapping[str, Tensor]) -> Tensor:
    """Returns the gradient of the mean squared norm of the centred logits at supervised positions."""
    is_supervised = targets != IGNORED
    share = is_supervised / is_supervised.sum(1, keepdim=True).clamp(min=1)
    centred = logits - logits.mean(-1, keepdim=True)
    return centred.mul_(2 * share[..., None].to(logits.dtype))


class _LabelDrawer:
    """Draws labels from a model's distribution; a sequence's draw depends on the seed and its own content only.

    The second occurrence of a sequence gets draws of its own.

    Args:
        seed: Of all draws.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.seen: Counter[bytes] = Counter()

    def draw(self, probabilities: Tensor, input_ids: Tensor, targets: Tensor, is_padding: Tensor) -> Tensor:
        """Draws one label for each supervised position; there is one at least.

        Args:
            probabilities: (supervised positions, vocabulary).
            input_ids: Ids of the sequence, (tokens,).
            targets: What each position has to predict, (tokens,).
            is_padding: Which positions are padding, (tokens,) or a scalar: they play no part.

        Returns:
            Token ids, (supervised positions,).
        """
        end = int((targets != IGNORED).nonzero().max()) + 1
        content = torch.stack([input_ids, targets])[:, :end][:, ~is_padding.expand(len(targets))[:end]]
        digest = hashlib.sha256(str(self.seed).encode() + content.cpu().long().numpy().tobytes()).digest()
        self.seen[digest] += 1
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big") ^ (self.seen[digest] - 1))
        uniform = torch.rand(len(probabilities), 1, generator=generator, dtype=torch.float32)
        cumulative = probabilities.cumsum(-1)
        thresholds = uniform.to(probabilities.device) * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, thresholds, right=True).squeeze(1)
        return drawn.clamp_(max=probabilities.shape[-1] - 1)


def save_fisher(fisher: Mapping[str, Tensor], path: str | Path, **facts: str) -> None:
    """Writes importances to a safetensors file, whole or not at all.

    Args:
        fisher: Tensors by parameter name, in the precision in which they are to be kept.
        path: The file.
        **facts: More metadata, as text.
    """
    path = Path(path)
    metadata = {"format": "forgetless-importance", "schema": "1", **facts}
    if isinstance(fisher, Importance):
        metadata |= {"num_sequences": str(fisher.num_sequences), "kind": fisher.kind}
    write_tensors(path, fisher, metadata)


def load_fisher(path: str | Path, *, device: Any = "cpu") -> Importance:
    """Reads what `save_fisher` wrote.

    Args:
        path: The file.
        device: Where the tensors are put.

    Returns:
        Tensors by parameter name, with the number of sequences.

    Raises:
        DataError: The file is missing, damaged, or something else.
    """
    try:
        values, metadata = read_tensors(Path(path), device=device)
    except (OSError, SafetensorError) as error:
        raise DataError(f"can't be read as safetensors ({error}): estimate it again", path=path) from None
    if metadata.get("format") != "forgetless-importance":
        raise DataError("is no file of importances: write one with forgetless.save_fisher", path=path)
    return Importance(
        values,
        num_sequences=int(metadata.get("num_sequences", 0)),
        kind=metadata.get("kind", "unknown"),
        facts=metadata,
    )

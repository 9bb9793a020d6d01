"""Squares of the gradients of single sequences, out of one batched forward and backward pass.

The weights themselves ask for no gradient, so that the backward pass computes gradients of activations only; hooks form
each sequence's gradient of a weight from what its module took in and the gradient of what it gave, fold it into the
total and drop it. Weights that this doesn't cover (experts that shuffle tokens, weights that are used outside of their
module) are found out and taken one sequence at a time.

Beyond the model, one batch needs at most

    4 bytes x (the wanted parameters + 2 x the largest of them) + activations and logits of the batch, twice

where a training step needs the gradients of all parameters instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from forgetless.errors import ConfigError, DataError
from forgetless.mechanisms.gradient_rules import Fold, Use, add_folded, fold_uses, is_covered, read_uses
from forgetless.mechanisms.modes import eval_mode

IGNORED = -100  # label of a position that is not supervised, as in transformers

# From logits (batch, tokens, vocabulary), targets (batch, tokens; IGNORED where nothing is supervised) and the batch to
# the gradient, with respect to the logits, of what each sequence's gradient is taken of; zero where nothing is.
OutputGradient = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


def sum_sequence_gradients(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    output_gradient: OutputGradient,
    parameters: Mapping[str, nn.Parameter],
    fold: Fold,
) -> tuple[dict[str, Tensor], int]:
    """Adds up the squares, or the absolute values, of the gradients of single sequences.

    The model is in eval mode meanwhile; modes, gradients and what is trainable are as they were afterwards.

    Args:
        model: A causal language model: `input_ids` (batch, tokens) in, logits (batch, tokens, vocabulary) out.
        batches: Mappings with `input_ids`, `labels` and whatever else the model takes. A row is one sequence.
        output_gradient: Gives the gradient with respect to the logits.
        parameters: What gradients are wanted of, by name.
        fold: What is added up.

    Returns:
        The totals by name, float32, and the number of sequences that have a supervised position.

    Raises:
        ConfigError: A batch lacks ids or labels, or they aren't tensors of (batch, tokens).
        DataError: No sequence has a supervised position.
    """
    totals = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    num_sequences = 0
    with _frozen_in_eval_mode(model), torch.enable_grad():
        recorder = _Recorder(model, parameters, totals, fold)
        with recorder.listening():
            for batch in batches:
                targets = _targets(batch)
                num_sequences += int((targets != IGNORED).any(1).sum())
                _add_batch(recorder, batch, targets, output_gradient)
    if not num_sequences:
        raise DataError("no sequence has a supervised position (labels other than -100): nothing can be estimated")
    return totals, num_sequences


def _targets(batch: Mapping[str, Tensor]) -> Tensor:
    """Returns the label that each position has to predict."""
    for name in ("input_ids", "labels"):
        if name not in batch:
            raise ConfigError(f"a batch has {', '.join(batch) or 'nothing'}, but no {name}: give each both")
        if not isinstance(batch[name], Tensor) or batch[name].ndim != 2:
            raise ConfigError(f"{name} of a batch is no tensor of (batch, tokens): for one sequence, make it one row")
    return nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)


def _add_batch(
    recorder: _Recorder, batch: Mapping[str, Tensor], targets: Tensor, output_gradient: OutputGradient
) -> None:
    recorder.start(batch["input_ids"].shape)
    with _Onlooker(recorder):
        logits = _logits(recorder.model, batch)
    with torch.no_grad():
        gradient = output_gradient(logits, targets, batch)
    if logits.requires_grad:
        logits.backward(gradient)
    del logits
    left = recorder.finish()
    if left:
        _add_one_by_one(recorder, batch, gradient, left)


def _add_one_by_one(recorder: _Recorder, batch: Mapping[str, Tensor], gradient: Tensor, names: Sequence[str]) -> None:
    """The plain loop, for the parameters that the batched pass can't cover.

    Each gradient is folded when it is complete, and a zero that takes no memory goes on in its place: those of all
    experts would be as large as the experts.
    """
    wanted = [recorder.parameters[name] for name in names]
    num = gradient.shape[0]

    def fold(name: str, value: Tensor) -> Tensor:
        add_folded(recorder.totals[name], value.detach().float(), recorder.fold)
        return value.new_zeros(()).expand_as(value)

    for parameter in wanted:
        parameter.requires_grad_(True)
    handles = [parameter.register_hook(partial(fold, name)) for name, parameter in zip(names, wanted, strict=True)]
    try:
        with recorder.silent():
            for row in range(num):
                # What all sequences share (positions) has one row.
                own = {name: value[row : row + 1] if len(value) == num else value for name, value in batch.items()}
                logits = _logits(recorder.model, own)
                torch.autograd.grad(logits, wanted, gradient[row : row + 1], allow_unused=True)
                del logits
    finally:
        for handle in handles:
            handle.remove()
        for parameter in wanted:
            parameter.requires_grad_(False)


def _logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    options: dict[str, Any] = {"use_cache": False} if hasattr(model, "config") else {}
    output = model(**{name: value for name, value in batch.items() if name != "labels"}, **options)
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits[:, -batch["input_ids"].shape[1] :]  # learned prompts stand before the tokens


@contextmanager
def _frozen_in_eval_mode(model: nn.Module) -> Iterator[None]:
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with eval_mode(model):
            yield
    finally:
        for parameter, value in trainable.items():
            parameter.requires_grad_(value)


class _Recorder:
    """Listens to the modules that own the wanted parameters, and folds each use as soon as it is complete."""

    def __init__(
        self, model: nn.Module, parameters: Mapping[str, nn.Parameter], totals: Mapping[str, Tensor], fold: Fold
    ) -> None:
        self.model, self.parameters, self.totals, self.fold = model, parameters, totals, fold
        names = {id(parameter): name for name, parameter in parameters.items()}
        self.owned: dict[nn.Module, dict[str, str]] = {}  # module -> its own name of a parameter -> the model's name
        self.uncovered: set[str] = set()
        for module in model.modules():
            for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                if (name := names.get(id(parameter))) is None:
                    continue
                self.owned.setdefault(module, {})[own] = name
                if not is_covered(module, own):
                    self.uncovered.add(name)
        self.names = names
        self.running: list[nn.Module] = []
        self._is_silent = False
        self.start(torch.Size((0, 0)))

    def start(self, shape: torch.Size) -> None:
        """Forgets the last batch; the next one is (batch, tokens)."""
        self.shape = shape
        self.left = set(self.uncovered)
        self.expected: dict[str, int] = defaultdict(int)
        self.uses: dict[str, list[Use]] = defaultdict(list)
        self.done: set[str] = set()
        self.running.clear()

    def finish(self) -> list[str]:
        """Folds what is complete, and returns the parameters that must be taken one sequence at a time."""
        # What is missing was used by no module of its own, or has not come back: its output plays no part in the
        # logits, or was a view that was changed in place, which loses the hook. The plain loop knows.
        self.left |= {name for name in self.parameters if name not in self.done}
        return [name for name in self.parameters if name in self.left]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keeps the hooks on the modules meanwhile."""
        handles = [module.register_forward_hook(self._on_forward, with_kwargs=True) for module in self.owned]
        handles += [module.register_forward_pre_hook(self._on_start) for module in self.owned]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Keeps the hooks from listening meanwhile."""
        self._is_silent = True
        try:
            yield
        finally:
            self._is_silent = False

    def note_use(self, parameter: Any) -> None:
        """Gives up on a parameter that is used while no module of its own runs (an output layer tied by hand)."""
        name = self.names.get(id(parameter))
        if name is not None and not any(name in self.owned[module].values() for module in self.running):
            self.left.add(name)

    def _on_start(self, module: nn.Module, args: Any) -> None:
        if not self._is_silent:
            self.running.append(module)

    def _on_forward(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Tensor | None:
        if self._is_silent:
            return None
        self.running.pop()
        wanted = {own: name for own, name in self.owned[module].items() if name not in self.left}
        if not wanted:
            return None
        if kwargs or len(args) != 1 or not self._is_by_sequence(module, args[0], output):
            self.left.update(wanted.values())
            return None
        for name in wanted.values():
            self.expected[name] += 1
        listener = partial(self._on_gradient, module, wanted, args[0].detach())
        if output.requires_grad:
            output.register_hook(listener)
            return None
        # Where the graph begins. A copy for each sequence, of positions that they share, tells their gradients apart.
        start: Tensor = output.detach().expand(self.shape[0], *output.shape[1:]).clone().requires_grad_(True)
        start.register_hook(listener)
        return start.clone()  # a leaf can't be changed in place, as some models do

    def _is_by_sequence(self, module: nn.Module, inputs: Any, output: Any) -> bool:
        """Whether the rows of what a module takes and gives are the sequences of the batch."""
        if not isinstance(inputs, Tensor) or not isinstance(output, Tensor):
            return False
        if isinstance(module, nn.Embedding):
            is_shared = inputs.shape == (1, self.shape[1]) and not output.requires_grad
            return is_shared or inputs.shape == self.shape
        # Tokens between the two: an expert that takes as many shuffled tokens as there are sequences has none.
        return inputs.dim() >= 3 and inputs.shape[0] == self.shape[0] and self.shape[1] in inputs.shape[1:-1]

    def _on_gradient(self, module: nn.Module, wanted: Mapping[str, str], inputs: Tensor, gradient: Tensor) -> None:
        if inputs.is_floating_point():  # a trainer's autocast may take in one precision and give another
            precision = torch.promote_types(inputs.dtype, gradient.dtype)
            inputs, gradient = inputs.to(precision), gradient.to(precision)
        with self.silent():
            uses = read_uses(module, list(wanted), inputs, gradient)
        for own, name in wanted.items():
            if name in self.left:  # another use of it can't be told by sequence
                continue
            self.uses[name].append(uses[own])
            if len(self.uses[name]) == self.expected[name]:
                self._fold(name)

    def _fold(self, name: str) -> None:
        self.done.add(name)
        fold_uses(self.totals[name], self.uses.pop(name), self.fold, self.shape[0])


class _Onlooker(TorchFunctionMode):
    """Sees every torch function of a forward pass that takes one of the wanted parameters."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor | tuple):  # not what merely asks for a shape or a dtype
            for value in (*args, *(kwargs or {}).values()):
                self.recorder.note_use(value)
        return result

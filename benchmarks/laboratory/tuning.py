"""One tuning run: a base model, a recipe, a seed; through the product's own training stage, methods and hooks.

`forgetless.train.trainer.train_model` is what a user's run goes through. Its processor time per step is that of a bare
loop here, so that no loop of the laboratory's own is needed.
"""

from __future__ import annotations

import copy
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from benchmarks.laboratory.base_models import accuracy
from benchmarks.laboratory.scene import Scene, set_scene
from benchmarks.laboratory.skills import UNSEEN, Item, build_tokenizer
from transformers import TrainerCallback

from forgetless.config import TrainingConfig
from forgetless.data.encoding import encode_examples
from forgetless.data.examples import Example
from forgetless.errors import ForgetlessError
from forgetless.methods import METHODS
from forgetless.methods.base import Context, Method, build_method, refuse_conflicts
from forgetless.train.trainer import train_model

Kept = Literal["none", "general", "written"]

BATCH, MAX_TOKENS = 16, 64
LOOK = 5  # steps between two looks at what was learned
NEAR, ENOUGH = 0.8, 0.96  # target accuracies from which forgetting is looked at, and at which a search ends
FIRST_TIMED = 5  # the steps before it warm up


@dataclass(frozen=True)
class Recipe:
    """All that decides a run but its seed and its steps.

    Attributes:
        methods: As they would stand in a config.
        rate: Learning rate, constant.
        kept: What the methods are given as general data: none, the user's, or what the base wrote itself.
    """

    methods: tuple[str | Mapping[str, Any], ...] = ()
    rate: float = 3e-4
    kept: Kept = "general"


def tune(recipe: Recipe, seed: int, steps: int, directory: Path, *, is_search: bool = False) -> dict[str, Any]:
    """Tunes a base model on the narrow task and asks it everything.

    Args:
        recipe: What to do.
        seed: Decides base model, training data, their order, and all that methods draw.
        steps: Optimizer steps.
        directory: Where the base models are.
        is_search: Look at the target as it is learned, and stop where it has been; questions are those for choosing.

    Returns:
        One line of the journal; a run that failed says why under `failed`.
    """
    scene, started = set_scene(seed, directory), time.process_time()
    line: dict[str, Any] = {**asdict(recipe), "seed": seed, "steps": steps, "is_search": is_search}
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            methods = [build_method(METHODS.load, spec) for spec in recipe.methods]
            looker = Looker(scene, methods) if is_search else None
            model, found = _fit(recipe, methods, scene, steps, Path(place), looker)
        except ForgetlessError as error:
            return {**line, "failed": str(error)}
    if looker is None:
        unseen = [item for item in scene.test if item.skill == UNSEEN]
        line |= {**found, "target": accuracy(model, scene.test), "unseen": accuracy(model, unseen)}
        line["forgetting"] = scene.forgetting(model)
    else:
        line["looks"] = looker.looks
    return {**line, "seconds": round(time.process_time() - started, 2)}


def _fit(
    recipe: Recipe, methods: Sequence[Method], scene: Scene, steps: int, place: Path, looker: Looker | None
) -> tuple[Any, dict[str, Any]]:
    """Trains as `forgetless.run` does; returns the model and what the run took."""
    refuse_conflicts(methods)
    kept: dict[str, Sequence[Item]] = {"none": (), "general": scene.general, "written": scene.written}
    tokenizer = build_tokenizer()
    model = copy.deepcopy(scene.base)
    plain = sum(_tensors(model).values())
    started = time.process_time()
    domain = [item.example() for item in scene.train]
    context = Context(
        seed=scene.seed,
        general=[item.example("general") for item in kept[recipe.kept]],
        tokenizer=tokenizer,
        max_tokens=MAX_TOKENS,
        directory=place,
        domain=domain,
        model=model,
    )
    mixture: Sequence[Example] = domain
    for method in methods:
        method.check(context)
    for method in methods:
        mixture = method.prepare_data(mixture, context)
    sequences = encode_examples(mixture, tokenizer, max_tokens=MAX_TOKENS)
    context = replace(context, sequences=sequences)
    for method in methods:
        model = method.prepare_model(model, context)
    prepared = time.process_time() - started
    memory, clock = Memory(plain, methods), Clock()
    model, _ = train_model(
        model,
        tokenizer,
        sequences,
        methods=methods,
        config=TrainingConfig(
            batch_size=BATCH,
            max_steps=steps,
            max_tokens=MAX_TOKENS,
            warmup_ratio=0.0,
            scheduler="constant",
            save_steps=10**6,
            logging_steps=10**6,
        ),
        learning_rate=recipe.rate,
        seed=scene.seed,
        directory=place,
        callbacks=[clock, memory, *([looker] if looker else [])],
    )
    return model, {
        "num_sequences": len(sequences),
        "prepare_seconds": round(prepared, 3),
        "step_seconds": round(clock.step_seconds, 5),
        "memory_bytes": memory.num_bytes,
    }


class Looker(TrainerCallback):
    """Looks every few steps at what was learned and forgotten, and stops a training that has learned enough."""

    def __init__(self, scene: Scene, methods: Sequence[Method] = ()) -> None:
        self.scene, self.methods = scene, methods
        self.looks: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step % LOOK:
            return
        with ExitStack() as stack:  # what would be saved now; training goes on with what it has
            for method in self.methods:
                stack.enter_context(method.as_finished(model))
            self.looks.append(self._look(model, state.global_step))
        if len(self.looks) > 1 and min(look["target"] for look in self.looks[-2:]) >= ENOUGH:
            control.should_training_stop = True

    def _look(self, model: Any, step: int) -> dict[str, float]:
        look = {"steps": step, "target": accuracy(model, self.scene.test)}
        if look["target"] >= NEAR:
            forgotten = self.scene.forgetting(model, is_validation=True).values()
            look["forgetting"] = sum(forgotten) / len(forgotten)
        return look


class Clock(TrainerCallback):
    """Takes the processor time of each optimizer step: loss, penalties, gradients, update, hooks."""

    def __init__(self) -> None:
        self.spent: list[float] = []
        self._started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.spent.append(time.process_time() - self._started)

    @property
    def step_seconds(self) -> float:
        """Median over the steps, in seconds of one thread."""
        return float(np.median(self.spent[FIRST_TIMED:] or self.spent))


class Memory(TrainerCallback):
    """Counts the bytes that a training holds beyond the base's own weights, after its first step.

    Weights that were added, gradients, the optimizer's state, and every array that a method can reach; activations
    are left out.
    """

    def __init__(self, plain: int, methods: Sequence[Method]) -> None:
        self.plain, self.methods, self.num_bytes = plain, methods, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step != 1:
            return
        model = kwargs["model"]
        gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        moments = kwargs["optimizer"].state_dict()["state"].values()
        optimizer = sum(t.untyped_storage().nbytes() for entry in moments for t in entry.values() if torch.is_tensor(t))
        held = _tensors(model) | dict(_held_by(list(self.methods), set()))
        self.num_bytes = sum(held.values()) - self.plain + gradients + optimizer


def _tensors(model: Any) -> dict[int, int]:
    """Returns the size in bytes of each storage of a model, by its address."""
    tensors = [*model.parameters(), *model.buffers()]
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def _held_by(value: Any, seen: set[int]) -> Iterator[tuple[int, int]]:
    """Yields address and size of the arrays that a method holds, in containers and objects of this project too."""
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: Sequence[Any] = ()
    if isinstance(value, torch.Tensor):
        yield value.untyped_storage().data_ptr(), value.untyped_storage().nbytes()
    elif isinstance(value, np.ndarray):
        yield id(value), value.nbytes
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif type(value).__module__.startswith("forgetless."):
        slots = getattr(type(value), "__slots__", ())
        parts = [*vars(value).values()] if hasattr(value, "__dict__") else [getattr(value, s, None) for s in slots]
    for part in parts:
        yield from _held_by(part, seen)

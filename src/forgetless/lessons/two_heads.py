"""Two tasks, one shared layer: what training on the second does to the first, and what each mitigation saves of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forgetless.data.encoding import encode_examples
from forgetless.data.examples import Example
from forgetless.errors import ConfigError
from forgetless.lessons.network import NUM_CLASSES, TASKS, Network, RowTokenizer, Settings, draw_tasks, task_examples
from forgetless.mechanisms.batches import pad_batch
from forgetless.methods.base import Context, Method, trainable_parameters
from forgetless.methods.ewc import EWC
from forgetless.methods.freeze_bottom import FreezeBottom
from forgetless.methods.l2_sp import L2SP
from forgetless.methods.lora import LoRA
from forgetless.methods.replay import Replay
from forgetless.train.weighting import MicroBatch

Progress = Callable[[float, float], None]


@dataclass(frozen=True)
class Variant:
    """One way to train task B.

    Attributes:
        name: For tables.
        methods: Makes its methods.
        rate: What the learning rate is multiplied by.
        steps: What the number of steps is multiplied by.
        off_name: Name of the same model with its adapter switched off; empty where there is none.
    """

    name: str
    methods: Callable[[], Sequence[Method]] = tuple
    rate: float = 1.0
    steps: float = 1.0
    off_name: str = ""


VARIANTS = (
    Variant("plain"),
    Variant("lower rate (1/5)", rate=0.2),
    Variant("fewer epochs (1/5)", steps=0.2),
    Variant("frozen shared layer", methods=lambda: [FreezeBottom(num_layers=1)]),
    Variant(
        "LoRA, adapter on",
        methods=lambda: [LoRA(rank=4, target_modules=["layers.0", "head_b"])],
        off_name="LoRA, adapter off",
    ),
    Variant("replay, 10 %", methods=lambda: [Replay(share=0.1)]),
    Variant("replay, 50 %", methods=lambda: [Replay(share=0.5)]),
    Variant("EWC", methods=lambda: [EWC(strength=10.0, num_sequences=200)]),
    Variant("L2 to the start", methods=lambda: [L2SP(strength=0.03)]),
)
RATES = (1e-3, 3e-3, 3e-2)  # beside that of the settings


@dataclass(frozen=True)
class Losses:
    """Mean cross-entropy in nats, and accuracy on the rows that were held out.

    Attributes:
        training: On the rows of the task that were trained on.
        held_out: On those that weren't.
        accuracy: On those that weren't, in [0, 1].
    """

    training: float
    held_out: float
    accuracy: float


@dataclass(frozen=True)
class Trial:
    """One seed of one variant.

    Attributes:
        seed: Of rows, start and methods.
        before: Task A when it was learned and B was not.
        after: Task A when B was learned.
        other: Task B at the end.
    """

    seed: int
    before: Losses
    after: Losses
    other: Losses

    @property
    def ratio(self) -> float:
        """Loss of task A after B over before, on its training rows: what the lesson calls forgetting."""
        return self.after.training / self.before.training

    @property
    def rise(self) -> float:
        """Rise of task A's held-out loss in nats."""
        return self.after.held_out - self.before.held_out


@dataclass(frozen=True)
class TwoHeads:
    """What the lesson measured.

    Attributes:
        settings: Of network and training.
        variants: Trials of each way to train task B, by its name.
        rates: Trials of plain training of both tasks at another learning rate, by the rate.
    """

    settings: Settings
    variants: dict[str, list[Trial]] = field(default_factory=dict)
    rates: dict[float, list[Trial]] = field(default_factory=dict)

    @property
    def num_seeds(self) -> int:
        return len(next(iter(self.variants.values())))


def train(
    model: nn.Module, examples: Sequence[Example], methods: Sequence[Method], *, learning_rate: float, num_steps: int
) -> None:
    """Trains with all examples at each step; the methods take part as they do in a real training.

    Args:
        model: As the methods' `prepare_model` left it.
        examples: As their `prepare_data` left them.
        methods: In the order in which their hooks are folded.
        learning_rate: Of Adam.
        num_steps: Optimizer steps.
    """
    batch = pad_batch(encode_examples(examples, RowTokenizer(), max_tokens=8), padding=None)
    optimizer = torch.optim.Adam(trainable_parameters(model).values(), lr=learning_rate, fused=True)
    for method in methods:
        method.prepare_optimizer(optimizer, model)
    for _ in range(num_steps):
        step = MicroBatch(model, batch, len(examples), forward=model)
        losses = step.token_losses
        for method in methods:
            weights = method.token_weights(step)
            losses = losses if weights is None else losses * weights
        loss = losses.sum() / len(examples)
        for method in methods:
            penalty = method.penalty(step)
            loss = loss if penalty is None else loss + penalty
        optimizer.zero_grad()
        loss.backward()
        for method in methods:
            method.adjust_gradients(model)
        optimizer.step()
        for method in methods:
            method.after_step(model)


@torch.no_grad()
def measure(model: nn.Module, task: int, classes: Tensor, settings: Settings) -> Losses:
    """Measures a task on the rows that were trained on and on those that weren't."""
    num = classes.shape[1]
    rows = torch.arange(num)[:, None] + NUM_CLASSES + task * num
    logits = model(input_ids=rows).logits[:, 0]
    losses = nn.functional.cross_entropy(logits, classes[task], reduction="none")
    seen = settings.num_rows
    is_right = logits.argmax(-1) == classes[task]
    return Losses(float(losses[:seen].mean()), float(losses[seen:].mean()), float(is_right[seen:].float().mean()))


@dataclass(frozen=True)
class Stage:
    """Network and tasks of one seed, task A learned.

    Attributes:
        seed: Of everything.
        settings: Of network and training.
        rows: (2, rows, inputs).
        classes: (2, rows).
        weights: The network's, task A learned.
        before: Task A at these weights.
    """

    seed: int
    settings: Settings
    rows: Tensor
    classes: Tensor
    weights: dict[str, Tensor]
    before: Losses

    def network(self) -> Network:
        """Returns the network with task A learned."""
        network = Network(self.rows, width=self.settings.width)
        network.load_state_dict(self.weights)
        return network


def learn_first(seed: int, settings: Settings) -> Stage:
    """Draws tasks and network from a seed, and trains task A.

    Args:
        seed: Of everything.
        settings: Of network and training.

    Returns:
        What every variant starts from.
    """
    rows, classes = draw_tasks(settings, torch.Generator().manual_seed(seed))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(rows, width=settings.width)
    examples = task_examples(0, classes, settings)
    train(network, examples, [], learning_rate=settings.learning_rate, num_steps=settings.num_steps)
    before = measure(network, 0, classes, settings)
    return Stage(seed, settings, rows, classes, network.state_dict(), before)


def learn_second(stage: Stage, variant: Variant) -> dict[str, Trial]:
    """Trains task B in one way, and measures both tasks.

    Args:
        stage: Where task A is learned.
        variant: The way.

    Returns:
        Task A before and after and task B after, by name: the variant's, and that of the adapter switched off.
    """
    settings, classes = stage.settings, stage.classes
    methods = list(variant.methods())
    context = Context(
        seed=stage.seed,
        general=task_examples(0, classes, settings),
        tokenizer=RowTokenizer(),
        max_tokens=8,
        domain=task_examples(1, classes, settings),
    )
    examples: Sequence[Example] = context.domain
    for method in methods:
        method.check(context)
        examples = method.prepare_data(examples, context)
    model: nn.Module = stage.network()
    for method in methods:
        model = method.prepare_model(model, context)
    train(
        model,
        examples,
        methods,
        learning_rate=settings.learning_rate * variant.rate,
        num_steps=round(settings.num_steps * variant.steps),
    )
    for method in methods:
        model = method.finish(model)
    trials = {variant.name: _trial(stage, model)}
    if variant.off_name:
        adapted: Any = model
        with adapted.disable_adapter():
            trials[variant.off_name] = _trial(stage, model)
    return trials


def _trial(stage: Stage, model: nn.Module) -> Trial:
    after, other = (measure(model, task, stage.classes, stage.settings) for task in range(len(TASKS)))
    return Trial(stage.seed, stage.before, after, other)


def run_two_heads(
    num_seeds: int = 20,
    *,
    settings: Settings | None = None,
    variants: Sequence[Variant] = VARIANTS,
    rates: Sequence[float] = RATES,
    progress: Progress | None = None,
) -> TwoHeads:
    """Trains task A and then B, in every way, over many seeds.

    Args:
        num_seeds: Seeds 0, 1, ...; a ratio from one seed says nothing.
        settings: Of network and training; None = the defaults.
        variants: Ways to train task B.
        rates: Learning rates at which both tasks are trained plainly, too.
        progress: Called with (seeds done, seeds in all).

    Returns:
        One trial for each seed and way.

    Raises:
        ConfigError: There are no seeds.
    """
    if num_seeds < 1:
        raise ConfigError(f"{num_seeds} seeds show nothing: at least 1, and 20 for a distribution")
    settings = settings or Settings()
    result = TwoHeads(settings)
    for seed in range(num_seeds):
        stage = learn_first(seed, settings)
        for variant in variants:
            for name, trial in learn_second(stage, variant).items():
                result.variants.setdefault(name, []).append(trial)
        for rate in rates:
            plain = learn_second(learn_first(seed, replace(settings, learning_rate=rate)), Variant("plain"))
            result.rates.setdefault(rate, []).append(plain["plain"])
        if progress is not None:
            progress(seed + 1, num_seeds)
    return result


def spread(values: Iterable[float]) -> dict[str, float]:
    """Returns smallest value, quartiles and largest value."""
    quantiles = np.quantile(list(values), [0, 0.25, 0.5, 0.75, 1])
    return dict(zip(("min", "q1", "median", "q3", "max"), map(float, quantiles), strict=True))


def summarise(trials: Sequence[Trial]) -> dict[str, Any]:
    """Returns what the tables show of the trials of one way.

    Args:
        trials: One for each seed.

    Returns:
        Spread of the ratio and of the rise; medians of losses and accuracies; in how many trials task A lost nothing.
    """
    return {
        "ratio": spread(trial.ratio for trial in trials),
        "rise": spread(trial.rise for trial in trials),
        "loss_a": median(trial.after.held_out for trial in trials),
        "accuracy_a": median(trial.after.accuracy for trial in trials),
        "loss_b": median(trial.other.held_out for trial in trials),
        "accuracy_b": median(trial.other.accuracy for trial in trials),
        "num_unharmed": sum(trial.rise <= 0 for trial in trials),
    }

"""The pilot: a few dozen real steps at three learning rates, and what each of them learned and cost.

Every rate starts from the same base, sees the same batches in the same order, and is measured on the same held-out
examples and the same general texts. The rate is held constant after a short warm-up, so that the steps show a slope.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.advising.legs import Leg, Pilot, recommend
from forgetless.data.examples import Example, Message
from forgetless.errors import ConfigError, RunError
from forgetless.job import Job, plan
from forgetless.progress import Reporter, Silent

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetless.data.encoding import Encoded
    from forgetless.mechanisms.reference import Reference
    from forgetless.models import LoadedModel

STEPS = 24
DIVISORS = (1, 4, 16)
MOST_HELD_OUT = 48
MOST_GENERAL = 32  # of each of the two tasks
TOP_K = 64
LARGEST_COPY = 0.25  # trained share of the weights up to which the start is kept in memory instead of loaded again
WARMUP = 0.1
TASKS = ("general_text", "reference_answers")


def fly(
    config: Mapping[str, Any],
    *,
    steps: int = STEPS,
    rates: Sequence[float] | None = None,
    reporter: Reporter | None = None,
) -> Pilot:
    """Takes a few steps at each rate, from the same base, in a temporary directory.

    Args:
        config: A forgetless config.
        steps: Optimizer steps at each rate, at least 2.
        rates: The rates; default: the config's, a quarter and a sixteenth of it.
        reporter: Where to tell how far it is.

    Returns:
        The figures and the recommendation.

    Raises:
        ConfigError: The config can't be run, or the steps are too few.
    """
    if steps < 2:
        raise ConfigError(f"pilot steps {steps} is below 2: one step shows no slope")
    reporter = reporter or Silent()
    job = plan(dict(config))
    chosen = sorted(rates or [job.learning_rate / divisor for divisor in DIVISORS], reverse=True)
    if chosen[-1] <= 0:
        raise ConfigError(f"pilot rate {chosen[-1]:g} is not above 0")
    with tempfile.TemporaryDirectory(prefix="forgetless-pilot-") as scratch:
        flight = _Flight(job, steps, Path(scratch), reporter)
        legs = tuple(flight.leg(rate) for rate in chosen)
    recommended, reason = recommend(legs, steps)
    return Pilot(steps, legs, recommended, reason)


class _Flight:
    """The base, what it is measured on, and the way back to it after each rate."""

    def __init__(self, job: Job, steps: int, scratch: Path, reporter: Reporter) -> None:
        from forgetless.data.encoding import encode_examples
        from forgetless.mechanisms.reference import Reference

        self.job, self.steps, self.scratch, self.reporter = job, steps, scratch, reporter
        self.loaded = self._load()
        longest = self._longest()
        tokenizer = self.loaded.tokenizer
        self.mixture = self._mixture()
        self.held_out = encode_examples(list(job.test)[:MOST_HELD_OUT], tokenizer, max_tokens=longest)
        self.general = {task: encode_examples(general_examples(task), tokenizer, max_tokens=longest) for task in TASKS}
        with reporter.task("Asking the base"):
            self.before = {"held_out": _losses(self.loaded.model, self.held_out, tokenizer)} | {
                task: _losses(self.loaded.model, held, tokenizer) for task, held in self.general.items()
            }
            self.reference: Reference = Reference(top_k=TOP_K)
            everything = [sequence for held in self.general.values() for sequence in held]
            self.reference.ask(self.loaded.model, everything, padding=tokenizer.pad_token_id)
        self._start: dict[str, Tensor] | None = None
        self._model: nn.Module | None = None

    def _load(self) -> LoadedModel:
        from forgetless.models import load_model

        config = self.job.config
        with self.reporter.task(f"Loading {config.model}"):
            return load_model(
                config.model,
                device=config.device,
                dtype=config.training.dtype,
                trust_remote_code=config.trust_remote_code,
                **self.job.load_options,
            )

    def _longest(self) -> int:
        from forgetless.models import num_positions

        return min(self.job.config.training.max_tokens, num_positions(self.loaded.model))

    def _mixture(self) -> list[Encoded]:
        """Returns as much of the mixture as the steps need; what the base writes for it stays in the scratch."""
        from forgetless.data.encoding import encode_examples
        from forgetless.writing import held_out_texts, open_writer

        job = self.job
        writer = open_writer(self.loaded, reporter=self.reporter, directory=self.scratch / "written", batch_size=16)
        self.context = replace(
            job.context(),
            domain=self._drawn(job.domain),
            tokenizer=self.loaded.tokenizer,
            model=self.loaded.model,
            directory=self.scratch / "methods",
            writer=writer,
            held_out=held_out_texts(job.suite, job.test),
        )
        mixture: Sequence[Example] = self.context.domain
        for method in job.methods:
            mixture = method.prepare_data(mixture, self.context)
        return encode_examples(mixture, self.loaded.tokenizer, max_tokens=self._longest())

    def _drawn(self, domain: Sequence[Example]) -> list[Example]:
        import numpy as np

        wanted = self.steps * self.job.config.training.batch_size
        order = np.random.default_rng(self.job.config.seed).permutation(len(domain))
        return [domain[index] for index in order[:wanted]]

    def leg(self, rate: float) -> Leg:
        """Trains at one rate and measures; a rate at which the loss diverges is a result too."""
        with self.reporter.task(f"{self.steps} steps at {rate:.3g}") as progress:
            try:
                trained = self._train(rate, progress)
            except RunError as error:
                self._model = None
                self._start = None
                self.loaded = self._load()
                return Leg(rate, failure=str(error).partition(":")[0])
            leg = self._measure(trained, rate)
        self._rewind()
        return leg

    def _train(self, rate: float, progress: Any) -> nn.Module:
        from forgetless.train.trainer import train_model

        model = self._prepared()
        return train_model(
            model,
            self.loaded.tokenizer,
            self.mixture,
            methods=self._methods,
            config=self._training(),
            learning_rate=rate,
            seed=self.job.config.seed,
            directory=Path(tempfile.mkdtemp(dir=self.scratch)),
            progress=progress,
            callbacks=[_never_save()],
        )[0]

    def _training(self) -> Any:
        return self.job.config.training.model_copy(
            update={
                "max_steps": self.steps,
                "scheduler": "constant",
                "warmup_ratio": WARMUP,
                "save_steps": self.steps + 1,
                "logging_steps": max(1, self.steps // 4),
            }
        )

    def _prepared(self) -> nn.Module:
        """Returns the model to train, in its first state: kept from before, or made of the base."""
        from forgetless.methods import METHODS
        from forgetless.methods.base import build_method
        from forgetless.models import count_parameters
        from forgetless.train.precision import raise_precision

        if self._model is None:
            self._methods = [build_method(METHODS.load, spec) for spec in self.job.config.methods]
            model: nn.Module = self.loaded.model
            raise_precision(model, self._methods, dtype=self.job.config.training.dtype)
            context = replace(self.context, sequences=self.mixture, model=model)
            for method in self._methods:
                model = method.prepare_model(model, context)
            everything, trained = count_parameters(model)
            if not trained:
                raise ConfigError(f"nothing of model {self.job.config.model!r} can be trained: merge its adapter first")
            self._model = model
            if trained <= LARGEST_COPY * everything and not any("finish" in one.overridden for one in self._methods):
                self._start = {
                    name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad
                }
        return self._model

    def _rewind(self) -> None:
        """Goes back to the base: trained weights from their copy, or everything loaded again."""
        import torch

        if self._start is None or self._model is None or self._methods_remember():
            self._model = None
            self._start = None
            self.loaded = self._load()
            return
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                if name in self._start:
                    parameter.copy_(self._start[name])
                    parameter.grad = None

    def _methods_remember(self) -> bool:
        """Whether a method keeps a state of its own from step to step, which the next rate must not inherit."""
        return any(method.state_dict() for method in self._methods)

    def _measure(self, model: nn.Module, rate: float) -> Leg:
        tokenizer = self.loaded.tokenizer
        falls = self.before["held_out"] - _losses(model, self.held_out, tokenizer)
        learned, half = _mean_and_half_width(falls)
        rises = {task: -(self.before[task] - _losses(model, held, tokenizer)) for task, held in self.general.items()}
        return Leg(
            learning_rate=rate,
            learned=learned,
            learned_low=learned - half,
            learned_high=learned + half,
            divergence=self._divergence(model),
            text_rise=float(rises[TASKS[0]].mean()),
            answer_rise=float(rises[TASKS[1]].mean()),
        )

    def _divergence(self, model: nn.Module) -> float:
        """Returns the mean of KL(base || tuned) over the tokens of general texts and answers."""
        import torch

        from forgetless.mechanisms.batches import pad_batch
        from forgetless.mechanisms.divergence import divergence
        from forgetless.mechanisms.logits import supervised_logits

        total, count = 0.0, 0
        device = next(model.parameters()).device
        everything = [sequence for held in self.general.values() for sequence in held]
        with torch.no_grad():
            for start in range(0, len(everything), 8):
                part = everything[start : start + 8]
                inputs = pad_batch(part, padding=self.loaded.tokenizer.pad_token_id, device=device)
                values = divergence(self.reference.distributions(model, inputs), supervised_logits(model, inputs))
                total += float(values.sum())
                count += values.numel()
        return max(0.0, total / max(1, count))


def general_examples(task: str) -> list[Example]:
    """Returns samples of a cross-entropy task of the catalogue as examples, always the same ones."""
    from forgetless.tasks.base import load_suite

    (held,) = load_suite(task, limit=MOST_GENERAL)
    if "text" in held.samples[0]:
        return [Example(text=str(sample["text"]), origin="general") for sample in held.samples]
    return [
        Example(
            messages=(Message("user", held.prompt(sample)), Message("assistant", str(sample["answer"]))),
            origin="general",
        )
        for sample in held.samples
    ]


def _losses(model: nn.Module, sequences: Sequence[Encoded], tokenizer: Any) -> Any:
    """Returns the mean token loss of each sequence, in nats, in the model's eval mode."""
    import numpy as np
    import torch

    from forgetless.mechanisms.batches import pad_batch
    from forgetless.mechanisms.logits import is_supervised, supervised_logits, supervised_targets
    from forgetless.mechanisms.modes import eval_mode

    found = []
    device = next(model.parameters()).device
    with torch.no_grad(), eval_mode(model):
        for start in range(0, len(sequences), 8):
            part = sequences[start : start + 8]
            inputs = pad_batch(part, padding=tokenizer.pad_token_id, device=device)
            logits = supervised_logits(model, inputs).float()
            losses = torch.nn.functional.cross_entropy(logits, supervised_targets(inputs["labels"]), reduction="none")
            counts = is_supervised(inputs["labels"]).sum(-1).tolist()
            found += [float(row.mean()) for row in losses.split(counts)]
    return np.array(found)


def _mean_and_half_width(values: Any) -> tuple[float, float]:
    """Returns the mean and half the width of its 95 % interval (Student's)."""
    from forgetless.compare.distributions import t_quantile

    if len(values) < 2:
        return float(values.mean()), math.inf
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()), t_quantile(0.975, len(values) - 1) * error


def _never_save() -> Any:
    """Returns a callback that leaves no checkpoint: nothing of a pilot is gone on with."""
    from transformers import TrainerCallback

    class NeverSave(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            control.should_save = False
            return control

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            control.should_save = False
            return control

    return NeverSave()

"""A run before it starts: read, checked and refused if need be, without a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.automatic import AUTO, Situation, choose_methods
from forgetless.config import Config, SequenceConfig, load_config, parse_config
from forgetless.data.examples import Example, content_key
from forgetless.data.sources import fingerprint_examples, read_examples
from forgetless.errors import ConfigError, DataError
from forgetless.hardware import has_bitsandbytes, memory_of_cuda, size_of_weights
from forgetless.methods import METHODS
from forgetless.methods.base import Context, Method, build_method, refuse_conflicts
from forgetless.tasks.base import Task, fingerprint_suite

if TYPE_CHECKING:
    from forgetless.evaluate.harness_suite import HarnessSuite
    from forgetless.mechanisms.earlier import Earlier

# Adapters take about ten times the rate of full fine-tuning. Starting points, not guarantees.
ADAPTER_RATE = 2e-4
FULL_RATE = 1e-5
LARGEST_HELD_OUT = 200  # examples that are held out of the training file where no test file is named


@dataclass(frozen=True)
class Job:
    """A run that has been checked: everything that can be refused has been, before a model is loaded.

    Attributes:
        config: The config.
        methods: Its methods, in order.
        learning_rate: The one that will be used.
        domain: Training examples.
        test: Held-out examples.
        general: General examples.
        suite: Retention tasks.
        warnings: What the user should know of the data.
        harness: Retention tasks of lm-evaluation-harness.
        reasons: Why the methods were chosen, where the config left that to us.
        targets: Tasks that measure learning, made of held-out examples; in a sequence those of all phases.
        earlier: What the earlier phases of a sequence left; None where the run is no phase.
        base: Name of the model before all phases; None where that is the config's.
    """

    config: Config
    methods: Sequence[Method]
    learning_rate: float
    domain: Sequence[Example]
    test: Sequence[Example]
    general: Sequence[Example]
    suite: Sequence[Task]
    warnings: list[str] = field(default_factory=list)
    harness: HarnessSuite | None = None
    reasons: list[str] = field(default_factory=list)
    targets: Sequence[Task] = ()
    earlier: Earlier | None = None
    base: str | None = None

    @property
    def base_name(self) -> str:
        """The model that the tuned one is judged against, which in a later phase isn't the one that it starts from."""
        return self.base or self.config.model

    @property
    def notes(self) -> list[str]:
        """What the user is told before the run starts."""
        return [*(f"methods: auto chose {reason}" for reason in self.reasons), *self.warnings]

    def fingerprints(self) -> dict[str, str]:
        """Returns what the job depends on, by content."""
        known = {
            "train": fingerprint_examples(self.domain),
            "test": fingerprint_examples(self.test),
            "general": fingerprint_examples(self.general),
            "suite": fingerprint_suite(self.suite),
        }
        return known if self.harness is None else known | {"lm_eval": self.harness.fingerprint()}

    def context(self) -> Context:
        """Returns what methods may know before anything is loaded."""
        return Context(
            seed=self.config.seed,
            general=self.general,
            max_tokens=self.config.training.max_tokens,
            domain=self.domain,
            can_write=True,
            earlier=self.earlier,
        )

    @property
    def load_options(self) -> dict[str, Any]:
        """What the methods want of loading the model that is trained; the base is scored as the config has it."""
        return {key: value for method in self.methods for key, value in method.load_options().items()}

    @property
    def identity(self) -> str:
        """Fingerprint of config and data: two runs of the same identity do the same."""
        content = [self.config.model_dump(mode="json"), self.fingerprints()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def plan(config: Config | Mapping[str, Any] | str | Path, *, earlier: Earlier | None = None) -> Job:
    """Reads and checks everything that a run needs but the model.

    Args:
        config: A config, a mapping like its YAML, or the path of one; of a single phase.
        earlier: What the earlier phases of a sequence leave, where it is a phase of one.

    Returns:
        The job, with its data and its suite in memory.

    Raises:
        ConfigError: A setting can't be used, or methods conflict.
        DataError: A data file can't be read.
    """
    from forgetless.evaluate.runner import read_suite
    from forgetless.evaluate.target import TARGET_ANSWERS, TARGET_LOSS, target_tasks

    config = as_config(config)
    if config.phases:
        raise ConfigError("the config has phases, and this takes a single one: `run` takes them all")
    if earlier is None and config.sequence != SequenceConfig():
        raise ConfigError(
            "sequence (carry, average, keep) says how one phase follows another, and this config has no phases: leave "
            "it out, or name phases"
        )
    config, reasons = resolve_methods(config, earlier)
    methods = [build_method(METHODS.load, spec) for spec in config.methods]
    refuse_conflicts(methods)
    micro = config.training.micro_batch_size
    if micro is not None and config.training.batch_size % micro:
        raise ConfigError(f"training.micro_batch_size {micro} does not divide batch_size {config.training.batch_size}")
    if config.evaluation.noise_floor == 1:
        raise ConfigError("evaluation.noise_floor 1 is too few to tell a spread: 2 runs more at least, or 0 for none")
    directories = [] if config.evaluation.tasks_dir is None else [config.evaluation.tasks_dir]
    settings = config.evaluation
    suite, harness = read_suite(settings.suite, directories, limit=settings.limit, num_fewshot=settings.num_fewshot)
    if taken := {task.name for task in suite} & {TARGET_LOSS, TARGET_ANSWERS}:
        raise ConfigError(f"task {min(taken)!r} has the name of the task that is made of held-out data: rename it")
    domain, test, notes = _read_data(config)
    general = [] if config.data.general is None else read_examples(config.data.general, origin="general")
    job = Job(
        config,
        methods,
        _learning_rate(config, methods),
        *(domain, test, general, suite, notes, harness),
        reasons=reasons,
        targets=target_tasks(test),
        earlier=earlier,
    )
    for method in methods:
        method.check(job.context())
    return job


def resolve_methods(config: Config, earlier: Earlier | None = None) -> tuple[Config, list[str]]:
    """Puts methods in the place of `auto`.

    Args:
        config: A config.
        earlier: What the earlier phases of a sequence left.

    Returns:
        The config with its methods pinned, and why they were chosen; a config that names methods, and nothing.

    Raises:
        ConfigError: Another method stands beside `auto`.
        DataError: The general data can't be read.
    """
    if AUTO not in config.methods:
        return config, []
    if len(config.methods) > 1:
        raise ConfigError("methods: auto chooses all of them: name no method beside it")
    general = [] if config.data.general is None else read_examples(config.data.general, origin="general")
    memory = memory_of_cuda(config.device)
    choice = choose_methods(
        Situation(
            num_general=len(general),
            weight_bytes=None if memory is None else size_of_weights(config.model),
            memory_bytes=memory,
            has_bitsandbytes=has_bitsandbytes(),
            num_earlier=0 if earlier is None else sum(len(examples) for examples in earlier.phases.values()),
        )
    )
    return config.model_copy(update={"methods": choice.methods}), choice.reasons


def as_config(config: Config | Mapping[str, Any] | str | Path) -> Config:
    """Returns a config from a config, a mapping, or the path of a YAML file."""
    if isinstance(config, Config):
        return config
    return parse_config(config) if isinstance(config, Mapping) else load_config(Path(config))


def _learning_rate(config: Config, methods: Sequence[Method]) -> float:
    """Returns the learning rate of the config, or the default for the kind of tuning."""
    if config.training.learning_rate is not None:
        return config.training.learning_rate
    if rates := [method.learning_rate for method in methods if method.learning_rate is not None]:
        return min(rates)
    return ADAPTER_RATE if any("the adapter" in method.claims for method in methods) else FULL_RATE


def _read_data(config: Config) -> tuple[list[Example], list[Example], list[str]]:
    """Returns training examples, held-out examples, and what is to be said of them."""
    if config.data.train is None:
        raise ConfigError("no training data: name a file with data.train (--data FILE)")
    notes: list[str] = []
    domain = read_examples(config.data.train)
    if config.data.test is None:
        if len(domain) < 2:
            raise DataError(
                "one example can't be trained on and held out at once: add some, or data.test", path=config.data.train
            )
        shuffled = read_examples(config.data.train, limit=len(domain), seed=config.seed)
        num_held_out = min(max(1, round(len(domain) / 10)), LARGEST_HELD_OUT)
        test, domain = shuffled[:num_held_out], shuffled[num_held_out:]
        notes.append(f"no data.test: {num_held_out} of {len(shuffled)} examples are held out")
    else:
        test = read_examples(config.data.test)
    if config.data.max_test_examples is not None and len(test) > config.data.max_test_examples:
        test = _draw(test, config.data.max_test_examples, config.seed)
    shared = {content_key(example) for example in domain} & {content_key(example) for example in test}
    if shared:
        notes.append(f"{len(shared)} held-out examples are in the training data too: the target scores flatter")
    if config.data.max_examples is not None and len(domain) > config.data.max_examples:
        domain = _draw(domain, config.data.max_examples, config.seed)
    return domain, test, notes


def _draw(examples: Sequence[Example], num: int, seed: int) -> list[Example]:
    import numpy as np

    return [examples[index] for index in np.random.default_rng(seed).permutation(len(examples))[:num]]

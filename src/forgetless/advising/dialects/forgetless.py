"""A forgetless config as a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetless.advising.recipe import Place, Recipe, Setting, Source, Tuning
from forgetless.automatic import AUTO, FEWEST_GENERAL, Situation, choose_methods
from forgetless.config import Config, parse_config
from forgetless.methods import METHODS
from forgetless.methods.base import Method, build_method

# As job.py has them: the rates where the config names none.
ADAPTER_RATE = 2e-4
FULL_RATE = 1e-5

TUNINGS = {"lora": Tuning.LORA, "qlora": Tuning.QLORA}
PARTIAL = frozenset({"freeze_bottom", "half", "mofo"})
KEEPING = "general"  # what methods that keep the base's behaviour say that they need, or do without


def is_meant(raw: Mapping[str, Any]) -> bool:
    """Whether a document has the sections of a forgetless config."""
    sections = [name for name in ("data", "training", "evaluation", "gate") if isinstance(raw.get(name), Mapping)]
    is_known = set(raw) <= set(Config.model_fields)
    return (
        isinstance(raw.get("methods"), list) or raw.get("methods") == AUTO or bool(sections) or (is_known and bool(raw))
    )


def read(raw: Mapping[str, Any], source: str, _path: Path | None = None) -> Recipe:
    """Reads a forgetless config, defaults filled in.

    Args:
        raw: The document.
        source: What to call it in messages.
        _path: Not looked at: paths in a config are relative to where the command runs.

    Returns:
        The recipe.

    Raises:
        ConfigError: What `run` would refuse: an unknown key or method, a value out of bounds.
    """
    config = parse_config(raw, source=source)
    specs = _specs(config)
    methods = [build_method(METHODS.load, spec) for spec in specs]
    training = config.training

    def at(section: str, name: str, value: Any) -> Any:
        held = raw.get(section)
        given = held.get(name) if isinstance(held, Mapping) else None
        return None if value is None else Setting(value, (section, name), given is not None, given)

    tuning = _tuning(methods)
    return Recipe(
        dialect="forgetless",
        model=Setting(config.model, ("model",), "model" in raw),
        tuning=Setting(tuning, ("methods",), "methods" in raw),
        learning_rate=at("training", "learning_rate", training.learning_rate or _default_rate(methods)),
        epochs=at("training", "epochs", training.epochs),
        max_steps=at("training", "max_steps", training.max_steps),
        batch_size=at("training", "batch_size", training.batch_size),
        warmup=at("training", "warmup_ratio", training.warmup_ratio),
        scheduler=at("training", "scheduler", training.scheduler),
        weight_decay=at("training", "weight_decay", training.weight_decay),
        max_grad_norm=at("training", "max_grad_norm", training.max_grad_norm),
        precision=at("training", "dtype", training.dtype),
        max_tokens=at("training", "max_tokens", training.max_tokens),
        sources=_sources(config),
        num_examples_limit=config.data.max_examples,
        general=Setting(any(_keeps(method) for method in methods), ("methods",), "methods" in raw),
        held_out=Setting(True, ("data", "test"), config.data.test is not None),
        suite=at("evaluation", "suite", config.evaluation.suite),
        tasks_dir=config.evaluation.tasks_dir,
        limit=at("evaluation", "limit", config.evaluation.limit),
        margin=at("gate", "margin", config.gate.margin)
        if config.budget is None
        else Setting(config.budget, ("budget",), True, config.budget),
        gate_alpha=config.gate.alpha,
        **_adapter(methods, specs),
    )


def _specs(config: Config) -> list[Any]:
    """Returns the methods as `run` would take them; general data that are named count as enough, read or not."""
    if config.methods != [AUTO]:
        return list(config.methods)
    return choose_methods(Situation(num_general=0 if config.data.general is None else FEWEST_GENERAL)).methods


def _tuning(methods: list[Method]) -> Tuning:
    adapters = [method.name for method in methods if "the adapter" in method.claims]
    if adapters:
        return TUNINGS.get(adapters[0], Tuning.OTHER)
    return Tuning.PARTIAL if any(method.name in PARTIAL for method in methods) else Tuning.FULL


def _default_rate(methods: list[Method]) -> float:
    if rates := [method.learning_rate for method in methods if method.learning_rate is not None]:
        return min(rates)
    return ADAPTER_RATE if any("the adapter" in method.claims for method in methods) else FULL_RATE


def _keeps(method: Method) -> bool:
    """Whether a method protects what the base does on data to keep, at a strength above 0."""
    options = method.options()
    return KEEPING in method.needs and options.get("share", options.get("strength", 1)) != 0


def _adapter(methods: list[Method], lines: list[Any]) -> dict[str, Any]:
    """Returns the adapter's fields, each with its place under `methods`."""
    for number, (method, line) in enumerate(zip(methods, lines, strict=True)):
        if method.name not in TUNINGS:
            continue
        options = method.options()
        given = line[method.name] if isinstance(line, Mapping) and isinstance(line[method.name], Mapping) else {}
        place: Place = ("methods", number, method.name)
        alpha = options["alpha"] if options["alpha"] is not None else 2 * options["rank"]
        fields = {
            "rank": Setting(options["rank"], (*place, "rank"), "rank" in given),
            "alpha": Setting(float(alpha), (*place, "alpha"), given.get("alpha") is not None),
            "is_rank_stabilised": Setting(options["variant"] == "rslora", (*place, "variant"), "variant" in given),
        }
        targets = options["target_modules"]
        if isinstance(targets, list):
            fields["embeddings"] = Setting(tuple(targets), (*place, "target_modules"))
        return fields
    return {}


def _sources(config: Config) -> tuple[Source, ...]:
    train = config.data.train
    if train is None:
        return ()
    found = train.expanduser()
    return (Source(str(train), found if found.exists() else None, ("data", "train")),)

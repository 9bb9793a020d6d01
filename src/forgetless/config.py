"""The config of a run: one YAML, every key also a flag of `forgetless run`.

Each key's description stands here once; the command line's help and the reference page are made from it.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from forgetless.errors import ConfigError, did_you_mean


def _take_auto_alone(value: Any) -> Any:
    """`methods: auto` is how people write it."""
    return ["auto"] if value == "auto" else value


MethodList = Annotated[list[str | dict[str, Any]], BeforeValidator(_take_auto_alone)]


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, nothing is changed after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """What is trained on and what is held out."""

    train: Path | None = Field(None, description="Training examples: JSONL, JSON, CSV, Parquet or a saved data set.")
    test: Path | None = Field(
        None, description="Held-out examples (the target task); default: a tenth of train is held out."
    )
    general: Path | None = Field(None, description="General examples to replay, for methods that need them.")
    max_examples: int | None = Field(None, ge=1, description="Use only so many training examples, drawn by the seed.")
    max_test_examples: int | None = Field(
        None, ge=1, description="Use only so many held-out examples, drawn by the seed."
    )


class TrainingConfig(Section):
    """How long and how fast is trained."""

    epochs: float = Field(3.0, gt=0, description="Passes over the mixture.")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many optimizer steps, whatever epochs says.")
    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate; default 2e-4 with an adapter, 1e-5 for full fine-tuning."
    )
    batch_size: int = Field(8, ge=1, description="Sequences per optimizer step.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Sequences per forward pass, a divisor of batch_size; default: all of them."
    )
    max_tokens: int = Field(
        512, ge=8, description="Longest training sequence, in tokens; what is longer loses its end."
    )
    warmup_ratio: float = Field(0.05, ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    scheduler: Literal["linear", "cosine", "constant"] = Field("linear", description="How the learning rate falls.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decay; it pulls towards zero, not towards the base.")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients are clipped to this norm; 0 = not at all.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number type of the weights; auto = float32 on the CPU, elsewhere the model's own, float32 while "
        "they are trained in place.",
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, a third more time.")
    save_steps: int | None = Field(None, ge=1, description="Checkpoint every so many steps; default: every epoch.")
    logging_steps: int = Field(5, ge=1, description="Write a line of train.jsonl every so many steps.")


class EvaluationConfig(Section):
    """What base and tuned are asked."""

    suite: str = Field(
        "core",
        description="Suite, or names of suites and tasks separated by commas; after lm_eval: those of "
        "lm-evaluation-harness (core,lm_eval:arc_easy).",
    )
    tasks_dir: Path | None = Field(None, description="Directory with the user's own tasks (one YAML each).")
    limit: int | None = Field(
        None,
        ge=1,
        description="Most samples of each task, drawn by content; of lm_eval tasks the first. All where left out.",
    )
    num_fewshot: int | None = Field(
        None,
        ge=0,
        description="Solved examples in each prompt of the lm_eval tasks; as each task has it where left out.",
    )
    checks: bool = Field(False, description="Take the deployment checklist too: a lost critical check fails the run.")
    batch_size: int = Field(64, ge=1, description="Prompts that are answered together; changes speed, not scores.")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature of free answers; 0 = greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Sample from the likeliest tokens that hold this share.")
    noise_floor: int = Field(
        0,
        ge=0,
        description="Score the base so many times more (at least 2) to see how far it moves alone; 0 = off.",
    )
    quantised: list[str] = Field(
        default=[],
        description="Judge quantised copies of the saved model too: int8 weights, nf4 (bitsandbytes); the "
        "worst verdict is the run's.",
    )
    cache: bool = Field(True, description="Keep scores by content, so that the same base is never scored twice.")


class GateConfig(Section):
    """When a run passes."""

    margin: float = Field(
        0.03, gt=0, lt=1, description="Largest drop that is tolerated, in score units (0.03 = 3 points)."
    )
    alpha: float = Field(0.05, gt=0, lt=0.5, description="Error rate of the verdict.")
    cross_entropy_margin: float = Field(
        0.05, gt=0, description="Largest rise of a retention cross-entropy that is tolerated, in nats per token."
    )


class PhaseData(Section):
    """What one phase of a sequence is trained on and what is held out of it."""

    train: Path = Field(description="Training examples of the phase.")
    test: Path | None = Field(None, description="Held-out examples of the phase; default: a tenth of train.")
    max_examples: int | None = Field(None, ge=1, description="Use only so many training examples.")
    max_test_examples: int | None = Field(None, ge=1, description="Use only so many held-out examples.")


class PhaseConfig(Section):
    """One phase of a sequence; what is left out is as the top level of the config has it."""

    name: str = Field(
        min_length=1, max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="Letters, digits, _ and -."
    )
    data: PhaseData = Field(description="Data of the phase.")
    methods: MethodList = Field(default=["auto"], description="Methods; default: those of the run.")
    training: TrainingConfig = Field(
        default_factory=TrainingConfig, description="Keys of training that differ from the run's."
    )


class SequenceConfig(Section):
    """How one phase follows another, where there are phases."""

    carry: Literal["merge", "continue"] = Field(
        "merge",
        description="What becomes of a phase's adapter: merged into the weights, or trained on by the next phase.",
    )
    average: Literal["none", "time"] = Field(
        "none", description="time = keep the running average of the models after each phase, and go on from it."
    )
    keep: Literal["all", "last"] = Field(
        "all", description="Whose weights stay on disk: those of all phases, or of the last one."
    )


class MonitorConfig(Section):
    """What is watched while training goes on, and what is done about it."""

    policy: Literal["auto", "off", "warn", "stop", "rollback", "adapt"] = Field(
        "auto",
        description="What is done when training goes beyond the monitor's budget; auto = warn where there are general "
        "examples, else off.",
    )
    budget: float = Field(0.05, gt=0, description="Largest rise of the measure that is tolerated, in nats per token.")
    measure: Literal["kl", "cross_entropy"] = Field(
        "kl", description="What has that budget: KL(base || model), or the rise of the cross-entropy of the answers."
    )
    every: int = Field(20, ge=1, description="Optimizer steps from one look at the general examples to the next.")
    num_examples: int = Field(64, ge=8, description="General examples of a look, at most.")
    data: Literal["auto", "general", "self"] = Field(
        "auto",
        description="Whose examples: general = the user's, self = the base's own, auto = general if any.",
    )
    max_share: float = Field(
        0.05, gt=0, le=1, description="Largest share of the training time for looks; 1 = no limit."
    )

    @field_validator("policy", mode="before")
    @classmethod
    def _read_off(cls, value: Any) -> Any:
        """Takes YAML's bare `off`, which it reads as false."""
        return "off" if value is False else value


class Config(Section):
    """A whole run."""

    model: str = Field("smollm2-135m-instruct", description="Alias of the embedded model, a hub id, or a directory.")
    data: DataConfig = Field(default_factory=DataConfig)
    methods: MethodList = Field(
        default=["auto"],
        description="Methods in order, each a name or a name with options; an empty list = plain full fine-tuning; "
        "auto = chosen from what you have, by the benchmark tables.",
    )
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    monitor: MonitorConfig = Field(default_factory=MonitorConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    gate: GateConfig = Field(default_factory=GateConfig)
    budget: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Largest drop of general skills that the saved model may show (0.02 = 2 points): the run walks "
        "from the tuned model towards the base until it holds, and confirms it. Takes the place of gate.margin.",
    )
    merge: bool = Field(False, description="Save an adapter merged into its base's weights, so that it stands alone.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of everything that is drawn.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    trust_remote_code: bool = Field(False, description="Run code that the model's repository brings.")
    sequence: SequenceConfig = Field(default_factory=SequenceConfig)
    phases: list[PhaseConfig] = Field(
        default=[], description="Phases that follow one another, each with a name and data of its own; none = one run."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_phases(cls, raw: Any) -> Any:
        """Gives each phase what it leaves out, so that a config says of every phase what is done in it."""
        if not isinstance(raw, dict) or not isinstance(raw.get("phases"), list):
            return raw
        return raw | {"phases": [_filled(phase, raw) for phase in raw["phases"]]}

    @property
    def margin(self) -> float:
        """The largest drop that the verdict tolerates: the budget where there is one."""
        return self.gate.margin if self.budget is None else self.budget


def _filled(phase: Any, raw: Mapping[str, Any]) -> Any:
    """Returns a phase with the defaults of its run; what isn't a mapping is left to validation."""
    if not isinstance(phase, dict):
        return phase
    filled = dict(phase)
    if filled.get("methods") is None and raw.get("methods") is not None:
        filled["methods"] = raw["methods"]
    training, own = raw.get("training"), filled.get("training")
    if isinstance(training, dict) and isinstance(own, dict | None):
        filled["training"] = {k: v for k, v in training.items() if k in TrainingConfig.model_fields} | (own or {})
    data = raw.get("data")
    if isinstance(data, dict) and isinstance(filled.get("data"), dict):
        shared = {key: data[key] for key in ("max_examples", "max_test_examples") if data.get(key) is not None}
        filled["data"] = shared | {key: value for key, value in filled["data"].items() if value is not None}
    return {key: value for key, value in filled.items() if value is not None}


def parse_config(raw: Mapping[str, Any], *, source: str = "config") -> Config:
    """Validates a config.

    Args:
        raw: The mapping, as YAML gave it.
        source: What to call it in messages.

    Returns:
        The config, with defaults for what is left out.

    Raises:
        ConfigError: A key is unknown (the nearest one is named) or a value is out of bounds.
    """
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError(f"{source}: {'; '.join(_explain(problem) for problem in error.errors()[:3])}") from None


def _explain(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("str", "dict[")))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {place!r}{did_you_mean(str(problem['loc'][-1]), _sibling_keys(problem['loc'][:-1]))}"
    return f"{place} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _sibling_keys(place: tuple[Any, ...]) -> list[str]:
    """Returns the keys of the section at `place`, and those of all sections by their path, for suggestions."""
    section: type[BaseModel] = Config
    for part in place:
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        annotation = next(iter(typing.get_args(annotation)), annotation)  # of a list, what it holds
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            section = annotation
    return list(section.model_fields)


def load_config(path: Path) -> Config:
    """Reads a YAML config; relative paths in it are relative to the directory in which the command runs.

    Args:
        path: The YAML file.

    Returns:
        The config, with defaults for what is left out.

    Raises:
        ConfigError: The file is missing, isn't YAML, or isn't a config.
    """
    return parse_config(read_yaml(path), source=str(path))


class _StrictLoader(yaml.SafeLoader):
    """YAML in which no key stands twice; plain YAML would drop the first one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML mapping.

    Args:
        path: The file, in UTF-8.

    Returns:
        The mapping with its keys as text; its values are not validated.

    Raises:
        ConfigError: The file is missing or isn't a YAML mapping.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except FileNotFoundError:
        raise ConfigError(f"there is no config {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"config {path} is not a mapping of keys to values")
    return {str(key): value for key, value in raw.items()}

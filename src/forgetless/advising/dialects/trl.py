"""Training arguments of TRL and transformers as a recipe: JSON or YAML, flat or in sections, LoRA's keys included."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from forgetless.advising.dialects.places import find_file, has_general
from forgetless.advising.files import Keys
from forgetless.advising.recipe import Place, Recipe, Setting, Source, Stage, Tuning

T = TypeVar("T", int, float)

MARKS = frozenset(
    {
        "per_device_train_batch_size",
        "num_train_epochs",
        "gradient_accumulation_steps",
        "lr_scheduler_type",
        "learning_rate",
        "max_grad_norm",
        "assistant_only_loss",
        "completion_only_loss",
        "peft_type",
        "lora_alpha",
    }
)
SUPERVISED_KEYS = (
    "assistant_only_loss",
    "completion_only_loss",
    "packing",
    "packing_strategy",
    "dataset_text_field",
    "max_length",
    "max_seq_length",
    "eos_token",
    "chat_template_path",
)
PREFERENCE_KEYS = ("beta", "max_prompt_length", "num_generations", "max_completion_length", "desirable_weight")
SECTIONS = ("training_args", "training_arguments", "training", "trainer", "sft_config", "args", "arguments")
ADAPTER_SECTIONS = ("peft_config", "lora_config", "peft", "lora", "adapter_config")
MODEL_SECTIONS = ("model_args", "model_config", "script_args", "model")


def is_meant(raw: Mapping[str, Any]) -> bool:
    """Whether a document has keys of training arguments or of an adapter, at the top or in a section."""
    held = [raw, *(raw[name] for name in (*SECTIONS, *ADAPTER_SECTIONS) if isinstance(raw.get(name), Mapping))]
    return any(MARKS & set(part) for part in held)


def read(raw: Mapping[str, Any], source: str, path: Path | None) -> Recipe:
    """Reads training arguments, defaults filled in as SFTConfig or TrainingArguments have them.

    Args:
        raw: The document.
        source: What to call it in messages.
        path: The file, beside which an `adapter_config.json` may lie.

    Returns:
        The recipe; fields of the adapter name the file that they stand in.

    Raises:
        ConfigError: A value isn't of its kind.
    """
    keys = Keys(raw, source, _sections(raw, (*SECTIONS, *MODEL_SECTIONS)))
    is_sft = any(keys.find(name) for name in SUPERVISED_KEYS)
    is_preference = not is_sft and any(keys.find(name) for name in PREFERENCE_KEYS)
    is_alone = "peft_type" in raw  # nothing but an adapter's config
    sources = _sources(keys, path)
    general = has_general(sources)
    micro, units = batch_size(keys)
    recipe = Recipe(
        dialect="TRL / transformers",
        stage=Stage.PREFERENCE if is_preference else Stage.SUPERVISED,
        sources=sources,
        general=None if general is None else Setting(general, sources[0].place),
        **({"tuning": _tuning(keys), "model": keys.text("model_name_or_path")} | _adapter(raw, source, path)),
    )
    if is_alone:
        return replace(recipe, notes=("only an adapter's config: no training arguments to judge",))
    return replace(
        recipe,
        learning_rate=keys.number("learning_rate", default=2e-5 if is_sft else 5e-5),
        epochs=keys.number("num_train_epochs", default=3.0),
        max_steps=optional(keys.integer("max_steps")),
        batch_size=units,
        num_per_unit=micro,
        warmup=_warmup(keys),
        scheduler=keys.text("lr_scheduler_type", default="linear"),
        optimizer=keys.text("optim", default="adamw_torch"),
        weight_decay=keys.number("weight_decay", default=0.0),
        max_grad_norm=keys.number("max_grad_norm", default=1.0),
        precision=precision(keys),
        max_tokens=keys.integer("max_length", "max_seq_length", default=1024 if is_sft else None),
        template_file=keys.text("chat_template_path"),
        end_tokens=keys.names("eos_token"),
        held_out=_held_out(keys),
        **(_supervised(keys) if is_sft else {}),
    )


def _sections(raw: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Place, ...]:
    nested = tuple((name,) for name in names if isinstance(raw.get(name), Mapping))
    # Where the top has no training key of its own, a default would stand in the section.
    return (*nested, ()) if nested and not MARKS & set(raw) else ((), *nested)


def batch_size(keys: Keys) -> tuple[int, Setting[int]]:
    """Returns the sequences of a micro-batch, and those of a step, which the file writes as micro-batches."""
    micro = keys.integer("per_device_train_batch_size", default=8)
    units = keys.integer("gradient_accumulation_steps", default=1)
    assert micro is not None
    assert units is not None
    return micro.value, Setting(micro.value * units.value, units.place, units.is_set, units.value)


def optional(setting: Setting[T] | None) -> Setting[T] | None:
    """Returns a setting of which -1 means that there is none."""
    return None if setting is None or setting.value <= 0 else setting


def precision(keys: Keys) -> Setting[str] | None:
    """Returns the number type where the file asks for half precision."""
    half = keys.flag("fp16")
    if half is not None and half.value:
        return Setting("float16", half.place, raw=half.raw)
    dtype = keys.text("dtype", "torch_dtype")
    return dtype if dtype is not None and dtype.value.removeprefix("torch.") == "float16" else None


def _warmup(keys: Keys) -> Setting[float] | None:
    ratio, steps = keys.number("warmup_ratio"), keys.number("warmup_steps", default=0.0)
    # Older versions write both; steps above 0 count there.
    return ratio if ratio is not None and (steps is None or not steps.value) else steps


def _held_out(keys: Keys) -> Setting[bool]:
    strategy = keys.text("eval_strategy", "evaluation_strategy", default="no")
    assert strategy is not None
    return Setting(strategy.value not in {"no", "False"}, strategy.place, strategy.is_set)


def _supervised(keys: Keys) -> dict[str, Any]:
    """Returns the fields that only SFTConfig has."""
    assistant = keys.flag("assistant_only_loss", default=False)
    completion = keys.flag("completion_only_loss")
    strategy = keys.text("packing_strategy", default="bfd")
    assert assistant is not None
    assert strategy is not None
    if completion is not None and not completion.value:
        loss, needs_data = Setting(True, completion.place), False
    else:
        loss = Setting(not assistant.value and completion is None, assistant.place, assistant.is_set)
        needs_data = completion is None
    return {
        "loss_on_prompt": loss,
        "loss_needs_data": needs_data,
        "packing": keys.flag("packing", default=False),
        "packing_resets": Setting(strategy.value != "wrapped", strategy.place, strategy.is_set),
    }


def _tuning(keys: Keys) -> Setting[Tuning] | None:
    bits = keys.flag("load_in_4bit")
    kind = Tuning.QLORA if bits is not None and bits.value else Tuning.LORA
    peft = keys.flag("use_peft")
    if peft is not None:
        return Setting(kind if peft.value else Tuning.FULL, peft.place)
    # TRL's own command line trains all weights where use_peft isn't set; of a script that can't be known.
    is_command = keys.find("model_name_or_path") is not None and keys.find("dataset_name", "datasets") is not None
    return Setting(Tuning.FULL, keys.home("use_peft"), is_set=False) if is_command else None


def _adapter(raw: Mapping[str, Any], source: str, path: Path | None) -> dict[str, Any]:
    """Returns the adapter's fields, from the document or from the `adapter_config.json` beside it."""
    keys = Keys(raw, source, _sections(raw, (*ADAPTER_SECTIONS, *MODEL_SECTIONS)))
    if not any(keys.find(name) for name in ("peft_type", "lora_alpha", "r", "lora_r", "target_modules")):
        held = _adapter_file(path)
        if held is None:
            return {}
        keys = held
    kind = keys.text("peft_type", default="LORA")
    rank, alpha = keys.integer("r", "lora_r", default=8), keys.number("lora_alpha", default=8.0)
    assert kind is not None
    bits = Keys(raw, source, _sections(raw, MODEL_SECTIONS)).flag("load_in_4bit")
    tuning = Tuning.QLORA if bits is not None and bits.value else Tuning.LORA
    fields: dict[str, Any] = {
        "rank": rank,
        "alpha": alpha,
        "is_rank_stabilised": keys.flag("use_rslora", default=False),
        "embeddings": keys.names("modules_to_save", "lora_modules_to_save") or _targets(keys),
        "bias": keys.text("bias"),
        "init": keys.text("init_lora_weights"),
    }
    named = keys.text("base_model_name_or_path")
    if named is not None and Keys(raw, source, _sections(raw, MODEL_SECTIONS)).find("model_name_or_path") is None:
        fields["model"] = named
    peft = keys.flag("use_peft")
    if peft is None or peft.value:
        is_lora = kind.value.upper() == "LORA"
        fields["tuning"] = Setting(tuning if is_lora else Tuning.OTHER, kind.place, kind.is_set, file=keys.file)
    return fields


def _targets(keys: Keys) -> Setting[tuple[str, ...]] | None:
    found = keys.find("target_modules", "lora_target_modules")
    return keys.names("target_modules", "lora_target_modules") if found and isinstance(found[1], list) else None


def _adapter_file(path: Path | None) -> Keys | None:
    if path is None:
        return None
    file = path.parent / "adapter_config.json"
    if not file.is_file() or file.resolve() == path.resolve():
        return None
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Keys(raw, str(file), file=file) if isinstance(raw, dict) and "peft_type" in raw else None


def _sources(keys: Keys, path: Path | None) -> tuple[Source, ...]:
    found = []
    for name in ("train_file", "data_files", "dataset_name", "dataset_path", "train_dataset"):
        held = keys.find(name)
        if held is not None and isinstance(held[1], str):
            found.append(Source(held[1], find_file(held[1], path), held[0]))
            break
    mixture = keys.find("datasets")
    if mixture is not None and isinstance(mixture[1], list):
        for number, entry in enumerate(mixture[1]):
            if isinstance(entry, Mapping) and entry.get("path"):
                name = str(entry["path"])
                found.append(Source(name, find_file(name, path), (*mixture[0], number, "path")))
    return tuple(found)

"""An axolotl config as a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetless.advising.dialects.places import find_file, has_general
from forgetless.advising.files import Keys
from forgetless.advising.recipe import Recipe, Setting, Source, Stage, Tuning

MARKS = frozenset({"datasets", "micro_batch_size", "num_epochs", "sequence_len", "adapter", "pretraining_dataset"})
PREFERENCES = frozenset({"dpo", "ipo", "orpo", "kto", "kto_pair", "simpo", "grpo", "gdpo", "ebft"})
KEPT_APART = ("flash_attention", "sdp_attention", "flex_attention", "xformers_attention", "sage_attention")
APART = frozenset({"eager", "s2"})  # attention implementations under which packed samples see one another


def is_meant(raw: Mapping[str, Any]) -> bool:
    """Whether a document has axolotl's keys."""
    return "base_model" in raw and bool(MARKS & set(raw))


def read(raw: Mapping[str, Any], source: str, path: Path | None) -> Recipe:
    """Reads an axolotl config, defaults filled in as its schema has them.

    Args:
        raw: The document.
        source: What to call it in messages.
        path: The file, beside which data may lie.

    Returns:
        The recipe.

    Raises:
        ConfigError: A value isn't of its kind.
    """
    keys = Keys(raw, source)
    sources = _sources(raw, path)
    adds = bool(raw.get("tokens")) or bool(raw.get("added_tokens_overrides"))
    general = has_general(sources)
    val = keys.number("val_set_size", default=0.0)
    modules = keys.names("lora_modules_to_save") or keys.names("lora_target_modules")
    micro, units = _batch(keys)
    return Recipe(
        dialect="axolotl",
        stage=_stage(raw),
        model=keys.text("base_model"),
        tuning=_tuning(keys),
        learning_rate=keys.number("learning_rate"),
        epochs=keys.number("num_epochs", default=1.0),
        max_steps=keys.integer("max_steps"),
        batch_size=units,
        num_per_unit=micro,
        warmup=keys.number("warmup_ratio", "warmup_steps"),
        scheduler=keys.text("lr_scheduler", default="cosine"),
        optimizer=keys.text("optimizer", default="adamw_torch_fused"),
        weight_decay=keys.number("weight_decay", default=0.0),
        max_grad_norm=keys.number("max_grad_norm"),
        precision=_precision(keys),
        max_tokens=keys.integer("sequence_len", default=512),
        loss_on_prompt=keys.flag("train_on_inputs", default=False),
        end_of_turn=_end_of_turn(raw),
        end_tokens=keys.names("eot_tokens"),
        template=_template(keys, raw),
        template_file=keys.text("chat_template_jinja"),
        embeddings=modules,
        adds_tokens=adds,
        packing=keys.flag("sample_packing", default=False),
        packing_resets=_resets(keys),
        sources=sources,
        general=None if general is None else Setting(general, ("datasets",)),
        held_out=None if val is None else Setting(bool(val.value) or "test_datasets" in raw, val.place, val.is_set),
        **_adapter(keys),
    )


def _stage(raw: Mapping[str, Any]) -> Stage:
    if str(raw.get("rl") or "").lower() in PREFERENCES or raw.get("reward_model"):
        return Stage.PREFERENCE
    types = [entry.get("type") for entry in _entries(raw)]
    is_plain = bool(types) and all(kind in {"completion", "pretrain"} for kind in types)
    return Stage.PRETRAINING if raw.get("pretraining_dataset") or is_plain else Stage.SUPERVISED


def _tuning(keys: Keys) -> Setting[Tuning]:
    adapter = keys.text("adapter")
    if adapter is None:
        parts = keys.find("unfrozen_parameters")
        return Setting(Tuning.FULL if parts is None else Tuning.PARTIAL, ("adapter",), is_set=False)
    known = {"lora": Tuning.LORA, "qlora": Tuning.QLORA}
    return Setting(known.get(adapter.value, Tuning.OTHER), adapter.place)


def _batch(keys: Keys) -> tuple[int, Setting[int]]:
    """Returns the sequences of a micro-batch, and those of a step, which the file writes as micro-batches."""
    micro = keys.integer("micro_batch_size", default=1)
    whole = keys.integer("batch_size")
    assert micro is not None
    if whole is not None:
        return 1, whole
    units = keys.integer("gradient_accumulation_steps", default=1)
    assert units is not None
    return micro.value, Setting(micro.value * units.value, units.place, units.is_set, units.value)


def _precision(keys: Keys) -> Setting[str] | None:
    half = keys.flag("fp16", "float16")
    if half is not None and half.value:
        return Setting("float16", half.place, raw=half.raw)
    return None


def _entries(raw: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    held = raw.get("datasets")
    return [entry for entry in held if isinstance(entry, Mapping)] if isinstance(held, list) else []


def _end_of_turn(raw: Mapping[str, Any]) -> Setting[str] | None:
    """Returns the weakest of what the data sets say of the end of a turn, and of the roles that are trained."""
    found: Setting[str] | None = None
    for number, entry in enumerate(_entries(raw)):
        for name in ("train_on_eot", "train_on_eos"):
            value = entry.get(name)
            if value is None:
                continue
            word = "none" if value is False or str(value).lower() in {"none", "false"} else str(value).lower()
            setting = Setting(word, ("datasets", number, name), raw=value)
            # Where the two differ, train_on_eot is what ends a turn.
            if found is None or (word == "none" and found.place[1] != number):
                found = setting
    return found


def _template(keys: Keys, raw: Mapping[str, Any]) -> Setting[str] | None:
    if template := keys.text("chat_template"):
        return template
    for number, entry in enumerate(_entries(raw)):
        if entry.get("chat_template"):
            return Setting(str(entry["chat_template"]), ("datasets", number, "chat_template"))
        if isinstance(entry.get("type"), str) and entry["type"].split(".")[0] == "alpaca":
            return Setting("alpaca", ("datasets", number, "type"))
    return None


def _resets(keys: Keys) -> Setting[bool]:
    """Returns whether packed samples are kept apart, which takes an attention that knows where each starts."""
    chosen = keys.text("attn_implementation")
    if chosen is not None:
        return Setting(chosen.value not in APART, chosen.place)
    is_apart = any(flag is not None and flag.value for flag in map(keys.flag, KEPT_APART))
    return Setting(is_apart, ("flash_attention",), is_set=False)


def _adapter(keys: Keys) -> dict[str, Any]:
    return {
        "rank": keys.integer("lora_r"),
        "alpha": keys.number("lora_alpha"),
        "is_rank_stabilised": keys.flag("peft_use_rslora", default=False),
        "init": keys.text("peft_init_lora_weights"),
    }


def _sources(raw: Mapping[str, Any], path: Path | None) -> tuple[Source, ...]:
    found = []
    for number, entry in enumerate(_entries(raw)):
        files = entry.get("data_files")
        files = [files] if isinstance(files, str) else files if isinstance(files, list) else []
        if files:
            found += [
                Source(str(name), find_file(str(name), path), ("datasets", number, "data_files")) for name in files
            ]
        elif entry.get("path"):
            name = str(entry["path"])
            found.append(Source(name, find_file(name, path), ("datasets", number, "path")))
    return tuple(found)

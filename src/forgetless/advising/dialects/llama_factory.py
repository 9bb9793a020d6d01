"""A LLaMA-Factory config as a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetless.advising.dialects.places import find_file, has_general
from forgetless.advising.dialects.trl import batch_size, optional, precision
from forgetless.advising.files import Keys
from forgetless.advising.recipe import Recipe, Setting, Source, Stage, Tuning

MARKS = frozenset(
    {"finetuning_type", "cutoff_len", "dataset_dir", "lora_target", "neat_packing", "train_on_prompt", "mask_history"}
)
STAGES = {"sft": Stage.SUPERVISED, "pt": Stage.PRETRAINING}
TUNINGS = {"full": Tuning.FULL, "freeze": Tuning.PARTIAL, "lora": Tuning.LORA}


def is_meant(raw: Mapping[str, Any]) -> bool:
    """Whether a document has LLaMA-Factory's keys."""
    is_staged = raw.get("stage") in {"pt", "sft", "rm", "ppo", "dpo", "kto"}
    return is_staged or bool(MARKS & set(raw)) or ("template" in raw and "dataset" in raw)


def read(raw: Mapping[str, Any], source: str, path: Path | None) -> Recipe:
    """Reads a LLaMA-Factory config, defaults filled in as its arguments have them.

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
    stage = keys.text("stage", default="sft")
    sources, notes = _sources(keys, path)
    general = has_general(sources)
    micro, units = batch_size(keys)
    neat = keys.flag("neat_packing", default=False)
    packing = keys.flag("packing", default=False)
    assert stage is not None
    assert neat is not None
    assert packing is not None
    limit = keys.integer("max_samples")
    return Recipe(
        dialect="LLaMA-Factory",
        stage=STAGES.get(stage.value, Stage.PREFERENCE),
        model=keys.text("model_name_or_path"),
        tuning=_tuning(keys),
        learning_rate=keys.number("learning_rate", default=5e-5),
        epochs=keys.number("num_train_epochs", default=3.0),
        max_steps=optional(keys.integer("max_steps")),
        batch_size=units,
        num_per_unit=micro,
        warmup=keys.number("warmup_ratio", "warmup_steps", default=0.0),
        scheduler=keys.text("lr_scheduler_type", default="linear"),
        optimizer=keys.text("optim", default="adamw_torch"),
        weight_decay=keys.number("weight_decay", default=0.0),
        max_grad_norm=keys.number("max_grad_norm", default=1.0),
        precision=precision(keys),
        max_tokens=keys.integer("cutoff_len", default=2048),
        loss_on_prompt=keys.flag("train_on_prompt", default=False),
        template=keys.text("template"),
        embeddings=keys.names("additional_target") or keys.names("lora_target"),
        adds_tokens=any(keys.find(name) for name in ("add_tokens", "add_special_tokens", "new_special_tokens")),
        packing=Setting(packing.value or neat.value, packing.place, packing.is_set),
        packing_resets=neat,
        sources=sources,
        num_examples_limit=None if limit is None else limit.value * max(1, len(sources)),
        general=None if general is None else Setting(general, ("dataset",)),
        held_out=_held_out(keys),
        notes=tuple(notes),
        **_adapter(keys),
    )


def _tuning(keys: Keys) -> Setting[Tuning]:
    kind = keys.text("finetuning_type", default="lora")
    bits = keys.integer("quantization_bit")
    assert kind is not None
    tuning = TUNINGS.get(kind.value, Tuning.OTHER)
    if tuning is Tuning.LORA and bits is not None:
        tuning = Tuning.QLORA
    return Setting(tuning, kind.place, kind.is_set)


def _adapter(keys: Keys) -> dict[str, Any]:
    rank = keys.integer("lora_rank", default=8)
    assert rank is not None
    pissa = keys.flag("pissa_init")
    return {
        "rank": rank,
        "alpha": keys.number("lora_alpha", default=2.0 * rank.value),
        "is_rank_stabilised": keys.flag("use_rslora", default=False),
        "init": Setting("pissa", pissa.place) if pissa is not None and pissa.value else None,
    }


def _held_out(keys: Keys) -> Setting[bool]:
    val = keys.number("val_size", default=0.0)
    assert val is not None
    return Setting(bool(val.value) or keys.find("eval_dataset") is not None, val.place, val.is_set)


def _sources(keys: Keys, path: Path | None) -> tuple[tuple[Source, ...], list[str]]:
    """Returns the data sets by name, each with its file where `dataset_info.json` names one that is here."""
    named = keys.names("dataset")
    if named is None:
        return (), []
    directory = keys.text("dataset_dir", default="data")
    assert directory is not None
    held = find_file(directory.value, path)
    known: Mapping[str, Any] = {}
    notes = []
    if held is not None and (held / "dataset_info.json").is_file():
        try:
            known = json.loads((held / "dataset_info.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            notes.append(f"{held / 'dataset_info.json'} cannot be read ({error})")
    found = []
    for name in named.value:
        entry = known.get(name) if isinstance(known, Mapping) else None
        file = entry.get("file_name") if isinstance(entry, Mapping) else None
        place = None if file is None or held is None or not (held / str(file)).exists() else held / str(file)
        found.append(Source(name, place, named.place))
    return tuple(found), notes

"""An adapter and its base in one model: the adapter on is the tuned model, off it is the base, where that is exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.mechanisms.adapters import is_base_behind_adapter

if TYPE_CHECKING:
    from forgetless.evaluate.requests import TextModel


@contextmanager
def base_of_adapter(tuned: TextModel, base: str) -> Iterator[TextModel | None]:
    """Lends the base of a tuned model with its adapter switched off.

    Args:
        tuned: The model that was opened.
        base: What the user calls its base.

    Yields:
        The base, sharing the weights in memory; None where it has to be loaded by itself: the tuned model is no
        adapter on that base, or switching it off doesn't give the base bit for bit.
    """
    model: Any = getattr(tuned, "model", None)
    if not is_base_behind_adapter(model) or not _is_on(model, base):
        yield None
        return
    from forgetless.evaluate.local import LocalModel
    from forgetless.models import LoadedModel, load_tokenizer, resolve_model

    source = resolve_model(base)
    loaded = LoadedModel(model, load_tokenizer(source), base, source)
    with model.disable_adapter():
        yield LocalModel(loaded, batch_size=tuned.batch_size)


def _is_on(model: Any, base: str) -> bool:
    from forgetless.embedded import EMBEDDED_ALIAS, is_embedded
    from forgetless.models import resolve_model
    from forgetless.quantised import quantisation

    is_quantised = getattr(model, "hf_quantizer", None) is not None
    if is_quantised and (is_embedded(base) or quantisation(Path(resolve_model(base))) is None):
        return False  # quantised as it was loaded: that is another model than the base on disk
    named = str(next(iter(model.peft_config.values())).base_model_name_or_path)
    if is_embedded(base):
        return Path(named).name == EMBEDDED_ALIAS
    return bool(resolve_model(base) == (resolve_model(named) if Path(named).is_dir() else named))

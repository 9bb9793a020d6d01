"""Where the layers of a language model stand, and how deep each of its parameters lies.

Found from the modules, not from names of architectures: Llama's `model.layers`, GPT-2's `transformer.h`, and the same
under PEFT's wrapping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forgetless.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Layers:
    """The stack of a model's layers.

    Attributes:
        path: Name of the module list that holds them, such as `model.layers`.
        num: How many there are.
        embeddings: Names of the modules that turn tokens and positions into vectors.
        is_tied: Whether the output layer shares the weights of the input embedding.
        head: Name of the output layer; None where the model has none.
    """

    path: str
    num: int
    embeddings: tuple[str, ...]
    is_tied: bool
    head: str | None = None

    def depth(self, name: str) -> int:
        """Returns how deep a parameter or module lies, by its name.

        Args:
            name: Its name in the model that the layers were found in.

        Returns:
            0 for embeddings, 1 to `num` for the layers from the bottom up, `num` + 1 for the final norm and the head.
        """
        if name.startswith(f"{self.path}."):
            return int(name[len(self.path) + 1 :].partition(".")[0]) + 1
        if self.head is not None and f"{name}.".startswith(f"{self.head}."):
            return self.num + 1  # whatever it's called (embed_out); a tied one goes by the embedding's name
        is_embedding = any(name == place or name.startswith(f"{place}.") for place in self.embeddings)
        # Norms and projections that belong to the embedding carry its name (word_embeddings_layernorm, ...).
        return 0 if is_embedding or "embed" in name else self.num + 1


def find_layers(model: nn.Module) -> Layers:
    """Finds a model's layers: the outermost list of modules that holds the most parameters.

    The experts of a mixture-of-experts layer are a list too, but one inside another; a vision tower is smaller.

    Args:
        model: A causal language model, under PEFT's wrapping or not.

    Returns:
        Where the layers are.

    Raises:
        ConfigError: The model holds no list of layers, or two stacks of them.
    """
    from torch import nn

    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise ConfigError(f"{type(model).__name__} has two stacks of layers, so that none is the bottom one")
    sizes: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) and not any(name.startswith(f"{path}.") for path in sizes):
            sizes[name] = sum(parameter.numel() for parameter in module.parameters())
    if not sizes:
        raise ConfigError(f"{type(model).__name__} holds no list of layers, so there is no bottom and no top of them")
    path = max(sizes, key=lambda name: sizes[name])
    source = _ask(model, "get_input_embeddings")
    embeddings = [
        name
        for name, module in model.named_modules()
        if (module is source or isinstance(module, nn.Embedding)) and not name.startswith(f"{path}.")
    ]
    head = _ask(model, "get_output_embeddings")
    is_tied = head is not None and source is not None and head.weight is source.weight
    place = next((name for name, module in model.named_modules() if module is head), None)
    return Layers(path, len(model.get_submodule(path)), tuple(embeddings), is_tied, place)  # type: ignore[arg-type]


def _ask(model: Any, method: str) -> Any:
    """Returns what a model's accessor of a module gives, None where it has no such module."""
    try:
        return getattr(model, method)()
    except (AttributeError, NotImplementedError):
        return None

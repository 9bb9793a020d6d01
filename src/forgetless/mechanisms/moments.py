"""Second moments of what goes into linear layers, gathered in one pass over data; layers that share an input share one.

Memory is that of one float32 matrix per distinct input: 4 * sum of (inputs of the layer)^2 bytes. For a Llama block of
width d and feed-forward width f these are three of d x d (query, key and value share theirs, gate and up theirs) and
one of f x f.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from forgetless.errors import ConfigError
from forgetless.mechanisms.modes import eval_mode

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetless.data.encoding import Encoded


class InputMoments:
    """Sums of x x^T over the inputs x of linear layers.

    Args:
        is_normalised: Scale each input to norm 1, so that few huge ones (the first token's, often) don't decide.
    """

    def __init__(self, *, is_normalised: bool = False) -> None:
        self.is_normalised = is_normalised
        self._sums: dict[str, Tensor] = {}
        self._num_tokens: dict[str, int] = {}
        self._leaders: dict[str, str] = {}
        self._latest: tuple[Tensor, str] | None = None

    def watcher(self, name: str) -> Callable[[nn.Module, Any], None]:
        """Returns a forward pre-hook for the layer of that name."""

        def watch(_: nn.Module, args: Any) -> None:
            inputs = args[0]
            if name not in self._leaders:
                is_shared = self._latest is not None and self._latest[0] is inputs
                self._leaders[name] = self._latest[1] if self._latest is not None and is_shared else name
            if self._leaders[name] == name:
                self._add(name, inputs)
            self._latest = (inputs, self._leaders[name])

        return watch

    def _add(self, name: str, inputs: Tensor) -> None:
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        if self.is_normalised:
            rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)
        if name not in self._sums:
            self._sums[name] = rows.new_zeros(rows.shape[1], rows.shape[1])
            self._num_tokens[name] = 0
        self._sums[name].addmm_(rows.T, rows)
        self._num_tokens[name] += rows.shape[0]

    def groups(self) -> dict[str, list[str]]:
        """Returns the names of the layers that share an input, by the first of them."""
        found: dict[str, list[str]] = {}
        for name, leader in self._leaders.items():
            found.setdefault(leader, []).append(name)
        return found

    def num_tokens(self, name: str) -> int:
        """Returns how many inputs reached a layer."""
        return self._num_tokens.get(self._leaders.get(name, name), 0)

    def mean(self, name: str) -> Tensor:
        """Returns the mean of x x^T over the inputs of a layer, (inputs, inputs), float32."""
        leader = self._leaders[name]
        return self._sums[leader] / self._num_tokens[leader]


def gather_moments(
    model: nn.Module, layers: Mapping[str, nn.Module], sequences: Sequence[Encoded], *, is_normalised: bool = False
) -> InputMoments:
    """Runs a model over sequences and gathers the second moments of what goes into some of its layers.

    One sequence at a time: nothing is padded, and every row of an input is a token, in experts of a mixture too.

    Args:
        model: The model; it is in eval mode for the time.
        layers: Linear layers of it, by name.
        sequences: The data.
        is_normalised: Scale each input to norm 1.

    Returns:
        The moments of the inputs.

    Raises:
        ConfigError: There is no data, or a layer that no token of it reaches.
    """
    import torch

    if not sequences:
        raise ConfigError("there is no data to take activations from: pass general examples")
    moments = InputMoments(is_normalised=is_normalised)
    device = next(model.parameters()).device
    with _hooked(layers, moments), eval_mode(model), torch.no_grad():
        for sequence in sequences:
            model(input_ids=torch.tensor([sequence.input_ids], device=device), use_cache=False)
    unreached = [name for name in layers if not moments.num_tokens(name)]
    if unreached:
        raise ConfigError(
            f"no token of the data to keep reaches {len(unreached)} layers ({unreached[0]}, ...): pass more of it, or "
            "leave these layers out with target_modules"
        )
    return moments


@contextmanager
def _hooked(layers: Mapping[str, nn.Module], moments: InputMoments) -> Iterator[None]:
    handles = [layer.register_forward_pre_hook(moments.watcher(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        moments._latest = None
        for handle in handles:
            handle.remove()


def in_float64(tensor: Tensor) -> Tensor:
    """Returns a tensor in float64, on the CPU where its own device has no such numbers."""
    import torch

    place = tensor.device if tensor.device.type == "cuda" else torch.device("cpu")
    return tensor.to(place, torch.float64)

"""What the earlier phases of a sequence left to the phase that is prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forgetless.data.examples import Example
    from forgetless.models import LoadedModel


@dataclass(frozen=True)
class Earlier:
    """What the earlier phases of a sequence left; in the first phase it is empty.

    Attributes:
        phases: Their training examples, by name of the phase, in order.
        is_continued: Whether adapters go on being trained, so that the model before all phases stays behind them.
        directory: Where the methods of the phase before this one kept their files; None in the first phase.
        adapter: Directory of the adapter that is trained on; None = this phase's is a fresh one.
        load_base: Loads the model before all phases, each time anew; None where the model that is trained is that
            model, or has it behind its adapter.
    """

    phases: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    is_continued: bool = False
    directory: Path | None = None
    adapter: Path | None = None
    load_base: Callable[[], LoadedModel] | None = None

    @property
    def latest(self) -> Sequence[Example]:
        """Training examples of the phase before this one; empty in the first phase."""
        return list(self.phases.values())[-1] if self.phases else ()

    def file(self, name: str) -> Path | None:
        """Returns a file that a method kept in the phase before this one; None where there is none."""
        path = None if self.directory is None else self.directory / name
        return path if path is not None and path.is_file() else None

"""Which points a repair looks at beyond the line: changes without intruder dimensions, and healed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.progress import Reporter
from forgetless.repair.search import Trail, walk_factor, walk_line, walk_treated

if TYPE_CHECKING:
    from forgetless.healing import Healing
    from forgetless.models import LoadedModel
    from forgetless.repair.paths import RepairPath

HEALED = "healed"  # the kind of points whose change was trained once more


class RepairSearch:
    """Which points a repair looks at: the line and the layers, then treated changes, as far as each can be better.

    Args:
        path: The model that moves.
        moved: The same model with its tokenizer.
        seed: Of the search for intruders and of healing.
        healing: How to heal; None = not at all.
        held_out: Gives the texts that no written example may overlap with.
        directory: Where the result of healing is kept.
        reporter: Where to tell how far it is.
    """

    def __init__(
        self,
        path: RepairPath,
        moved: LoadedModel,
        *,
        seed: int,
        healing: Healing | None,
        held_out: Callable[[], Sequence[str]],
        directory: Path,
        reporter: Reporter,
    ) -> None:
        self.path, self.moved, self.seed = path, moved, seed
        self.healing, self.held_out, self.directory, self.reporter = healing, held_out, directory, reporter
        self.facts: dict[str, Any] = {}

    def __call__(self, trail: Trail) -> None:
        walk_line(trail)
        if trail.seen[0].is_within:
            return
        self._walk_without_intruders(trail)
        if self.healing is not None:
            self._walk_healed(trail)

    def _walk_without_intruders(self, trail: Trail) -> None:
        from forgetless.repair.intruders import THRESHOLD, TOP, find_intruders, scale_intruders

        with self.reporter.task("Looking for intruder dimensions"):
            found = find_intruders(self.path.matrices(), seed=self.seed)
        num = sum(vectors.shape[1] for vectors in found.values())
        self.facts["num_intruders"] = num
        if not num:
            self.reporter.note(
                f"no intruder dimensions: each of the {TOP} strongest directions of every matrix resembles one of the "
                f"base's (|cos| >= {THRESHOLD}), so there are none to scale down"
            )
            return
        self.reporter.note(f"intruder dimensions: {num} in {len(found)} matrices")

        def kind(factor: float) -> str:
            name = f"intruders x {factor:g}"
            self.path.treatments[name] = scale_intruders(found, factor)
            return name

        walk_factor(trail, kind)

    def _walk_healed(self, trail: Trail) -> None:
        from forgetless.healing import heal

        self.path.treatments[HEALED] = heal(
            self.path,
            self.moved,
            directory=self.directory,
            held_out=self.held_out(),
            settings=self.healing,
            seed=self.seed,
            reporter=self.reporter,
        )
        walk_treated(trail, HEALED)

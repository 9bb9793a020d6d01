"""How much looking a training can afford: looks are made smaller, then rarer, to cost a share of it at most."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FEWEST_EXAMPLES = 8  # of a look: with fewer, looks are made rarer instead
PLANNED_PART = 0.9  # of what is allowed: clocks are noisy, and the last look is always taken
PASSES_OF_A_STEP = 3.0  # forward passes that a training step costs, as long as none was timed


class Pace:
    """Plans looks from what they and the training were seen to cost.

    Args:
        every: Optimizer steps from one look to the next, as asked for.
        num_examples: Examples of a look, as asked for.
        max_share: Largest share of the training's time that looks may take; 1 = no limit.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(
        self, *, every: int, num_examples: int, max_share: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.wanted_every, self.limit, self.max_share = every, num_examples, max_share
        self.every, self.num_examples = every, num_examples
        self.last_step = 0
        self.spent_seconds = self.trained_seconds = 0.0
        self._clock = clock
        self._mark: float | None = None
        self._probe_seconds = self._probe_tokens = 0.0
        self._other_seconds = 0.0  # of the last look, beside asking: saving weights, say

    def begin(self) -> None:
        """Starts the clock of the training."""
        self._mark = self._clock()

    def pause(self) -> None:
        """Adds what has passed to the training's time, and stops its clock."""
        if self._mark is not None:
            self.trained_seconds += self._clock() - self._mark
            self._mark = None

    @contextmanager
    def spending(self, num_tokens: int = 0) -> Iterator[None]:
        """Counts a time as the monitor's; with tokens, as what asking about them costs."""
        started = self._clock()
        try:
            yield
        finally:
            seconds = self._clock() - started
            self.spent_seconds += seconds
            if num_tokens:
                self._probe_seconds += seconds
                self._probe_tokens += num_tokens
            else:
                self._other_seconds = seconds

    @property
    def share(self) -> float:
        """The monitor's time over the training's, so far."""
        return self.spent_seconds / self.trained_seconds if self.trained_seconds else 0.0

    def is_due(self, step: int) -> bool:
        """Whether a look is to be taken after a step."""
        return step - self.last_step >= self.every

    def num_looks(self, step: int, max_steps: int) -> int:
        """Returns the looks that are planned from one at `step` on, that one and one at the end among them."""
        return 1 + math.ceil(max(max_steps - step, 0) / self.every)

    def size_at_start(self, max_steps: int, tokens_per_step: float, num_tokens: Callable[[int], int]) -> int:
        """Returns how many examples the base is asked about before a training of which nothing was timed yet.

        Args:
            max_steps: Optimizer steps of the training.
            tokens_per_step: Tokens of each, in this process.
            num_tokens: Tokens of the first so many examples.

        Returns:
            Examples, `FEWEST_EXAMPLES` at least.
        """
        passes = self.num_looks(0, max_steps)  # the base's, and one for each look
        allowed = self.max_share * max_steps * tokens_per_step * PASSES_OF_A_STEP / passes
        return self._most(lambda num: num_tokens(num) <= allowed)

    def _most(self, is_affordable: Callable[[int], bool]) -> int:
        fewest = min(FEWEST_EXAMPLES, self.limit)
        if self.max_share >= 1:
            return self.limit
        return next((num for num in range(self.limit, fewest, -1) if is_affordable(num)), fewest)

    def replan(self, step: int, max_steps: int, *, num_tokens: Callable[[int], int], num_asked: int) -> tuple[int, int]:
        """Sets size and distance of the looks to come, from what was timed so far.

        Args:
            step: Optimizer steps done, at least 1.
            max_steps: Optimizer steps in all.
            num_tokens: Tokens of the first so many examples.
            num_asked: Examples that the base was asked about; asking it about more costs as much as a look at them.

        Returns:
            Examples of a look, and steps from one look to the next.
        """
        self.every = self.wanted_every
        per_token = self._probe_seconds / max(self._probe_tokens, 1.0)
        allowed = PLANNED_PART * self.max_share * self.trained_seconds / step * max_steps - self.spent_seconds

        def cost(num: int) -> float:
            new = max(num_tokens(num) - num_tokens(num_asked), 0)
            return self._other_seconds + per_token * (num_tokens(num) + new)

        num_looks = self.num_looks(step, max_steps)
        self.num_examples = self._most(lambda num: cost(num) * num_looks <= allowed)
        num_affordable = max(1, int(allowed / max(cost(self.num_examples), 1e-9)))
        if self.max_share < 1 and num_affordable < num_looks:
            self.every = max(self.wanted_every, math.ceil((max_steps - self.last_step) / num_affordable))
        return self.num_examples, self.every

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps."""
        return {
            "every": self.every,
            "num_examples": self.num_examples,
            "last_step": self.last_step,
            "spent_seconds": self.spent_seconds,
            "trained_seconds": self.trained_seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what a checkpoint kept."""
        for name in self.state():
            setattr(self, name, state[name])

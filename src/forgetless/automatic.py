"""`methods: auto`: the recipe that the benchmark tables speak for, given what the user has.

Every choice names the row of a table that it rests on, and repeats its figures; a test reads the tables again and fails
when another row has become the best of those that the same user could run. `wise_ft` is never chosen, though it forgets
as little at less cost on the embedded model: it is right with more epochs than the user asked for, and a run with a
budget walks back by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AUTO = "auto"
REPLAY_SHARE = 0.3
EARLIER_SHARE = 0.2
FEWEST_GENERAL = 50  # below, a replay share of 0.3 repeats the same few examples many times
SHARE_OF_MEMORY = 0.6  # what weights may take of a device, beside activations and the optimizer's state
ADAPTER: Mapping[str, Any] = {"lora": {"rank": 16}}
REPLAY: Mapping[str, Any] = {"replay": {"share": REPLAY_SHARE}}
KL: Mapping[str, Any] = {"kl": {"data": "domain", "mask_target": True}}


@dataclass(frozen=True)
class Finding:
    """A row of a benchmark table with the figures that a choice rests on.

    Attributes:
        table: Path of the JSON below `benchmarks/`, without its ending.
        row: Name of the row or recipe, of the same methods as the choice.
        plain: Points forgotten by plain tuning there, on the same models and seeds.
        forgotten: Points forgotten by this row.
        learned: What it learned / what plain tuning learned.
    """

    table: str
    row: str
    plain: float
    forgotten: float
    learned: float

    def __str__(self) -> str:
        forgotten = f"{self.forgotten:.0f} points" if self.forgotten > 0.5 else "nothing that could be seen"
        return f"in benchmarks/{self.table}.json it forgot {forgotten} where plain tuning forgot {self.plain:.0f}"


WITH_GENERAL = Finding("laboratory/laboratory", "lora + replay", 44.2, 19.6, 1.0)
WITHOUT_GENERAL = Finding("methods/embedded", "kl_domain_masked", 8.6, -0.3, 0.89)


@dataclass(frozen=True)
class Situation:
    """What a user has, as far as a choice depends on it.

    Attributes:
        num_general: General examples.
        weight_bytes: Size of the model's weights; None = unknown.
        memory_bytes: Memory of the CUDA device; None = there is none.
        has_bitsandbytes: Whether weights can be held in 4 bits.
        num_earlier: Examples of earlier phases, in a sequence.
    """

    num_general: int = 0
    weight_bytes: int | None = None
    memory_bytes: int | None = None
    has_bitsandbytes: bool = False
    num_earlier: int = 0

    @property
    def is_short_of_memory(self) -> bool:
        """Whether the weights alone leave a CUDA device too little room."""
        if self.weight_bytes is None or self.memory_bytes is None:
            return False
        return self.weight_bytes > SHARE_OF_MEMORY * self.memory_bytes


@dataclass(frozen=True)
class Choice:
    """Methods as they would stand in a config, and why, one sentence each."""

    methods: list[str | dict[str, Any]]
    reasons: list[str]


def choose_methods(situation: Situation) -> Choice:
    """Chooses the methods for what a user has.

    Args:
        situation: What the user has.

    Returns:
        The methods with their reasons.
    """
    methods: list[str | dict[str, Any]] = []
    reasons = []
    if situation.is_short_of_memory and situation.has_bitsandbytes:
        methods.append({"qlora": dict(ADAPTER["lora"])})
        reasons.append(
            f"qlora: the weights take {_gib(situation.weight_bytes)} of the device's {_gib(situation.memory_bytes)} GiB"
        )
    else:
        methods.append(_copy(ADAPTER))
        reasons.append("lora: the base stays in memory behind the adapter, so nothing needs a second model")
    if situation.num_general >= FEWEST_GENERAL:
        methods.append(_copy(REPLAY))
        reasons.append(
            f"replay: you have general data; beside lora, {WITH_GENERAL}, the least of all that uses such "
            "data there (at a share of one half)"
        )
    else:
        methods.append(_copy(KL))
        has = f"{situation.num_general} general examples are too few to replay" if situation.num_general else ""
        reasons.append(
            f"kl on your own data, its target tokens left out: {has or 'you have no general data'}; {WITHOUT_GENERAL}, "
            f"at {WITHOUT_GENERAL.learned:.0%} of the learning (wise_ft with more epochs costs less time: see its card)"
        )
    if situation.num_earlier:
        share = EARLIER_SHARE if situation.num_general >= FEWEST_GENERAL else 0.0
        own = (
            {"share": REPLAY_SHARE, "earlier_share": share} if share else {"share": EARLIER_SHARE, "source": "earlier"}
        )
        methods = [spec for spec in methods if "replay" not in spec] + [{"replay": own}]
        reasons.append("replay of earlier phases: their targets are skills to keep, and their examples are at hand")
    return Choice(methods, reasons)


def _copy(method: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dict(options) for name, options in method.items()}


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**30:.0f}"

"""The rows of the laboratory's table: one line each, with the strengths and rates among which each is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.laboratory.tuning import Kept

Spec = str | Mapping[str, Any]
GOAL = 0.95  # target accuracy at which plain fine-tuning and all others are compared
SLACK = 0.02  # what "fewer steps" may stay below it
RATE = 3e-4  # plain fine-tuning
# Rates at which the base's own weights are trained, and those of what is trained beside them. The lowest is that which
# the control of a lower rate chose: a method must not lose to it for want of a rate.
FULL = (RATE, RATE / 4, RATE / 8)
ADAPTER = (1e-3, 3e-4, 1e-4)


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: Its name in the table.
        family: What it stands with.
        settings: Lists of methods as in a config, from weak to strong: once one can't reach the goal, no stronger
            one is tried at that rate.
        rates: Learning rates; each is tried with all settings.
        kept: What the methods are given as general data.
        goal: Target accuracy that is to be reached.
        is_control: A row that a method must beat to be worth its name.
    """

    name: str
    family: str
    settings: Sequence[Sequence[Spec]] = ((),)
    rates: Sequence[float] = FULL
    kept: Kept = "none"
    goal: float = GOAL
    is_control: bool = False


def grid(method: str, option: str, *values: Any, before: Sequence[Spec] = (), **fixed: Any) -> list[list[Spec]]:
    """Returns the settings of one method at several values of one option, after the methods that come before it."""
    return [[*before, {method: {option: value, **fixed}}] for value in values]


PLAIN = Row("plain fine-tuning", "reference", rates=(RATE,))
LOWER = Row("lower learning rate", "reference", rates=(RATE / 2, RATE / 4, RATE / 6, RATE / 8), is_control=True)
FEWER = Row("fewer steps", "reference", rates=(RATE,), goal=GOAL - SLACK, is_control=True)

SHARES = (0.1, 0.25, 0.5, 0.75)
KL_STRENGTHS = (0.3, 1.0, 3.0, 10.0)
EWC_STRENGTHS = (100.0, 1e3, 1e4, 1e5, 1e6)
MAS_STRENGTHS = (1e-3, 1e-2, 0.1, 1.0)
KEPT_BATCHES: Mapping[str, Any] = {"batch_size": 8, "num_examples": 256}
REPLAY: Spec = {"replay": {"share": 0.5}}
ROWS: Sequence[Row] = (
    PLAIN,
    LOWER,
    FEWER,
    Row("lora", "adapters", grid("lora", "rank", 32, 16, 4), ADAPTER),
    Row("rslora", "adapters", grid("lora", "rank", 32, 16, 4, variant="rslora"), ADAPTER),
    Row("dora", "adapters", grid("lora", "rank", 32, 16, 4, variant="dora"), ADAPTER),
    Row("osf", "adapters", grid("osf", "frozen_share", 0.3, 0.5, 0.8), (1e-3, 3e-4, 1e-4)),
    Row("corda", "adapters", grid("corda", "rank", 32, 16, 8), FULL, "general"),
    Row("corda, self-written", "adapters", grid("corda", "rank", 32, 16, 8), FULL, "written"),
    Row("null_space", "adapters", grid("null_space", "rank", 32, 16, 8), ADAPTER, "general"),
    Row("null_space, self-written", "adapters", grid("null_space", "rank", 32, 16, 8), ADAPTER, "written"),
    Row("replay", "data", grid("replay", "share", *SHARES), kept="general"),
    Row("replay, self-written", "data", grid("replay", "share", *SHARES), kept="written"),
    Row("kl", "loss", grid("kl", "strength", *KL_STRENGTHS, **KEPT_BATCHES), kept="general"),
    Row("kl, self-written", "loss", grid("kl", "strength", *KL_STRENGTHS, **KEPT_BATCHES), kept="written"),
    Row("kl, domain", "loss", grid("kl", "strength", 0.01, 0.1, 0.5, data="domain")),
    Row("kl, domain, mask_target", "loss", grid("kl", "strength", 0.1, 1.0, 10.0, data="domain", mask_target=True)),
    Row("flow", "loss", grid("flow", "strength", 0.3, 1.0)),
    Row("stm", "loss", grid("stm", "threshold", 1e4, 100.0, 10.0, 2.5)),
    Row("eaft", "loss", grid("eaft", "exponent", 0.3, 1.0)),
    Row("talr", "loss", grid("talr", "strength", 0.3, 1.0)),
    Row("l2_sp", "anchoring", grid("l2_sp", "strength", 0.01, 0.03, 0.1, 0.3, 1.0)),
    Row("ewc", "anchoring", grid("ewc", "strength", *EWC_STRENGTHS), kept="general"),
    Row("ewc, self-written", "anchoring", grid("ewc", "strength", *EWC_STRENGTHS), kept="written"),
    Row("mas", "anchoring", grid("mas", "strength", *MAS_STRENGTHS), kept="general"),
    Row("mas, self-written", "anchoring", grid("mas", "strength", *MAS_STRENGTHS), kept="written"),
    Row("lora + ewc", "together", grid("ewc", "strength", *EWC_STRENGTHS, before=["lora"]), ADAPTER, "general"),
    Row("freeze_bottom", "partial updates", grid("freeze_bottom", "num_layers", 1, 2)),
    Row("half", "partial updates", grid("half", "fraction", 0.75, 0.5, 0.25)),
    Row("mofo", "partial updates", grid("mofo", "fraction", 0.5, 0.15, 0.05)),
    Row("layer_rates", "partial updates", grid("layer_rates", "gamma", 0.9, 0.7, 0.5)),
    Row("wise_ft", "partial updates", grid("wise_ft", "share", 0.75, 0.5, 0.25)),
    Row("a_gem", "partial updates", grid("a_gem", "batch_size", 8, 16), kept="general"),
    Row("lora + wise_ft", "together", grid("wise_ft", "share", 0.75, 0.5, 0.25, before=["lora"]), ADAPTER),
    Row("lora + replay", "together", grid("replay", "share", *SHARES, before=["lora"]), ADAPTER, "general"),
    Row(
        "replay + kl",
        "together",
        grid("kl", "strength", *KL_STRENGTHS, before=[REPLAY], **KEPT_BATCHES),
        kept="general",
    ),
    Row("replay + mas", "together", grid("mas", "strength", *MAS_STRENGTHS, before=[REPLAY]), kept="general"),
    Row(
        "replay + kl, self-written",
        "together",
        grid("kl", "strength", *KL_STRENGTHS, before=[REPLAY], **KEPT_BATCHES),
        kept="written",
    ),
)

"""Mitigation methods: one file each, one line each in this table."""

from __future__ import annotations

from forgetless.methods.base import Method
from forgetless.registry import Registry

METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        "ewc": "forgetless.methods.ewc:EWC",
        "l2_sp": "forgetless.methods.l2_sp:L2SP",
        "lora": "forgetless.methods.lora:LoRA",
        "mas": "forgetless.methods.mas:MAS",
        "replay": "forgetless.methods.replay:Replay",
    },
)

__all__ = ["METHODS", "Method"]

"""Mitigation methods: one file each, one line each in this table."""

from __future__ import annotations

from forgetless.methods.base import Method
from forgetless.registry import Registry

METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        "eaft": "forgetless.methods.eaft:EAFT",
        "ewc": "forgetless.methods.ewc:EWC",
        "flow": "forgetless.methods.flow:FLOW",
        "kl": "forgetless.methods.kl:KLToBase",
        "l2_sp": "forgetless.methods.l2_sp:L2SP",
        "lora": "forgetless.methods.lora:LoRA",
        "mas": "forgetless.methods.mas:MAS",
        "replay": "forgetless.methods.replay:Replay",
        "rewrite": "forgetless.methods.rewrite:Rewrite",
        "stm": "forgetless.methods.stm:STM",
        "talr": "forgetless.methods.talr:TALR",
    },
)

__all__ = ["METHODS", "Method"]

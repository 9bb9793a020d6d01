"""Mitigation methods: one file each, one line each in this table."""

from __future__ import annotations

from forgetless.methods.base import Method
from forgetless.registry import Registry

METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        "eaft": "forgetless.methods.eaft:EAFT",
        "flow": "forgetless.methods.flow:FLOW",
        "kl": "forgetless.methods.kl:KLToBase",
        "lora": "forgetless.methods.lora:LoRA",
        "replay": "forgetless.methods.replay:Replay",
        "stm": "forgetless.methods.stm:STM",
        "talr": "forgetless.methods.talr:TALR",
    },
)

__all__ = ["METHODS", "Method"]

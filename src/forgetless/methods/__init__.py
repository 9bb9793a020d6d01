"""Mitigation methods: one file each, one line each in this table."""

from __future__ import annotations

from forgetless.methods.base import Method
from forgetless.registry import Registry

METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        "lora": "forgetless.methods.lora:LoRA",
        "freeze_bottom": "forgetless.methods.freeze_bottom:FreezeBottom",
        "half": "forgetless.methods.half:Half",
        "mofo": "forgetless.methods.mofo:MoFO",
        "layer_rates": "forgetless.methods.layer_rates:LayerRates",
        "a_gem": "forgetless.methods.a_gem:AGEM",
        "replay": "forgetless.methods.replay:Replay",
    },
)

__all__ = ["METHODS", "Method"]

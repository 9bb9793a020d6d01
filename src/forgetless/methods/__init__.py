"""Mitigation methods: one file each, one line each in this table."""

from __future__ import annotations

from forgetless.methods.base import Method
from forgetless.registry import Registry

METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        "lora": "forgetless.methods.lora:LoRA",
        "osf": "forgetless.methods.osf:OSF",
        "replay": "forgetless.methods.replay:Replay",
    },
)

__all__ = ["METHODS", "Method"]

"""Mitigation methods: one file each, one line each in this table."""

from __future__ import annotations

from forgetless.methods.base import Method
from forgetless.registry import Registry

METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        "corda": "forgetless.methods.corda:CorDA",
        "lora": "forgetless.methods.lora:LoRA",
        "null_space": "forgetless.methods.null_space:NullSpace",
        "osf": "forgetless.methods.osf:OSF",
        "replay": "forgetless.methods.replay:Replay",
    },
)

__all__ = ["METHODS", "Method"]

"""Mitigation methods: one file each, one line each in this table."""

from __future__ import annotations

from forgetless.methods.base import Method
from forgetless.registry import Registry

METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        "a_gem": "forgetless.methods.a_gem:AGEM",
        "corda": "forgetless.methods.corda:CorDA",
        "eaft": "forgetless.methods.eaft:EAFT",
        "ewc": "forgetless.methods.ewc:EWC",
        "flow": "forgetless.methods.flow:FLOW",
        "freeze_bottom": "forgetless.methods.freeze_bottom:FreezeBottom",
        "half": "forgetless.methods.half:Half",
        "kl": "forgetless.methods.kl:KLToBase",
        "l2_sp": "forgetless.methods.l2_sp:L2SP",
        "layer_rates": "forgetless.methods.layer_rates:LayerRates",
        "lora": "forgetless.methods.lora:LoRA",
        "mas": "forgetless.methods.mas:MAS",
        "mofo": "forgetless.methods.mofo:MoFO",
        "null_space": "forgetless.methods.null_space:NullSpace",
        "osf": "forgetless.methods.osf:OSF",
        "qlora": "forgetless.methods.lora:QLoRA",
        "replay": "forgetless.methods.replay:Replay",
        "rewrite": "forgetless.methods.rewrite:Rewrite",
        "stm": "forgetless.methods.stm:STM",
        "talr": "forgetless.methods.talr:TALR",
        "wise_ft": "forgetless.methods.wise_ft:WiSEFT",
    },
)

__all__ = ["METHODS", "Method"]

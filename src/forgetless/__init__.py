"""Fine-tune a language model on narrow data, and show with evidence what it kept.

    result  = forgetless.run("examples/drug_qa/safe.yaml")
    scores  = forgetless.evaluate(model, suite="core")
    verdict = forgetless.compare(base_scores, tuned_scores, margin=0.03)
    trainer = forgetless.protect(trainer, [...])
    trainer.add_callback(forgetless.RetentionMonitor(general="general.jsonl", budget=0.05, policy="stop"))

Names are imported when they are first used, so that `import forgetless` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetless.advising.advice import advise
    from forgetless.check_records import CheckResult
    from forgetless.checklist import run_checklist
    from forgetless.compare.comparison import compare
    from forgetless.config import Config
    from forgetless.data.examples import Example, Message
    from forgetless.data.mixing import replay_mixture
    from forgetless.data.sources import read_examples
    from forgetless.errors import ConfigError, DataError, ForgetlessError, ModelError, RunError
    from forgetless.evaluate.runner import evaluate
    from forgetless.lessons import lesson
    from forgetless.mechanisms.adapters import assert_base_frozen
    from forgetless.mechanisms.fisher import estimate_fisher, load_fisher, save_fisher
    from forgetless.methods.a_gem import AGEM
    from forgetless.methods.base import Method
    from forgetless.methods.corda import CorDA
    from forgetless.methods.eaft import EAFT
    from forgetless.methods.ewc import EWC
    from forgetless.methods.flow import FLOW
    from forgetless.methods.freeze_bottom import FreezeBottom
    from forgetless.methods.half import Half
    from forgetless.methods.kl import KLToBase
    from forgetless.methods.l2_sp import L2SP
    from forgetless.methods.layer_rates import LayerRates
    from forgetless.methods.lora import LoRA, QLoRA
    from forgetless.methods.mas import MAS
    from forgetless.methods.mofo import MoFO
    from forgetless.methods.null_space import NullSpace
    from forgetless.methods.osf import OSF
    from forgetless.methods.replay import Replay
    from forgetless.methods.rewrite import Rewrite
    from forgetless.methods.stm import STM
    from forgetless.methods.talr import TALR
    from forgetless.methods.wise_ft import WiSEFT
    from forgetless.phases.run import PhasesResult, run
    from forgetless.pipeline import RunResult, train
    from forgetless.records import Comparison, Role, Row, SampleScore, Status, Unit, Verdict
    from forgetless.repairing import RepairResult, repair
    from forgetless.train.monitor import RetentionMonitor
    from forgetless.train.protection import protect
    from forgetless.writing import generate_replay

_HOMES = {
    "forgetless.advising.advice": ["advise"],
    "forgetless.check_records": ["CheckResult"],
    "forgetless.checklist": ["run_checklist"],
    "forgetless.compare.comparison": ["compare"],
    "forgetless.config": ["Config"],
    "forgetless.data.examples": ["Example", "Message"],
    "forgetless.data.mixing": ["replay_mixture"],
    "forgetless.data.sources": ["read_examples"],
    "forgetless.errors": ["ConfigError", "DataError", "ForgetlessError", "ModelError", "RunError"],
    "forgetless.evaluate.runner": ["evaluate"],
    "forgetless.lessons": ["lesson"],
    "forgetless.mechanisms.adapters": ["assert_base_frozen"],
    "forgetless.mechanisms.fisher": ["estimate_fisher", "load_fisher", "save_fisher"],
    "forgetless.methods.a_gem": ["AGEM"],
    "forgetless.methods.base": ["Method"],
    "forgetless.methods.corda": ["CorDA"],
    "forgetless.methods.eaft": ["EAFT"],
    "forgetless.methods.ewc": ["EWC"],
    "forgetless.methods.flow": ["FLOW"],
    "forgetless.methods.freeze_bottom": ["FreezeBottom"],
    "forgetless.methods.half": ["Half"],
    "forgetless.methods.kl": ["KLToBase"],
    "forgetless.methods.l2_sp": ["L2SP"],
    "forgetless.methods.layer_rates": ["LayerRates"],
    "forgetless.methods.lora": ["LoRA", "QLoRA"],
    "forgetless.methods.mas": ["MAS"],
    "forgetless.methods.mofo": ["MoFO"],
    "forgetless.methods.null_space": ["NullSpace"],
    "forgetless.methods.osf": ["OSF"],
    "forgetless.methods.replay": ["Replay"],
    "forgetless.methods.rewrite": ["Rewrite"],
    "forgetless.methods.stm": ["STM"],
    "forgetless.methods.talr": ["TALR"],
    "forgetless.methods.wise_ft": ["WiSEFT"],
    "forgetless.phases.run": ["PhasesResult", "run"],
    "forgetless.pipeline": ["RunResult", "train"],
    "forgetless.records": ["Comparison", "Role", "Row", "SampleScore", "Status", "Unit", "Verdict"],
    "forgetless.repairing": ["RepairResult", "repair"],
    "forgetless.train.monitor": ["RetentionMonitor"],
    "forgetless.train.protection": ["protect"],
    "forgetless.writing": ["generate_replay"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AGEM",
    "EAFT",
    "EWC",
    "FLOW",
    "L2SP",
    "MAS",
    "OSF",
    "STM",
    "TALR",
    "CheckResult",
    "Comparison",
    "Config",
    "ConfigError",
    "CorDA",
    "DataError",
    "Example",
    "ForgetlessError",
    "FreezeBottom",
    "Half",
    "KLToBase",
    "LayerRates",
    "LoRA",
    "Message",
    "Method",
    "MoFO",
    "ModelError",
    "NullSpace",
    "PhasesResult",
    "QLoRA",
    "RepairResult",
    "Replay",
    "RetentionMonitor",
    "Rewrite",
    "Role",
    "Row",
    "RunError",
    "RunResult",
    "SampleScore",
    "Status",
    "Unit",
    "Verdict",
    "WiSEFT",
    "advise",
    "assert_base_frozen",
    "compare",
    "estimate_fisher",
    "evaluate",
    "generate_replay",
    "lesson",
    "load_fisher",
    "protect",
    "read_examples",
    "repair",
    "replay_mixture",
    "run",
    "run_checklist",
    "save_fisher",
    "train",
]

# Four functions are named like the packages that they live in. A package becomes an attribute here when it is first
# imported; importing these (empty) packages now and dropping the attribute leaves the name to the function for good.
for _package in ("compare", "evaluate", "repair", "train"):
    importlib.import_module(f"forgetless.{_package}")
    globals().pop(_package, None)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'forgetless' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

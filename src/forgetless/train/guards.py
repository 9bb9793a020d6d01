"""What a trainer of the user's own must be like for methods to be attached to it; each refusal names the way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from transformers import Trainer

from forgetless.errors import ConfigError
from forgetless.methods.base import Method

_OWN_WEIGHTS = frozenset({"adjust_gradients", "after_step", "prepare_optimizer", "finish"})
_LOSS = frozenset({"token_weights", "penalty"})
_STATE = _LOSS | _OWN_WEIGHTS  # methods of these hooks may have a state, and a start that it belongs to
_ACTS_IN = {  # functions of the trainer's class, and the hooks that act in them
    "create_optimizer": {"prepare_optimizer"},
    "compute_loss": _LOSS,
    "training_step": _LOSS | {"adjust_gradients"},
    "_inner_training_loop": _LOSS,
    "log": {"penalty", "adjust_gradients"},
    "_save_checkpoint": _STATE,
    "_load_optimizer_and_scheduler": _STATE,
    "train": {"finish"},
}


def users_of(methods: Iterable[Method], hooks: Iterable[str]) -> list[str]:
    """Returns the names of the methods that implement one of the hooks, in order."""
    wanted = frozenset(hooks)
    return [method.name for method in methods if method.overridden & wanted]


def refuse_other_types(trainer: Any, methods: Any) -> None:
    """Refuses what isn't a trainer and a list of methods.

    Args:
        trainer: What was given as the trainer.
        methods: What was given as the methods.

    Raises:
        ConfigError: It is something else; says what is wanted.
    """
    if not isinstance(trainer, Trainer):
        raise ConfigError(f"protect takes a transformers Trainer, not {type(trainer).__name__}: make the trainer first")
    is_list = isinstance(methods, Sequence) and not isinstance(methods, str)
    strays = [entry for entry in methods if not isinstance(entry, Method)] if is_list else [methods]
    if strays:
        raise ConfigError(f"protect takes a list of methods such as [forgetless.LoRA()], not {strays[0]!r:.60}")


def refuse_other_models(trainer: Trainer, methods: Sequence[Method]) -> None:
    """Refuses methods that look at what a model says next in a text where it doesn't say anything.

    Args:
        trainer: The trainer.
        methods: The methods to attach.

    Raises:
        ConfigError: The model classifies, gives rewards, or encodes one text and decodes another.
    """
    model: Any = trainer.model
    is_pair = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    is_headless = hasattr(model, "get_output_embeddings") and model.get_output_embeddings() is None
    for method in methods:
        if (method.needs or "token_weights" in method.overridden) and (is_pair or is_headless):
            raise ConfigError(
                f"method {method.name!r} looks at what a model says next in a text, and {type(model).__name__} isn't a "
                "causal language model: drop the method"
            )


def refuse_replaced(trainer: Trainer, methods: Sequence[Method]) -> None:
    """Refuses a trainer object on which a function was set that the hooks of methods would stand behind.

    Args:
        trainer: The trainer.
        methods: The methods to attach.

    Raises:
        ConfigError: One of the functions is the object's own, which Python calls instead of the class's.
    """
    for function, hooks in _ACTS_IN.items():
        if function in vars(trainer) and (names := users_of(methods, hooks)):
            raise ConfigError(
                f"{function} was set on the trainer object itself, where method {names[0]!r} can't act: make a "
                f"subclass of {type(trainer).__name__} that has it"
            )


def refuse_data_methods(methods: Sequence[Method]) -> None:
    """Refuses methods that change data, which a trainer that exists has encoded already.

    Args:
        methods: The methods to attach.

    Raises:
        ConfigError: One of them changes the data.
    """
    for name in users_of(methods, {"prepare_data"}):
        raise ConfigError(
            f"method {name!r} changes the data, which this trainer has encoded already: change it before you make the "
            "trainer (forgetless.replay_mixture mixes, forgetless.generate_replay writes general examples, "
            "`forgetless train` leaves what methods make of data in mixture.jsonl)"
        )


def refuse_wrapped_model(trainer: Trainer, methods: Sequence[Method]) -> None:
    """Refuses a trainer whose model methods can't prepare any more.

    Args:
        trainer: The trainer, before anything is changed.
        methods: The methods to attach.

    Raises:
        ConfigError: The model is wrapped for many processes or compiled already, or will be made anew.
    """
    model: Any = trainer.model
    if trainer.accelerator.unwrap_model(model, keep_torch_compile=False) is not model:
        raise ConfigError(
            f"the trainer's model is wrapped already ({type(model).__name__}): give the trainer the model itself, "
            "which it wraps when training starts"
        )
    adapter = next((method.name for method in methods if "the adapter" in method.claims), None)
    if adapter is not None and trainer.optimizer is not None:
        raise ConfigError(
            f"the trainer's optimizer knows nothing of the adapter that method {adapter!r} brings: "
            "pass optimizer_cls_and_kwargs= instead of optimizers=, so that it is made when training starts"
        )
    names = users_of(methods, {"prepare_model"})
    if names and any(parameter.is_meta for parameter in model.parameters()):
        raise ConfigError(
            f"this process holds no weights yet for method {names[0]!r} to prepare: set fsdp_cpu_ram_efficient_loading "
            "to false (FSDP_CPU_RAM_EFFICIENT_LOADING), so that every process loads them"
        )
    if names and trainer.model_wrapped is not model:
        raise ConfigError(f"this trainer has trained already: protect it before train(), for method {names[0]!r}")
    if names and trainer.model_init is not None:
        raise ConfigError(
            f"model_init makes a new model when training starts, without what method {names[0]!r} prepared: "
            "give the trainer a model instead"
        )


def refuse_stale_optimizer(trainer: Trainer, model: nn.Module, *, before: Iterable[nn.Parameter] = ()) -> None:
    """Refuses an optimizer made before the methods changed what is trained.

    Args:
        trainer: The trainer.
        model: The model as the methods prepared it.
        before: What was trainable before: an optimizer that leaves some of it out does so as its maker wants.

    Raises:
        ConfigError: The trainer carries an optimizer that lacks parameters that are to be trained.
    """
    if trainer.optimizer is None:
        return
    held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    held |= {id(parameter) for parameter in before}
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    if missing:
        raise ConfigError(
            f"the trainer's optimizer lacks {len(missing)} parameters that the methods train ({missing[0]}, ...): "
            "pass optimizer_cls_and_kwargs= instead of optimizers=, so that it is made when training starts"
        )


def refuse_engine(trainer: Trainer, methods: Sequence[Method]) -> None:
    """Refuses methods whose hooks the trainer's engine keeps from acting.

    Args:
        trainer: The trainer.
        methods: The methods to attach.

    Raises:
        ConfigError: Gradients and weights are out of reach, or the loss isn't one of tokens that could be weighed.
    """
    names = users_of(methods, _OWN_WEIGHTS)
    if names and trainer.is_deepspeed_enabled:
        raise ConfigError(
            f"DeepSpeed keeps gradients and weights to itself, which method {names[0]!r} changes: use FSDP 2 or DDP"
        )
    optimizer = str(getattr(trainer.args.optim, "value", trainer.args.optim))
    if names and (optimizer.endswith("_layerwise") or "lomo" in optimizer):
        raise ConfigError(
            f"optim={optimizer!r} steps within the backward pass and leaves no gradients and no step to method "
            f"{names[0]!r}: take an optimizer that steps after it"
        )
    plugin: Any = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if names and trainer.is_fsdp_enabled and getattr(plugin, "fsdp_version", 1) == 1:
        raise ConfigError(
            f"FSDP 1 flattens the weights that method {names[0]!r} must tell apart: set fsdp_version to 2"
        )
    whole = next((method.name for method in methods if method.needs_whole_weights), None)
    if whole is not None and trainer.is_fsdp_enabled:
        raise ConfigError(f"method {whole!r} needs whole weights, which FSDP spreads over processes: use DDP")
    for name in users_of(methods, {"token_weights"}):
        if reason := _unweighable(trainer):
            raise ConfigError(f"method {name!r} weighs the losses of tokens, which {reason}")


def _unweighable(trainer: Trainer) -> str | None:
    """Says why the token losses of a trainer can't be weighed, and the way out; None where they can."""
    loss_type = getattr(trainer.args, "loss_type", None) or "nll"
    parallelism: Any = getattr(trainer.accelerator, "parallelism_config", None)
    config: Any = getattr(trainer.model, "config", None)
    if trainer.compute_loss_func is not None:
        return "compute_loss_func replaces: leave it out, or weigh the tokens in it"
    if trainer.label_smoother is not None:
        return "label smoothing replaces: set label_smoothing_factor to 0"
    if not isinstance(loss_type, str):
        return "a loss of preferences doesn't have: drop the method"
    if loss_type not in {"nll", "chunked_nll"}:
        return f"loss_type={loss_type!r} weighs by a rule of its own: set loss_type='nll'"
    if getattr(config, "is_encoder_decoder", False):
        return "an encoder-decoder model aligns in another way: use a causal language model"
    if parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled):
        return "context or sequence parallelism spreads over processes: switch it off"
    return None

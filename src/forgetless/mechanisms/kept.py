"""The data that stands for what must be kept: the user's general examples, or what the base writes itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from forgetless.errors import ConfigError

if TYPE_CHECKING:
    from forgetless.data.examples import Example
    from forgetless.methods.base import Context

KeptData = Literal["auto", "general", "self"]
KeptOrEarlier = Literal["auto", "general", "self", "earlier"]


def check_kept(context: Context, source: KeptOrEarlier, method: str) -> None:
    """Refuses a method whose data to keep the job lacks, before anything is loaded.

    Args:
        context: The job.
        source: Where the method takes the data from; "auto" takes general examples where there are some.
        method: Its name, for the message.

    Raises:
        ConfigError: The job has no general examples, and nothing that could write some; or it is no phase of a sequence
            and has no earlier ones.
    """
    if source == "earlier":
        if context.earlier is None:
            raise ConfigError(
                f"method {method!r} is to take examples of earlier phases (earlier), and this run has none: "
                "name phases in the config, or take general or self"
            )
        return
    if source == "general" and not context.general:
        raise ConfigError(f"method {method!r} needs general examples: set data.general (--general FILE)")
    if not context.general and not context.can_write:
        raise ConfigError(
            f"method {method!r} needs data that stands for what is to be kept: pass general examples "
            "(general=..., forgetless.generate_replay writes some)"
        )


def kept_examples(context: Context, source: KeptOrEarlier, num: int) -> list[Example]:
    """Returns examples of what must be kept.

    Args:
        context: The job.
        source: "general" = the user's, "self" = written by the base, "auto" = the user's where there are some;
            "earlier" = those of all earlier phases, drawn in equal parts.
        num: How many at most; a seeded draw where there are more.

    Returns:
        The examples, fewer than `num` where there are no more; none where "earlier" is asked for in a first phase.

    Raises:
        ConfigError: There are none of that kind.
        RunError: Too little of what the base writes can be used.
    """
    import numpy as np

    from forgetless.data.reservoir import fill_reservoir

    if source == "earlier":
        phases = {} if context.earlier is None else context.earlier.phases
        return fill_reservoir(phases, size=num, seed=context.seed, is_balanced=True)
    if source == "self" or (source == "auto" and not context.general):
        return _written_examples(context, num)
    if not context.general:
        raise ConfigError("there are no general examples: set data.general (--general FILE)")
    order = np.random.default_rng(context.seed).permutation(len(context.general))
    return [context.general[index] for index in order[:num]]


def is_first_of_earlier(context: Context, source: KeptOrEarlier) -> bool:
    """Whether only earlier phases are to be kept, and this is the first: nothing is there to keep."""
    return source == "earlier" and (context.earlier is None or not context.earlier.phases)


def with_earlier(examples: list[Example], context: Context, num: int) -> list[Example]:
    """Returns examples to keep and, in a sequence, as many of each earlier phase, at most `num`."""
    from forgetless.data.reservoir import fill_reservoir

    if context.earlier is None or not context.earlier.phases:
        return examples
    size = num * len(context.earlier.phases)
    return [*examples, *fill_reservoir(context.earlier.phases, size=size, seed=context.seed, is_balanced=True)]


def _written_examples(context: Context, num: int) -> list[Example]:
    from forgetless.mechanisms.self_replay import Yield, write_replay

    if context.writer is None:
        raise ConfigError("no model is at hand that could write its own examples: pass general examples")
    summary = Yield()
    examples = write_replay(context.writer, num, seed=context.seed, evaluation_texts=context.held_out, summary=summary)
    context.notes.append(f"self-generated examples: {summary}")
    return examples

"""Rules about the size of the update: how fast, how long, and towards what."""

from __future__ import annotations

import math
from collections.abc import Iterator

from forgetless.advising.evidence import Case
from forgetless.advising.findings import Edit, Risk, Severity, Unchecked, change
from forgetless.advising.recipe import Recipe, Setting

# Of the base's own weights, and of an adapter at a scale of 2: where medium and high begin, and a gentle rate.
WEIGHT_RATES = (2e-5, 5e-5, 1e-5)
ADAPTER_RATES = (3e-4, 1e-3, 1e-4)
SMALL_BATCH, LARGE_BATCH = 8, 64
ADAM_LIKE = ("adam", "galore", "apollo", "badam")
FEW_EXAMPLES, SOME_EXAMPLES = 1_000, 10_000
SAFE_PASSES, MANY_PASSES = 3, 5
WARMUP_SHARE = 0.05


def batch_factor(recipe: Recipe) -> float:
    """Returns what the batch multiplies a bound on the rate by: noise in Adam's step falls with the batch's root."""
    if recipe.batch_size is None:
        return 1.0
    batch = max(1, recipe.batch_size.value)
    if batch < SMALL_BATCH:
        return math.sqrt(batch / SMALL_BATCH)
    return min(4.0, math.sqrt(max(1.0, batch / LARGE_BATCH)))


def is_adam(recipe: Recipe) -> bool:
    """Whether the optimizer's rates are Adam's; other families have scales of their own."""
    return recipe.optimizer is None or any(name in recipe.optimizer.value.lower() for name in ADAM_LIKE)


def round_down(value: float) -> float:
    """Returns a positive number with its first two digits."""
    digits = 1 - math.floor(math.log10(value))
    return math.floor(value * 10.0**digits + 1e-9) / 10.0**digits if digits > 0 else math.floor(value)


def learning_rate(case: Case) -> Iterator[Risk | Unchecked]:
    """Compares the peak rate with what is gentle for the kind of tuning and the batch."""
    recipe = case.recipe
    rate = recipe.learning_rate
    if rate is None:
        return
    if not is_adam(recipe):
        assert recipe.optimizer is not None
        yield Unchecked(f"the learning rate: bounds are known for Adam's kind, not for {recipe.optimizer.value}")
        return
    if recipe.tuning is None:
        if rate.value > WEIGHT_RATES[0] * batch_factor(recipe):
            yield Unchecked(
                f"the learning rate {rate.value:g}: the file doesn't say whether all weights or an adapter is trained"
            )
        return
    tuning = recipe.tuning.value
    if not (tuning.moves_weights or tuning.is_low_rank):
        return
    medium, high, gentle = (
        bound * batch_factor(recipe) for bound in (WEIGHT_RATES if tuning.moves_weights else ADAPTER_RATES)
    )
    if rate.value <= medium * (1 + 1e-9):
        return
    severity = Severity.HIGH if rate.value > high * (1 + 1e-9) else Severity.MEDIUM
    what = "the base's own weights" if tuning.moves_weights else "an adapter"
    batch = "" if recipe.batch_size is None else f" at {_counted(recipe.batch_size.value, 'sequence')} a step"
    yield Risk(
        severity,
        f"{rate.value:g} is {rate.value / medium:.1f} times {medium:.1g}, up to which rates for {what}{batch} are "
        "gentle; the size of the update is the first cause of forgetting.",
        f"Start at {round_down(gentle):g}, and raise it only while the target still gains and the suite keeps.",
        (rate.key,),
        (change(rate, round_down(gentle)),),
    )


def _counted(num: int, what: str) -> str:
    return f"{num:,} {what}{'' if num == 1 else 's'}"


def epochs(case: Case) -> Iterator[Risk | Unchecked]:
    """Counts how often few examples are seen."""
    recipe, evidence = case.recipe, case.evidence
    num = case.num_examples
    passes = recipe.num_passes(num)
    if passes is None:
        return
    if num is None:
        if passes >= 8 and (evidence.data is None or not evidence.data.is_more):
            yield _too_many_passes(recipe, passes, None, Severity.MEDIUM)
        return
    if num < FEW_EXAMPLES and passes > SAFE_PASSES:
        severity = Severity.HIGH if passes > MANY_PASSES else Severity.MEDIUM
        yield _too_many_passes(recipe, passes, num, severity)
    elif num < SOME_EXAMPLES and passes > MANY_PASSES:
        yield _too_many_passes(recipe, passes, num, Severity.MEDIUM)


def _too_many_passes(recipe: Recipe, passes: float, num: int | None, severity: Severity) -> Risk:
    setting: Setting[int] | Setting[float] | None = recipe.max_steps or recipe.epochs
    assert setting is not None
    new: float = SAFE_PASSES
    if recipe.max_steps is not None and recipe.batch_size is not None and num is not None:
        new = max(1, math.floor(SAFE_PASSES * num / recipe.batch_size.value))
    steps = recipe.num_steps(num)
    counted = "" if steps is None or recipe.max_steps is not None else f", {steps:,.0f} steps"
    of = "examples of which nobody knows how many there are" if num is None else f"{num:,} examples"
    return Risk(
        severity,
        f"{passes:g} passes over {of}{counted}: after the first few they are learned by heart, and every further step "
        "moves the model away from the base for nothing.",
        f"Stop after {SAFE_PASSES} passes at most, or earlier by a held-out loss.",
        (setting.key,),
        (change(setting, new),),
    )


def warmup(case: Case) -> Iterator[Risk | Unchecked]:
    """Asks for a few steps in which Adam's second moment settles before the full rate."""
    recipe = case.recipe
    if recipe.learning_rate is None or not is_adam(recipe):
        return
    setting = recipe.warmup
    place = ("warmup_steps",)
    if setting is not None and setting.value > 0:
        return
    is_adapter = recipe.tuning is not None and not recipe.tuning.value.moves_weights
    if setting is None and recipe.dialect == "axolotl":
        return  # it warms up by default
    steps = recipe.num_steps(case.num_examples)
    new: float = 10 if steps is None else max(1, round(WARMUP_SHARE * steps))
    edit = Edit(place, None, new)
    if setting is not None:
        is_share = setting.place[-1] == "warmup_ratio"
        edit = change(setting, WARMUP_SHARE if is_share else new)
    yield Risk(
        Severity.LOW if is_adapter else Severity.MEDIUM,
        "The first steps are taken at the full rate while Adam's second moment rests on a handful of gradients: "
        "its steps are then as large as they can be, in directions of few examples.",
        f"Let the rate rise over about {WARMUP_SHARE:.0%} of the steps.",
        (edit.key,),
        (edit,),
    )


def weight_decay(case: Case) -> Iterator[Risk | Unchecked]:
    """Says how much shorter the decay makes the weights; of an adapter it pulls to the base, which is no risk."""
    recipe = case.recipe
    decay, rate = recipe.weight_decay, recipe.learning_rate
    if decay is None or decay.value <= 0 or rate is None or recipe.tuning is None:
        return
    if not recipe.tuning.value.moves_weights:
        return
    steps = recipe.num_steps(case.num_examples)
    mean_rate = rate.value * (1.0 if recipe.scheduler is not None and "constant" in recipe.scheduler.value else 0.5)
    share = None if steps is None else 1.0 - math.exp(-mean_rate * decay.value * steps)
    severity = Severity.LOW
    if decay.value >= 0.1 or (share is not None and share >= 1e-3):
        severity = Severity.MEDIUM
    if share is not None and share >= 0.01:
        severity = Severity.HIGH
    figure = "" if share is None else f" ({share:.2%} of their length over {steps:,.0f} steps)"
    yield Risk(
        severity,
        f"A decay of {decay.value:g} shrinks every trained weight of the base towards zero{figure}, whether the data "
        "says anything about it or not.",
        "Switch it off; to hold weights, hold them to the base (method l2_sp).",
        (decay.key,),
        (change(decay, 0.0),),
    )


def clipping(case: Case) -> Iterator[Risk | Unchecked]:
    """Warns where one odd batch can take a step of any size."""
    recipe = case.recipe
    norm = recipe.max_grad_norm
    if norm is None or norm.value > 0:
        return
    yield Risk(
        Severity.MEDIUM,
        "Gradients are not clipped: one batch of odd examples fills Adam's moments for dozens of steps, and the update "
        "that follows is as large as the learning rate allows.",
        "Clip to a norm of 1.",
        (norm.key,),
        (change(norm, 1.0),),
    )


def half_precision(case: Case) -> Iterator[Risk | Unchecked]:
    """Warns of float16, in which activations of models trained in bfloat16 overflow."""
    recipe = case.recipe
    precision = recipe.precision
    if precision is None or precision.value.removeprefix("torch.") != "float16":
        return
    is_adapter = recipe.tuning is None or not recipe.tuning.value.moves_weights
    edits: tuple[Edit, ...] = ()
    if recipe.dialect == "forgetless" or precision.place[-1] in {"dtype", "torch_dtype"}:
        edits = (change(precision, "bfloat16"),)
    elif precision.place[-1] == "fp16":
        edits = (change(precision, False), Edit((*precision.place[:-1], "bf16"), None, True))
    yield Risk(
        Severity.LOW if is_adapter else Severity.MEDIUM,
        "float16 ends at 65,504: models that were pretrained in bfloat16 overflow it, steps are skipped or turn into "
        "NaN, and what is saved may differ from what was trained.",
        "Train in bfloat16 where the device has it, else in float32.",
        (precision.key,),
        edits,
    )

"""What to do after a verdict, tied to what was seen and, where the recipe is known, to the setting that stands out.

The order of the remedies follows `docs/methods`: size of the update first (learning rate, epochs), then adapters,
replay and a penalty towards the base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forgetless.check_records import CheckResult
from forgetless.compare.explanation import name_some, points
from forgetless.records import Role, Row, Status, Unit, Verdict

GENTLE_RATES = {True: 1e-4, False: 1e-5}
"""Learning rates to start from, with an adapter and without; starting points, not guarantees."""

MANY_EPOCHS = 3.0

ADAPTERS = frozenset({"lora", "qlora", "dora", "rslora", "osf", "corda", "null_space"})
"""Methods that train an adapter instead of all weights."""


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What is known of the training; None = unknown."""

    methods: frozenset[str] | None
    learning_rate: float | None
    epochs: float | None
    num_examples: int | None
    has_general: bool

    @property
    def has_adapter(self) -> bool | None:
        """Whether an adapter was trained."""
        return None if self.methods is None else bool(self.methods & ADAPTERS)


def give_advice(
    verdict: Verdict,
    rows: Sequence[Row],
    pooled: Row,
    *,
    checks: Sequence[CheckResult],
    recipe: Mapping[str, object] | None = None,
) -> list[str]:
    """Suggests what to do next.

    Args:
        verdict: What the comparison ended in.
        rows: Those of the tasks, retention and target.
        pooled: The row of the pool.
        checks: Deployment checks that both models took.
        recipe: What is known of the training, as `compare` takes it; None = nothing.

    Returns:
        One paragraph per step, most useful first; never empty.
    """
    known = _read_recipe(recipe or {})
    retention = [row for row in rows if row.role is Role.RETENTION]
    advice = []
    if verdict is Verdict.FAIL:
        advice += _after_loss([*retention, pooled], checks=checks, recipe=known)
    elif verdict is Verdict.INCONCLUSIVE:
        advice += _after_doubt(retention, pooled)
    targets = [row for row in rows if row.role is Role.TARGET and row.status is not Status.MISSING]
    if targets and all(row.status is Status.NOT_LEARNED for row in targets):
        advice.append(_after_no_learning(targets, recipe=known, has_failed=verdict is Verdict.FAIL))
    if not advice:
        advice.append(
            "Keep both score files: they are the evidence, and the base's scores serve the next tuned model. Judge the "
            "artefact that ships (merged, quantised) by the same samples."
        )
    return advice


def _after_loss(rows: Sequence[Row], *, checks: Sequence[CheckResult], recipe: _Recipe) -> list[str]:
    fallen = sorted((row for row in rows if row.status is Status.FORGOT), key=_severity, reverse=True)
    advice = []
    if fallen:
        worst = fallen[0]
        what = "general skills" if worst.task == "pooled" else worst.task
        advice.append(f"To win back {what} ({_amount(worst)}), {_gentler(recipe)}")
        if not recipe.methods or "replay" not in recipe.methods:
            data = "" if recipe.has_general else ", and name general examples with data.general (--general FILE)"
            advice.append(f"Add `replay: {{share: 0.1}}` to the methods{data}.")
        else:
            names = name_some([row.task for row in fallen if row.task != "pooled"]) or "the tasks that fell"
            advice.append(f"Raise the share of `replay`, with examples that resemble {names}.")
    lost = [check.name for check in checks if check.is_lost]
    if lost:
        advice.append(
            f"Look at the answers behind {name_some(lost)} first: a chat template or an end-of-turn token that "
            "training left out looks like forgetting, and costs nothing to mend."
        )
    return advice


def _gentler(recipe: _Recipe) -> str:
    """Returns the setting that most likely caused the loss, as the end of a sentence."""
    remedies = []
    gentle = GENTLE_RATES[bool(recipe.has_adapter)]
    rate = recipe.learning_rate
    if rate is not None and rate > gentle:
        remedies.append(f"lower learning_rate from {rate:g} to {max(gentle, rate / 4.0):g}")
    elif rate is not None:
        remedies.append(f"halve learning_rate to {rate / 2.0:g}")
    if recipe.epochs is not None and recipe.epochs > MANY_EPOCHS:
        examples = f" over {recipe.num_examples} examples" if recipe.num_examples else ""
        remedies.append(f"train fewer epochs than {recipe.epochs:g}{examples} (2 or 3)")
    if recipe.has_adapter is False:
        remedies.append("train with `lora` instead of all weights")
    if not remedies:
        remedies = ["lower learning_rate two to four times", "train fewer epochs", "train with `lora` if you didn't"]
    return f"{'; '.join(remedies)}; then compare again."


def _after_doubt(rows: Sequence[Row], pooled: Row) -> list[str]:
    advice = []
    missing = [row.task for row in rows if row.status is Status.MISSING]
    if missing:
        advice.append(f"Score both models on {name_some(missing)}: run `forgetless evaluate` for each, with one suite.")
    elif any("could not be paired" in row.note for row in rows):
        advice.append("Score both models on exactly the same samples: the unpaired ones are listed under problems.")
    if pooled.status in (Status.FLOOR, Status.CEILING):
        advice.append("Choose tasks that the base solves often but not always: `forgetless tasks` lists what there is.")
    elif pooled.status is Status.MISSING and not missing:
        advice.append("Add graded retention tasks, such as the suite `core`: cross-entropy alone can't pass.")
    elif pooled.status is Status.UNDECIDED:
        advice.append(_more_samples(pooled))
    return advice


def _more_samples(pooled: Row) -> str:
    needed, margin = pooled.num_samples_needed, points(pooled.margin or 0.0)
    if needed is None:
        return "Score samples from more than one cluster: a single one tells nothing about its spread."
    if needed > pooled.num_samples:
        return (
            f"Score about {needed} retention samples instead of {pooled.num_samples}: if nothing was forgotten they "
            f"show it within {margin} four times in five. Or accept a wider margin, if you can afford to lose more."
        )
    return (
        f"{pooled.num_samples} samples would mostly have been enough if nothing was forgotten ({needed} are), so take "
        f"the drop of {points(pooled.delta or 0.0)} seriously: score more samples to be sure, or train more gently."
    )


def _after_no_learning(targets: Sequence[Row], *, recipe: _Recipe, has_failed: bool) -> str:
    names = name_some([row.task for row in targets])
    if has_failed:
        return (
            f"Nothing was learned on {names} either: check the data and the chat template before any setting, for "
            "training that only does harm is often training on the wrong tokens."
        )
    rate = f" above {recipe.learning_rate:g}" if recipe.learning_rate is not None else ""
    epochs = f" above {recipe.epochs:g}" if recipe.epochs is not None else ""
    examples = f" than {recipe.num_examples}" if recipe.num_examples is not None else ""
    return (
        f"To learn {names}, raise learning_rate{rate} or epochs{epochs}, or add more examples{examples}; if it did "
        "learn a little, more target samples would show it."
    )


def _severity(row: Row) -> float:
    """Returns the loss in margins, so that grades and cross-entropies compare."""
    return abs(row.delta or 0.0) / (row.margin or 1.0)


def _amount(row: Row) -> str:
    size = abs(row.delta or 0.0)
    return f"down {points(size)}" if row.unit is Unit.GRADE else f"up {size:.3f} nats per token"


def _read_recipe(raw: Mapping[str, object]) -> _Recipe:
    methods, rate, epochs, examples = (raw.get(key) for key in ("methods", "learning_rate", "epochs", "num_examples"))
    return _Recipe(
        methods=frozenset(str(name) for name in methods)
        if isinstance(methods, list | tuple | set | frozenset)
        else None,
        learning_rate=float(rate) if isinstance(rate, int | float) else None,
        epochs=float(epochs) if isinstance(epochs, int | float) else None,
        num_examples=examples if isinstance(examples, int) else None,
        has_general=bool(raw.get("has_general", False)),
    )

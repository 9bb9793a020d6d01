"""Gathers the evidence of what kind of loss a fall is: asks the models again about the samples that were lost."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forgetless.data.encoding import render_prompt, tokenize
from forgetless.data.examples import Message
from forgetless.errors import ForgetlessError
from forgetless.evaluate import probes
from forgetless.evaluate.probes import LostTask
from forgetless.evaluate.requests import ScoringModel, TextModel
from forgetless.evaluate.runner import EvaluationOptions, Progress, ask, open_model
from forgetless.records import Cause, Probe, SampleScore
from forgetless.tasks.base import Task

if TYPE_CHECKING:
    from forgetless.models import LoadedModel

Evidence = dict[Probe, list[SampleScore]]
Load = Callable[[str], "LoadedModel"]

_MADE: Mapping[Probe, Callable[[LostTask], Task | None]] = {
    Probe.BASE_TOKENIZER: probes.again,
    Probe.LONGER: probes.longer,
    Probe.FEW_SHOT: probes.few_shot,
    Probe.PLAIN_PROMPT: probes.plain_prompt,
    Probe.LIKELIHOOD: probes.likelihood,
    Probe.BASE_LIKELIHOOD: probes.likelihood,
}


def gather_evidence(
    lost: Sequence[LostTask],
    *,
    models: tuple[str, str],
    load: Load,
    options: EvaluationOptions | None = None,
    progress: Progress | None = None,
) -> tuple[Evidence, dict[Cause, str]]:
    """Asks both models about lost samples; one of them is in memory at a time.

    Args:
        lost: The tasks that fell, with the samples to look into.
        models: Names of the base and the tuned model.
        load: Loads a model by name.
        options: How to ask.
        progress: Called with (probes done, probes in all).

    Returns:
        One score per probe and sample, and how the two models are asked differently, in words.

    Raises:
        ModelError: A model can't be loaded.
    """
    from forgetless.models import LoadedModel, load_tokenizer, resolve_model

    base_name, tuned_name = models
    loaded = load(tuned_name)
    base_tokenizer, tokenizer, ends = load_tokenizer(resolve_model(base_name)), loaded.tokenizer, end_tokens(loaded)
    foreign = LoadedModel(loaded.model, base_tokenizer, base_name, loaded.path)
    differences = compare_tokenizers(base_tokenizer, tokenizer, base_ends=end_tokens(foreign), tuned_ends=ends)
    under_base = open_model(foreign, options=options) if differences else None
    model = open_model(loaded, options=options)
    evidence = question_tuned(model, lost, under_base=under_base, options=options, progress=progress)
    switched_off = _question_without_adapter(foreign, lost, options=options)
    if switched_off is not None:
        return evidence | switched_off, differences
    del model, loaded, under_base, foreign  # before the base takes their place in memory
    gc.collect()
    base = load(base_name)
    evidence |= question_base(open_model(base, options=options), lost, options=options)
    return evidence, compare_tokenizers(base_tokenizer, tokenizer, base_ends=end_tokens(base), tuned_ends=ends)


def _question_without_adapter(
    loaded: LoadedModel, lost: Sequence[LostTask], *, options: EvaluationOptions | None
) -> Evidence | None:
    """Asks the base that is left when the adapter is off; None where there is none or it isn't the base.

    Some adapters move a part of the base's weights into themselves, so the base's own answers have to come back.
    """
    if not hasattr(loaded.model, "disable_adapter"):
        return None
    with loaded.model.disable_adapter():  # type: ignore[operator]
        model = open_model(loaded, options=options)
        return question_base(model, lost, options=options) if answers_alike(model, lost) else None


def end_tokens(loaded: LoadedModel) -> list[str]:
    """Returns the tokens that end a model's turn, as its tokenizer writes them."""
    from forgetless.models import end_of_turn_ids

    return [
        str(loaded.tokenizer.convert_ids_to_tokens(token)) for token in end_of_turn_ids(loaded.model, loaded.tokenizer)
    ]


def question_tuned(
    model: TextModel,
    lost: Sequence[LostTask],
    *,
    under_base: TextModel | None = None,
    options: EvaluationOptions | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """Asks the tuned model again about lost samples in every way that it can be asked.

    Args:
        model: The tuned model.
        lost: The tasks that fell, with the samples to look into.
        under_base: The same weights under the base's tokenizer; None where that is the model's own.
        options: How to ask.
        progress: Called with (probes done, probes in all).

    Returns:
        One score per probe and sample; a probe that can't be put to this model or these samples is left out.
    """
    asked = {Probe.LONGER: model, Probe.FEW_SHOT: model, Probe.PLAIN_PROMPT: model}
    if isinstance(model, ScoringModel):
        asked[Probe.LIKELIHOOD] = model
    if under_base is not None:
        asked[Probe.BASE_TOKENIZER] = under_base
    evidence: Evidence = {}
    for number, (probe, answering) in enumerate(asked.items()):
        evidence |= _put(probe, answering, lost, options=options)
        if progress is not None:
            progress(float(number + 1), float(len(asked)))
    regraded = [score for task in lost for score in probes.format_blind(task)]
    return evidence | ({Probe.FORMAT_BLIND: regraded} if regraded else {})


def question_base(model: TextModel, lost: Sequence[LostTask], *, options: EvaluationOptions | None = None) -> Evidence:
    """Asks the base how likely its own right answers to the lost samples are; takes what `question_tuned` takes."""
    return _put(Probe.BASE_LIKELIHOOD, model, lost, options=options) if isinstance(model, ScoringModel) else {}


def _put(probe: Probe, model: TextModel, lost: Sequence[LostTask], *, options: EvaluationOptions | None) -> Evidence:
    """Puts one probe to a model, task by task: where one can't be asked (too long, say) the others still are."""
    scores: list[SampleScore] = []
    for entry in lost:
        task = _MADE[probe](entry)
        if task is None or not task.samples:
            continue
        try:
            scores += ask(model, [task], options=options)
        except ForgetlessError:
            continue  # evidence that can't be had is missing, and an evaluation that is done stays done
    return {probe: scores} if scores else {}


def answers_alike(model: TextModel, lost: Sequence[LostTask], *, num_asked: int = 8) -> bool:
    """Whether a model gives the base's answers, letter for letter, to a few of the lost samples.

    Args:
        model: A model that should be the base: the tuned one with its adapter off.
        lost: The tasks that fell.
        num_asked: Most samples that are asked.

    Returns:
        False also where none of the tasks is answered freely.
    """
    given: list[tuple[str, str]] = []
    for entry in lost:
        samples = [sample for sample in entry.samples if str(sample["id"]) in entry.answers][: num_asked - len(given)]
        if entry.task.spec.kind == "generate" and samples:
            scores = ask(model, [Task(entry.task.spec, tuple(samples))])
            given += [(score.answer, entry.answers[score.sample_id]) for score in scores]
    return bool(given) and all(answer == wanted for answer, wanted in given)


_SHOWN = (Message("user", "Hello"),), (Message("system", "Be brief."), Message("user", "Hello"))


def compare_tokenizers(
    base: Any, tuned: Any, *, base_ends: Sequence[str] = (), tuned_ends: Sequence[str] = ()
) -> dict[Cause, str]:
    """Names how two models are asked differently.

    Args:
        base: The base's tokenizer.
        tuned: The tuned model's tokenizer.
        base_ends: Tokens that end the base's turn.
        tuned_ends: Tokens that end the tuned model's turn.

    Returns:
        What differs, in words, under TEMPLATE (prompts come out differently) and END_OF_TURN; nothing where nothing
        does.
    """
    differences = {}
    for turns in _SHOWN:
        before, after = _prompt(turns, base), _prompt(turns, tuned)
        if before and after and before != after and Cause.TEMPLATE not in differences:
            differences[Cause.TEMPLATE] = _template_words(base, tuned, before=before[0], after=after[0])
    if base_ends and set(base_ends) != set(tuned_ends):
        differences[Cause.END_OF_TURN] = (
            f"the base ends its turn with {_listed(base_ends)}, the tuned model is set to end with "
            f"{_listed(tuned_ends)}"
        )
    return differences


def _template_words(base: Any, tuned: Any, *, before: str, after: str) -> str:
    if tuned.chat_template is None:
        return "the tuned model's tokenizer has no chat template, the base's has one"
    if base.chat_template is None:
        return "the tuned model's tokenizer has a chat template, the base's has none"
    if before == after:
        return "both chat templates give the same text, which the two tokenizers split differently"
    shown = [repr(_shortened(text)) for text in (before, after)]
    return f"the base's chat template writes {shown[0]} before an answer, the tuned model's {shown[1]}"


def _shortened(text: str) -> str:
    """Returns the two ends of a long text: some templates write a page."""
    return text if len(text) <= 200 else f"{text[:80]} ... {text[-80:]}"


def _prompt(turns: Sequence[Message], tokenizer: Any) -> tuple[str, list[int]] | None:
    """Returns a prompt as text and ids; None where the template refuses it, as some refuse a system turn."""
    try:
        text = render_prompt(turns, tokenizer)
    except ForgetlessError:
        return None
    return text, tokenize(text, tokenizer, is_start=tokenizer.chat_template is None)


def _listed(tokens: Sequence[str]) -> str:
    return " or ".join(sorted(tokens)) or "nothing"

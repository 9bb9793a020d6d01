"""From samples to requests, and from what comes back to grades."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from forgetless.data.encoding import IGNORED, encode_example, render_prompt, tokenize
from forgetless.data.examples import Example, Message
from forgetless.errors import ConfigError, RunError
from forgetless.evaluate.requests import Generation, GenerationRequest, Likelihood, LikelihoodRequest, ScoringModel
from forgetless.records import SampleScore, Unit
from forgetless.tasks.base import Task
from forgetless.tasks.scorers import score_answer

# Most tokens of a text or an answer whose cross-entropy is measured; memory grows with their square.
LONGEST_SCORED = 2048

Sample = Mapping[str, Any]
Pair = tuple[Task, Sample]


def conversation(task: Task, sample: Sample) -> tuple[Message, ...]:
    """Returns the turns that come before the answer: those of the sample, or the prompt as one user turn."""
    if "messages" in sample:
        turns = [Message(turn["role"], turn["content"]) for turn in sample["messages"]]
        if turns[-1].role == "assistant":
            turns.pop()
    else:
        turns = [Message("user", task.prompt(sample))]
    if task.spec.system is not None and turns[0].role != "system":
        turns.insert(0, Message("system", task.spec.system))
    return tuple(turns)


def generation_request(pair: Pair) -> GenerationRequest:
    """Returns the request for a free answer."""
    task, sample = pair
    prompt = conversation(task, sample) if task.spec.template == "chat" else task.prompt(sample)
    return GenerationRequest(prompt, task.spec.max_tokens, _label(pair))


def _label(pair: Pair) -> str:
    task, sample = pair
    return f"task {task.name!r}, sample {sample['id']!r}"


def _too_long(pair: Pair, longest: int) -> ConfigError:
    return ConfigError(
        f"{_label(pair)}: is longer than the {longest} tokens that the model can take: shorten it or leave it out"
    )


def likelihood_request(pair: Pair, model: ScoringModel) -> LikelihoodRequest:
    """Returns the request for the likelihoods of a sample's choices, or of its text or reference answer.

    Args:
        pair: A task of kind choice or perplexity, and one of its samples.
        model: The model that is to be asked: its tokenizer and its length count.

    Returns:
        The request, in token ids.

    Raises:
        ConfigError: The model can't read the sample to its end.
    """
    task, sample = pair
    tokenizer, longest = model.tokenizer, model.longest
    if task.spec.kind == "choice":
        is_plain = task.spec.template == "plain"
        text = task.prompt(sample) if is_plain else render_prompt(conversation(task, sample), tokenizer)
        context = tokenize(text, tokenizer, is_start=is_plain or tokenizer.chat_template is None)
        # Under a chat template the answer starts a turn; after a plain prompt it follows a space.
        space = " " if is_plain else ""
        choices = [tokenize(f"{space}{choice}", tokenizer) for choice in sample["choices"]]
        if len(context) + max(map(len, choices)) > longest:
            raise _too_long(pair, longest)
        return LikelihoodRequest(context, choices)
    encoded = encode_example(_reference(task, sample), tokenizer)
    ids, labels = encoded.input_ids, encoded.labels
    first = next((place for place in range(1, len(ids)) if labels[place] != IGNORED), None)
    if first is None:
        raise ConfigError(f"{_label(pair)}: nothing of it can be scored")
    if first >= longest:
        raise _too_long(pair, longest)
    scored = slice(first, min(first + LONGEST_SCORED, longest))
    return LikelihoodRequest(ids[:first], [ids[scored]], [[label != IGNORED for label in labels[scored]]])


def _reference(task: Task, sample: Sample) -> Example:
    """Returns the text, or the conversation with its reference answer, whose cross-entropy is measured."""
    if "text" in sample:
        return Example(text=sample["text"])
    turns = (*conversation(task, sample), Message("assistant", str(sample["answer"])))
    return Example(messages=turns, supervised_from=int(sample.get("supervised_from", 0)))


def grade_answer(pair: Pair, answer: Generation, *, origin: str = "local") -> SampleScore:
    """Grades a free answer by the scorers of its task."""
    task, sample = pair
    score = score_answer(answer, sample, task.spec.scorer, task.spec.options)
    return SampleScore(
        **_common(task, sample, origin),
        score=score,
        answer=answer.text,
        gold=_gold(sample),
        details={"prompt": _shown(task, sample), "num_tokens": answer.num_tokens, "is_ended": answer.is_ended},
    )


def grade_likelihood(pair: Pair, results: Sequence[Likelihood], *, origin: str = "local") -> SampleScore:
    """Grades the likelihoods of a sample.

    Args:
        pair: A task of kind choice or perplexity, and one of its samples.
        results: One likelihood per choice, or that of the text.
        origin: Where the score comes from.

    Returns:
        1 where the right choice is the most likely one, else 0; or the cross-entropy in nats per token.

    Raises:
        RunError: The likelihoods are no numbers.
    """
    task, sample = pair
    if not all(math.isfinite(result.log_likelihood) for result in results):
        raise RunError(
            f"{_label(pair)}: the model's probabilities are not numbers; its weights are "
            "damaged, or its training diverged (lower training.learning_rate)"
        )
    if task.spec.kind == "perplexity":
        result = results[0]
        return SampleScore(
            **_common(task, sample, origin),
            score=-result.log_likelihood / result.num_tokens,
            unit=Unit.NATS_PER_TOKEN,
            weight=float(result.num_tokens),
            details={"prompt": _shown(task, sample)},
        )
    choices = [str(choice) for choice in sample["choices"]]
    sizes = [len(choice) if task.spec.normalise else 1 for choice in choices]
    values = [result.log_likelihood / size for result, size in zip(results, sizes, strict=True)]
    picked = max(range(len(values)), key=values.__getitem__)
    return SampleScore(
        **_common(task, sample, origin),
        score=float(picked == sample["answer"]),
        answer=choices[picked],
        gold=choices[sample["answer"]],
        chance=1 / len(choices),
        details={"prompt": _shown(task, sample), "log_likelihoods": [round(r.log_likelihood, 4) for r in results]},
    )


def _common(task: Task, sample: Sample, origin: str) -> dict[str, Any]:
    cluster = sample.get("cluster")
    return {
        "task": task.name,
        "sample_id": str(sample["id"]),
        "cluster": None if cluster is None else str(cluster),
        "role": task.spec.role,
        "origin": origin,
    }


def _gold(sample: Sample) -> str:
    """Returns the reference as a reader should see it."""
    if "answers" in sample:
        return " | ".join(str(answer) for answer in sample["answers"])
    if "answer" in sample:
        return str(sample["answer"])
    return str(sample.get("example", ""))


def _shown(task: Task, sample: Sample) -> str:
    """Returns the prompt as a reader should see it: the last user turn, or the text."""
    if "text" in sample:
        return str(sample["text"])
    return conversation(task, sample)[-1].content

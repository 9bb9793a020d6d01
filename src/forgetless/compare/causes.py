"""Puts causes into words: for each, one sentence of evidence and one of what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from forgetless.records import Cause, Probe


@dataclass(frozen=True, slots=True)
class Finding:
    """The counts that a cause rests on.

    Attributes:
        cause: The cause that the counts come to.
        num_lost: Samples that the tuned model answers worse.
        num_examined: How many of them were looked into.
        counts: Examined samples that show the sign of each cause that could be looked for.
        recovered: For each probe, how many samples it brought back and how many it was put to.
        num_open: Examined answers that ran to their limit without ending.
        num_empty: Examined answers that say nothing.
        num_case: Examined answers that differ from a right one in capitals alone.
        num_marked: Examined answers with template tokens or role words in them.
        num_looping: Examined answers that repeat themselves.
        differences: How the two models are asked differently, in words.
    """

    cause: Cause
    num_lost: int
    num_examined: int
    counts: Mapping[Cause, int]
    recovered: Mapping[Probe, tuple[int, int]]
    num_open: int
    num_empty: int
    num_case: int
    num_marked: int
    num_looping: int
    differences: Mapping[Cause, str]

    @property
    def share(self) -> str:
        """How many samples show the cause's sign, as "20 of 24 lost samples"."""
        return f"{self.counts.get(self.cause, 0)} of {self.samples}"

    @property
    def samples(self) -> str:
        """The samples that were looked into, as "24 lost samples"."""
        chosen = "" if self.num_examined == self.num_lost else f" ({self.num_examined} of {self.num_lost} looked into)"
        return f"{self.num_examined} lost sample{'' if self.num_examined == 1 else 's'}{chosen}"

    @property
    def ends_are_set_wrong(self) -> bool:
        """Whether the two models are set to end their turns with different tokens."""
        return Cause.END_OF_TURN in self.differences

    def tried(self, *probes: Probe) -> str:
        """Says what probes brought back, as "3 of 24 after solved examples, ..."; "nothing was tried" for none."""
        put = [(probe, *self.recovered[probe]) for probe in probes if self.recovered.get(probe, (0, 0))[1]]
        return ", ".join(f"{num} of {of} {_TRIED[probe]}" for probe, num, of in put) or "nothing was tried"

    def seen(self) -> str:
        """Describes what stands out in the answers, as a clause that begins with a semicolon, or nothing."""
        notes = (
            (self.num_empty, "say nothing"),
            (self.num_open, "run to their limit without ending"),
            (self.num_looping, "repeat themselves"),
            (self.num_marked, "hold template tokens or role words"),
        )
        words = [f"{count} {what}" for count, what in notes if 4 * count >= self.num_examined]
        return f"; of the answers, {', '.join(words)}" if words else ""


_TRIED = {
    Probe.FORMAT_BLIND: "in content alone",
    Probe.LONGER: "with more room for the answer",
    Probe.BASE_TOKENIZER: "under the base's tokenizer and template",
    Probe.PLAIN_PROMPT: "without a chat template",
    Probe.FEW_SHOT: "after solved examples",
    Probe.LIKELIHOOD: "as a choice by likelihood",
    Probe.BASE_LIKELIHOOD: "as the same choice by the base",
}


def describe(finding: Finding) -> tuple[str, str]:
    """Returns the sentence of evidence and that of what to do."""
    return _DESCRIPTIONS[finding.cause](finding)


def _template(f: Finding) -> tuple[str, str]:
    return (
        f"{f.share} are right again as soon as the tuned model is asked as the base is; "
        f"{f.differences[Cause.TEMPLATE]}.",
        "Save the tokenizer with the chat template that the model was trained with (copy the base's "
        "`chat_template.jinja` and `tokenizer_config.json` into the model's directory), and score again.",
    )


def _end_of_turn(f: Finding) -> tuple[str, str]:
    why = f"; {f.differences[Cause.END_OF_TURN]}" if f.ends_are_set_wrong else ""
    remedy = "Train with the end-of-turn token in the loss (`forgetless train` does), and score again."
    if f.ends_are_set_wrong:
        remedy = (
            "Set `eos_token_id` in `generation_config.json` and `eos_token` in `tokenizer_config.json` to the base's, "
            "and score again; if answers still run on, train with the end-of-turn token in the loss."
        )
    return f"{f.share} begin with a right answer and then run on{why}{f.seen()}.", remedy


def _truncated(f: Finding) -> tuple[str, str]:
    longer = f.recovered.get(Probe.LONGER, (0, 0))[0]
    if 2 * longer >= f.counts[Cause.TRUNCATED]:
        return (
            f"{f.share} are cut, {longer} by `max_tokens`: with more room the right answer comes.",
            "Raise `max_tokens` of the task if long answers are fine; if not, mix in short answers (`replay`).",
        )
    return (
        f"{f.share} break off: they are the beginning of a right answer, or empty while the right answer is still "
        f"likely{f.seen()}.",
        "Look for what cuts: answers that were cut in the training data, `training.max_tokens` below their length, or "
        "a limit or stop word where the model is served.",
    )


def _format(f: Finding) -> tuple[str, str]:
    case = f", {f.num_case} differing in capitals alone" if f.num_case else ""
    return (
        f"{f.share} hold what was asked for in another form{case}{f.seen()}.",
        "Give the training answers the form that is asked for (capitals, JSON, lists), or mix in general examples "
        "that keep it (`replay`); for less, ask for the form in a system prompt.",
    )


def _suppressed(f: Finding) -> tuple[str, str]:
    return (
        f"In {f.share} the base's right answer keeps its lead over wrong ones, or is hardly less likely, yet it isn't "
        f"said (brought back: {f.tried(Probe.FEW_SHOT, Probe.PLAIN_PROMPT)}){f.seen()}.",
        "Retrain more gently (a quarter of `training.learning_rate`, fewer epochs) or with `replay`: the knowledge is "
        "there, a new habit of answering hides it.",
    )


def _recoverable(f: Finding) -> tuple[str, str]:
    return (
        f"{f.share} come right again when asked otherwise: {f.tried(Probe.FEW_SHOT, Probe.PLAIN_PROMPT)}.",
        "Tune the tuned model briefly on general examples (`forgetless run --model DIR --data FILE`, few steps), or "
        "retrain with `replay`; where prompts are yours, a few examples in them help at once.",
    )


def _gone(f: Finding) -> tuple[str, str]:
    tried = f.tried(Probe.FORMAT_BLIND, Probe.FEW_SHOT, Probe.PLAIN_PROMPT, Probe.BASE_TOKENIZER)
    likely = (
        f"; the right answer's likelihood is intact in {f.counts[s]}" if (s := Cause.SUPPRESSED) in f.counts else ""
    )
    return (
        f"{f.share} come back in no way that was tried ({tried}{likely}){f.seen()}.",
        "Retrain from the base more gently (a quarter of `training.learning_rate`, fewer epochs, `lora`) and with "
        "`replay` of examples that resemble this task.",
    )


def _mixed(f: Finding) -> tuple[str, str]:
    shown = {cause: count for cause, count in f.counts.items() if count}
    counts = ", ".join(f"{cause.value} {count}" for cause, count in shown.items())
    return (
        f"No one cause explains enough of {f.samples} ({counts}; a sample may show several){f.seen()}.",
        "Read the lost samples in the report, mend what a setting mends first, and retrain more gently for the rest.",
    )


def _unexplained(f: Finding) -> tuple[str, str]:
    return (
        f"The answers to {f.samples} show no common form of loss by themselves{f.seen()}.",
        "Ask the models again: `forgetless compare BASE TUNED --explain-with BASE_MODEL TUNED_MODEL`.",
    )


_DESCRIPTIONS: Mapping[Cause, Callable[[Finding], tuple[str, str]]] = {
    Cause.TEMPLATE: _template,
    Cause.END_OF_TURN: _end_of_turn,
    Cause.TRUNCATED: _truncated,
    Cause.FORMAT: _format,
    Cause.SUPPRESSED: _suppressed,
    Cause.RECOVERABLE: _recoverable,
    Cause.GONE: _gone,
    Cause.MIXED: _mixed,
    Cause.UNEXPLAINED: _unexplained,
}

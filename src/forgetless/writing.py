"""The base as a writer of examples: for a run, and for users' own scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetless.data.examples import Example
from forgetless.data.sources import write_examples
from forgetless.embedded import cache_directory
from forgetless.mechanisms.overlap import WINDOW_WORDS, split_words
from forgetless.mechanisms.self_replay import ReplaySettings, Yield, write_replay
from forgetless.mechanisms.writer import KeptTexts, Prompt, Text, Writer
from forgetless.progress import Reporter, Silent
from forgetless.tasks.base import Task, load_suite

if TYPE_CHECKING:
    from forgetless.models import LoadedModel


def generate_replay(
    model: Any,
    num: int,
    *,
    tokenizer: Any = None,
    seed: int = 0,
    out: str | Path | None = None,
    suite: str | None = "core",
    test: Sequence[Example] = (),
    settings: ReplaySettings | None = None,
    reporter: Reporter | None = None,
) -> list[Example]:
    """Lets a model write general examples: what it is asked, and how it answers.

    Texts are kept in forgetless's cache directory: the same call gives the same examples at once, a stopped one goes
    on, and one for more examples begins with those of one for fewer.

    Args:
        model: Alias, directory, hub id, a transformers model with its `tokenizer`, or a loaded one; the base.
        num: Number of examples.
        tokenizer: Tokenizer of a model in memory; by default that of its name.
        seed: Seed of what is written.
        out: File for the examples, as JSON lines.
        suite: Evaluation suite that no example may overlap with; None = none.
        test: Held-out examples that no example may overlap with.
        settings: How it is written, and what is refused.
        reporter: Where to tell how far it is, and what came of it.

    Returns:
        Examples of origin `self`, to be given as general ones.

    Raises:
        ConfigError: The suite doesn't exist, or the model can't be written with.
        ModelError: The model can't be loaded, or has no chat template.
        RunError: Too little of what it writes can be used.
    """
    from forgetless.evaluate.runner import open_loaded

    reporter = reporter or Silent()
    held_out = held_out_texts([] if suite is None else load_suite(suite), test)
    writer = open_writer(open_loaded(model, tokenizer), reporter=reporter)
    summary = Yield()
    examples = write_replay(writer, num, seed=seed, evaluation_texts=held_out, settings=settings, summary=summary)
    reporter.note(f"self-generated examples: {summary}")
    if out is not None:
        write_examples(out, examples)
    return examples


def open_writer(
    loaded: LoadedModel | Callable[[], LoadedModel],
    *,
    reporter: Reporter,
    directory: Path | None = None,
    batch_size: int = 64,
) -> Writer:
    """Returns a model as a writer that keeps its texts.

    Args:
        loaded: The base; or what loads it, where it isn't to stay in memory.
        reporter: Where to tell how far it is.
        directory: Where texts are kept; None = forgetless's cache directory.
        batch_size: Texts that are written together.

    Returns:
        The writer.
    """
    from forgetless.evaluate.writer import ModelWriter

    def open_model(model: LoadedModel) -> Writer:
        return ModelWriter(model, batch_size=batch_size, show=lambda: reporter.task("The base writes"))

    writer = LateWriter(lambda: open_model(loaded())) if callable(loaded) else open_model(loaded)
    return KeptTexts(writer, directory or cache_directory() / "texts")


class LateWriter:
    """A model as a writer that is loaded where it has to write, and let go afterwards.

    Args:
        load: Loads the model and returns it as a writer.
    """

    def __init__(self, load: Callable[[], Writer]) -> None:
        self._load = load
        self._known: tuple[str, str, str] | None = None

    @property
    def key(self) -> str:
        return self._facts()[0]

    @property
    def chat_prefix(self) -> str:
        return self._facts()[1]

    @property
    def chat_end(self) -> str:
        return self._facts()[2]

    def _facts(self) -> tuple[str, str, str]:
        if self._known is None:
            writer = self._load()
            self._known = (writer.key, writer.chat_prefix, writer.chat_end)
        return self._known

    def write(self, prompts: Sequence[Prompt], **options: Any) -> list[Text]:
        """Writes one text for each prompt; takes what `Writer.write` takes."""
        return self._load().write(prompts, **options) if prompts else []


def held_out_texts(tasks: Iterable[Task], examples: Iterable[Example]) -> list[str]:
    """Returns what no training example may overlap with: samples of tasks, and held-out examples.

    Prompts are held out, and answers long enough to be told apart from everyday words.
    """
    texts = [text for task in tasks for sample in task.samples for text in _sample_texts(task, sample)]
    for example in examples:
        texts += [message.content for message in example.messages if message.role == "user"]
        texts.append(example.answer_text)
    return texts


def _sample_texts(task: Task, sample: Any) -> list[str]:
    if "text" in sample and task.spec.kind == "perplexity":
        return [str(sample["text"])]
    if "messages" in sample:
        asked = [str(turn["content"]) for turn in sample["messages"] if turn["role"] != "system"]
    else:
        asked = [task.prompt(sample)]
    answer = str(sample.get("answer") or "")
    return [*asked, answer] if len(split_words(answer)) >= WINDOW_WORDS else asked

"""What data and tokenizer say, where they are on this machine; nothing is fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from forgetless.advising.recipe import Recipe, Source
from forgetless.advising.templates import family_of_text, family_of_words
from forgetless.data.examples import Example, Message
from forgetless.errors import ForgetlessError

MOST_EXAMPLES = 20_000  # of a data set; rules about small ones need no more
MOST_ENCODED = 400  # examples whose tokens are counted


@dataclass(frozen=True)
class DataFacts:
    """What is known of the training data.

    Attributes:
        num_examples: Examples that are trained on; at least so many where `is_more`.
        is_more: Whether the data goes on beyond what was read.
        is_conversation: Whether they are conversations, not plain texts.
        has_completions: Whether prompt and completion stand in columns of their own.
        is_multi_turn: Whether some have several answers.
        marks: Examples in whose text the marks of a template's family stand, by family.
        num_tokens: Lengths of some examples in tokens, under the tokenizer's template; empty without a tokenizer.
    """

    num_examples: int
    is_more: bool = False
    is_conversation: bool = True
    has_completions: bool = False
    is_multi_turn: bool = False
    marks: Mapping[str, int] = field(default_factory=dict)
    num_tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class TokenizerFacts:
    """What is known of the base's tokenizer.

    Attributes:
        family: Family of its chat template; None = unknown, or it has none.
        has_template: Whether it has a chat template.
        ends: Tokens at which generation stops.
        answer_ends: Whether the template ends an answer with one of them.
        tail: What the template writes after an answer.
    """

    family: str | None
    has_template: bool
    ends: tuple[str, ...]
    answer_ends: bool
    tail: str


@dataclass(frozen=True)
class Evidence:
    """What was found beside the recipe.

    Attributes:
        data: The training data, where it could be read.
        tokenizer: The base's tokenizer, where it is here.
        num_samples: Graded samples of the suite, where the recipe names one that is known.
        notes: What could not be looked at, one sentence each.
    """

    data: DataFacts | None = None
    tokenizer: TokenizerFacts | None = None
    num_samples: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_examples(self) -> int | None:
        """Number of training examples; None where it isn't known, or is only known to be large."""
        return None if self.data is None or self.data.is_more else self.data.num_examples


@dataclass(frozen=True)
class Case:
    """What a rule judges: the recipe, and what was found beside it."""

    recipe: Recipe
    evidence: Evidence

    @property
    def num_examples(self) -> int | None:
        """Number of training examples, or the most that the recipe uses; None where neither is known."""
        known = self.evidence.num_examples
        return self.recipe.num_examples_limit if known is None else known


def gather(recipe: Recipe, *, look: bool = True) -> Evidence:
    """Looks at what the recipe names.

    Args:
        recipe: The recipe.
        look: Whether to open data and tokenizer at all.

    Returns:
        What was found, and what could not be looked at.
    """
    notes: list[str] = list(recipe.notes)
    num_samples = _count_samples(recipe, notes)
    if not look:
        notes.append("data and tokenizer were not looked at (--no-look)")
        return Evidence(num_samples=num_samples, notes=tuple(notes))
    examples, facts = _read_data(recipe, notes)
    tokenizer = _load_tokenizer(recipe, notes)
    if tokenizer is None:
        return Evidence(facts, None, num_samples, tuple(notes))
    if facts is not None:
        facts = _with_lengths(facts, examples, tokenizer, notes)
    return Evidence(facts, _describe_tokenizer(tokenizer), num_samples, tuple(notes))


def _count_samples(recipe: Recipe, notes: list[str]) -> int | None:
    """Returns how many graded retention samples the recipe's suite has."""
    from forgetless.records import Role
    from forgetless.tasks.base import load_suite

    if recipe.suite is None:
        return None
    parts = [part.strip() for part in recipe.suite.value.split(",")]
    if any(part.startswith("lm_eval:") or part == "lm_eval" for part in parts):
        notes.append("tasks of lm-evaluation-harness were not counted: their data isn't here")
        return None
    directories = [] if recipe.tasks_dir is None else [recipe.tasks_dir]
    try:
        tasks = load_suite(recipe.suite.value, directories, limit=None if recipe.limit is None else recipe.limit.value)
    except ForgetlessError as error:
        notes.append(f"the suite could not be read: {error}")
        return None
    return sum(
        len(task.samples) for task in tasks if task.spec.kind != "perplexity" and task.spec.role is Role.RETENTION
    )


def _read_data(recipe: Recipe, notes: list[str]) -> tuple[list[Example], DataFacts | None]:
    if not recipe.sources:
        notes.append("the recipe names no training data: examples could not be counted or read")
        return [], None
    missing = [source.name for source in recipe.sources if source.path is None]
    if missing:
        notes.append(f"training data is not on this machine: {', '.join(missing)}")
        return [], None
    examples: list[Example] = []
    has_completions = is_more = False
    for source in recipe.sources:
        found, columns, goes_on = _read_source(source, notes)
        if not found:
            return [], None
        examples += found
        has_completions = has_completions or bool({"completion", "response"} & columns)
        is_more = is_more or goes_on
    num = len(examples)
    if recipe.num_examples_limit is not None and (num > recipe.num_examples_limit or is_more):
        num, is_more = recipe.num_examples_limit, False
    return examples, DataFacts(
        num_examples=num,
        is_more=is_more,
        is_conversation=any(example.messages for example in examples),
        has_completions=has_completions,
        is_multi_turn=any(sum(m.role == "assistant" for m in example.messages) > 1 for example in examples),
        marks=_count_marks(examples),
    )


def _read_source(source: Source, notes: list[str]) -> tuple[list[Example], set[str], bool]:
    """Returns the examples of a data set, the columns of its first row, and whether it goes on."""
    from forgetless.data.containers import open_rows
    from forgetless.data.sources import read_examples

    path = _only_file(source.path or Path(source.name))
    try:
        examples = read_examples(path, limit=MOST_EXAMPLES + 1)
        _, rows = open_rows(path)
        columns = {str(name) for _, row in islice(rows, 1) for name in row}
    except ForgetlessError as error:
        notes.append(f"training data could not be read: {error}")
        return [], set(), False
    return examples[:MOST_EXAMPLES], columns, len(examples) > MOST_EXAMPLES


def _only_file(path: Path) -> Path:
    """Returns the data file of a directory that holds just one, as `datasets` loads it; else the path."""
    if not path.is_dir() or (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return path
    files = [file for file in path.iterdir() if file.suffix in {".jsonl", ".json", ".csv", ".parquet"}]
    return files[0] if len(files) == 1 else path


def _count_marks(examples: Sequence[Example]) -> dict[str, int]:
    """Counts the examples in which a family's marks stand literally."""
    found: Counter[str] = Counter()
    for example in examples:
        text = example.text if example.text is not None else "\n".join(m.content for m in example.messages)
        if family := family_of_words(text):
            found[family] += 1
    return dict(found)


def _load_tokenizer(recipe: Recipe, notes: list[str]) -> Any:
    """Returns the base's tokenizer where it is on this machine, without converting or fetching anything."""
    if recipe.model is None:
        notes.append("the recipe names no base model: its tokenizer and template could not be looked at")
        return None
    name = recipe.model.value
    source = _tokenizer_source(name)
    if source is None:
        notes.append(f"the tokenizer of {name} is not on this machine: template and lengths could not be checked")
        return None
    from forgetless.models import load_tokenizer
    from forgetless.quiet import quiet_transformers

    try:
        with quiet_transformers():
            return load_tokenizer(source)
    except Exception as error:  # a broken tokenizer can raise anything; advice on the rest is still worth giving
        notes.append(
            f"the tokenizer of {name} could not be loaded: {str(error).splitlines()[0] if str(error) else error!r}"
        )
        return None


def _tokenizer_source(name: str) -> str | None:
    from forgetless.embedded import EMBEDDED_ALIAS, cache_directory, is_embedded

    if is_embedded(name):
        directory = cache_directory() / "models" / EMBEDDED_ALIAS
        return str(directory) if (directory / "tokenizer_config.json").is_file() else None
    path = Path(name).expanduser()
    if path.is_dir():
        for directory in (path, path / "model"):
            if (directory / "tokenizer_config.json").is_file():
                return str(directory)
        return None
    return None if path.is_file() or name.count("/") != 1 else _hub_tokenizer(name)


def _hub_tokenizer(name: str) -> str | None:
    """Returns the directory in the hub's cache on this machine that holds a tokenizer."""
    from huggingface_hub import try_to_load_from_cache

    try:
        held = try_to_load_from_cache(name, "tokenizer_config.json")
    except ValueError:  # not the name of a repository
        return None
    return str(Path(held).parent) if isinstance(held, str) else None


def _describe_tokenizer(tokenizer: Any) -> TokenizerFacts:
    ends = _end_tokens(tokenizer)
    if tokenizer.chat_template is None:
        return TokenizerFacts(None, has_template=False, ends=ends, answer_ends=True, tail="")
    from forgetless.data.encoding import as_dicts

    turns = as_dicts([Message("user", "What is it?"), Message("assistant", "An answer.")])
    try:
        rendered = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception:  # a template is a program of its author's
        return TokenizerFacts(None, has_template=True, ends=ends, answer_ends=True, tail="")
    tail = rendered.rpartition("An answer.")[2]
    return TokenizerFacts(
        family=family_of_text(rendered),
        has_template=True,
        ends=ends,
        answer_ends=not ends or any(end in tail for end in ends),
        tail=tail,
    )


def _end_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Returns the tokens at which generation stops: the tokenizer's, and those of a generation config beside it."""
    import json

    ids = {tokenizer.eos_token_id}
    for name in ("generation_config.json", "config.json"):
        try:
            held = json.loads((Path(tokenizer.name_or_path) / name).read_text(encoding="utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        ids |= set(held) if isinstance(held, list) else {held}
    return tuple(sorted(str(tokenizer.convert_ids_to_tokens(one)) for one in ids if isinstance(one, int)))


def _with_lengths(facts: DataFacts, examples: list[Example], tokenizer: Any, notes: list[str]) -> DataFacts:
    from dataclasses import replace

    from forgetless.data.encoding import encode_example

    step = max(1, len(examples) // MOST_ENCODED)
    try:
        lengths = tuple(len(encode_example(example, tokenizer).input_ids) for example in examples[::step])
    except ForgetlessError as error:
        notes.append(f"the examples could not be rendered by the tokenizer's template: {error}")
        return facts
    return replace(facts, num_tokens=lengths)

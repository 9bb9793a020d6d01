"""The row formats that users bring, and how a row of each becomes an `Example`.

| format | columns |
|---|---|
| messages | `messages`: a list of `role` and `content` |
| conversations | `conversations`: a list of `from` (human, gpt, ...) and `value`, as ShareGPT has it |
| prompt + completion (or response) | two texts, or two lists of messages |
| question + answer | two texts |
| instruction + output | two texts, and an optional `input` that is put below the instruction |
| text | a plain text, all of it trained on |

Where a row fits several, the first in this table counts (Alpaca files carry a rendered `text` beside `output`). A
`system` column goes in front of a conversation. Every other column is kept as metadata.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from forgetless.data.examples import ROLES, Example, ExampleError, Message
from forgetless.errors import did_you_mean
from forgetless.records import SCHEMA

Row = dict[str, Any]
Content = tuple[list[Message], str | None, int]  # messages, text, supervised_from

OPENAI_ROLES = {role: role for role in ROLES}
SHAREGPT_ROLES = OPENAI_ROLES | {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
}


@dataclass(frozen=True, slots=True)
class RowFormat:
    """One way to write an example as a row.

    Attributes:
        name: As users know it.
        required: The columns that make the format.
        optional: Further columns that it uses.
        parse: Turns a row that has the required columns into messages or text.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    parse: Callable[[Row], Content]

    def build(self, row: Row, origin: str) -> Example:
        """Builds the example that a row holds.

        Args:
            row: Columns by name, the required ones among them.
            origin: Origin of the example; a row that forgetless wrote keeps its own.

        Returns:
            The example, with the columns that the format doesn't use as metadata.

        Raises:
            ExampleError: A value is missing, empty or of the wrong kind; names the field.
        """
        if self is WRITTEN:
            origin = require_text(row["origin"], "origin")
            metadata = row.get("metadata") or {}
        else:
            used = self.required + self.optional
            metadata = {sys.intern(str(k)): v for k, v in row.items() if k not in used and v is not None}
        messages, text, supervised_from = self.parse(row)
        try:
            return Example(tuple(messages), text, origin, metadata, supervised_from)
        except ExampleError as error:
            raise ExampleError(error.message, field=error.field or self.required[0]) from None


def find_format(row: Mapping[str, Any]) -> RowFormat | None:
    """Returns the first format whose columns `row` has, or None."""
    if is_written_row(row):
        return WRITTEN
    return next((known for known in FORMATS if all(column in row for column in known.required)), None)


def is_written_row(row: Mapping[str, Any]) -> bool:
    """Whether forgetless wrote the row (`write_examples`): then its origin counts, and texts may mix with messages."""
    return type(row.get("schema")) is int and "origin" in row and ("messages" in row or "text" in row)


def refuse_columns(columns: Collection[str]) -> ExampleError:
    """Returns the error for columns that make no known format: names what is missing, or all that would do."""
    for known in FORMATS:
        missing = [column for column in known.required if column not in columns]
        if 0 < len(missing) < len(known.required):
            present = next(column for column in known.required if column in columns)
            needed = "completion (or response)" if missing == ["completion"] else missing[0]
            return ExampleError(
                f"is missing: beside {present} an example needs {needed}; the columns are {_quoted(columns)}",
                field=missing[0],
            )
    names = "; ".join(known.name for known in FORMATS)
    return ExampleError(f"the columns {_quoted(columns)} make no known format; rename them to one of: {names}")


def require_text(value: object, field: str, *, may_be_empty: bool = False) -> str:
    """Makes sure that a value is text that can be trained on.

    Args:
        value: What stands in the row.
        field: Its field, for the message.
        may_be_empty: Let blank text pass.

    Returns:
        The value as it is.

    Raises:
        ExampleError: It is null, no string, blank (unless allowed), or holds what is no character.
    """
    if not isinstance(value, str):
        if value is None:
            raise ExampleError("is null; give it a text or leave the example out", field=field)
        shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:37] + "..."
        raise ExampleError(f"{shown} is {_kind(value)}, not text; write it as a string in quotes", field=field)
    if not may_be_empty and not value.strip():
        raise ExampleError("is empty; give it a text or leave the example out", field=field)
    if "\0" in value:
        raise ExampleError(f"holds a NUL character at position {value.index(chr(0))}; remove it", field=field)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ExampleError(
                f"holds half a character ({value[error.start]!a}) at position {error.start}: was the text "
                "cut inside an emoji?",
                field=field,
            ) from None
    return value


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", bytes: "bytes"}
    return names.get(type(value), f"a {type(value).__name__}")


def _quoted(columns: Collection[str]) -> str:
    return ", ".join(repr(column) for column in columns) or "(none)"


def _system(row: Row) -> list[Message]:
    """The `system` column as a list of one message, or of none where the row leaves it out."""
    value = row.get("system")
    if value is None or value == "":
        return []
    return [Message("system", require_text(value, "system"))]


def _with_system(row: Row, messages: list[Message], field: str) -> list[Message]:
    system = _system(row)
    if not system or messages[:1] == system:
        return messages
    if messages[0].role == "system":
        raise ExampleError(f"differs from the system turn in {field!r}; keep one of them", field="system")
    return system + messages


def _turns(value: object, field: str) -> list[Message]:
    if isinstance(value, str):
        raise ExampleError(
            "is text, not a list of turns; a CSV cell cannot hold a conversation: use JSONL or Parquet", field=field
        )
    if not isinstance(value, list):
        raise ExampleError("is null" if value is None else f"is {_kind(value)}, not a list of turns", field=field)
    if not value:
        raise ExampleError("is an empty list; give it turns or leave the example out", field=field)
    return [_turn(turn, f"{field}[{index}]") for index, turn in enumerate(value)]


def _turn(turn: object, field: str) -> Message:
    if not isinstance(turn, dict):
        raise ExampleError(f"is {_kind(turn)}, not an object with role and content", field=field)
    keys, roles = ("role", "content"), OPENAI_ROLES
    if turn.get("role") is None and turn.get("from") is not None:
        keys, roles = ("from", "value"), SHAREGPT_ROLES
    for key in keys:
        if key not in turn:
            raise ExampleError(
                f"is missing: a turn needs role and content (or from and value); it has {_quoted(turn)}",
                field=f"{field}.{key}",
            )
    for key in ("tool_calls", "function_call"):
        if turn.get(key):
            raise ExampleError(
                "calls apart from the content are not supported; write them into content as the model's "
                "chat template would",
                field=f"{field}.{key}",
            )
    if turn.get("weight") == 0:
        raise ExampleError(
            "0 (a turn without loss) is not supported; give the turns up to here as a prompt that is a "
            "list of messages, and the rest as its completion",
            field=f"{field}.weight",
        )
    role = turn[keys[0]]
    if not isinstance(role, str) or role not in roles:
        raise ExampleError(f"role {role!r} is unknown{did_you_mean(str(role), roles)}", field=f"{field}.{keys[0]}")
    content = _joined_parts(turn[keys[1]], f"{field}.{keys[1]}")
    # A tool may return nothing, and an empty system turn keeps a template's default system prompt out.
    may_be_empty = roles[role] in ("system", "tool")
    return Message(roles[role], require_text(content, f"{field}.{keys[1]}", may_be_empty=may_be_empty))


def _joined_parts(content: object, field: str) -> object:
    """Joins content given as a list of text parts (`[{"type": "text", "text": ...}]`); leaves all else as it is."""
    if not isinstance(content, list):
        return content
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text":
            raise ExampleError("is not a text part; only text can be trained on", field=f"{field}[{index}]")
    return "".join(require_text(part.get("text"), field, may_be_empty=True) for part in content)


def _conversation(column: str) -> RowFormat:
    def parse(row: Row) -> Content:
        return _with_system(row, _turns(row[column], column), column), None, 0

    return RowFormat(column, (column,), ("system",), parse)


def _pair(prompt: str, answer: str) -> RowFormat:
    def parse(row: Row) -> Content:
        if isinstance(row[prompt], list) or isinstance(row[answer], list):
            return _conversational_pair(row, prompt, answer)
        turns = [
            Message("user", require_text(row[prompt], prompt)),
            Message("assistant", require_text(row[answer], answer)),
        ]
        return _system(row) + turns, None, 0

    return RowFormat(f"{prompt} + {answer}", (prompt, answer), ("system",), parse)


def _conversational_pair(row: Row, prompt: str, answer: str) -> Content:
    """A prompt and a completion that are lists of messages (TRL); the assistant turns of the prompt carry no loss."""
    for column, other in ((prompt, answer), (answer, prompt)):
        if not isinstance(row[column], list):
            raise ExampleError(f"is not a list of messages, but {other!r} is; give both the same way", field=column)
    before = _with_system(row, _turns(row[prompt], prompt), prompt)
    after = _turns(row[answer], answer)
    if not any(message.role == "assistant" for message in after):
        raise ExampleError("has no assistant turn: there is nothing to learn", field=answer)
    return before + after, None, len(before)


def _parse_instruction(row: Row) -> Content:
    prompt = require_text(row["instruction"], "instruction")
    if row.get("input") is not None:
        context = require_text(row["input"], "input", may_be_empty=True)
        prompt = f"{prompt}\n\n{context}" if context.strip() else prompt
    answer = require_text(row["output"], "output")
    return [*_system(row), Message("user", prompt), Message("assistant", answer)], None, 0


def _parse_text(row: Row) -> Content:
    return [], require_text(row["text"], "text"), 0


def _parse_written(row: Row) -> Content:
    if row["schema"] != SCHEMA:
        raise ExampleError(f"{row['schema']} is not {SCHEMA}: written by another version of forgetless", field="schema")
    if row.get("text") is not None:
        return _parse_text(row)
    return _turns(row.get("messages"), "messages"), None, row.get("supervised_from", 0)


WRITTEN = RowFormat("a mixture that forgetless wrote", ("schema", "origin"), ("messages", "text"), _parse_written)
FORMATS = (
    _conversation("messages"),
    _conversation("conversations"),
    _pair("prompt", "completion"),
    _pair("prompt", "response"),
    _pair("question", "answer"),
    RowFormat("instruction (+ input) + output", ("instruction", "output"), ("input", "system"), _parse_instruction),
    RowFormat("text", ("text",), (), _parse_text),
)

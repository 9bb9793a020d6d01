"""Edits of a recipe's file that touch nothing else: comments, order and layout stay as they are.

YAML is changed character by character where its parser says that a value stands; JSON, which has no comments, is
written anew with the indentation that it had.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from forgetless.advising.files import is_json
from forgetless.advising.findings import Edit, write_value
from forgetless.errors import ConfigError, RunError
from forgetless.files import write_text

MARK = ".safe"
STAMP = "# Written by forgetless advise --fix"


def safe_path(path: Path) -> Path:
    """Returns where the safer config of a file goes: beside it, `NAME.safe.yaml`."""
    return path.with_name(f"{path.stem}{MARK}{path.suffix or '.yaml'}")


def apply_edits(path: Path, edits: Iterable[Edit]) -> str:
    """Returns a file's text with edits in it; the file itself stays as it is.

    Args:
        path: The file.
        edits: Of the same key, the first one counts.

    Returns:
        The text.

    Raises:
        ConfigError: An edit has no place in the file.
    """
    chosen: dict[tuple[str | int, ...], Edit] = {}
    for edit in edits:
        chosen.setdefault(edit.place, edit)
    text = path.read_text(encoding="utf-8-sig")
    if is_json(path):
        return _edit_json(text, chosen.values())
    for edit in chosen.values():
        text = _edit_yaml(text, edit, path)
    return text


def write_safe(path: Path, edits: Iterable[Edit]) -> tuple[Path, str]:
    """Writes the safer config beside a file.

    Args:
        path: The file.
        edits: What to change.

    Returns:
        Where it was written, and how it differs, as a unified diff.

    Raises:
        ConfigError: Something that advise didn't write stands there.
        RunError: It can't be written.
    """
    target = safe_path(path)
    text = apply_edits(path, edits)
    content = text if is_json(path) else _stamp(path) + text
    _refuse_foreign(target, content, path)
    ending = "\r\n" if b"\r\n" in path.read_bytes() else "\n"
    try:
        write_text(target, content, newline=ending)
    except OSError as error:
        raise RunError(f"{target} cannot be written ({error.strerror or error})") from None
    before = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    lines = difflib.unified_diff(before, content.splitlines(keepends=True), path.name, target.name, n=1)
    return target, "".join(line if line.endswith("\n") else line + "\n" for line in lines)


def _stamp(path: Path) -> str:
    """Returns the first line of a safer config, which says whose it is and that advise may replace it."""
    return f"{STAMP} from {path.name}; run advise on it again before you use it.\n"


def _refuse_foreign(target: Path, content: str, path: Path) -> None:
    """Refuses to replace a file that advise didn't write: YAML says so itself, JSON must be what would be written."""
    if not target.exists() and not target.is_symlink():
        return
    held = target.read_text(encoding="utf-8", errors="replace") if target.is_file() else ""
    if held == content or held.startswith(_stamp(path)):
        return
    raise ConfigError(f"{target} is there already and isn't what advise --fix would write: move it away first")


def _edit_json(text: str, edits: Iterable[Edit]) -> str:
    document = json.loads(text)
    for edit in edits:
        held: Any = document
        for part in edit.place[:-1]:
            held = held.setdefault(part, {}) if isinstance(held, dict) else held[part]
        if edit.is_entry:
            held.setdefault(edit.place[-1], []).append(edit.new)
        elif edit.new is None and isinstance(held, dict):
            held.pop(edit.place[-1], None)
        else:
            held[edit.place[-1]] = edit.new
    indent = re.search(r"\n([ \t]+)\S", text)
    dumped = json.dumps(document, indent=None if indent is None else indent[1], ensure_ascii=False)
    return dumped + ("\n" if text.endswith("\n") else "")


def _edit_yaml(text: str, edit: Edit, path: Path) -> str:
    key: Any = None
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, part in enumerate(edit.place):
        found = _child(node, part)
        if found is None:
            return _insert(text, node, edit, depth, path)
        key, node = found
    if edit.is_entry:
        return _add_entry(text, node, edit, path)
    start, end = int(node.start_mark.index), _end_of(node)
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and key is not None:
        # A block under its key becomes a value behind it; whole lines of comment stay where they are.
        start = text.index(":", key.end_mark.index) + 1
        behind, *lines = text[start:end].split("\n")
        kept = "".join(f"\n{line}" for line in lines if line.lstrip().startswith("#"))
        stop = len(text) if (found_at := text.find("\n", end)) < 0 else found_at
        tail = f"\n{' ' * key.start_mark.column}{text[end:stop].strip()}" if text[end:stop].strip() else ""
        return f"{text[:start]} {write_value(edit.new)}{behind.rstrip()}{kept}{tail}{text[stop:]}"
    space = " " if text[start - 1] == ":" else ""  # a key without a value, or one whose block goes
    return f"{text[:start]}{space}{write_value(edit.new)}{text[end:]}"


def _child(node: Any, part: str | int) -> tuple[Any, Any] | None:
    """Returns key and value at one step of a path; an entry of a list has no key."""
    if isinstance(node, yaml.MappingNode) and isinstance(part, str):
        return next((pair for pair in node.value if pair[0].value == part), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None


def _insert(text: str, node: Any, edit: Edit, depth: int, path: Path) -> str:
    """Adds a key that isn't there, at the end of the mapping in which it would stand."""
    name, *rest = edit.place[depth:]
    new: Any = [edit.new] if edit.is_entry else edit.new
    for part in reversed(rest):
        new = {part: new}
    if isinstance(node, yaml.ScalarNode) and (_is_null(node) or node.value == name):
        # A section without anything in it, or the bare name of a method that gets options.
        return _replace(text, node, {name: new})
    if not isinstance(node, yaml.MappingNode) or not isinstance(name, str):
        raise ConfigError(f"{path}: there is no place for {edit.key}: write it in yourself")
    return _append(text, node, f"{name}: {write_value(new)}")


def _add_entry(text: str, node: Any, edit: Edit, path: Path) -> str:
    if _is_null(node):
        return _replace(text, node, [edit.new])
    if not isinstance(node, yaml.SequenceNode):
        raise ConfigError(f"{path}: {edit.key} is no list: write {write_value(edit.new)} in yourself")
    return _append(text, node, write_value(edit.new) if node.flow_style else f"- {write_value(edit.new)}")


def _is_null(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _replace(text: str, node: Any, new: Any) -> str:
    start, end = int(node.start_mark.index), int(node.end_mark.index)
    return f"{text[:start]}{' ' if start == end else ''}{write_value(new)}{text[end:]}"


def _append(text: str, node: Any, entry: str) -> str:
    """Writes an entry behind the last one of a collection, in the collection's own layout."""
    if not node.value:
        start = int(node.start_mark.index) + 1
        return f"{text[:start]}{entry}{text[start:]}"
    end = _end_of(node.value[-1])
    if node.flow_style:
        return f"{text[:end]}, {entry}{text[end:]}"
    first = node.value[0][0] if isinstance(node, yaml.MappingNode) else None
    column = node.start_mark.column if first is None else first.start_mark.column
    end = len(text) if (line_end := text.find("\n", end)) < 0 else line_end
    return f"{text[:end]}\n{' ' * column}{entry}{text[end:]}"


def _end_of(node: Any) -> int:
    """Returns where the last character of a value stands; the parser ends a block where something else begins."""
    if isinstance(node, tuple):
        key, value = node
        return max(_end_of(value), int(key.end_mark.index))
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        return _end_of(node.value[-1])
    return int(node.end_mark.index)

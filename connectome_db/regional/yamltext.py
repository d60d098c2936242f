"""Edits of a YAML text that leave every other character as it is.

Dumping a document anew re-wraps lines, changes quotes and moves comments, even with a loader that keeps comments. Here
the parser only says where a value stands, and those characters are replaced:

    regions: {}   --put(("regions", "corner"), {"note": "dark"})-->   regions:
                                                                        corner: {note: dark}

`drop` takes it back, and an emptied section is `{}` again. Each edit is checked: the new text must load as the old one
with that one change, so a layout that this module does not understand is refused and never damaged.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

from connectome_db.config import parse_yaml
from connectome_db.errors import ConfigError

STEP = "  "
"""Indentation of a new level."""


def put(text: str, path: Sequence[str], value: Any, name: str) -> str:
    """`text` with `value` at `path`, written on one line; mappings missing on the way are made, a line each.

    A value that is there is replaced. `name` is the file's, for messages. Raises ConfigError when the edit cannot be
    made without touching something else (an alias, a list on the way).
    """
    wanted = parse_yaml(text, name)
    at = wanted
    for key in path[:-1]:
        at = at.setdefault(_own(at, key), None) or _make(at, key)
        if not isinstance(at, dict):
            raise _refused(name, path)
    at[_own(at, path[-1])] = value
    return _checked(_put(text, list(path), value, name), wanted, path, name)


def drop(text: str, path: Sequence[str], name: str) -> str:
    """`text` without the entry at `path`, nor the mappings that are empty without it; an empty section stays as `{}`.

    Comments above an entry stay. Raises ConfigError as `put` does; `path` must be there and have at least two names.
    """
    wanted = copy.deepcopy(parse_yaml(text, name))
    chain: list[Any] = [wanted]
    for key in path[:-1]:
        chain.append(chain[-1][_own(chain[-1], key)])
    for depth in range(len(path) - 1, -1, -1):
        if depth == len(path) - 1 or (depth > 0 and not chain[depth + 1]):
            del chain[depth][_own(chain[depth], path[depth])]
    return _checked(_drop(text, list(path), name), wanted, path, name)


def inline(value: Any) -> str:
    """A value as YAML on one line: `{box_vx: [0, 0, 0, 8, 64, 64], note: dark}`."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # declared as None
    yaml.width = 1 << 20
    sink = io.StringIO()
    yaml.dump({"v": value}, sink)  # not in a list, where one pair would stand without braces
    return sink.getvalue().strip().removeprefix("{v:").removesuffix("}").strip()


def _own(mapping: dict[Any, Any], key: str) -> Any:
    """The key of a loaded mapping that is written `key`: names like 12 are loaded as numbers."""
    return next((k for k in mapping if str(k) == key), key)


def _make(mapping: dict[Any, Any], key: str) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    mapping[_own(mapping, key)] = made
    return made


def _refused(name: str, path: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"{name}: {'.'.join(path)}: cannot be edited without touching something else (an anchor, an alias, an unusual "
        "layout); nothing was changed. Edit it by hand, or write that section as plain `name: value` lines"
    )


def _checked(new: str, wanted: dict[str, Any], path: Sequence[str], name: str) -> str:
    try:
        same = parse_yaml(new, name) == wanted
    except ConfigError:
        same = False
    if not same:
        raise _refused(name, path)
    return new


@dataclass(frozen=True)
class _Entry:
    """`key: value` in a mapping: where the key starts, where its colon ends, where the value ends."""

    key: Node
    value: Node
    start: int
    colon: int
    end: int


def _entries(text: str, mapping: Node) -> list[_Entry]:
    found = []
    for key, value in mapping.value:
        colon = text.index(":", key.end_mark.index) + 1
        found.append(_Entry(key, value, key.start_mark.index, colon, max(colon, _end(text, value))))
    return found


def _null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.value == "" and node.style is None


def _end(text: str, node: Node) -> int:
    """Where the last character of a node is, comments after it left out; 0 where it has none."""
    if _null(node):
        return 0
    if isinstance(node, CollectionNode) and not node.flow_style:
        if isinstance(node, MappingNode):
            return _entries(text, node)[-1].end
        return _end(text, node.value[-1]) or len(text[: node.end_mark.index].rstrip())
    end: int = node.end_mark.index
    # The mark of a block of text (`|`, `>`) is where the next token starts.
    return len(text[:end].rstrip()) if isinstance(node, ScalarNode) and node.style in {"|", ">"} else end


def _eol(text: str, at: int) -> int:
    """Where the line of `at` ends, before its line break."""
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    return end - 1 if end > at and text[end - 1] == "\r" else end


def _find(text: str, mapping: Node, key: str) -> _Entry | None:
    return next((e for e in _entries(text, mapping) if e.key.value == key), None)


def _root(text: str, path: Sequence[str], name: str) -> MappingNode:
    node = YAML(typ="safe", pure=True).compose(text)
    if not isinstance(node, MappingNode) or node.flow_style:
        raise _refused(name, path)
    return node


def _put(text: str, path: list[str], value: Any, name: str) -> str:
    mapping: MappingNode = _root(text, path, name)
    in_flow = False
    for depth, key in enumerate(path):
        entry = _find(text, mapping, key)
        if entry is None:
            return _add(text, mapping, path[depth:], value)
        if depth == len(path) - 1:
            return text[: entry.colon] + " " + inline(value) + text[entry.end :]
        below = entry.value
        empty = _null(below) or (isinstance(below, MappingNode) and not below.value)
        if empty and in_flow:
            return f"{text[: entry.colon]} {inline(_nested(path[depth + 1 :], value))}{text[entry.end :]}"
        if empty:
            return _fill(text, entry, path[depth + 1 :], value)
        if not isinstance(below, MappingNode):
            raise _refused(name, path)
        mapping = below
        in_flow = in_flow or bool(mapping.flow_style)
    raise _refused(name, path)


def _nested(path: list[str], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def _add(text: str, mapping: MappingNode, path: list[str], value: Any) -> str:
    """Add `path: value` behind the last entry of a mapping."""
    at = _entries(text, mapping)[-1].end
    if mapping.flow_style:
        return f"{text[:at]}, {inline(_nested(path, value))[1:-1]}{text[at:]}"
    return _lines(text, at, mapping.value[0][0].start_mark.column, path, value)


def _fill(text: str, owner: _Entry, path: list[str], value: Any) -> str:
    """Put `path: value` on lines of its own below `owner`, which is `{}` or nothing yet."""
    if not _null(owner.value):
        gap = text[owner.colon : owner.value.start_mark.index].removesuffix(" ")
        text = text[: owner.colon] + gap + text[owner.end :]
    return _lines(text, owner.colon, owner.key.start_mark.column + len(STEP), path, value)


def _lines(text: str, after: int, column: int, path: list[str], value: Any) -> str:
    """Write `path: value` below the line of `after`, a name per line, the first at `column`."""
    at = _eol(text, after)
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [" " * column + STEP * i + f"{inline(key)}:" for i, key in enumerate(path)]
    lines[-1] += f" {inline(value)}"
    return text[:at] + "".join(newline + line for line in lines) + text[at:]


def _drop(text: str, path: list[str], name: str) -> str:
    node: Node = _root(text, path, name)
    chain: list[tuple[MappingNode, _Entry]] = []
    for key in path:
        if not isinstance(node, MappingNode) or (entry := _find(text, node, key)) is None:
            raise _refused(name, path)
        chain.append((node, entry))
        node = entry.value
    last = len(chain) - 1
    while last > 1 and len(chain[last][0].value) == 1:
        last -= 1
    mapping, entry = chain[last]
    if len(mapping.value) > 1:
        return _without(text, mapping, entry)
    section = chain[last - 1][1]
    if mapping.flow_style:
        return text[: mapping.start_mark.index] + "{}" + text[mapping.end_mark.index :]
    text = _without(text, mapping, entry)
    eol = _eol(text, section.colon)
    at = eol if not text[section.colon : eol].strip() else section.colon
    return f"{text[:at]} {{}}{text[at:]}"


def _without(text: str, mapping: MappingNode, entry: _Entry) -> str:
    """`text` without one entry of a mapping: its lines, or its part of a line and a comma."""
    if mapping.flow_style:
        entries = _entries(text, mapping)
        i = next(k for k, e in enumerate(entries) if e.start == entry.start)
        start, end = (entries[i - 1].end, entry.end) if i == len(entries) - 1 else (entry.start, entries[i + 1].start)
        return text[:start] + text[end:]
    first, eol = text.rfind("\n", 0, entry.start), _eol(text, entry.end)
    if first < 0:
        return text[eol:].lstrip("\r\n")
    return text[: first - 1 if text[first - 1] == "\r" else first] + text[eol:]

"""Named queries: `*.sql` files with typed, documented parameters.

    -- title: Partners of a neuron
    -- parameters:
    --   neuron: uint64 — Neuron (object id).
    --   min_synapses: int = 1 — Leave out weaker connections.
    -- columns:
    --   partner — Neuron on the other side.
    -- example: neuron=4612249037100285953
    SELECT ... WHERE pre = $neuron AND synapses >= $min_synapses

Values are bound, never pasted into the text. Types: uint64, int, float, text, bool, `list of uint64` (commas between),
and box: "z0:z1,y0:y1,x0:x1 nm" or "... vx". A box is bound as six numbers in nm, whatever it came in: `$box_z0_nm`,
`$box_z1_nm` and so on for a parameter named `box`. Queries that come with the package lie in `query/library/`, a
project's own in its `queries/`; its own wins over one of the same name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from connectome_db.errors import QueryError, nearest
from connectome_db.query.database import Database

_NUMBER = r"-?\d+(?:\.\d+)?"
_BOX = re.compile(rf"^\s*({_NUMBER}):({_NUMBER}),\s*({_NUMBER}):({_NUMBER}),\s*({_NUMBER}):({_NUMBER})\s*(nm|vx)\s*$")
_BOX_ENDS = ("z0", "z1", "y0", "y1", "x0", "x1")


@dataclass(frozen=True)
class Parameter:
    """A parameter: its type by name, and its default as text (None: it must be given)."""

    name: str
    type: str
    doc: str
    default: str | None


@dataclass(frozen=True)
class NamedQuery:
    """A named query, as read from its file."""

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    columns: Mapping[str, str]
    """Column -> meaning, in the order of the answer."""
    example: Mapping[str, str]
    """Arguments that show its use."""
    sql: str
    path: Path
    own: bool
    """True: the project's own; False: it came with the package."""


def list_queries(project: Path | None = None) -> dict[str, NamedQuery]:
    """All named queries by name: the package's, and those in `project`/queries."""
    library = Path(str(files("connectome_db.query") / "library"))
    found = {p.stem: load_query(p, own=False) for p in sorted(library.glob("*.sql"))}
    if project is not None:
        found |= {p.stem: load_query(p, own=True) for p in sorted((project / "queries").glob("*.sql"))}
    return dict(sorted(found.items()))


def find_query(name: str, project: Path | None) -> NamedQuery:
    """A named query of the package or of `project`. Raises QueryError that names the nearest."""
    queries = list_queries(project)
    if name not in queries:
        raise QueryError(f"unknown query {name!r}{nearest(name, queries)}")
    return queries[name]


def run_query(
    db: Database,
    name: str,
    args: Mapping[str, Any] | None = None,
    *,
    project: Path | None = None,
    timeout_s: float | None = None,
) -> pa.Table:
    """Run a named query; `args` are texts (as typed by a user) or values of the parameter's type.

    `project` is where the project's own queries lie, when the tables are those of another revision. Raises QueryError
    for an unknown query or parameter (with the nearest), a missing one, or a value of another type.
    """
    query = find_query(name, project or db.project)
    bound = bind(query, args or {}, voxel_nm=lambda: db.voxel_nm)
    try:
        return db.sql(query.sql, bound, timeout_s=timeout_s)
    except QueryError as e:
        raise QueryError(f"query {name!r} ({query.path.name}): {e}") from None


def bind(
    query: NamedQuery, args: Mapping[str, Any], *, voxel_nm: Callable[[], tuple[float, float, float]]
) -> dict[str, Any]:
    """Arguments as values to bind, defaults filled in. `voxel_nm` is asked only for a box given in voxels."""
    known = {p.name: p for p in query.parameters}
    for given in args:
        if given not in known:
            raise QueryError(f"query {query.name!r} has no parameter {given!r}{nearest(given, known)}")
    bound: dict[str, Any] = {}
    for p in query.parameters:
        value = args.get(p.name, p.default)
        if value is None:
            raise QueryError(f"query {query.name!r} needs {p.name} ({p.type}): {p.doc} For example: {usage(query)}")
        try:
            parsed = _TYPES[p.type](value)
        except (ValueError, TypeError, OverflowError):
            raise QueryError(
                f"query {query.name!r}, parameter {p.name}: wanted {p.type} ({_FORMS[p.type]}), got {value!r}"
            ) from None
        if p.type == "box":
            ends, unit = parsed
            size = [1.0, 1.0, 1.0] if unit == "nm" else voxel_nm()
            bound |= {
                f"{p.name}_{end}_nm": v * size[i // 2] for i, (end, v) in enumerate(zip(_BOX_ENDS, ends, strict=True))
            }
        else:
            bound[p.name] = parsed
    return bound


def usage(query: NamedQuery) -> str:
    """The command line of the example."""
    return shlex.join(["connectome", "query", query.name, *(f"{k}={v}" for k, v in query.example.items())])


def parse_arguments(words: Sequence[str]) -> dict[str, str]:
    """["neuron=5", "min_synapses=2"] -> arguments for `run_query`."""
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise QueryError(f"argument {word!r}: wanted name=value")
        if name in pairs:
            raise QueryError(f"argument {name!r} is given twice")
        pairs[name] = value
    return pairs


def _uint64(value: Any) -> int:
    if isinstance(value, bool | float):
        raise TypeError  # an id that went through a float may have lost its last digits
    number = int(value)
    if not 0 <= number < 1 << 64:
        raise ValueError
    return number


def _int(value: Any) -> int:
    if isinstance(value, bool | float):
        raise TypeError
    number = int(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError
    return number


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[_lower(value)]


def _lower(value: Any) -> str:
    text = str(value).lower()
    if text not in {"true", "yes", "1", "false", "no", "0"}:
        raise ValueError
    return text


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _list(value: Any) -> list[int]:
    words = value.split(",") if isinstance(value, str) else list(value)
    return [_uint64(w) for w in words if not (isinstance(w, str) and not w.strip())]


def _box(value: Any) -> tuple[list[float], str]:
    found = _BOX.match(_text(value))
    if found is None:
        raise ValueError
    ends = [float(v) for v in found.groups()[:6]]
    if any(hi <= lo for lo, hi in zip(ends[::2], ends[1::2], strict=True)):
        raise ValueError
    return ends, found[7]


_TYPES: Mapping[str, Callable[[Any], Any]] = {
    "uint64": _uint64, "int": _int, "float": float, "text": _text, "bool": _bool, "list of uint64": _list, "box": _box,
}  # fmt: skip
_FORMS = {
    "uint64": "an id, a whole number of 0 or more",
    "int": "a whole number",
    "float": "a number",
    "text": "text",
    "bool": "true or false",
    "list of uint64": "ids with commas between",
    "box": '"z0:z1,y0:y1,x0:x1 nm", or vx for voxels; each end above its start',
}

_PARAMETER = re.compile(r"^(\w+):\s*([a-z0-9 ]+?)\s*(?:=\s*(.*?)\s*)?—\s*(.+)$")
_COLUMN = re.compile(r"^(\w+)\s*—\s*(.+)$")
_SECTIONS = ("title", "parameters", "columns", "example")


def load_query(path: Path, *, own: bool) -> NamedQuery:
    """Read one file. Raises QueryError with file:line for a header that is not as described above."""
    lines = path.read_text(encoding="utf-8").splitlines()
    header: dict[str, list[tuple[int, str]]] = {}
    current, end = "", 0
    for end, line in enumerate(lines):
        if not line.startswith("--"):
            break
        text = line.removeprefix("--").strip()
        word, colon, rest = text.partition(":")
        if colon and word in _SECTIONS and not line.startswith("--   "):
            current = word
            header[current] = [(end + 1, rest.strip())] if rest.strip() else []
        elif current and text:
            header[current].append((end + 1, text))
        elif text:
            raise QueryError(f"{path}:{end + 1}: wanted one of {', '.join(_SECTIONS)} first, got {text!r}")
    for section in ("title", "columns", "example"):
        if section not in header:
            raise QueryError(f"{path}:1: the header has no `-- {section}:`; see the other queries for its form")
    parameters = tuple(_parameter(path, n, text) for n, text in header.get("parameters", []))
    columns = {}
    for n, text in header["columns"]:
        if (found := _COLUMN.match(text)) is None:
            raise QueryError(f"{path}:{n}: wanted `column — meaning`, got {text!r}")
        columns[found[1]] = found[2]
    sql = "\n" * end + "\n".join(lines[end:])  # blank lines keep the numbers in DuckDB's messages
    query = NamedQuery(
        name=path.stem,
        title=" ".join(text for _, text in header["title"]),
        parameters=parameters,
        columns=columns,
        example=parse_arguments(shlex.split(" ".join(text for _, text in header["example"]))),
        sql=sql,
        path=path,
        own=own,
    )
    _check_parameters(query, end)
    return query


def _parameter(path: Path, line: int, text: str) -> Parameter:
    found = _PARAMETER.match(text)
    if found is None:
        raise QueryError(f"{path}:{line}: wanted `name: type = default — meaning`, got {text!r}")
    name, kind, default, doc = found.groups()
    if kind not in _TYPES:
        raise QueryError(f"{path}:{line}: parameter {name}: unknown type {kind!r}{nearest(kind, _TYPES)}")
    return Parameter(name, kind, doc, default)


def _check_parameters(query: NamedQuery, header_lines: int) -> None:
    """What the SQL asks for must be what the header declares."""
    try:
        statements = duckdb.extract_statements(query.sql)
    except duckdb.Error as e:
        raise QueryError(f"{query.path}:{header_lines + 1}: SQL does not parse: {e}") from None
    if len(statements) != 1:
        raise QueryError(f"{query.path}:{header_lines + 1}: wanted one SQL statement, got {len(statements)}")
    used = set(statements[0].named_parameters)
    declared = {
        name: p
        for p in query.parameters
        for name in ([f"{p.name}_{end}_nm" for end in _BOX_ENDS] if p.type == "box" else [p.name])
    }
    for name in sorted(used - declared.keys()):
        line = next((i + 1 for i, text in enumerate(query.sql.splitlines()) if f"${name}" in text), 1)
        raise QueryError(f"{query.path}:{line}: ${name} is not declared under `parameters`{nearest(name, declared)}")
    for name in sorted(declared.keys() - used):
        raise QueryError(f"{query.path}:1: parameter {name} is declared and never used")

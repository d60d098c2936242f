"""Named queries: `*.sql` files with typed, documented parameters.

    -- title: Partners of a neuron
    -- parameters:
    --   neuron: uint64 — Neuron (object id).
    --   direction: one of out in both = both — Side.
    --   within: float [nm] = 500 — Distance.
    -- columns:
    --   partner — Neuron on the other side.
    -- example: neuron=4612249037100285953
    SELECT ... WHERE pre = $neuron AND ...

Values are bound, never pasted into the text. Types: uint64, int, float, text, bool, `list of uint64` and `list of text`
(commas between), `one of WORDS`, and box: "z0:z1,y0:y1,x0:x1 nm" or "... vx". A box is bound as six numbers in nm,
whatever it came in: `$box_z0_nm`, `$box_z1_nm` and so on for a parameter named `box`; or, where the SQL asks for
`$box_z0_vx`, in the voxels of the columns `z_vx`, which lets DuckDB skip what lies outside. A unit stands in brackets
after the type. `-- works: reconstructed` (or imported) says that a query asks for what only such projects have, and
`-- needs: a, b` which revisions must be given beside (`--rev a=...`).

A file `NAME.imported.sql` takes the place of `NAME.sql` in projects that hold an imported connectome.

Queries that come with the package lie in `query/library/`, a project's own in its `queries/`; its own wins over one of
the same name. Errors name the file and the line.
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
from connectome_db.query.explain import first_line
from connectome_db.query.parameters import Parameter, known_type


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
    used: frozenset[str]
    """Names of the values that the SQL asks for."""
    path: Path
    own: bool
    """True: the project's own; False: it came with the package."""
    works: str = "all"
    """"all" projects, or only "reconstructed" (from images) or "imported" ones."""
    needs: tuple[str, ...] = ()
    """Names of revisions that must be given beside the project's tables."""

    first_line: int = 1
    """Line of the file where its SQL begins."""


_VARIANT = ".imported"
_LOADED: dict[tuple[Path, bool], tuple[tuple[int, int, int], NamedQuery]] = {}
"""Queries by file, with the file's signature when they were read: a library of fifty is read once."""


def list_queries(project: Path | None = None) -> dict[str, NamedQuery]:
    """All named queries by name: the package's, and those in `project`/queries. Raises QueryError for a bad file."""
    found = _files(project, imported=_is_imported(project))
    return {name: _load(path, own) for name, (path, own) in found.items()}


def find_query(name: str, project: Path | None, *, imported: bool | None = None) -> NamedQuery:
    """A named query of the package or of `project`. Raises QueryError that names the nearest.

    `imported` says that the tables are those of an imported connectome (None: as `project` is).
    """
    found = _files(project, imported=_is_imported(project) if imported is None else imported)
    if name not in found:
        raise QueryError(f"unknown query {name[:100]!r}{nearest(name[:100], found)}")
    return _load(*found[name])


def _is_imported(project: Path | None) -> bool:
    return project is not None and (project / "data" / "listing").is_dir()


def _files(project: Path | None, *, imported: bool) -> dict[str, tuple[Path, bool]]:
    found: dict[str, tuple[Path, bool]] = {}
    library = Path(str(files("connectome_db.query") / "library"))
    for folder, own in ((library, False), *([(project / "queries", True)] if project else [])):
        paths = sorted(folder.glob("*.sql"))
        found |= {p.stem: (p, own) for p in paths if not p.stem.endswith(_VARIANT)}
        if imported:
            found |= {p.stem.removesuffix(_VARIANT): (p, own) for p in paths if p.stem.endswith(_VARIANT)}
    return dict(sorted(found.items()))


def _load(path: Path, own: bool) -> NamedQuery:
    at = path.stat()
    signature = (at.st_ino, at.st_size, at.st_mtime_ns)
    known = _LOADED.get((path, own))
    if known is None or known[0] != signature:
        known = _LOADED[path, own] = (signature, load_query(path, own=own))
    return known[1]


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
    for an unknown query or parameter (with the nearest), a missing one, or a value of another type, and with the file
    and line for what is wrong in its SQL.
    """
    query = find_query(name, project or db.project, imported=db.has("listed_synapse"))
    _check_project(db, query)
    bound = bind(query, args or {}, voxel_nm=lambda: db.voxel_nm)
    try:
        return db.sql(query.sql, bound, timeout_s=timeout_s)
    except QueryError as e:
        at = query.first_line - 1 + (_line_of(e) or _line_with(e, query.sql) or 1)
        message = _LINE.sub(f"LINE {at}:", str(e), count=1)
        raise QueryError(f"query {name!r} ({query.path.name}:{at}): {message}") from None


def _check_project(db: Database, query: NamedQuery) -> None:
    kind = "imported" if db.has("listed_synapse") else "reconstructed"
    if query.works not in {"all", kind} and (db.has("connection") or kind == "imported"):
        why = {"imported": "has no images", "reconstructed": "was made from images, not imported"}[kind]
        raise QueryError(f"query {query.name!r} works in {query.works} projects alone; this connectome {why}")
    for beside in query.needs:
        if beside not in db.also:
            given = " ".join(f"--rev {n}=REVISION" for n in query.needs)
            raise QueryError(f"query {query.name!r} compares revisions: name them with {given}")


_LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)


def _line_of(error: BaseException | None) -> int | None:
    """The line of the SQL that DuckDB points at, from 1."""
    found = _LINE.search(str(error)) if error else None
    return int(found[1]) if found else None


def _line_with(error: QueryError, sql: str) -> int | None:
    """The first line of the SQL with the name that an error is about: DuckDB points at no unknown name."""
    found = re.search(r"(?:table|column|schema) [`']([^`']+)[`']", str(error))
    word = re.compile(rf"\b{re.escape(found[1])}\b", re.IGNORECASE) if found else None
    return next((i for i, line in enumerate(sql.splitlines(), 1) if word and word.search(line)), None)


def bind(
    query: NamedQuery, args: Mapping[str, Any], *, voxel_nm: Callable[[], tuple[float, float, float]]
) -> dict[str, Any]:
    """Arguments as values to bind, defaults filled in. `voxel_nm` is asked only for a box given in voxels."""
    known = {p.name: p for p in query.parameters}
    for given in args:
        if given not in known:
            raise QueryError(f"query {query.name!r} has no parameter {given[:100]!r}{nearest(given[:100], known)}")
    bound: dict[str, Any] = {}
    for p in query.parameters:
        value = args.get(p.name)
        value = p.default if value is None else value
        if value is None:
            raise QueryError(f"query {query.name!r} needs {p.name} ({p.type}): {p.doc} For example: {usage(query)}")
        try:
            bound |= p.values(value, query.used, voxel_nm)
        except QueryError as e:
            raise QueryError(f"query {query.name!r}, {e}") from None
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


_PARAMETER = re.compile(r"^(\w+):\s*(\w[\w ]*?)\s*(?:\[(.+?)\]\s*)?(?:=\s*(.*?)\s*)?—\s*(.+)$")
_COLUMN = re.compile(r"^(\w+)\s*—\s*(.+)$")
_SECTIONS = ("title", "parameters", "columns", "example", "works", "needs")
_WORKS = ("all", "reconstructed", "imported")


def load_query(path: Path, *, own: bool) -> NamedQuery:
    """Read one file. Raises QueryError with file:line for a header that is not as described above."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise QueryError(f"{path}:1: wanted a text file in UTF-8: {e}") from None
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
    first = next((i for i, line in enumerate(lines[end:], end) if line.strip()), end) if header else end
    sql = "\n".join(lines[first:])  # DuckDB counts lines from where a statement begins
    query = NamedQuery(
        name=path.stem.removesuffix(_VARIANT),
        title=" ".join(text for _, text in header["title"]),
        parameters=parameters,
        columns=columns,
        example=parse_arguments(shlex.split(" ".join(text for _, text in header["example"]))),
        sql=sql,
        used=_used(path, sql, first),
        path=path,
        own=own,
        first_line=first + 1,
        works=_works(path, header),
        needs=tuple(w for _, text in header.get("needs", []) for w in re.split(r"[,\s]+", text) if w),
    )
    _check_parameters(query)
    return query


def _parameter(path: Path, line: int, text: str) -> Parameter:
    found = _PARAMETER.match(text)
    if found is None:
        raise QueryError(f"{path}:{line}: wanted `name: type = default — meaning`, got {text!r}")
    name, kind, unit, default, doc = found.groups()
    if why := known_type(kind):
        raise QueryError(f"{path}:{line}: parameter {name}: {why}")
    parameter = Parameter(name, kind, doc, default, unit or "")
    if default is not None:
        try:
            parameter.values(default, frozenset(), lambda: (1.0, 1.0, 1.0))
        except QueryError as e:
            raise QueryError(f"{path}:{line}: the default is wrong: {e}") from None
    return parameter


def _works(path: Path, header: Mapping[str, list[tuple[int, str]]]) -> str:
    for line, text in header.get("works", []):
        if text not in _WORKS:
            raise QueryError(f"{path}:{line}: wanted `works:` with one of {', '.join(_WORKS)}, got {text!r}")
        return text
    return "all"


def _used(path: Path, sql: str, header_lines: int) -> frozenset[str]:
    """Names of the values that the SQL of a file asks for."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as e:
        raise QueryError(f"{path}:{header_lines + (_line_of(e) or 1)}: SQL does not parse: {first_line(e)}") from None
    if len(statements) != 1:
        raise QueryError(f"{path}:{header_lines + 1}: wanted one SQL statement, got {len(statements)}")
    return frozenset(statements[0].named_parameters)


def _check_parameters(query: NamedQuery) -> None:
    """What the SQL asks for must be what the header declares."""
    declared = {name: p for p in query.parameters for group in p.bound for name in group}
    for name in sorted(query.used - declared.keys()):
        numbered = enumerate(query.sql.splitlines(), query.first_line)
        line = next((i for i, text in numbered if re.search(rf"\${name}\b", text)), 1)
        raise QueryError(f"{query.path}:{line}: ${name} is not declared under `parameters`{nearest(name, declared)}")
    for p in query.parameters:
        if not any(query.used >= {*group} for group in p.bound):
            names = " and ".join(f"${name}" for name in p.bound[0])
            raise QueryError(f"{query.path}:1: parameter {p.name} is declared and never used: wanted {names}")

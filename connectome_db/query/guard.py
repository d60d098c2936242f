"""What SQL may do here: read the views, and nothing else.

Three locks, each of which would do alone: the syntax tree is checked against a list of what is allowed; DuckDB may open
no file but the project's own tables (see `database`); and every statement runs in a read-only transaction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import duckdb

from connectome_db.errors import QueryError, nearest
from connectome_db.query.quality import REFUSED
from connectome_db.schema.quality_views import FUNCTIONS

_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
"""Kinds of query that only read. A WITH clause may also hold INSERT, UPDATE, DELETE and COPY: those are other kinds."""

_TABLE_FUNCTIONS = {
    "range", "generate_series", "unnest", "repeat", "repeat_row",
    "duckdb_columns", "duckdb_tables", "duckdb_views", "duckdb_functions", "json_each", "json_tree", *FUNCTIONS,
}  # fmt: skip
"""Functions that may stand in FROM. Not `query` (it runs text unseen), not those that open files."""

_EXPLAIN = re.compile(r"^\s*explain\s*(?:analyze\b|\([^)]*\))?", re.IGNORECASE)
_ALLOWED = "Only SELECT, WITH ... SELECT, DESCRIBE, SHOW, SUMMARIZE and EXPLAIN of them are allowed"


def check(con: duckdb.DuckDBPyConnection, text: str) -> None:
    """Raise QueryError unless `text` is one statement that only reads views."""
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as e:
        raise QueryError(f"SQL does not parse: {_first_line(e)}{_pointer(e)}") from None
    if len(statements) != 1:
        raise QueryError(f"wanted one SQL statement, got {len(statements)}: run them one at a time")
    body = statements[0].query
    kind = statements[0].type
    if kind == duckdb.StatementType.EXPLAIN:
        check(con, _EXPLAIN.sub("", body, count=1))
        return
    if kind != duckdb.StatementType.SELECT:
        hint = "; write a pivot as FROM (PIVOT t ON c IN (...) USING ...)" if kind == duckdb.StatementType.MULTI else ""
        raise QueryError(f"{kind.name} statements are refused: the database is read-only. {_ALLOWED}{hint}")
    row = con.execute("SELECT json_serialize_sql($sql)", {"sql": body}).fetchone()
    tree: Any = json.loads(row[0]) if row else {"error": True, "error_message": "no syntax tree"}
    if tree["error"]:
        raise QueryError(f"SQL is refused: {tree['error_message']}. {_ALLOWED}")
    for node in _dicts(tree):
        what = node.get("type")
        if isinstance(what, str) and what.endswith("_NODE") and what not in _NODES:
            verb = what.removesuffix("_NODE").removesuffix("_QUERY")
            raise QueryError(f"{verb} inside a query is refused: the database is read-only. {_ALLOWED}")
        if what == "TABLE_FUNCTION":
            name = str(node["function"].get("function_name", "")).lower()
            if name not in _TABLE_FUNCTIONS:
                raise QueryError(
                    f"{name}(...) in FROM is refused: files are read through the views alone. "
                    "SHOW TABLES lists them; DESCRIBE shows the columns of one"
                )


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for v in value.values():
            yield from _dicts(v)
    elif isinstance(value, list):
        for v in value:
            yield from _dicts(v)


_SCHEMA = re.compile(r"because schema \"?([^\"]+?)\"? does not exist")
_TABLE = re.compile(r"Table with name \"?([^\"]+?)\"? does not exist")
_COLUMN = re.compile(
    r"""(?:Referenced column|does not have a column named|Cannot extract field) ["']([^"']+)["']"""
)  # the last: tables and columns share names here, so DuckDB takes synapse.x for a field of the column synapse


def explain(
    error: Exception,
    text: str,
    columns: Mapping[str, Iterable[str]],
    missing: Mapping[str, str],
    timeout_s: float,
    *,
    at: str | None = None,
    others: Mapping[str, tuple[str, Mapping[str, str]]] | None = None,
) -> QueryError:
    """Turn DuckDB's error into one that names the nearest valid table or column.

    `columns` holds the columns of each view; `missing` names, per table that is not there yet, the stage that makes it,
    and `at` the revision where it is not. `others` has (revision, missing) of the schemas beside.
    """
    message = str(error)
    if isinstance(error, duckdb.InterruptException):
        return QueryError(f"the query took longer than {timeout_s:g} s and was stopped: narrow it, or raise the limit")
    if isinstance(error, duckdb.OutOfMemoryException):
        return QueryError(f"the query needs more memory than it may take: narrow it, or raise memory_limit. {message}")
    if isinstance(error, duckdb.PermissionException) or "disabled by configuration" in message:
        return QueryError(f"refused: only the project's own tables can be read. {_first_line(error)}")
    if found := _TABLE.search(message):
        return _in_another(found[1], message, text, others or {}) or _unknown_table(found[1], columns, missing, at)
    if found := _COLUMN.search(message):
        return _unknown_column(found[1], text, columns)
    return QueryError(_of_function(error, at) or f"SQL failed: {_first_line(error)}{_pointer(error)}")


def _of_function(error: Exception, at: str | None) -> str | None:
    """What is wrong with a call of `connections` or `weighted_connections`; None when it is something else."""
    message = _first_line(error)
    if isinstance(error, duckdb.InvalidInputException) and REFUSED in message:
        return message.partition(REFUSED)[2]
    for name, function in FUNCTIONS.items():
        if f"Macro {name}()" in message:
            return f"{name}: wanted {function.usage}, any of them left out"
        if f"Function with name {name} does not exist" in message:
            return str(not_there("connection", "graph", at))
    return None


def _in_another(
    wanted: str, message: str, text: str, others: Mapping[str, tuple[str, Mapping[str, str]]]
) -> QueryError | None:
    """The error for a table of another revision, or for an unknown name of one; None when it is neither."""
    if found := _SCHEMA.search(message):
        return QueryError(f"unknown schema {found[1]!r}{nearest(found[1], others)} --rev {found[1]}=REVISION names one")
    for schema, (revision, gone) in others.items():
        if wanted in gone and re.search(rf"\b{schema}\W{{1,5}}{re.escape(wanted)}\b", text, re.IGNORECASE):
            return not_there(wanted, gone[wanted], revision)
    return None


def _unknown_table(
    wanted: str, columns: Mapping[str, Iterable[str]], missing: Mapping[str, str], at: str | None
) -> QueryError:
    name = wanted.rsplit(".", maxsplit=1)[-1]
    if name in missing:
        return not_there(name, missing[name], at)
    if "/" in wanted or wanted.endswith((".parquet", ".csv", ".json")):
        return QueryError(f"files cannot be read by name ({wanted}): use the views{nearest(name, columns)}")
    return QueryError(f"unknown table {name!r}{nearest(name, [*columns, *missing])}")


def _unknown_column(wanted: str, text: str, columns: Mapping[str, Iterable[str]]) -> QueryError:
    used = {t: c for t, c in columns.items() if re.search(rf"\b{re.escape(t)}\b", text, re.IGNORECASE)}
    known = {c for names in (used or columns).values() for c in names}
    where = f" in {', '.join(sorted(used))}" if used else ""
    return QueryError(f"unknown column {wanted!r}{where}{nearest(wanted, known)}")


def not_there(table: str, stage: str, at: str | None = None) -> QueryError:
    """The error for a table whose stage has not been run, or has no data at the revision `at`."""
    if at is not None:
        return QueryError(f"table `{table}` is not there at {at}: stage {stage} has no data at that revision")
    return QueryError(f"table `{table}` is not there yet: stage {stage} has not been run; run `dvc repro {stage}`")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _pointer(error: Exception) -> str:
    """The two lines with which DuckDB points into the text, when there are any."""
    lines = [line for line in str(error).splitlines() if line.startswith("LINE ") or line.strip() == "^"]
    return "\n" + "\n".join(lines) if lines else ""

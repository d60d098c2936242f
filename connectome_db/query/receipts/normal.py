"""A query in normal form: what it asks, whatever its white space, comments and letter case of keywords.

Also what can be said of it without running it: the tables it reads, and the functions in it that answer otherwise each
time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from connectome_db.errors import QueryError
from connectome_db.schema.all import READ_BY

MAIN = "main"
"""The schema of tables that are named without one."""

_BARE = {"current_timestamp", "current_date", "current_time", "localtime", "localtimestamp", "current_user",
         "current_role", "current_catalog", "current_schema", "session_user"}  # fmt: skip
"""Functions that SQL writes without parentheses: the parser takes them for columns."""

_CATALOG = "memory"
"""What DuckDB calls the database itself: memory.connection is main.connection."""

_PLACES = ("query_location", "query_location_length")
_NOT_CONSISTENT = """
SELECT lower(function_name) FROM duckdb_functions() WHERE stability <> 'CONSISTENT'
UNION SELECT lower(function_name) FROM duckdb_functions()
WHERE regexp_matches(macro_definition, 'current_|now\\(|random\\(|uuid', 'i')
"""


@dataclass(frozen=True)
class Normal:
    """One query in normal form."""

    text: str
    """The query written anew by DuckDB, for reading; the tree is what is compared."""
    tree: str
    """The syntax tree as JSON, without positions in the text."""
    tables: tuple[tuple[str, str], ...]
    """(schema, table) of all that it, or a function in it, names in FROM and is no WITH clause of its own.

    The schema is `main` unless said."""
    volatile: tuple[str, ...]
    """Functions in it that may answer otherwise next time, such as random, now or a sample without seed."""
    ordered: bool
    """True: it ends with ORDER BY."""


def normal_form(text: str) -> Normal:
    """Parse one SELECT. Raises QueryError for anything else, EXPLAIN and DESCRIBE included: those hold no data."""
    with duckdb.connect(":memory:") as con:
        try:
            ((told,),) = con.execute("SELECT json_serialize_sql($sql)", {"sql": text}).fetchall()
        except duckdb.Error as e:
            raise QueryError(f"SQL does not parse: {str(e).splitlines()[0]}") from None
        tree: Any = json.loads(told)
        if tree["error"] or len(tree["statements"]) != 1:
            raise QueryError(f"wanted one SELECT: {tree.get('error_message', 'several statements came')}")
        if any(d.get("type") == "SHOW_REF" for d in _dicts(tree)):
            raise QueryError("wanted a SELECT of rows; DESCRIBE, SHOW and SUMMARIZE tell about tables")
        ((again,),) = con.execute("SELECT json_deserialize_sql($tree::JSON)", {"tree": told}).fetchall()
        changing = {name for (name,) in con.execute(_NOT_CONSISTENT).fetchall()}
    node = tree["statements"][0]["node"]
    return Normal(
        text=again,
        tree=json.dumps(_without_places(tree["statements"]), sort_keys=True, separators=(",", ":")),
        tables=tuple(sorted(set(_tables(node, frozenset())))),
        volatile=tuple(sorted(set(_volatile(node, changing)))),
        ordered=any(m.get("type") == "ORDER_MODIFIER" for m in node.get("modifiers") or []),
    )


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for v in value:
            yield from _dicts(v)


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_places(v) for k, v in value.items() if k not in _PLACES}
    return [_without_places(v) for v in value] if isinstance(value, list) else value


def _tables(value: Any, hidden: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Tables named in FROM. `hidden`: names that WITH clauses around have given to queries of their own."""
    if isinstance(value, list):
        for v in value:
            yield from _tables(v, hidden)
    if not isinstance(value, dict):
        return
    if value.get("type") == "BASE_TABLE":
        schema, table = str(value.get("schema_name") or "").lower(), str(value["table_name"]).lower()
        if schema or table not in hidden:
            yield MAIN if schema in {"", _CATALOG} else schema, table
        return
    if value.get("class") == "FUNCTION" and (name := str(value.get("function_name", "")).lower()) in READ_BY:
        schema = str(value.get("schema") or "").lower()
        yield from ((MAIN if schema in {"", _CATALOG} else schema, table) for table in READ_BY[name])
    if value.get("type") == "RECURSIVE_CTE_NODE":
        hidden |= {str(value.get("cte_name", "")).lower()}
    for clause in (value.get("cte_map") or {}).get("map", ()):
        yield from _tables(clause["value"], hidden)  # a clause sees those before it, and not itself
        hidden |= {str(clause["key"]).lower()}
    for key, v in value.items():
        if key != "cte_map":
            yield from _tables(v, hidden)


def _volatile(node: Any, changing: set[str]) -> Iterator[str]:
    for d in _dicts(node):
        kind = d.get("class") or d.get("type")
        if name := str(d.get("function_name") or "").lower():
            if name in changing or name.startswith("duckdb_"):
                yield name
        elif kind == "COLUMN_REF" and len(d["column_names"]) == 1 and d["column_names"][0].lower() in _BARE:
            yield d["column_names"][0].lower()
        elif d.get("sample_size") is not None and not d.get("repeatable"):
            yield "sample without REPEATABLE (seed)"

"""What SQL may do here: read the views, and nothing else.

Three locks, each of which would do alone: the syntax tree is checked against a list of what is allowed; DuckDB may open
no file but the project's own tables (see `database`); and every statement runs in a read-only transaction. `limits`
bounds the time, memory and rows of what is allowed; `explain` words DuckDB's own errors.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import duckdb

from connectome_db.errors import QueryError
from connectome_db.query.explain import first_line, pointer, pointer_at
from connectome_db.schema.all import FUNCTIONS

_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
"""Kinds of query that only read. A WITH clause may also hold INSERT, UPDATE, DELETE and COPY: those are other kinds."""

_CATALOG = {"duckdb_columns", "duckdb_tables", "duckdb_views", "duckdb_functions"}
"""What DuckDB tells of itself that may be asked: names and meanings, not settings, secrets or logs."""

_TABLE_FUNCTIONS = {
    "range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree", *_CATALOG,
    *(name for name, f in FUNCTIONS.items() if not f.value),
}  # fmt: skip
"""Functions that may stand in FROM. Not `query` (it runs text unseen), not those that open files."""

_SHOWN = {"tables", "__show_tables_expanded"}
"""SHOW TABLES and SHOW ALL TABLES; SHOW of anything that is no table gives a setting."""

_PRIVATE = re.compile(r"(duckdb|pg|pragma|sqlite)_.*")
_SCHEMAS = {"pg_catalog", "system", "temp"}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")

_SETTINGS = "settings of the database cannot be read"
_STATE = "it keeps something between queries"
_WAITS = "it only waits"
_FORGED = "it takes bytes for the inside of a value"
_REFUSED = {
    **dict.fromkeys(("current_setting", "getenv", "getvariable", "@@"), _SETTINGS),
    **dict.fromkeys(("nextval", "currval", "setval", "setseed", "write_log"), _STATE),
    **dict.fromkeys(("sleep_ms", "pg_sleep"), _WAITS),
    **dict.fromkeys(("json_serialize_plan", "json_execute_serialized_sql"), "it reads SQL unseen"),
    **dict.fromkeys(
        ("finalize", "combine", "combine_aggr", "to_aggregate_state", "variant_bytes_to_variant",
         "variant_to_parquet_variant"), _FORGED,
    ),
}  # fmt: skip
"""Functions that are refused, and why. Those whose name begins with `__internal` are refused too."""

_SIZE = {
    "repeat": (1,), "list_resize": (1,), "array_resize": (1,), "range": (0, 1, 2), "generate_series": (0, 1, 2),
    "lpad": (1,), "rpad": (1,), "bar": (3,), "bitstring": (1,), "to_base": (2,), "equi_width_bins": (2,),
}  # fmt: skip
"""Functions that make as much as they are told to, and the arguments that tell it. DuckDB cannot be stopped within one
call, so a call that fills the memory would have to be waited for."""
_WIDTH = {"lpad", "rpad", "bar", "bitstring", "to_base"}
"""Those of them that make no more out of more: the widest counts."""
_PICTURES = {"format", "printf"}
"""Functions whose text says how wide a value is printed."""
_MEASURES = {"len", "length", "array_length", "cardinality", "strlen", "least"}
LARGEST = 100_000
"""All sizes of a statement, multiplied, stay below this."""
LONGEST = 1_000_000
"""Characters of a statement."""

_EXPLAIN = re.compile(r"^\s*explain\s*(?:analyze\b|\([^)]*\))?", re.IGNORECASE)
_ALLOWED = "Only SELECT, WITH ... SELECT, DESCRIBE, SHOW, SUMMARIZE and EXPLAIN of them are allowed"

_ALLOWED_TEXTS: OrderedDict[str, None] = OrderedDict()
"""Statements found good, the latest last: the verdict depends on the text alone."""
_KEPT = 512


def check(con: duckdb.DuckDBPyConnection, text: str) -> None:
    """Raise QueryError unless `text` is one statement that only reads views."""
    if text in _ALLOWED_TEXTS:
        return
    _check(con, text)
    if len(text) < 10_000:
        _ALLOWED_TEXTS[text] = None
        while len(_ALLOWED_TEXTS) > _KEPT:
            _ALLOWED_TEXTS.popitem(last=False)


def _check(con: duckdb.DuckDBPyConnection, text: str) -> None:
    if len(text) > LONGEST:
        raise QueryError(f"wanted a statement below {LONGEST:,} characters, got {len(text):,}: bind a list of values")
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
        raise QueryError("SQL does not parse: it holds a character that is none (code 0, or half of a pair)")
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as e:
        raise QueryError(f"SQL does not parse: {first_line(e)}{pointer(e)}") from None
    if len(statements) != 1:
        raise QueryError(f"wanted one SQL statement, got {len(statements)}: run them one at a time")
    body = statements[0].query
    kind = _kind(statements[0])
    if kind == duckdb.StatementType.EXPLAIN:
        _check(con, _EXPLAIN.sub("", body, count=1))
        return
    if kind != duckdb.StatementType.SELECT:
        hint = "; write a pivot as FROM (PIVOT t ON c IN (...) USING ...)" if kind == duckdb.StatementType.MULTI else ""
        name = kind.name if kind else "such"
        raise QueryError(f"{name} statements are refused: the database is read-only. {_ALLOWED}{hint}")
    _check_tree(_tree(con, body), body)


def _kind(statement: duckdb.Statement) -> duckdb.StatementType | None:
    """The kind of a statement; None for the newest, for which DuckDB's own Python has no name yet."""
    try:
        return statement.type
    except ValueError:
        return None


def _tree(con: duckdb.DuckDBPyConnection, body: str) -> Any:
    """The syntax tree, as DuckDB writes it."""
    try:
        row = con.execute("SELECT json_serialize_sql($sql)", {"sql": body}).fetchone()
        tree: Any = json.loads(row[0]) if row else {"error": True, "error_message": "no syntax tree"}
    except RecursionError:
        raise QueryError("SQL is refused: it is nested too deeply; bind a list of values, or use WITH") from None
    except (duckdb.Error, ValueError) as e:
        raise QueryError(f"SQL is refused: it cannot be checked. {first_line(e)}") from None
    if tree["error"]:
        raise QueryError(f"SQL is refused: {tree['error_message']}. {_ALLOWED}")
    return tree


def _check_tree(tree: Any, body: str) -> None:
    nodes = list(_dicts(tree))
    named = {e["key"] for n in nodes for e in (n.get("cte_map") or {}).get("map", [])}
    streamed = {id(n["function"]) for n in nodes if n.get("type") == "TABLE_FUNCTION"}
    product, widest = 1, 1
    for node in nodes:
        what = node.get("type")
        why = None
        if isinstance(what, str) and what.endswith("_NODE") and what not in _NODES:
            verb = what.removesuffix("_NODE").removesuffix("_QUERY")
            why = f"{verb} inside a query is refused: the database is read-only. {_ALLOWED}"
        elif what == "TABLE_FUNCTION":
            why = _table_function(node["function"])
        elif what == "BASE_TABLE":
            why = _table(node["qualified_name"]["path"], named)
        elif what == "SHOW_REF":
            why = _show(node)
        elif node.get("class") == "FUNCTION" and id(node) not in streamed:
            why = _function(node)
            if not why and str(node["function_name"]).lower() in _WIDTH:
                widest = max(widest, _size(node))
            elif not why:
                product *= _size(node)
            if product * widest > LARGEST:
                why = f"{node['function_name']} would make too much at once: sizes multiply to more than {LARGEST:,}"
        if why:
            at = node.get("query_location")
            raise QueryError(why + (pointer_at(body, at) if isinstance(at, int) else ""))


def _table_function(function: dict[str, Any]) -> str | None:
    name = str(function.get("function_name", "")).lower()
    if name in _TABLE_FUNCTIONS:
        return None
    if name in FUNCTIONS:
        return f"{name}(...) in FROM is refused: it gives a value; write it in SELECT, or unnest({name}(...))"
    close = difflib.get_close_matches(name, [n for n, f in FUNCTIONS.items() if not f.value], n=1, cutoff=0.7)
    return f"{name}(...) in FROM is refused: files are read through the views alone. " + (
        f"Did you mean {close[0]}(...)?" if close else "SHOW TABLES lists them; DESCRIBE shows the columns of one"
    )


def _table(path: list[str], named: set[str]) -> str | None:
    """What is wrong with the name of a table; names that nothing has are left to DuckDB."""
    name = path[-1]
    if len(path) == 1 and name in named:
        return None
    if not all(_WORD.fullmatch(word) for word in path):
        return f"files cannot be read by name ({'.'.join(path)[:100]}): use the views, which SHOW TABLES lists"
    if {word.lower() for word in path[:-1]} & _SCHEMAS or (
        _PRIVATE.fullmatch(name.lower()) and name.lower() not in _CATALOG
    ):
        return f"{'.'.join(path)} is refused: of DuckDB itself only {', '.join(sorted(_CATALOG))} can be read"
    return None


def _show(node: dict[str, Any]) -> str | None:
    if node.get("query") is not None:
        return None
    name = str(node.get("table_name", "")).strip('"').lower()
    return None if name in _SHOWN else f"SHOW {name} is refused: SHOW TABLES lists the tables; DESCRIBE shows one"


def _function(node: dict[str, Any]) -> str | None:
    """Why a call of a function is refused; None when it is not."""
    name = str(node["function_name"]).lower()
    schema = [str(word).lower() for word in node["qualified_name"]["path"][:-1]]
    if name in _REFUSED or name.startswith("__internal"):
        return f"{name}(...) is refused: {_REFUSED.get(name, 'DuckDB keeps it for itself')}"
    if node.get("export_state"):
        return f"EXPORT_STATE is refused: {_FORGED}"
    if schema and set(schema) & _SCHEMAS:
        return f"{'.'.join([*schema, name])}(...) is refused: name a function without its schema"
    if name in _PICTURES and not _narrow(node):
        return f"{name}(...) is refused: wanted a literal text with widths below 1,000 and none that is computed"
    if name in _SIZE and _size(node) > LARGEST:
        return (
            f"{name}(...) is refused: wanted whole numbers up to {LARGEST:,} that are written out, or len(...). "
            "FROM range(n) makes rows of any number"
        )
    return None


def _narrow(node: dict[str, Any]) -> bool:
    picture = _constant(node["arguments"][0]["expression"]) if node["arguments"] else ""
    return isinstance(picture, str) and not re.search(r"\d{4}|\*|\{[^}]*\{", picture)


def _size(node: dict[str, Any]) -> int:
    """How much a call makes at most, 1 for most functions; more than LARGEST when that is not known."""
    places = _SIZE.get(str(node["function_name"]).lower())
    if places is None:
        return 1
    arguments = [a["expression"] for a in node["arguments"]]
    sizes = [_bound(arguments[i]) for i in places if i < len(arguments)]
    return max([1, *(LARGEST + 1 if s is None else abs(s) for s in sizes)])


def _bound(expression: dict[str, Any]) -> int | None:
    """The size an expression stands for; None when it cannot be told. Lengths of what is there count for nothing."""
    value = _constant(expression)
    if isinstance(value, int):
        return value
    if expression.get("class") == "FUNCTION":
        name = str(expression["function_name"]).lower()
        parts = [_bound(a["expression"]) for a in expression["arguments"]]
        if name in _MEASURES - {"least"}:
            return 1
        if name == "least":
            return min((p for p in parts if p is not None), default=None)
        if name in {"+", "-"} and None not in parts:
            return sum(abs(p) for p in parts if p is not None)
    return None


def _constant(expression: dict[str, Any]) -> Any:
    literal = expression.get("literal") if expression.get("class") == "CONSTANT" else None
    if not isinstance(literal, dict):
        return None
    text = str(literal.get("text", ""))
    return int(text) if literal.get("kind") == "INTEGER" and re.fullmatch(r"[+-]?\d{1,18}", text) else text


def _dicts(tree: Any) -> Iterator[dict[str, Any]]:
    """All dicts of the tree, those further out first."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)

"""What went wrong in SQL, in words: DuckDB's errors, with the nearest valid name and the line they are about."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import duckdb

from connectome_db.errors import QueryError, nearest
from connectome_db.query import indexed, quality
from connectome_db.schema.all import FUNCTIONS

_SCHEMA = re.compile(r"because schema \"?([^\"]+?)\"? does not exist")
_TABLE = re.compile(r"Table with name \"?([^\"]+?)\"? does not exist")
_COLUMN = re.compile(
    r"""(?:Referenced column|does not have a column named|Cannot extract field) ["']([^"']+)["']"""
)  # the last: tables and columns share names here, so DuckDB takes synapse.x for a field of the column synapse

_RAISED = "while executing the UDF: QueryError: "
"""What DuckDB puts before a message that was raised in Python."""


def explain(
    error: Exception,
    text: str,
    columns: Mapping[str, Iterable[str]],
    missing: Mapping[str, str],
    timeout_s: float,
    *,
    stopped: str | None = None,
    at: str | None = None,
    others: Mapping[str, tuple[str, Mapping[str, str]]] | None = None,
) -> QueryError:
    """Turn DuckDB's error into one that names the nearest valid table or column.

    `columns` holds the columns of each view; `missing` names, per table that is not there yet, the stage that makes it,
    and `at` the revision where it is not. `stopped` is what it was stopped for (`limits.Watch`). `others` has
    (revision, missing) of the schemas beside.
    """
    message = str(error)
    if limit := _of_limit(error, timeout_s, stopped):
        return QueryError(limit)
    if isinstance(error, duckdb.PermissionException) or "disabled by configuration" in message:
        return QueryError(f"refused: only the project's own tables can be read. {first_line(error)}")
    if found := _TABLE.search(message):
        return _in_another(found[1], message, text, others or {}) or _unknown_table(found[1], columns, missing, at)
    if found := _COLUMN.search(message):
        return _unknown_column(found[1], text, columns)
    return QueryError(
        _of_function(error, text, missing, at, others or {}) or f"SQL failed: {first_line(error)}{pointer(error)}"
    )


def _of_limit(error: Exception, timeout_s: float, stopped: str | None) -> str | None:
    """Which limit the query met; None when it failed of something else."""
    if stopped == "memory":
        return "the query made more at once than the memory holds and was stopped: narrow it"
    if stopped == "time" or isinstance(error, duckdb.InterruptException):
        return f"the query took longer than {timeout_s:g} s and was stopped: narrow it, or raise the limit"
    if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory Error" in str(error):
        return f"the query needs more memory than it may take: narrow it, or raise memory_limit. {first_line(error)}"
    return None


def _of_function(
    error: Exception,
    text: str,
    missing: Collection[str],
    at: str | None,
    others: Mapping[str, tuple[str, Mapping[str, str]]],
) -> str | None:
    """What is wrong with a call of a function of ours; None when it is something else."""
    message = first_line(error)
    if isinstance(error, duckdb.InvalidInputException):
        for mark in (quality.REFUSED, indexed.REFUSED, _RAISED):
            if mark in message:
                return message.partition(mark)[2]
    for name, function in FUNCTIONS.items():
        lacking = f"Function with name {name} does not exist" in message
        if not lacking and f"Macro {name}()" not in message:
            continue
        qualified = re.search(rf"(\w+)\W{{1,5}}{name}\b", text, re.IGNORECASE)
        schema = qualified[1].lower() if qualified else ""
        if schema in others and "connection" in others[schema][1]:
            return str(not_there("connection", others[schema][1]["connection"], others[schema][0]))
        if lacking:
            gone = "connection" in missing
            return str(not_there("connection", "graph", at) if gone else _unknown_schema(schema, others))
        left_out = "" if None in function.parameters.values() else ", any of them left out"
        return f"{name}: wanted {function.usage}{left_out}"
    return None


def _unknown_schema(schema: str, others: Iterable[str]) -> QueryError:
    return QueryError(f"unknown schema {schema!r}{nearest(schema, others)} --rev {schema}=REVISION names one")


def _in_another(
    wanted: str, message: str, text: str, others: Mapping[str, tuple[str, Mapping[str, str]]]
) -> QueryError | None:
    """The error for a table of another revision, or for an unknown name of one; None when it is neither."""
    if found := _SCHEMA.search(message):
        return _unknown_schema(found[1], others)
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


def first_line(error: Exception) -> str:
    """What DuckDB says, without what it points at."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def pointer(error: Exception) -> str:
    """The two lines with which DuckDB points into the text, when there are any; a line feed goes before them."""
    lines = str(error).splitlines()
    at = next((i for i, line in enumerate(lines) if line.startswith("LINE ")), len(lines))
    return "".join(f"\n{line}" for line in lines[at : at + 2])


_POINTED = 90
"""Characters of a line that are shown."""


def pointer_at(text: str, at: int) -> str:
    """The same two lines for a place in `text`, in bytes as DuckDB counts; empty when there is no such place."""
    before = text.encode()[:at].decode(errors="ignore")
    if at < 0 or at >= len(text.encode()):
        return ""
    line = text.split("\n")[before.count("\n")]
    column = len(before) - before.rfind("\n") - 1
    start = max(0, column - _POINTED // 2)
    head = f"LINE {before.count(chr(10)) + 1}: "
    return f"\n{head}{line[start : start + _POINTED]}\n{' ' * (len(head) + column - start)}^"

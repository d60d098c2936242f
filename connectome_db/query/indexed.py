"""Functions of SQL over the adjacency of the graph: from neurons to their partners without a look at the table.

DuckDB hands the ids to Python and gets lists back, some thousand ids a call; the arrays are mapped at the first call.
Where a project has no adjacency, the same functions are defined over `connection`, in its two orders.

The bodies of functions name what they are given before they name any table of their own: DuckDB puts an argument's text
in its place, and a column that the caller means must not be taken for one of these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import PythonUDFType

from connectome_db.errors import QueryError
from connectome_db.query import views
from connectome_db.query.csr import FOLDER, REMEDY, Arrays, Direction

REFUSED = "graph: "
"""What the messages begin with that SQL raises here."""

_LIST = "STRUCT(partner UBIGINT, synapses BIGINT)[]"
_ROW = pa.struct([pa.field("partner", pa.uint64()), pa.field("synapses", pa.int64())])
_SIDES: tuple[tuple[Direction, Mapping[str, str]], ...] = (
    ("out", {"way": "out", "mine": "pre", "other": "post", "lists": "connections_from", "table": "connection",
             "ends": "_each.id AS pre, _each.p.partner AS post"}),
    ("in", {"way": "in", "mine": "post", "other": "pre", "lists": "connections_to", "table": "connection_by_post",
            "ends": "_each.p.partner AS pre, _each.id AS post"}),
)  # fmt: skip
"""The two directions, and the words of each in the bodies of functions."""
_FLOAT = (
    f"'{REFUSED}wanted a neuron as a whole number, got ' || typeof({{value}}) || "
    "': an id that went through a float may have lost digits'"
)


def create(con: duckdb.DuckDBPyConnection, tables: Collection[str], root: Path, schema: str) -> None:
    """Create the functions in `schema` for the project at `root` with the views `tables`; none without `connection`."""
    if not {"neuron", "connection"} <= set(tables):
        return
    at = f"{views.quote(schema)}."
    words = {"at": at, "given": _id("neuron"), "each": _id("_given.n")}
    arrays = _opener(con, root, at) if (root / FOLDER).is_dir() else None
    for direction, own in _SIDES:
        listed = f"_{direction}_by_index_{schema}"  # functions of Python all lie in `main`
        if arrays:
            con.create_function(listed, _lister(arrays, direction), ["UBIGINT"], _LIST, type=PythonUDFType.ARROW)
        for body in _MAPPED if arrays else _LOOKED_UP:
            con.execute(body.format(**words, **own, listed=f"main.{listed}"))
    for body in _OF_BOTH:
        con.execute(body.format(**words))


def _opener(con: duckdb.DuckDBPyConnection, root: Path, at: str) -> Callable[[], Arrays]:
    """What opens the arrays when it is first called. It must not hold the connection, which holds it: a cycle."""
    counts = f"SELECT (SELECT count(*) FROM {at}neuron), (SELECT count(*) FROM {at}connection)"
    ((neurons, connections),) = con.execute(counts).fetchall()

    @cache
    def opened() -> Arrays:
        arrays = Arrays.open(root)
        if (len(arrays.neurons), arrays.connections) != (neurons, connections):
            raise QueryError(
                f"{root / FOLDER}: wanted {neurons:,} neurons and {connections:,} connections as in the tables beside "
                f"it, got {len(arrays.neurons):,} and {arrays.connections:,}: {REMEDY}"
            )
        return arrays

    return opened


def _lister(opened: Callable[[], Arrays], way: Direction) -> Callable[[pa.ChunkedArray], pa.Array]:
    """uint64 ids without nulls -> one list of structs (partner, synapses) each."""

    def listed(ids: pa.ChunkedArray) -> pa.Array:
        ends, partner, synapses = opened().partners_of_each(ids.to_numpy().astype(np.uint64, copy=False), way)
        rows = pa.StructArray.from_arrays([pa.array(partner), pa.array(synapses)], fields=list(_ROW))
        return pa.LargeListArray.from_arrays(pa.array(ends), rows)

    return listed


def _id(value: str) -> str:
    """SQL of a value as an id; null for a whole number that is none, an error for what is no whole number."""
    return (
        f"CASE WHEN typeof({value}) IN ('FLOAT', 'DOUBLE') OR typeof({value}) LIKE 'DECIMAL%' "
        f"THEN error({_FLOAT.format(value=value)})::UBIGINT ELSE TRY_CAST(CAST({value} AS HUGEINT) AS UBIGINT) END"
    )


_MAPPED = (
    "CREATE MACRO {at}{way}_partners(neuron) AS coalesce({listed}({given}), [])",
    "CREATE MACRO {at}{way}puts_of(neuron) AS TABLE SELECT unnest({listed}({given}), recursive := true)",
    """
CREATE MACRO {at}{lists}(neurons) AS TABLE
SELECT {ends}, _each.p.synapses AS synapses
FROM (SELECT _one.id, unnest({listed}(_one.id)) AS p
      FROM (SELECT DISTINCT {each} AS id FROM (SELECT unnest(neurons) AS n) _given) _one) _each
""",
)
_LOOKED_UP = (
    """
CREATE MACRO {at}{way}puts_of(neuron) AS TABLE
SELECT _found.{other} AS partner, _found.synapses
FROM (SELECT {given} AS id) _asked JOIN {at}{table} _found ON _found.{mine} = _asked.id
""",
    """
CREATE MACRO {at}{way}_partners(neuron) AS (
  SELECT coalesce(list({{'partner': _p.partner, 'synapses': _p.synapses}} ORDER BY _p.partner), [])
  FROM {at}{way}puts_of(neuron) _p)
""",
    """
CREATE MACRO {at}{lists}(neurons) AS TABLE
SELECT _found.pre, _found.post, _found.synapses FROM {at}{table} _found
WHERE _found.{mine} IN (SELECT {each} FROM (SELECT unnest(neurons) AS n) _given)
""",
)
_OF_BOTH = (
    """
CREATE MACRO {at}connections_between(sources, targets) AS TABLE
SELECT _f.pre, _f.post, _f.synapses
FROM {at}connections_from(CASE WHEN len(sources) <= len(targets) THEN sources END) _f
WHERE _f.post IN (SELECT {each} FROM (SELECT unnest(targets) AS n) _given)
UNION ALL
SELECT _t.pre, _t.post, _t.synapses
FROM {at}connections_to(CASE WHEN len(sources) > len(targets) THEN targets END) _t
WHERE _t.pre IN (SELECT {each} FROM (SELECT unnest(sources) AS n) _given)
""",
    """
CREATE MACRO {at}connections_among(neurons) AS TABLE
SELECT _f.pre, _f.post, _f.synapses FROM {at}connections_from(neurons) _f
WHERE _f.post IN (SELECT {each} FROM (SELECT unnest(neurons) AS n) _given)
""",
)

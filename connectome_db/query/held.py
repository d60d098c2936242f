"""Small tables held in memory, for many questions about the same few: lineage asks twenty of them for each edge.

A view over Parquet is bound, opened and decoded anew for every query. A table in memory is not, and it answers a
question about one row in a tenth of the time. Whoever asks once is better off without: to read the tables takes as long
as the first answer does.
"""

from __future__ import annotations

from collections.abc import Collection

import duckdb

from connectome_db.errors import QueryError, nearest
from connectome_db.query.views import quote

MOST_ROWS = 3_000_000
"""Rows of the largest table that is held: some hundred megabytes."""
_TABLES = (
    "supervoxel", "member", "object", "overlap", "fragment", "merge", "synapse", "link", "connection", "quality_raw",
    "quality_volume", "quality_graph", "flag", "listed_synapse_by_pre", "synapse_quality",
)  # fmt: skip
"""The tables of lineage, those that others are views of first. `inmemory` has those of units and images."""


def hold(con: duckdb.DuckDBPyConnection, tables: Collection[str], *, most_rows: int) -> None:
    """Put tables in the place of the views of lineage that have at most `most_rows` rows, in the current schema."""
    for name in _TABLES:  # synapse_quality last: it is computed from the others
        if name in tables:
            row = con.execute(f"SELECT count(*) FROM {quote(name)}").fetchone()
            if row is not None and row[0] <= most_rows:
                _take(con, name)


def keep(con: duckdb.DuckDBPyConnection, tables: Collection[str], names: Collection[str]) -> None:
    """Put tables in the place of the views of these names, of any size. Raises QueryError for one that is not there."""
    for name in names:
        if name not in tables:
            raise QueryError(f"unknown table {name!r}{nearest(name, tables)}")
        try:
            _take(con, name)
        except duckdb.OutOfMemoryException as e:
            raise QueryError(f"table {name} does not fit into the memory that queries may take: {e}") from None


def _take(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Read what a view shows into a table of its name; a table stays as it is."""
    kind = con.execute("SELECT count(*) FROM duckdb_views() WHERE NOT internal AND view_name = $n", {"n": name})
    if kind.fetchone() == (0,):
        return
    con.execute(f"CREATE TABLE held AS FROM {quote(name)}")
    con.execute(f"DROP VIEW {quote(name)}")
    con.execute(f"ALTER TABLE held RENAME TO {quote(name)}")

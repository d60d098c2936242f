"""The verbs of caveclient's `materialize`, answered by a project: thin, with the columns that its users know.

    from connectome_db.api.cave import CAVEclient
    client = CAVEclient("project")
    client.materialize.synapse_query(pre_ids=864691135361658192)

Positions are in nm (CAVE's `desired_resolution=[1, 1, 1]`). A materialization version is a git revision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from connectome_db.api.connectome import Connectome, Who, open_connectome
from connectome_db.api.frames import frame
from connectome_db.errors import QueryError, nearest

if TYPE_CHECKING:
    import pandas as pd

_SYNAPSE = {
    "synapse": "id", "pre": "pre_pt_root_id", "post": "post_pt_root_id", "x_nm": "ctr_pt_position_x",
    "y_nm": "ctr_pt_position_y", "z_nm": "ctr_pt_position_z", "size_vx": "size",
}  # fmt: skip


class CAVEclient:
    """A project as CAVE would answer: `client.materialize`. `db` is the same project with our own verbs."""

    def __init__(self, project: Path | str | Connectome, rev: str | None = None) -> None:
        """Opens `project` (as of `rev`), or takes one that is open."""
        self.db = project if isinstance(project, Connectome) else open_connectome(project, rev)
        self.materialize = Materialize(self.db)


class Materialize:
    """Queries of tables."""

    def __init__(self, db: Connectome) -> None:
        """Of an open project."""
        self._db = db

    @property
    def version(self) -> str:
        """The version that is asked: a git revision, or the working tree."""
        return str(self._db.facts["version"])

    def get_tables(self) -> list[str]:
        """Names of all tables."""
        return list(self._db.database.tables)

    def get_table_metadata(self, table: str) -> pd.DataFrame:
        """Columns of a table: column, type, unit, meaning."""
        rows: pd.DataFrame = self._db.describe(table)
        return rows

    def synapse_query(
        self,
        pre_ids: Who = None,
        post_ids: Who = None,
        bounding_box: Sequence[Sequence[float]] | None = None,
        remove_autapses: bool = True,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Synapses: id, pre_pt_root_id, post_pt_root_id, ctr_pt_position_x, _y, _z (nm), size ...

        `bounding_box` is [[x0, y0, z0], [x1, y1, z1]] in nm: CAVE's order of axes.
        """
        box = None if bounding_box is None else [tuple(corner)[::-1] for corner in bounding_box]
        rows: pd.DataFrame = self._db.synapses(pre_ids, post_ids, box_nm=box, limit=limit).rename(columns=_SYNAPSE)
        if remove_autapses:
            rows = rows[rows["pre_pt_root_id"] != rows["post_pt_root_id"]].reset_index(drop=True)
        return rows

    def query_table(
        self,
        table: str,
        *,
        filter_equal_dict: Mapping[str, Any] | None = None,
        filter_in_dict: Mapping[str, Sequence[Any]] | None = None,
        filter_out_dict: Mapping[str, Sequence[Any]] | None = None,
        select_columns: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Rows of any table that meet all filters. Raises QueryError naming the nearest table or column."""
        tables = self._db.database.tables
        if table not in tables:
            raise QueryError(f"unknown table {table!r}{nearest(table, tables)}")
        columns = self._db.database.describe(table)["column"].to_pylist()
        values: dict[str, Any] = {}
        where = []
        for test, given in (("IN", filter_in_dict), ("NOT IN", filter_out_dict), ("=", filter_equal_dict)):
            for column, value in (given or {}).items():
                name = f"v{len(values)}"
                values[name] = value if test == "=" else list(value)
                wanted = f"${name}" if test == "=" else f"(SELECT unnest(${name}))"
                where.append(f"{_column(column, columns)} {test} {wanted}")
        shown = ", ".join(_column(c, columns) for c in select_columns) if select_columns else "*"
        text = f'SELECT {shown} FROM "{table}"' + (f" WHERE {' AND '.join(where)}" if where else "")
        rows: pa.Table = self._db.database.sql(text + (f" LIMIT {int(limit)}" if limit is not None else ""), values)
        return frame(rows)


def _column(name: str, columns: Sequence[str]) -> str:
    """A column's name, quoted; only names that the table has become text."""
    if name not in columns:
        raise QueryError(f"unknown column {name!r}{nearest(name, columns)}")
    return f'"{name}"'

"""Parquet: rows of one unit in, one sorted table per output out.

A unit's rows are stored as a small Parquet file; `finish` streams the parts of all units, in unit order, into one table
sorted by (unit, key). Row groups end at unit boundaries, so a reader of a few units touches a few row groups, and the
file is a pure function of the rows.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.errors import StageError, StoreError, nearest
from connectome_db.spec import Rows, Table

ROW_GROUP = 65536
"""A row group is closed at the first unit boundary after this many rows."""


def conform(table: Table, rows: pa.Table) -> pa.Table:
    """`rows` in the declared column order and types, sorted by key.

    Raises StageError when columns are missing, unknown, of another type, null where that is not allowed, or when the
    key is not unique.
    """
    wanted = table.arrow()
    missing = [n for n in wanted.names if n not in rows.column_names]
    unknown = [n for n in rows.column_names if n not in wanted.names]
    if missing or unknown:
        parts = [f"missing columns {missing}"] * bool(missing)
        parts += [f"unknown column {u!r}{nearest(u, wanted.names)}" for u in unknown]
        raise StageError(f"table {table.name}: " + "; ".join(parts))
    columns = []
    for f in wanted:
        got = rows[f.name]
        if got.type != f.type:
            raise StageError(f"table {table.name}: column {f.name!r} wanted {f.type}, compute gave {got.type}")
        if not f.nullable and got.null_count:
            raise StageError(f"table {table.name}: column {f.name!r} may not be null; {got.null_count} rows are")
        columns.append(got.combine_chunks())
    out = pa.Table.from_arrays(columns, schema=wanted)
    if out.num_rows > 1:
        out = out.sort_by([(k, "ascending") for k in table.key]).combine_chunks()
        same = np.ones(out.num_rows - 1, dtype=bool)
        for k in table.key:
            a = out[k].combine_chunks()
            same &= pc.fill_null(pc.equal(a[1:], a[:-1]), True).to_numpy(zero_copy_only=False)
        if same.any():
            at = {k: out[k][int(np.argmax(same))].as_py() for k in table.key}
            raise StageError(f"table {table.name}: key {table.key} occurs twice, e.g. {at}")
    return out


def with_unit(rows: pa.Table, codes: npt.NDArray[np.uint64]) -> pa.Table:
    """`rows` with the column `unit` in front: one code for all rows, or one per row."""
    values = np.full(rows.num_rows, codes[0]) if len(codes) == 1 else codes
    unit = pa.field("unit", pa.uint64(), nullable=False)
    return rows.add_column(0, unit, pa.array(values, type=pa.uint64()))


def to_bytes(table: pa.Table) -> bytes:
    """A table as one small Parquet file; equal tables give equal bytes in one environment."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=max(table.num_rows, 1), store_schema=True)
    return sink.getvalue()


def write_small(table: pa.Table, path: Path) -> None:
    """Write a ledger table (units, reads, parts) as a new file. Small row groups: questions are about few units."""
    pq.write_table(table, path, compression="zstd", row_group_size=1 << 13)


def write_sorted(output: Rows, parts: Iterable[Path], path: Path) -> None:
    """Stream unit parts (already in unit order) into one table file. Raises StoreError naming an unreadable part."""
    schema = output.table.stored()
    waiting: list[pa.Table] = []
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for part in parts:
            try:
                table = pq.ParquetFile(part).read()
            except (pa.ArrowInvalid, OSError) as e:
                raise StoreError(f"stored rows cannot be read: {part}: {e}. Run the stage again: it is remade.") from e
            waiting.append(table.cast(schema))
            rows += table.num_rows
            if rows >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting).combine_chunks(), row_group_size=rows)
                waiting, rows = [], 0
        if rows:
            writer.write_table(pa.concat_tables(waiting).combine_chunks(), row_group_size=rows)


def read_units(path: Path, units: Sequence[int] | None) -> pa.Table:
    """Rows of the given units (all when None), sorted as stored. Raises StoreError for a damaged file."""
    try:
        if units is None:
            return pq.ParquetFile(path).read()
        wanted = pa.array(units, type=pa.uint64())
        return pq.read_table(path, filters=pc.field("unit").isin(wanted)).combine_chunks()
    except (pa.ArrowInvalid, OSError) as e:
        raise StoreError(f"table {path} cannot be read: {e}. Run `connectome finish` for its stage.") from e


def empty(table: Table) -> pa.Table:
    """No rows, as stored."""
    return table.stored().empty_table()

"""Parquet: rows of one unit in, one sorted table per output out, and the same rows in other orders.

A unit's rows are stored as a small Parquet file; `finish` streams the parts of all units, in unit order, into one table
sorted by (unit, key). Row groups end at unit boundaries, so a reader of a few units touches a few row groups; a unit
with many rows is cut into several, so that a question about few of them reads little. The files are a pure function of
the rows. Nothing here holds a whole table that is larger than one unit's.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.errors import StageError, StoreError, nearest
from connectome_db.spec import Rows, Sorted, Table

ROW_GROUP = 65536
"""A row group is closed at the first unit boundary after this many rows; a unit with more rows is cut."""
GROUPS = 224
"""Row groups in a file, at most about. DuckDB 2.0 looks at each for every question, which takes some 0.03 ms.

Measured on 15 million connections: with groups of 16,384 rows one neuron's partners take three times as long as with
65,536, and half as long again as with 131,072.
"""
COMPRESSION = "lz4"
"""Of tables that are queried: a question takes 0.6 of the time that it takes with zstd, a file an eighth more room."""
SORTING: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "2GB", "preserve_insertion_order": False}
"""What a sort may use before it goes to disk."""
CELL_BITS = 16
"""Bits per axis of the curve that orders places."""


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
    if out.num_rows > 1 and not _ascends(out, table.key):
        out = out.sort_by([(k, "ascending") for k in table.key]).combine_chunks()
        same = np.ones(out.num_rows - 1, dtype=bool)
        for k in table.key:
            a = out[k].combine_chunks()
            same &= pc.fill_null(pc.equal(a[1:], a[:-1]), True).to_numpy(zero_copy_only=False)
        if same.any():
            at = {k: out[k][int(np.argmax(same))].as_py() for k in table.key}
            raise StageError(f"table {table.name}: key {table.key} occurs twice, e.g. {at}")
    return out


def _ascends(rows: pa.Table, key: Sequence[str]) -> bool:
    """True when the rows are in the order of their key, each once: then nothing needs to be copied."""
    same = np.ones(rows.num_rows - 1, dtype=bool)
    for k in key:
        a = rows[k].combine_chunks()
        if a.null_count or bool((same & ~pc.greater_equal(a[1:], a[:-1]).to_numpy(zero_copy_only=False)).any()):
            return False
        same &= pc.equal(a[1:], a[:-1]).to_numpy(zero_copy_only=False)
        if not same.any():
            return True
    return False


def with_unit(rows: pa.Table, codes: npt.NDArray[np.uint64]) -> pa.Table:
    """`rows` with the column `unit` in front: one code for all rows, or one per row."""
    values = np.full(rows.num_rows, codes[0]) if len(codes) == 1 else codes
    unit = pa.field("unit", pa.uint64(), nullable=False)
    return rows.add_column(0, unit, pa.array(values, type=pa.uint64()))


def to_bytes(table: pa.Table) -> bytes:
    """A table as one small Parquet file; equal tables give equal bytes in one environment."""
    sink = io.BytesIO()
    group = max(min(table.num_rows, ROW_GROUP), 1)
    pq.write_table(table, sink, compression="zstd", row_group_size=group, store_schema=True)
    return sink.getvalue()


def write_small(table: pa.Table, path: Path) -> None:
    """Write a ledger table (units, reads, parts) as a new file. Small row groups: questions are about few units."""
    pq.write_table(table, path, compression="zstd", row_group_size=1 << 13)


def write_sorted(output: Rows, parts: Iterable[Path], path: Path, *, rows_in_all: int = 0) -> None:
    """Stream unit parts (already in unit order) into one table file. Raises StoreError naming an unreadable part."""
    schema = output.table.stored()
    waiting: list[pa.Table] = []
    rows = 0
    size = group_rows(rows_in_all)
    with pq.ParquetWriter(path, schema, compression=COMPRESSION) as writer:
        for part in parts:
            try:
                file = pq.ParquetFile(part)
                many = file.metadata.num_rows > ROW_GROUP
                if not many:
                    waiting.append(file.read().cast(schema))
                    rows += file.metadata.num_rows
                if rows and (many or rows >= ROW_GROUP):
                    writer.write_table(pa.concat_tables(waiting).combine_chunks(), row_group_size=rows)
                    waiting, rows = [], 0
                for group in regrouped(file.iter_batches(ROW_GROUP), size) if many else ():
                    writer.write_table(group.cast(schema), row_group_size=size)
            except (pa.ArrowInvalid, OSError) as e:
                raise StoreError(f"stored rows cannot be read: {part}: {e}. Run the stage again: it is remade.") from e
        if rows:
            writer.write_table(pa.concat_tables(waiting).combine_chunks(), row_group_size=rows)


def group_rows(rows: int) -> int:
    """Rows of a row group in a file of that many rows: a power of two, so that there are few groups and small ones."""
    return max(ROW_GROUP, 1 << (max(rows // GROUPS, 1) - 1).bit_length())


def regrouped(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Tables of exactly `rows` rows each (the last may have fewer), each in one piece, whatever the batches were."""
    held: list[pa.Table] = []
    count = 0
    for batch in batches:
        held.append(pa.Table.from_batches([batch]))
        count += batch.num_rows
        if count < rows:
            continue
        table = pa.concat_tables(held)
        whole = count // rows * rows
        for start in range(0, whole, rows):
            yield table.slice(start, rows).combine_chunks()
        held, count = [table.slice(whole)], count - whole
    if count:
        yield pa.concat_tables(held).combine_chunks()


def sort_file(table: Table, source: Path, target: Path, companion: Sorted, scratch: Path) -> None:
    """Write the rows of a finished table in another order, as a new file. Sorts below `scratch` when memory is short.

    Raises StoreError when the source cannot be read.
    """
    schema = table.stored()
    columns = ", ".join(f'"{n}"' for n in schema.names)
    order = [f'"{n}"' for n in dict.fromkeys([*companion.by, "unit", *table.key])]
    scratch.mkdir(parents=True, exist_ok=True)
    rows = f"read_parquet('{str(source).replace(chr(39), chr(39) * 2)}')"
    try:
        with (
            tempfile.TemporaryDirectory(prefix="sort-", dir=scratch) as spill,
            # Insertion order is not asked for: the order is total, and the sort is told so; memory stays bounded.
            duckdb.connect(":memory:", config=SORTING | {"temp_directory": spill}) as con,
        ):
            if companion.place is not None:
                rows, curve = _curve(con, rows, companion.place)
                order.insert(0, curve)
            found = con.sql(f"SELECT {columns} FROM {rows} ORDER BY {', '.join(order)}").to_arrow_reader(1 << 17)
            with pq.ParquetWriter(target, schema, compression=COMPRESSION) as writer:
                size = group_rows(pq.read_metadata(source).num_rows)
                for group in regrouped(found, size):
                    writer.write_table(group.cast(schema), row_group_size=size)
    except duckdb.Error as e:
        raise StoreError(f"{source}: cannot be sorted into {target.name}: {e}") from e


def has_places(path: Path, columns: Sequence[str]) -> bool:
    """True when some row of a table has a place: nulls are counted in the file's statistics."""
    meta = pq.read_metadata(path)
    at = meta.schema.to_arrow_schema().get_field_index(columns[0])
    groups = (meta.row_group(k).column(at).statistics for k in range(meta.num_row_groups))
    return any(s is None or s.num_values > 0 for s in groups)


def _curve(con: duckdb.DuckDBPyConnection, rows: str, place: Sequence[str]) -> tuple[str, str]:
    """SQL of the rows, and of their place along a Morton curve (Morton 1966) through cells of a grid over all places.

    Cells are cubes of 2**k, the smallest with which the longest side has at most 2**CELL_BITS of them.
    """
    ends = ", ".join(f'min("{c}"), max("{c}")' for c in place)
    found = con.execute(f"SELECT {ends} FROM {rows}").fetchall()[0]
    low, high = (np.asarray(found[k::2], dtype=np.float64) for k in (0, 1))
    longest = float((high - low).max())
    size = 2.0 ** np.ceil(np.log2(longest / ((1 << CELL_BITS) - 1))) if longest > 0 else 1.0
    cells = [
        f'CAST(floor(("{c}" - ({a!r}::DOUBLE)) / {float(size)!r}::DOUBLE) AS BIGINT) AS _{k}'
        for k, (c, a) in enumerate(zip(place, low.tolist(), strict=True))
    ]
    inner = f"SELECT *, {', '.join(cells)} FROM {rows}"
    for shift, mask in _SPREAD:
        spread = ", ".join(f"((_{k} | (_{k} << {shift})) & {mask}) AS _{k}" for k in range(3))
        inner = f"SELECT * EXCLUDE (_0, _1, _2), {spread} FROM ({inner})"
    return f"({inner})", "(_0 << 2) | (_1 << 1) | _2 NULLS LAST"


_SPREAD = ((16, 0xFF0000FF), (8, 0xF00F00F00F), (4, 0xC30C30C30C3), (2, 0x249249249249))
"""Shifts and masks that put two empty bits between the bits of a number of CELL_BITS bits."""


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

"""Adjacency matrices: names in the first row and the first column, synapses in the cells; or npy with names beside it.

Cells are counted row by row from 1; that number is the row of the list. Zeros and empty cells are no connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.errors import SourceError
from connectome_db.lists.files import Source, open_source, suffix_of

COLUMNS = ("row", "column", "value")
CELLS = 1 << 21
"""Cells that are made at a time."""
INDEX = "__index_level_0__"
"""The column that pandas writes row names into."""


def open_matrix(path: Path, sheet: str | None = None, names: Path | None = None) -> Source:
    """The cells as rows (row, column, value). Raises SourceError when it is no matrix."""
    if suffix_of(path) == ".npy":
        return _npy(path, names)
    if names is not None:
        raise SourceError(f"{path}: --names is for matrices without names (.npy); this one has its own")
    table = open_source(path, sheet)
    first = INDEX if INDEX in table.columns else table.columns[0]
    across = [c for c in table.columns if c != first]

    def tables(columns: Sequence[str]) -> Iterator[pa.Table]:
        for part in table.tables(table.columns):
            step = max(1, CELLS // max(1, len(across)))
            for k in range(0, part.num_rows, step):
                yield _cells(part.slice(k, step), first, across).select(list(columns))

    return Source(path, f"an adjacency matrix in {table.what}", COLUMNS, tables)


def is_matrix(source: Source) -> bool:
    """Whether the first column holds the names of the other columns."""
    first = INDEX if INDEX in source.columns else source.columns[0]
    across = [c.strip() for c in source.columns if c != first]
    if len(across) < 2:
        return False
    head = source.head(len(across) + 1)
    down = [str(v).strip() for v in head[first].to_pylist()]
    return sorted(down) == sorted(across)


def _cells(part: pa.Table, first: str, across: Sequence[str]) -> pa.Table:
    """Some rows of a matrix as one row per cell, row by row."""
    down, wide = part.num_rows, len(across)
    columns = [pc.cast(part[c], pa.string()).combine_chunks() for c in across]
    order = (np.arange(down)[:, None] + down * np.arange(wide)[None, :]).ravel()
    row = pc.cast(part[first], pa.string()).combine_chunks().take(pa.array(np.repeat(np.arange(down), wide)))
    column = pa.array(across, pa.string()).take(pa.array(np.tile(np.arange(wide), down)))
    return pa.table({"row": row, "column": column, "value": pa.concat_arrays(columns).take(pa.array(order))})


def _npy(path: Path, names: Path | None) -> Source:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as e:
        raise SourceError(f"{path}: cannot be read as npy: {e}") from e
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "iuf":
        raise SourceError(f"{path}: wanted a square matrix of numbers, got {matrix.dtype}{matrix.shape}")
    called = _names(names, len(matrix)) if names else [str(k + 1) for k in range(len(matrix))]

    def tables(columns: Sequence[str]) -> Iterator[pa.Table]:
        for name, values in zip(called, matrix, strict=True):
            text = pa.array(np.asarray(values)).cast(pa.string())
            cells = pa.table({"row": [name] * len(called), "column": called, "value": text})
            yield cells.select(list(columns))

    return Source(path, "an adjacency matrix in npy", COLUMNS, tables)


def _names(path: Path, wanted: int) -> list[str]:
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as e:
        raise SourceError(f"{path}: cannot be read as a list of names: {e}") from e
    if len(found) != wanted:
        raise SourceError(f"{path}: wanted {wanted} names, one a line, got {len(found)}")
    return found


def present(value: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which cells stand for a connection: not empty and not 0."""
    text = pc.fill_null(value, "")
    return pc.invert(pc.match_substring_regex(text, r"^([+-]?0+(\.0*)?)?$"))

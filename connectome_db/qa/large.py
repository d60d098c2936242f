"""Judge the schema of a large table piece by piece: memory is bounded, whatever its size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db.errors import QueryError
from connectome_db.qa import direct
from connectome_db.qa.rules import Rule

LARGE = 1 << 22
"""Tables with more rows than this are judged in pieces."""
PIECE = 1 << 20
"""Rows of a piece."""


@dataclass
class Found:
    """What breaks one rule: how many rows, and the first piece that has any, with its mask."""

    unexpected: int = 0
    rows: pa.Table | None = None
    mask: direct.Mask | None = None


def is_large(path: Path) -> bool:
    """Whether a table is judged in pieces."""
    try:
        return int(pq.read_metadata(path).num_rows) > LARGE
    except (pa.ArrowInvalid, OSError):
        return False  # told when it is read


def pieces(path: Path) -> Iterator[pa.Table]:
    """Rows of a table, PIECE at a time. Raises QueryError when it cannot be read."""
    try:
        for batch in pq.ParquetFile(path).iter_batches(PIECE):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as e:
        raise QueryError(f"{path} cannot be read: {e}; run `connectome finish {path.parent.name}`") from e


def judge(
    path: Path, rules: Sequence[Rule], flags: Callable[[pa.Table, Rule], pa.Array]
) -> tuple[list[Found], int, pa.Schema]:
    """Per rule what breaks it, the number of rows, and the columns of the pieces.

    `flags` says per row of a piece whether a foreign key is found. Where rows ascend strictly by columns, these are
    unique; a rule for which that cannot be told reads just its columns.
    """
    found = [Found() for _ in rules]
    doubtful = [False] * len(rules)
    last: pa.Table | None = None
    total = 0
    schema = pq.read_schema(path)
    for piece in pieces(path):
        total += piece.num_rows
        joined = piece if last is None else pa.concat_tables([last, piece]).combine_chunks()
        for k, rule in enumerate(rules):
            if rule.kind == "unique":
                doubtful[k] |= not strictly_ascends([joined[c] for c in rule.columns])
                continue
            rows = piece
            if rule.kind == "sorted":
                order = direct.in_order([joined[c] for c in rule.columns])
                rows = rows.append_column(direct.flag(rule), order.slice(joined.num_rows - piece.num_rows))
            elif rule.kind == "foreign":
                rows = rows.append_column(direct.flag(rule), flags(piece, rule))
            _note(found[k], rows, direct.unexpected(rule, rows))
        last = piece.slice(piece.num_rows - 1)
    for k, rule in enumerate(rules):
        if doubtful[k]:
            beside = ["unit"] if "unit" in schema.names else []
            rows = pq.read_table(path, columns=list(dict.fromkeys([*beside, *rule.columns])))
            _note(found[k], rows, direct.unexpected(rule, rows))
    return found, total, schema


def _note(found: Found, rows: pa.Table, mask: direct.Mask) -> None:
    n = int(mask.sum())
    if n and found.rows is None:
        found.rows, found.mask = rows, mask
    found.unexpected += n


def strictly_ascends(columns: Sequence[pa.ChunkedArray]) -> bool:
    """Whether each row is above the one before it, by the columns one after the other; nulls are not."""
    n = len(columns[0])
    tied = np.ones(max(n - 1, 0), bool)
    for column in columns:
        flat = column.combine_chunks()
        if flat.null_count:
            return False
        a, b = flat[:-1], flat[1:]
        if (tied & ~np.asarray(b.to_numpy(zero_copy_only=False) >= a.to_numpy(zero_copy_only=False))).any():
            return False
        tied &= np.asarray(b.to_numpy(zero_copy_only=False) == a.to_numpy(zero_copy_only=False))
        if not tied.any():
            return True
    return not tied.any()
